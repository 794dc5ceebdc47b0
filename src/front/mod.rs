//! Faces the clients: accepts, reads requests, answers what is the door's own, and hands WebSockets to `sessions`.
//!
//! It knows no nodes, streams or MongoDB.

mod body;
mod connection;
mod cors;
mod forward;
mod http;
mod journal;
mod listener;
mod locate;
mod pace;
mod proxy_protocol;
mod seats;
mod sniff;
mod tls;
mod transport;
mod visitor;
mod whip;
mod ws;

use std::{fmt, sync::Arc};

pub use listener::{Listening, Settings, serve};
pub use locate::{Locate, Peers};
pub use tls::{Tls, TlsError};
use visitor::Visitor;

use arc_swap::ArcSwap;
use tokio::{net::TcpStream, sync::Semaphore};

use crate::{
    config::{self, Apps},
    domain::ids::ClientAddr,
    health::{Readiness, Ready},
    sessions::{Resources, SessionSeat, Sessions},
    telemetry::{access::AccessLog, metrics::Metrics},
    upstream::{HttpLimits, HttpPool},
};

/// A static page by its path: content type and bytes.
pub type Pages = fn(&str) -> Option<(&'static str, &'static [u8])>;

/// Takes connections over: the connection, its far end, and the bytes that were read from it already.
#[derive(Clone)]
pub struct Sink(Arc<Take>);

type Take = dyn Fn(TcpStream, ClientAddr, &[u8]) + Send + Sync;

impl Sink {
    /// A sink that calls `take`, which must not block.
    pub fn new(take: impl Fn(TcpStream, ClientAddr, &[u8]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    /// Hands a connection over, with what was read from it already.
    pub fn take(&self, stream: TcpStream, client: ClientAddr, read: &[u8]) {
        (self.0)(stream, client, read);
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sink")
    }
}

/// What all public listeners share; what is one listener's own stands in [`Settings`].
#[derive(Debug)]
pub struct Front {
    /// Which apps exist. A reload stores others.
    pub apps: ArcSwap<Apps>,
    /// Runs what is upgraded.
    pub sessions: Sessions,
    /// Runs WHIP and WHEP.
    pub resources: Resources,
    /// What `/healthz` says.
    pub readiness: Readiness,
    /// Counts.
    pub metrics: Metrics,
    /// What `/forebay/locate` answers.
    pub locate: Locate,
    /// A line per finished request.
    pub access: AccessLog,
    /// `[http]`
    pub http: ArcSwap<config::Http>,
    /// Connections to nodes for forwarded requests.
    pub nodes: HttpPool,
    /// `http.tunnels`
    pub tunnels: Arc<Semaphore>,
    /// The demo's page; absent in `serve`.
    pub pages: Option<Pages>,
}

impl Front {
    /// A seat for a new session of this client, or why there is none.
    ///
    /// A draining door gives seats until it begins to end its sessions: load balancers look away late, and an SDK whose first
    /// connection is refused does not try again (facts/clients.md §0.7).
    fn seat(&self, visitor: &Visitor) -> Result<SessionSeat, &'static str> {
        if self.readiness.now() == Ready::Starting || self.sessions.is_ending() {
            return Err("this door takes no new sessions now\n");
        }
        self.sessions.seat(visitor.client.0.ip()).map_err(|full| {
            tracing::debug!(%full, "refused");
            "no seat is free\n"
        })
    }
}

/// How `[http]` keeps connections to nodes.
pub fn http_limits(http: &config::Http) -> HttpLimits {
    HttpLimits {
        connect: http.connect,
        first_byte: http.first_byte,
        idle: http.idle,
        client_idle: http.client_idle,
        keep_idle: http.keep_idle,
        max_idle: http.max_idle,
        max_connections: http.max_connections,
    }
}
