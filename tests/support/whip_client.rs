//! A WHIP or WHEP client: one WebRTC stack, and plain HTTP.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::ams_client::{Alone, Kind, MediaEvent, MediaOrder, PATIENCE, Plan, Report, Stack};

pub const SDP: (&str, &str) = ("Content-Type", "application/sdp");
pub const FRAG: (&str, &str) = ("Content-Type", "application/trickle-ice-sdpfrag");

/// What an HTTP server said.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// One request over a connection of its own.
///
/// # Panics
///
/// When there is no answer in time, or none of HTTP.
pub async fn request(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: door.example\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        // A refusal may come before the whole request is read.
        let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let text = timeout(PATIENCE, exchange).await.expect("it answers and closes");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(a, b)| (a.to_owned(), b.to_owned())).collect();
    Answer { status, headers, body: body.to_owned() }
}

/// A client whose POST has been answered by 201.
pub struct WhipClient {
    address: String,
    pub resource: String,
    pub tag: String,
    pub offer: String,
    pub created: Answer,
    stack: Alone,
}

impl WhipClient {
    /// Offers to `/LiveApp/{whip|whep}/{stream}` of the door at `address`, as the plan's kind says.
    pub async fn post(address: &str, plan: Plan, stack: Stack) -> Result<Self, Answer> {
        Self::post_with(address, plan, stack, "", &[]).await
    }

    /// The same with a query and further headers.
    pub async fn post_with(
        address: &str,
        plan: Plan,
        stack: Stack,
        query: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Answer> {
        let word = if plan.kind == Kind::Publish { "whip" } else { "whep" };
        let path = format!("/LiveApp/{word}/{}{query}", plan.stream);
        let (offer, stack) = offer(plan, stack).await;
        let headers: Vec<_> = [SDP].iter().chain(headers).copied().collect();
        let created = request(address, "POST", &path, &headers, &offer).await;
        if created.status != 201 {
            return Err(created);
        }
        let header = |name: &str| created.header(name).unwrap_or_else(|| panic!("no {name}: {created:?}")).to_owned();
        let (resource, tag) = (header("location"), header("etag"));
        let _ = stack.orders.send(MediaOrder::TakeAnswer(created.body.clone()));
        Ok(Self { address: address.to_owned(), resource, tag, offer, created, stack })
    }

    pub async fn patch(&self, if_match: Option<&str>, frag: &str) -> Answer {
        let condition = if_match.map(|tag| ("If-Match", tag));
        let headers: Vec<_> = [FRAG].into_iter().chain(condition).collect();
        request(&self.address, "PATCH", &self.resource, &headers, frag).await
    }

    pub async fn delete(&self) -> Answer {
        request(&self.address, "DELETE", &self.resource, &[], "").await
    }

    /// A fragment of its present generation, with one candidate.
    pub fn frag(&self) -> String {
        let line = |name: &str| self.offer.lines().find(|line| line.starts_with(name)).expect("an offer has it");
        format!(
            "{}\r\n{}\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host\r\n",
            line("a=ice-ufrag:"),
            line("a=ice-pwd:"),
        )
    }

    /// Waits until the record satisfies `check`, and returns it.
    pub async fn until(&self, what: &str, check: impl Fn(&Report) -> bool) -> Report {
        self.stack.until(what, check).await
    }

    /// Waits for this many more video packets than there are now.
    pub async fn until_more_video(&self, more: u64) -> Report {
        let before = self.stack.until("anything", |_| true).await.video_packets;
        self.stack.until("more video came", |report| report.video_packets >= before + more).await
    }

    /// The media stack ends without a word, as a client does whose machine is switched off.
    pub fn vanish(self) -> (String, String) {
        (self.address, self.resource)
    }
}

/// A stack's offer, and the stack.
pub async fn offer(plan: Plan, stack: Stack) -> (String, Alone) {
    let mut stack = Alone::start(plan, stack);
    let _ = stack.orders.send(MediaOrder::MakeOffer);
    let offer = async {
        loop {
            match stack.events.recv().await.expect("the stack runs") {
                MediaEvent::Offer(sdp) => return sdp,
                // The door has candidates of its own.
                MediaEvent::Candidate { .. } | MediaEvent::Answer(_) => {}
            }
        }
    };
    let offer = timeout(PATIENCE, offer).await.expect("an offer in time");
    (offer, stack)
}
