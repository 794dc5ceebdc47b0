//! WebSockets of an app that are not signalling: passed to a node untouched, byte for byte, bounded in number and in silence.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http_body_util::BodyExt as _;
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::Incoming,
    ext::Protocol,
    header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE},
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes},
    sync::OwnedSemaphorePermit,
};

use super::{Asked, Errands, TRIES, explain, head, refuse};
use crate::{
    clock,
    front::{
        body,
        http::{Answer, busy},
        journal::Entry,
    },
    health::Ready,
    shutdown::Shutdown,
    telemetry::metrics::Held,
    upstream::{self, Upload},
};

/// Bytes read at a time, each way.
const BUFFER: usize = 8 * 1024;
/// How often a tunnel looks whether it is silent.
const LOOK: Duration = Duration::from_secs(1);
/// The one protocol that is passed on.
const WEBSOCKET: &str = "websocket";

/// Whether a request opens a WebSocket, by HTTP/1.1 (RFC 6455) or HTTP/2 (RFC 8441).
pub(in crate::front) fn is_tunnel(request: &Request<Incoming>) -> bool {
    match request.version() {
        Version::HTTP_11 => {
            *request.method() == Method::GET && super::has_token(request.headers(), &UPGRADE, WEBSOCKET)
        }
        Version::HTTP_2 => is_extended_connect(request),
        _ => false,
    }
}

fn is_extended_connect(request: &Request<Incoming>) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    *request.method() == Method::CONNECT && protocol.is_some_and(|protocol| protocol.as_str() == WEBSOCKET)
}

/// Opens a tunnel, or says why not. Where it opens, the entry goes with it and ends when it ends.
pub(in crate::front) async fn tunnel(
    errands: Errands<'_>,
    mut request: Request<Incoming>,
    shutdown: &Shutdown,
    mut entry: Entry,
) -> Answer {
    let front = errands.front;
    if front.readiness.now() == Ready::Starting || front.sessions.is_ending() {
        return entry.told(busy("this door takes no new sessions now\n"));
    }
    let Ok(permit) = Arc::clone(&front.tunnels).try_acquire_owned() else {
        return entry.told(busy("no tunnel is free\n"));
    };
    let is_extended = is_extended_connect(&request);
    let client = hyper::upgrade::on(&mut request);
    match errands.open(request, is_extended, &mut entry).await {
        Ok(mut response) => {
            let node = hyper::upgrade::on(&mut response);
            let open = Tunnel {
                idle: front.http.load().tunnel_idle,
                _permit: permit,
                _held: front.metrics.http_tunnel_opened(),
            };
            let answer = switching(response, is_extended);
            entry.head(answer.status().as_u16());
            let stop = shutdown.child();
            shutdown.spawn(async move {
                let (bytes_in, bytes_out, end) =
                    stop.run_until_cancelled(open.run(client, node)).await.unwrap_or((0, 0, "stopped"));
                entry.tunnelled(bytes_in, bytes_out, end);
            });
            answer
        }
        Err(answer) => entry.told(*answer),
    }
}

impl Errands<'_> {
    /// Asks nodes until one switches protocols.
    async fn open(
        &self,
        request: Request<Incoming>,
        is_extended: bool,
        entry: &mut Entry,
    ) -> Result<Response<Incoming>, Box<Answer>> {
        let (mut parts, _) = request.into_parts();
        let asked = Asked {
            host: head::host(&parts).ok().flatten().and_then(|host| host.to_str().ok().map(str::to_owned)),
            agent: parts.headers.get(hyper::header::USER_AGENT).cloned(),
            cookie: head::cookie(&parts.headers),
        };
        head::for_node(&mut parts, self.visitor).map_err(|bad| Box::new(refuse(bad)))?;
        if is_extended {
            parts.method = Method::GET;
            if let Ok(key) = HeaderValue::from_str(&upstream::fresh_key()) {
                parts.headers.insert(SEC_WEBSOCKET_KEY, key);
            }
        }
        parts.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        parts.headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
        let (mut avoid, mut last) = (Vec::new(), None);
        for _ in 0..TRIES {
            let Ok(node) = self.choose(&asked, &avoid).await else { break };
            entry.node(&node.id, node.rule);
            let request = head::request(parts.clone(), Upload::Empty, node.address);
            match self.front.nodes.send_upgrade(node.address, request).await {
                Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    node.answered();
                    return Ok(response);
                }
                Ok(mut response) => {
                    node.answered();
                    head::for_client(&mut response, asked.host.as_deref(), node.address);
                    return Err(Box::new(response.map(|body| body.map_err(Into::into).boxed_unsync())));
                }
                Err(failed) => {
                    self.note(&failed, &node, true);
                    last = Some(explain(&failed.error));
                    avoid.push(node.id.clone());
                    if failed.unsent.is_none() {
                        break;
                    }
                }
            }
        }
        Err(Box::new(last.unwrap_or_else(|| busy("no node can take this now\n"))))
    }
}

/// The node's 101 as the client's protocol says it.
fn switching(response: Response<Incoming>, is_extended: bool) -> Answer {
    let (mut parts, _) = response.into_parts();
    let upgrade = parts.headers.get(UPGRADE).cloned();
    head::strip_hop_by_hop(&mut parts.headers);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    if is_extended {
        parts.status = StatusCode::OK;
        parts.headers.remove(SEC_WEBSOCKET_ACCEPT);
    } else {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        parts.headers.insert(UPGRADE, upgrade.unwrap_or(HeaderValue::from_static(WEBSOCKET)));
    }
    Response::from_parts(parts, body::empty())
}

struct Tunnel {
    idle: Duration,
    _permit: OwnedSemaphorePermit,
    _held: Held,
}

impl Tunnel {
    /// Passes bytes until either side ends, or both are silent for too long: bytes from the client, to it, and the reason.
    async fn run(self, client: OnUpgrade, node: OnUpgrade) -> (u64, u64, &'static str) {
        let (Ok(client), Ok(node)) = tokio::join!(client, node) else { return (0, 0, "no_upgrade") };
        let heard = Arc::new(Heard::new());
        let mut client = Listened { io: TokioIo::new(client), heard: Arc::clone(&heard) };
        let mut node = TokioIo::new(node);
        let copy = copy_bidirectional_with_sizes(&mut client, &mut node, BUFFER, BUFFER);
        tokio::select! {
            copied = copy => {
                let end = if copied.is_ok() { "done" } else { "lost" };
                (heard.bytes_in.load(Ordering::Relaxed), heard.bytes_out.load(Ordering::Relaxed), end)
            }
            () = heard.silence(self.idle) => {
                (heard.bytes_in.load(Ordering::Relaxed), heard.bytes_out.load(Ordering::Relaxed), "silent")
            }
        }
    }
}

/// When bytes last passed, and how many.
struct Heard {
    begun: Instant,
    last_ms: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Heard {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { begun: clock::now(), last_ms: zero(), bytes_in: zero(), bytes_out: zero() }
    }

    fn note(&self, count: &AtomicU64, bytes: usize) {
        if bytes > 0 {
            count.fetch_add(bytes as u64, Ordering::Relaxed);
            let since = clock::now().saturating_duration_since(self.begun).as_millis();
            self.last_ms.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Completes once nothing has passed for so long.
    async fn silence(&self, limit: Duration) {
        loop {
            tokio::time::sleep(LOOK.min(limit)).await;
            let last = self.begun + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            if clock::now().saturating_duration_since(last) >= limit {
                return;
            }
        }
    }
}

/// The client's side, which every byte passes once.
struct Listened<I> {
    io: I,
    heard: Arc<Heard>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Listened<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.heard.note(&self.heard.bytes_in, buffer.filled().len() - before);
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Listened<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = &polled {
            self.heard.note(&self.heard.bytes_out, *written);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
