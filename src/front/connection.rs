//! One connection from its first byte: who it is for, what it speaks, and then its requests.

use std::{
    convert::Infallible,
    error::Error,
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, time::timeout};

use super::{
    body::Body,
    http::{self, Answer, busy, plain},
    listener::{Settings, Shared},
    pace::{Answering, Busy, Pace, Paced, Watch},
    proxy_protocol::{self, Begun},
    seats::Seat,
    sniff::{self, Spoken},
    tls::{H2, Tls},
    transport::Transport,
    visitor::{Visitor, is_trusted},
};
use crate::{config::Proxy, domain::ids::ClientAddr, shutdown::Shutdown, telemetry::metrics::Trouble};

/// Bytes of a request head; a larger one is a 431. SDKs send below 2 KiB.
const MAX_HEAD: usize = 16 * 1024;
/// Header lines of a request; more is a 431.
const MAX_HEADERS: usize = 64;

/// A connection whose client is known.
struct Connection {
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    /// The client, unless a request's headers say more.
    visitor: Visitor,
    /// Set where only health is answered: why.
    health_only: Option<Trouble>,
    pace: Arc<Pace>,
}

/// Runs one connection to its end.
pub(super) async fn run(stream: TcpStream, peer: SocketAddr, seat: Seat, settings: Arc<Settings>, shared: Arc<Shared>) {
    let metrics = shared.front.metrics.clone();
    if let Err(trouble) = serve(stream, peer, seat, settings, shared).await {
        metrics.connection_ended(trouble);
        tracing::debug!(%peer, reason = trouble.as_str(), "connection ended");
    }
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    seat: Seat,
    settings: Arc<Settings>,
    shared: Arc<Shared>,
) -> Result<(), Trouble> {
    let limit = settings.header_timeout;
    let opening = Opening { settings: &settings, shared: &shared, visitor: own(peer), health_only: None, seat };
    let opened = tokio::select! {
        biased;
        () = shared.shutdown.stopping() => return Ok(()),
        opened = timeout(limit, opening.open(stream, peer.ip())) => opened.map_err(|_| Trouble::Silent)??,
    };
    let Some((stream, spoken, opening)) = opened else { return Ok(()) };
    let Opening { visitor, health_only, seat, .. } = opening;
    let connection = |visitor, health_only: Option<Trouble>, notes_heads| {
        let mut limits = settings.pace();
        if health_only.is_some() {
            limits.idle = limits.head;
        }
        let pace = Pace::new(limits, notes_heads);
        Arc::new(Connection {
            shared: Arc::clone(&shared),
            settings: Arc::clone(&settings),
            visitor,
            health_only,
            pace,
        })
    };
    match (&settings.tls, spoken) {
        (Some(tls), Protocol::Tls) => {
            let shaken = handshake(tls, stream, seat, &settings, &shared).await?;
            let Some((transport, is_h2)) = shaken else { return Ok(()) };
            let visitor = Visitor { secure: true, ..visitor };
            let connection = connection(visitor, health_only, !is_h2);
            if is_h2 { http2(transport, connection).await } else { http1(transport, connection).await }
        }
        (Some(_), Protocol::Http) => {
            let only = health_only.unwrap_or(Trouble::NotTls);
            http1(Transport::Plain { io: stream, _seat: seat }, connection(visitor, Some(only), true)).await
        }
        (None, _) => http1(Transport::Plain { io: stream, _seat: seat }, connection(visitor, health_only, true)).await,
    }
}

fn own(peer: SocketAddr) -> Visitor {
    let client = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    Visitor { client: ClientAddr(client), secure: false, endpoint: None }
}

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http,
    Tls,
}

/// A connection of which it is not known yet who it is for and what it speaks.
struct Opening<'a> {
    settings: &'a Settings,
    shared: &'a Shared,
    visitor: Visitor,
    health_only: Option<Trouble>,
    seat: Seat,
}

impl Opening<'_> {
    /// Learns both; `None` if the connection is over, or somebody else's.
    async fn open(
        mut self,
        mut stream: TcpStream,
        peer: IpAddr,
    ) -> Result<Option<(TcpStream, Protocol, Self)>, Trouble> {
        if self.seat.is_reserve {
            self.health_only = Some(Trouble::Full);
        }
        if self.settings.proxy != Proxy::Off && !self.introduce(&mut stream, peer).await? {
            return Ok(None);
        }
        let client = self.visitor.client.0.ip();
        // A load balancer that speaks HTTP brings many clients in one connection.
        if !is_trusted(&self.settings.trusted, client) {
            let charged = self.seat.charge(client, self.settings.connections_per_client);
            charged.map_err(|_| Trouble::ClientFull)?;
        }
        // Without a choice there is nothing to wait for.
        if self.settings.tls.is_none() && self.settings.ice_tcp.is_none() {
            return Ok(Some((stream, Protocol::Http, self)));
        }
        let Ok(spoken) = sniff::spoken(stream).await else { return Ok(None) };
        match spoken {
            Spoken::Http(stream) => Ok(Some((stream, Protocol::Http, self))),
            Spoken::Tls(stream) => Ok(Some((stream, Protocol::Tls, self))),
            Spoken::IceTcp(stream, read) => match &self.settings.ice_tcp {
                // The relay has seats of its own.
                Some(sink) => {
                    sink.take(stream, self.visitor.client, &read);
                    Ok(None)
                }
                None => Err(Trouble::Unknown),
            },
            Spoken::Neither => Ok(None),
        }
    }

    /// Reads the PROXY header of a trusted peer. False: the peer is gone.
    async fn introduce(&mut self, stream: &mut TcpStream, peer: IpAddr) -> Result<bool, Trouble> {
        if !is_trusted(&self.settings.trusted, peer) {
            // What it writes is not believed; where everybody comes through the load balancer, it should not be here.
            return if self.settings.proxy == Proxy::Required { Err(Trouble::Untrusted) } else { Ok(true) };
        }
        match proxy_protocol::read(stream).await {
            Ok(Begun::Header(header)) => {
                self.shared.front.metrics.proxy_header(header.version);
                if let Some(client) = header.client {
                    self.visitor.client = ClientAddr(client);
                }
                self.visitor.secure = header.secure;
                self.visitor.endpoint = header.endpoint;
                if let Some(endpoint) = header.endpoint {
                    tracing::debug!(endpoint = endpoint.as_str(), "came through a private endpoint");
                }
                Ok(true)
            }
            Ok(Begun::NoHeader) => {
                if self.settings.proxy == Proxy::Required {
                    self.health_only.get_or_insert(Trouble::NoProxy);
                }
                Ok(true)
            }
            Ok(Begun::Bad) => Err(Trouble::BadProxy),
            Ok(Begun::Nothing) | Err(_) => Ok(false),
        }
    }
}

/// The TLS handshake, and whether it settled on HTTP/2; `None`: there is nothing more to serve.
async fn handshake(
    tls: &Tls,
    stream: TcpStream,
    seat: Seat,
    settings: &Settings,
    shared: &Shared,
) -> Result<Option<(Transport, bool)>, Trouble> {
    let shaken = tokio::select! {
        biased;
        () = shared.shutdown.stopping() => return Ok(None),
        shaken = timeout(settings.header_timeout, tls.accept(stream)) => shaken,
    };
    let stream = match shaken {
        Ok(Ok(Some(stream))) => stream,
        Ok(Ok(None)) => return Ok(None),
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            return Err(Trouble::BadTls);
        }
        Err(_) => return Err(Trouble::SlowTls),
    };
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(H2);
    Ok(Some((Transport::Tls { io: Box::new(stream), _seat: seat }, is_h2)))
}

async fn http1(io: Transport, connection: Arc<Connection>) -> Result<(), Trouble> {
    let io = TokioIo::new(Paced::new(io, &connection.pace));
    let service = service_fn(|request| answer(Arc::clone(&connection), request));
    let served = http1::Builder::new()
        // `Watch` bounds this.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .keep_alive(connection.health_only.is_none())
        .serve_connection(io, service)
        .with_upgrades();
    until_over(pin!(served), &connection, |served| served.graceful_shutdown()).await
}

/// Streams of one HTTP/2 connection at a time: requests and WebSockets of all tabs of a browser.
const H2_STREAMS: u32 = 256;
/// Bytes that a client may send ahead, per stream and per connection.
const H2_WINDOW: (u32, u32) = (256 * 1024, 1024 * 1024);
/// Bytes of an answer that wait for the client's window, per stream.
const H2_SEND_BUFFER: usize = 64 * 1024;
/// Streams that a client opens and takes back before they are looked at; one more ends the connection (CVE-2023-44487).
const H2_RESETS: usize = 20;
/// Streams that this side had to reset, since the client broke the protocol on them; one more ends the connection.
const H2_OWN_RESETS: usize = 256;
/// A client that says nothing is pinged this often, and gone if it does not answer within the same time.
const H2_PING: Duration = Duration::from_secs(20);

async fn http2(io: Transport, connection: Arc<Connection>) -> Result<(), Trouble> {
    let io = TokioIo::new(Paced::new(io, &connection.pace));
    let of = Arc::clone(&connection);
    let service = service_fn(move |request| answer(Arc::clone(&of), request));
    let served = http2::Builder::new(Tracked(connection.shared.shutdown.clone()))
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(H2_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .initial_stream_window_size(H2_WINDOW.0)
        .initial_connection_window_size(H2_WINDOW.1)
        .max_send_buf_size(H2_SEND_BUFFER)
        .max_pending_accept_reset_streams(H2_RESETS)
        .max_local_error_reset_streams(H2_OWN_RESETS)
        .keep_alive_interval(H2_PING)
        .keep_alive_timeout(H2_PING)
        .serve_connection(io, service);
    until_over(pin!(served), &connection, |served| served.graceful_shutdown()).await
}

/// Runs the requests of HTTP/2 as tasks that the end of the process waits for.
#[derive(Clone)]
struct Tracked(Shutdown);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        drop(self.0.spawn(task));
    }
}

/// Serves a connection until it is over, takes too long, or shall end; then a request that is being answered is finished
/// first, and an idle connection ends at once.
async fn until_over<F>(
    mut served: Pin<&mut F>,
    connection: &Connection,
    finish: impl Fn(Pin<&mut F>),
) -> Result<(), Trouble>
where
    F: Future<Output = hyper::Result<()>>,
{
    let mut watch = Watch::new(&connection.pace);
    let mut retiring = pin!(connection.shared.retiring.cancelled());
    let mut ending = None;
    let ended = poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = served.as_mut().poll(cx) {
                return Poll::Ready(Ok(ended));
            }
            if ending.is_none() && retiring.as_mut().poll(cx).is_ready() {
                ending = Some(Ok(()));
            } else {
                match watch.poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Trouble::Idle) if ending.is_none() => {
                        ending = Some(Err(Trouble::Idle));
                        watch.grant();
                    }
                    Poll::Ready(trouble) => return Poll::Ready(Err(trouble)),
                }
            }
            finish(served.as_mut());
        }
    })
    .await?;
    let ending = ending.unwrap_or(Ok(()));
    match ended {
        Ok(()) => ending,
        Err(error) => {
            tracing::debug!(client = %connection.visitor.client.0, %error, "connection ended");
            // How it goes after it was asked to is its own affair.
            ending.and_then(|()| trouble(&error))
        }
    }
}

/// What a client did, where it did more than go away.
fn trouble(error: &hyper::Error) -> Result<(), Trouble> {
    if error.is_timeout() {
        return Err(Trouble::Dead);
    }
    let is_h2 = error.source().is_some_and(|cause| !cause.is::<std::io::Error>());
    if error.is_parse() || (is_h2 && !error.is_user()) { Err(Trouble::BadHttp) } else { Ok(()) }
}

async fn answer(
    connection: Arc<Connection>,
    mut request: Request<Incoming>,
) -> Result<Response<Answering<Body>>, Infallible> {
    let busy = connection.pace.request();
    let shared = &connection.shared;
    let answer = match connection.health_only {
        None => {
            if *request.method() == Method::CONNECT {
                // What becomes of the stream outlives the answer.
                request.extensions_mut().insert::<Busy>(busy.clone());
            }
            let visitor = connection.visitor.of(request.headers(), &connection.settings.trusted);
            http::answer(&shared.front, visitor, &shared.shutdown, request).await
        }
        Some(why) => http::health(&shared.front, &request).unwrap_or_else(|| {
            shared.front.metrics.connection_ended(why);
            refusal(why)
        }),
    };
    Ok(answer.map(|body| Answering::new(body, busy)))
}

fn refusal(why: Trouble) -> Answer {
    match why {
        Trouble::NotTls => plain(StatusCode::BAD_REQUEST, "this port speaks TLS\n"),
        Trouble::NoProxy => plain(StatusCode::FORBIDDEN, "this port wants a PROXY header\n"),
        _ => busy("this door has all the connections that it may have\n"),
    }
}
