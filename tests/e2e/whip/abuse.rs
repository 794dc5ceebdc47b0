//! What goes wrong is said in HTTP's words, costs nobody else anything, and leaves nothing behind.

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::RELAYED;
use crate::support::{
    ams_client::Plan,
    cluster::eventually,
    process::Process,
    str0m_peer,
    whip_client::{Answer, FRAG, SDP, WhipClient, offer, request},
};

async fn door() -> Process {
    Process::start(&RELAYED).await
}

async fn publisher(door: &Process, stream: &str) -> WhipClient {
    let client = WhipClient::post(door.http(), Plan::publish(stream), str0m_peer::stack).await.expect("created");
    client.until("it is connected", |report| report.connected).await;
    client
}

async fn status(door: &Process, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> u16 {
    request(door.http(), method, path, headers, body).await.status
}

async fn until_no_session(door: &Process) {
    for gauge in ["forebay_sessions_open", "forebay_media_transports"] {
        eventually(gauge, async || door.metric(gauge).await == Some(0.0)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_offer_is_refused_for_what_it_is() {
    let door = door().await;
    let (good, _stack) = offer(Plan::publish("s"), str0m_peer::stack).await;
    let large = format!("{good}{}", "a=x\r\n".repeat(14_000));
    let no_ice = good.replace("a=ice-", "a=nice-");
    for (what, path, headers, body, expected) in [
        ("no body", "/LiveApp/whip/s", &[SDP][..], "", 400),
        ("not SDP", "/LiveApp/whip/s", &[SDP], "{\"sdp\":1}", 400),
        ("no ICE", "/LiveApp/whip/s", &[SDP], &no_ice, 400),
        ("no type", "/LiveApp/whip/s", &[], &good, 415),
        ("JSON", "/LiveApp/whip/s", &[("Content-Type", "application/json")], &good, 415),
        ("too large", "/LiveApp/whip/s", &[SDP], &large, 413),
        ("no such app", "/NoSuchApp/whip/s", &[SDP], &good, 404),
        ("a stream's name with a space", "/LiveApp/whip/a%20b", &[SDP], &good, 404),
        ("a parameter that is not UTF-8", "/LiveApp/whip/s?streamName=%ff", &[SDP], &good, 400),
        ("half a percent sign", "/LiveApp/whip/s?token=%4", &[SDP], &good, 400),
        ("nobody publishes it", "/LiveApp/whep/nobody", &[SDP], &good.replace("a=sendonly", "a=recvonly"), 404),
        ("a resource is no endpoint", "/LiveApp/whip/s/0123456789abcdef0123456789abcdef", &[SDP], &good, 405),
    ] {
        assert_eq!(status(&door, "POST", path, headers, body).await, expected, "{what}");
    }
    for (method, path, expected) in [
        ("PUT", "/LiveApp/whip/s", 405),
        ("DELETE", "/LiveApp/whip/s", 405),
        ("GET", "/LiveApp/whip/s", 200),
        ("HEAD", "/LiveApp/whep/s", 200),
        ("DELETE", "/LiveApp/whip/s/0123456789abcdef0123456789abcdef", 404),
        ("DELETE", "/LiveApp/whip/s/../../etc", 405), // that is /LiveApp/etc, a page, which is only read
        ("GET", "/LiveApp/whip/s/0123456789abcdef0123456789abcdef", 404),
        ("PATCH", "/LiveApp/whip/s/not-an-id", 404),
    ] {
        assert_eq!(status(&door, method, path, &[FRAG], "").await, expected, "{method} {path}");
    }
    until_no_session(&door).await;
    assert!(!door.log().contains("panicked"), "{}", door.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_of_another_origin_may_ask_and_sees_what_it_needs() {
    let door = door().await;
    let origin = ("Origin", "https://page.example");
    let preflight = [origin, ("Access-Control-Request-Method", "PATCH")];
    for path in ["/LiveApp/whip/s", "/LiveApp/whep/s/0123456789abcdef0123456789abcdef"] {
        let answer = request(door.http(), "OPTIONS", path, &preflight, "").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("accept-post"), Some("application/sdp"));
        let has = |header: &str, word: &str| answer.header(header).is_some_and(|value| value.contains(word));
        for method in ["POST", "PATCH", "DELETE"] {
            assert!(has("access-control-allow-methods", method), "{answer:?}");
        }
        for header in ["Authorization", "Content-Type", "If-Match"] {
            assert!(has("access-control-allow-headers", header), "{answer:?}");
        }
        for header in ["Location", "ETag", "Link"] {
            assert!(has("access-control-expose-headers", header), "{answer:?}");
        }
    }
    let refused = request(door.http(), "POST", "/LiveApp/whip/s", &[SDP, origin], "junk").await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (400, Some("*")), "errors too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_published_is_taken_and_its_resource_is_nobody_elses() {
    let door = door().await;
    let client = publisher(&door, "mine").await;
    let taken: Answer =
        WhipClient::post(door.http(), Plan::publish("mine"), str0m_peer::stack).await.err().expect("taken");
    assert_eq!(taken.status, 409, "{taken:?}");
    assert!(taken.header("retry-after").is_some());

    let id = client.resource.rsplit('/').next().unwrap();
    for other in [format!("/LiveApp/whip/other/{id}"), format!("/LiveApp/whep/mine/{id}")] {
        assert_eq!(status(&door, "PATCH", &other, &[FRAG], &client.frag()).await, 404, "{other}");
    }
    let frag = client.frag();
    for (condition, body, expected) in [
        (None, frag.as_str(), 428),
        (Some("\"another\""), &frag, 412),
        (Some("W/\"ice-1\""), &frag, 412),
        (Some(client.tag.as_str()), "junk", 400),
        (Some(client.tag.as_str()), &frag, 204),
        (Some("*"), &frag, 204),
    ] {
        assert_eq!(client.patch(condition, body).await.status, expected, "{condition:?}");
    }
    assert_eq!(status(&door, "PATCH", &client.resource, &[SDP, ("If-Match", "*")], &frag).await, 415);
    let large = format!("{frag}{}", "a=x\r\n".repeat(14_000));
    assert_eq!(client.patch(Some("*"), &large).await.status, 413);

    let watching = WhipClient::post(door.http(), Plan::play("mine"), str0m_peer::stack).await.expect("created");
    watching.until_more_video(10).await;
    assert_eq!(client.delete().await.status, 200);
    assert_eq!(client.delete().await.status, 200, "again");
    assert_eq!(client.patch(Some("*"), &frag).await.status, 404);
    publisher(&door, "mine").await.delete().await;
    watching.delete().await;
    until_no_session(&door).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_before_its_answer_leaves_nothing_behind() {
    let door = door().await;
    let (offer, _stack) = offer(Plan::play("nobody"), str0m_peer::stack).await;
    for body in [&offer[..], &offer[..offer.len() / 2]] {
        let mut stream = TcpStream::connect(door.http()).await.unwrap();
        let head = format!(
            "POST /LiveApp/whep/nobody HTTP/1.1\r\nHost: x\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n",
            offer.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        drop(stream);
    }
    until_no_session(&door).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_passed_on_as_ams_expects_it() {
    let door = door().await;
    let bearer = ("Authorization", "Bearer secret-token");
    let query = "?subscriberId=me&streamName=My%20Stream&video=true";
    let plan = Plan::publish("named");
    let client = WhipClient::post_with(door.http(), plan, str0m_peer::stack, query, &[bearer]).await.expect("created");
    client.until("it is connected", |report| report.connected).await;
    assert!(!door.log().contains("secret-token"), "tokens are not logged");
    assert_eq!(client.delete().await.status, 200);
    until_no_session(&door).await;
}
