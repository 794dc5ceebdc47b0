//! HTTP through the door to nodes that a test scripts byte by byte, and to the demo's.

mod abuse;
mod forward;
mod journal;
mod on_demo;
mod over_h2;
mod trouble;
mod tunnels;

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
    time::timeout,
};

use crate::support::cluster::{Door, PATIENCE};

/// A request as a node has read it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Request line and headers.
    pub(super) head: String,
    /// What the framing of the head makes of the rest, undecoded.
    pub(super) body: Vec<u8>,
    /// Which connection it came on, from 0.
    pub(super) connection: usize,
}

impl Seen {
    /// The value of a header; the test fails if it came twice.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let of_name = |line: &'_ &str| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
        let lines: Vec<&str> = self.head.lines().skip(1).filter(of_name).collect();
        assert!(lines.len() <= 1, "{name} came more than once: {}", self.head);
        lines.first().and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
    }

    pub(super) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }
}

/// What a node does with a request.
pub(super) enum Reply {
    /// Sends this and waits for the next request.
    Keep(Vec<u8>),
    /// Sends this and closes.
    Close(Vec<u8>),
    /// Sends this and then nothing, with the connection open.
    Stall(Vec<u8>),
    /// Sends this over and over until the other side is gone.
    Flood(Vec<u8>, Vec<u8>),
    /// Sends this and then whatever it hears.
    Echo(Vec<u8>),
}

/// A whole answer with a body, kept alive.
pub(super) fn ok(body: &str) -> Reply {
    Reply::Keep(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

/// A node that does as it is told.
pub(super) struct Node {
    address: String,
    state: Arc<State>,
    running: JoinSet<()>,
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    changed: Notify,
}

impl Node {
    /// A node on a free port whose answers are `answer`'s.
    pub(super) async fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State::default());
        let mut running = JoinSet::new();
        let (answer, shared) = (Arc::new(answer), Arc::clone(&state));
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, state) = (Arc::clone(&answer), Arc::clone(&shared));
                connections.spawn(async move {
                    let _ = serve(stream, &state, &*answer).await;
                });
            }
        });
        Self { address, state, running }
    }

    /// The node as `[[nodes.static]]`.
    pub(super) fn table(&self, name: &str, role: &str) -> String {
        format!("[[nodes.static]]\nname = \"{name}\"\naddress = \"{}\"\nrole = \"{role}\"\n", self.address)
    }

    /// All requests so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// The only request so far.
    pub(super) fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0].clone()
    }

    /// Waits until so many requests have come.
    pub(super) async fn until_seen(&self, count: usize) -> Vec<Seen> {
        let wait = async {
            loop {
                let changed = self.state.changed.notified();
                let seen = self.seen();
                if seen.len() >= count {
                    return seen;
                }
                changed.await;
            }
        };
        timeout(PATIENCE, wait).await.expect("the node is asked")
    }

    /// Waits until no connection that has asked something is open.
    pub(super) async fn until_closed(&self) {
        let wait = async {
            loop {
                let changed = self.state.changed.notified();
                if self.state.open.load(Ordering::SeqCst) == 0 {
                    return;
                }
                changed.await;
            }
        };
        timeout(PATIENCE, wait).await.expect("the door closes its connections");
    }

    /// Ends the node: its port refuses from now on.
    pub(super) async fn stop(&mut self) {
        self.running.shutdown().await;
    }
}

/// One that counts while it is open.
struct Open<'a>(&'a State);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

async fn serve(
    mut stream: TcpStream,
    state: &State,
    answer: &(dyn Fn(&Seen) -> Reply + Send + Sync),
) -> io::Result<()> {
    let mut bytes = Vec::new();
    // A probe connects and says nothing: it is no connection of ours.
    if stream.read_buf(&mut bytes).await? == 0 {
        return Ok(());
    }
    let connection = state.connections.fetch_add(1, Ordering::SeqCst);
    state.open.fetch_add(1, Ordering::SeqCst);
    let _open = Open(state);
    loop {
        let Some((head, body)) = read_request(&mut stream, &mut bytes).await? else { return Ok(()) };
        let seen = Seen { head, body, connection };
        let reply = answer(&seen);
        state.seen.lock().unwrap().push(seen);
        state.changed.notify_waiters();
        match reply {
            Reply::Keep(answer) => stream.write_all(&answer).await?,
            Reply::Close(answer) => {
                stream.write_all(&answer).await?;
                return stream.shutdown().await;
            }
            Reply::Stall(answer) => {
                stream.write_all(&answer).await?;
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await?;
                return Ok(());
            }
            Reply::Flood(head, piece) => {
                stream.write_all(&head).await?;
                loop {
                    stream.write_all(&piece).await?;
                }
            }
            Reply::Echo(head) => {
                stream.write_all(&head).await?;
                let (mut read, mut write) = stream.split();
                write.write_all(&bytes).await?;
                tokio::io::copy(&mut read, &mut write).await?;
                return Ok(());
            }
        }
    }
}

/// Reads one request by its own framing; what follows it stays in `bytes`.
async fn read_request(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<Option<(String, Vec<u8>)>> {
    let end = loop {
        if let Some(end) = find(bytes, b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(bytes).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    bytes.drain(..end);
    let value = |name: &str| {
        let line =
            head.lines().find(|line| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name)));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let size = if value("transfer-encoding").is_some() {
        loop {
            if let Some(last) = find(bytes, b"0\r\n\r\n") {
                break last + 5;
            }
            if stream.read_buf(bytes).await? == 0 {
                break bytes.len();
            }
        }
    } else {
        value("content-length").map_or(0, |length| length.parse().unwrap())
    };
    while bytes.len() < size {
        if stream.read_buf(bytes).await? == 0 {
            break;
        }
    }
    let body = bytes.drain(..size.min(bytes.len())).collect();
    Ok(Some((head, body)))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// A door before these nodes, with more tables.
pub(super) async fn door(nodes: &[String], more: &str) -> Door {
    let nodes = nodes.concat();
    // Probes only connect, and a new node is as good as an old one.
    let text = format!("{more}\n[health]\nprobe_path = \"\"\n[nodes]\nslow_start = \"0s\"\n{nodes}");
    Door::serve(&text, &[]).await
}

/// A client's connection to the door.
pub(super) struct Client(TcpStream);

impl Client {
    pub(super) async fn connect(door: &Door) -> Self {
        Self(TcpStream::connect(door.http()).await.unwrap())
    }

    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.0.write_all(bytes.as_ref()).await.unwrap();
        self
    }

    /// All that comes until the door closes.
    pub(super) async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        // A reset after the answer is as good as a close.
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await.expect("the door closes");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// All that comes until it holds `end`.
    pub(super) async fn until(&mut self, end: &str) -> String {
        let mut bytes = Vec::new();
        let wait = async {
            while find(&bytes, end.as_bytes()).is_none() {
                let read = self.0.read_buf(&mut bytes).await.unwrap();
                assert!(read > 0, "the door closed after {:?}", String::from_utf8_lossy(&bytes));
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{end:?} did not come"));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// One request with `Connection: close` on a connection of its own.
pub(super) async fn ask(door: &Door, line: &str, headers: &[&str], body: &str) -> String {
    let mut request = format!("{line} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|header| header.starts_with("Host:")) {
        request.push_str("Host: tv.example\r\n");
    }
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    request.push_str(body);
    Client::connect(door).await.send(request).await.rest().await
}

/// The status of a raw answer.
pub(super) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status: {answer:?}"))
}

/// The body of a raw answer, undecoded.
pub(super) fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// A value of an answer's header.
pub(super) fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    let line = head.lines().find(|line| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name)))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

/// Long enough that a busy machine does not reach it by accident, short enough to wait for.
pub(super) const SOON: Duration = Duration::from_secs(10);
