//! Certificates from an ACME server: got, kept, renewed; and a door that gets none.

use std::{fs, path::Path};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    acme_server::AcmeServer,
    cluster::eventually,
    front::{FrontDoor, Identity, any_client, ping, shown, tls, websocket},
    mongod::TempDir,
};

const ISSUED: &str = "forebay_acme_orders_total{result=\"issued\"}";
const FAILED: &str = "forebay_acme_orders_total{result=\"failed\"}";

/// A door that asks `server` for a certificate of two hosts.
async fn door(server: &AcmeServer, dir: TempDir, more: &str) -> FrontDoor {
    let root = dir.path().join("root.pem");
    fs::write(&root, &server.root_pem).unwrap();
    let tables = format!(
        "[tls]\n{more}\n[tls.acme]\ndirectory = {:?}\nroot = {root:?}\ndomains = [\"live.example\", \"tv.example\"]\n\
         contact = [\"mailto:ops@example.com\"]\n[door]\nstate_dir = {:?}\n",
        server.directory(),
        dir.path()
    );
    FrontDoor::serve(dir, &["tls = true", ""], &tables).await
}

fn is_kept_to_itself(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;

    fs::metadata(file).is_ok_and(|facts| facts.permissions().mode() & 0o77 == 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_without_a_certificate_gets_one_and_keeps_it() {
    let server = AcmeServer::start().await;
    let door = door(&server, TempDir::new("acme"), "").await;
    server.hosts_are_at(Some(door.at[0]));
    door.until_metric(ISSUED, 1.0).await;
    assert_eq!(server.complaints(), [] as [String; 0], "{}", door.log());
    let kept = door.dir.path().join("acme/certificate.pem");
    assert!(is_kept_to_itself(&kept) && is_kept_to_itself(&door.dir.path().join("acme")));
    assert_eq!((server.issued(), server.accounts()), (1, 1));
    for host in ["live.example", "tv.example"] {
        let stream = tls(door.at[0], host, &any_client(&["http/1.1"])).await.unwrap();
        let shown = shown(&stream);
        let (_, certificate) = x509_parser::parse_x509_certificate(&shown).unwrap();
        assert!(certificate.issuer().to_string().contains("test authority"));
        ping(&mut websocket(stream).await).await;
    }
    let stranger = tls(door.at[0], "live.example", &any_client(&["acme-tls/1"])).await;
    assert!(stranger.is_err(), "a challenge is shown only while it waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_soon_over_is_renewed_and_serves_until_then() {
    let server = AcmeServer::start().await;
    let dir = TempDir::new("acme");
    let old = Identity::new(&["live.example", "tv.example"], 2027);
    fs::create_dir(dir.path().join("acme")).unwrap();
    fs::write(dir.path().join("acme/certificate.pem"), format!("{}{}", old.key_pem, old.cert_pem)).unwrap();
    let door = door(&server, dir, "").await;
    server.hosts_are_at(Some(door.at[0]));
    let mut socket = websocket(tls(door.at[0], "live.example", &any_client(&["http/1.1"])).await.unwrap()).await;
    eventually("the new certificate serves", async || {
        let stream = tls(door.at[0], "live.example", &any_client(&[])).await.unwrap();
        shown(&stream) != old.der
    })
    .await;
    ping(&mut socket).await;
    assert_eq!(server.issued(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_certificate_is_not_ordered_again() {
    let server = AcmeServer::start().await;
    let dir = TempDir::new("acme");
    let good = Identity::new(&["live.example", "tv.example"], 2090);
    fs::create_dir(dir.path().join("acme")).unwrap();
    fs::write(dir.path().join("acme/certificate.pem"), format!("{}{}", good.key_pem, good.cert_pem)).unwrap();
    let door = door(&server, dir, "").await;
    let stream = tls(door.at[0], "tv.example", &any_client(&["http/1.1"])).await.unwrap();
    assert!(shown(&stream) == good.der);
    ping(&mut websocket(stream).await).await;
    assert_eq!((server.accounts(), door.metric(ISSUED).await), (0, Some(0.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_fails_harms_nothing_else() {
    let server = AcmeServer::start().await;
    let dir = TempDir::new("acme");
    let own = Identity::new(&["own.example"], 2090);
    let entry = own.write(dir.path(), "own");
    server.hosts_are_at(None);
    let door = door(&server, dir, &format!("certificates = [{entry}]")).await;
    door.until_metric(FAILED, 1.0).await;
    eventually("the log says so", async || door.log().contains("no certificate from the ACME server")).await;
    assert_eq!(server.issued(), 0);
    let mut stream = tls(door.at[0], "live.example", &any_client(&["http/1.1"])).await.unwrap();
    assert!(shown(&stream) == own.der, "the first certificate serves who has none");
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert!(door.is_well(1).await);
}
