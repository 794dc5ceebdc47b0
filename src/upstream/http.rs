//! HTTP/1.1 to nodes: connections kept per node, one request at a time on each, bodies streamed both ways.
//!
//! ```text
//! HttpPool ─► Lane of a node ─► idle connection, else dial ─► send ─► NodeResponse
//!                 ▲                                                       │ its body's end
//!                 └───────────────────────────────────────────────────────┘ gives the connection back
//! ```
//!
//! A body that is dropped before its end takes its connection with it: HTTP/1.1 knows no other way to stop one.

mod body;
mod upload;
mod watch;

use std::{
    collections::HashMap,
    fmt,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

pub use body::{BodyError, NodeBody};
pub use upload::{Upload, UploadError, Uploaded};

use self::watch::{Watch, Wire};
use crate::{
    clock,
    domain::ids::NodeAddr,
    net,
    telemetry::metrics::{Held, Metrics},
};

/// Bytes of a response's head, and of a piece of its body: AMS sends heads below 2 KiB, Tomcat pieces of 8 KiB.
const READ_BUFFER: usize = 128 * 1024;
/// Header lines of a response; more are garbage.
const MAX_HEADERS: usize = 128;
/// How often a connection looks whether somebody has kept it waiting for too long.
const LOOK: Duration = Duration::from_secs(1);

/// How connections to nodes are kept, and how long each part of an exchange may take.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// TCP connect.
    pub connect: Duration,
    /// From a whole request to the head of the response.
    pub first_byte: Duration,
    /// Between two pieces of a body that somebody waits for.
    pub idle: Duration,
    /// Until a client takes the next piece.
    pub client_idle: Duration,
    /// How long an idle connection is kept.
    pub keep_idle: Duration,
    /// Idle connections kept per node.
    pub max_idle: usize,
    /// Connections at once per node.
    pub max_connections: usize,
}

/// Connections to all nodes. Clones share them.
#[derive(Clone)]
pub struct HttpPool(Arc<Pool>);

struct Pool {
    limits: HttpLimits,
    metrics: Metrics,
    /// By address; those without connections go when a new one comes, so there are hardly more than nodes.
    lanes: Mutex<HashMap<NodeAddr, Arc<Lane>>>,
}

/// The connections to one node.
struct Lane {
    address: NodeAddr,
    limits: HttpLimits,
    metrics: Metrics,
    /// The latest last: it is used first, so that the rest can time out.
    idle: Mutex<Vec<(Connection, Held)>>,
    open: AtomicUsize,
}

/// One connection between two exchanges.
struct Connection {
    sender: SendRequest<Upload>,
    watch: Arc<Watch>,
    reused: bool,
}

/// A connection's place among those of its node, from its dial to its end.
struct Place {
    lane: Arc<Lane>,
    _held: Held,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lane.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// `http.max_connections` are in use.
    #[error("all connections to the node are in use")]
    Full,
    /// TCP did not connect.
    #[error("could not connect")]
    Connect(#[source] std::io::Error),
    /// TCP did not connect in time.
    #[error("could not connect in time")]
    ConnectTimeout,
    /// No response in time.
    #[error("no response in time")]
    FirstByte,
    /// The client did not send its body in time.
    #[error("the request's body did not come in time")]
    SlowUpload,
    /// The client's body is larger than it may be, or ended early.
    #[error("the request's body")]
    Upload(#[source] UploadError),
    /// The connection was lost before the response.
    #[error("the connection was lost")]
    Lost(#[source] hyper::Error),
    /// What came is no HTTP.
    #[error("the answer is no HTTP")]
    Garbage(#[source] hyper::Error),
}

impl SendError {
    /// The word for metrics and logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Connect(_) => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::FirstByte => "first_byte",
            Self::SlowUpload => "slow_upload",
            Self::Upload(_) => "upload",
            Self::Lost(_) => "lost",
            Self::Garbage(_) => "garbage",
        }
    }
}

/// A request that got no response.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: SendError,
    /// The request, whole and unread, where nothing of it has reached the node: any other node may have it.
    pub unsent: Option<Request<Upload>>,
    /// It was asked on a connection that had been used before, which the node may have ended by right.
    pub reused: bool,
}

impl Failed {
    /// Whether it speaks against the node.
    pub fn is_nodes_fault(&self) -> bool {
        match self.error {
            SendError::Connect(_) | SendError::ConnectTimeout | SendError::FirstByte | SendError::Garbage(_) => true,
            SendError::Lost(_) => !self.reused,
            SendError::Full | SendError::SlowUpload | SendError::Upload(_) => false,
        }
    }
}

impl HttpPool {
    /// A pool without connections.
    pub fn new(limits: HttpLimits, metrics: Metrics) -> Self {
        Self(Arc::new(Pool { limits, metrics, lanes: Mutex::default() }))
    }

    /// Sends a request in origin form, with its `Host`, and waits for the head of the response. A kept connection that
    /// turns out to be dead before anything was sent on it is replaced by another one.
    ///
    /// # Errors
    /// [`Failed`], with the request if it is still whole.
    pub async fn send(&self, to: NodeAddr, mut request: Request<Upload>) -> Result<Response<NodeBody>, Failed> {
        let lane = self.lane(to);
        while let Some(connection) = lane.kept() {
            match lane.exchange(connection, request).await {
                Err(Failed { error: SendError::Lost(_), unsent: Some(whole), .. }) => request = whole,
                outcome => return outcome,
            }
        }
        match lane.dial().await {
            Ok(connection) => lane.exchange(connection, request).await,
            Err(error) => Err(Failed { error, unsent: Some(request), reused: false }),
        }
    }

    /// Sends a request that asks for another protocol, on a connection of its own, which is not kept.
    ///
    /// # Errors
    /// As [`HttpPool::send`].
    pub async fn send_upgrade(&self, to: NodeAddr, request: Request<Upload>) -> Result<Response<Incoming>, Failed> {
        let lane = self.lane(to);
        let mut connection = match lane.dial().await {
            Ok(connection) => connection,
            Err(error) => return Err(Failed { error, unsent: Some(request), reused: false }),
        };
        let response = lane.ask(&mut connection, request).await?;
        connection.watch.leave_alone();
        Ok(response)
    }

    fn lane(&self, address: NodeAddr) -> Arc<Lane> {
        let mut lanes = self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(&address) {
            return Arc::clone(lane);
        }
        lanes.retain(|_, lane| lane.open.load(Ordering::Relaxed) > 0);
        let lane = Arc::new(Lane {
            address,
            limits: self.0.limits,
            metrics: self.0.metrics.clone(),
            idle: Mutex::default(),
            open: AtomicUsize::new(0),
        });
        lanes.insert(address, Arc::clone(&lane));
        lane
    }
}

impl fmt::Debug for HttpPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpPool").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

impl Lane {
    fn idle(&self) -> MutexGuard<'_, Vec<(Connection, Held)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A kept connection that is ready for a request.
    fn kept(&self) -> Option<Connection> {
        let mut idle = self.idle();
        idle.retain(|(connection, _)| !connection.sender.is_closed());
        // One that is not ready still sends a body that its node has answered early; its time to rest is bounded.
        let ready = idle.iter().rposition(|(connection, _)| connection.sender.is_ready())?;
        Some(idle.remove(ready).0)
    }

    /// Keeps a connection for the next request.
    fn keep(&self, mut connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        connection.reused = true;
        connection.watch.rest();
        let mut idle = self.idle();
        if idle.len() < self.limits.max_idle {
            idle.push((connection, self.metrics.http_connection_idle()));
        }
    }

    async fn dial(self: &Arc<Self>) -> Result<Connection, SendError> {
        let place = self.place().ok_or(SendError::Full)?;
        let dialled = timeout(self.limits.connect, TcpStream::connect(self.address.0)).await;
        let stream = dialled.map_err(|_| SendError::ConnectTimeout)?.map_err(SendError::Connect)?;
        net::tune(&stream).map_err(SendError::Connect)?;
        let watch = Arc::new(Watch::new(self.limits));
        let wire = Wire::new(stream, Arc::clone(&watch));
        let shaken = http1::Builder::new()
            .max_buf_size(READ_BUFFER)
            .max_headers(MAX_HEADERS)
            .handshake(TokioIo::new(wire))
            .await;
        let (sender, connection) = shaken.map_err(SendError::Lost)?;
        // Not one of the tasks that a shutdown waits for: what it serves is, and a connection that rests need not end.
        tokio::spawn(drive(connection, Arc::clone(&watch), place));
        Ok(Connection { sender, watch, reused: false })
    }

    /// A place for one more connection.
    fn place(self: &Arc<Self>) -> Option<Place> {
        let max = self.limits.max_connections;
        let taken =
            self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < max).then_some(open + 1));
        taken.ok()?;
        Some(Place { lane: Arc::clone(self), _held: self.metrics.http_connection_opened() })
    }

    async fn exchange(
        self: &Arc<Self>,
        mut connection: Connection,
        request: Request<Upload>,
    ) -> Result<Response<NodeBody>, Failed> {
        let response = self.ask(&mut connection, request).await?;
        Ok(response.map(|body| NodeBody::new(body, connection, Arc::clone(self))))
    }

    /// Sends on a connection and waits for the head of the response, as long as the exchange goes on.
    async fn ask(&self, connection: &mut Connection, request: Request<Upload>) -> Result<Response<Incoming>, Failed> {
        connection.watch.ask();
        let reused = connection.reused;
        let failed = |error| Failed { error, unsent: None, reused };
        let progress = request.body().progress();
        let mut response = pin!(connection.sender.try_send_request(request));
        let asked = clock::now();
        loop {
            let (deadline, uploading) = match progress.as_ref().and_then(|progress| progress.under_way()) {
                Some(moved) => (moved + self.limits.idle, true),
                None => (
                    progress.as_ref().map_or(asked, |progress| progress.moved().max(asked)) + self.limits.first_byte,
                    false,
                ),
            };
            tokio::select! {
                biased;
                answer = response.as_mut() => {
                    return answer.map_err(|mut error| {
                        let unsent = error.take_message();
                        let fault = progress.as_ref().and_then(|progress| progress.fault());
                        Failed { error: judge(error.into_error(), fault), unsent, reused }
                    });
                }
                () = clock::until(Some(deadline)) => {}
            }
            // The upload may have moved, or ended, since the deadline was set.
            let still = progress.as_ref().and_then(|progress| progress.under_way());
            match (uploading, still) {
                (true, Some(moved)) if moved + self.limits.idle <= deadline => {
                    return Err(failed(SendError::SlowUpload));
                }
                (false, None) => return Err(failed(SendError::FirstByte)),
                _ => {}
            }
        }
    }
}

fn judge(error: hyper::Error, fault: Option<UploadError>) -> SendError {
    match fault {
        Some(fault) => SendError::Upload(fault),
        None if error.is_parse() => SendError::Garbage(error),
        None => SendError::Lost(error),
    }
}

/// Moves a connection's bytes until it is over, or until it has kept somebody waiting for too long.
async fn drive(connection: http1::Connection<TokioIo<Wire>, Upload>, watch: Arc<Watch>, _place: Place) {
    let mut connection = pin!(connection.with_upgrades());
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection to a node ended");
                }
                return;
            }
            _ = look.tick() => if watch.is_overdue(clock::now()) { return },
        }
    }
}
