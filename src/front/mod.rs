//! Faces the clients: accepts, reads requests, answers what is the door's own, and hands WebSockets to `sessions`.
//!
//! It knows no nodes, streams or MongoDB.

mod body;
mod http;
mod listener;
mod locate;
mod sniff;
mod visitor;
mod whip;
mod ws;

use std::{fmt, sync::Arc, time::Duration};

pub use listener::serve;

use tokio::net::TcpStream;

use crate::{
    config::Apps, domain::ids::ClientAddr, health::Readiness, sessions::Sessions, telemetry::metrics::Metrics,
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

    fn take(&self, stream: TcpStream, client: ClientAddr, read: &[u8]) {
        (self.0)(stream, client, read);
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sink")
    }
}

/// What every public listener needs.
#[derive(Debug, Clone)]
pub struct Front {
    /// Which apps exist.
    pub apps: Arc<Apps>,
    /// Runs what is upgraded.
    pub sessions: Sessions,
    /// What `/healthz` says.
    pub readiness: Readiness,
    /// Counts.
    pub metrics: Metrics,
    /// `limits.header_timeout`
    pub header_timeout: Duration,
    /// The demo's page; absent in `serve`.
    pub pages: Option<Pages>,
    /// Where connections go that turn out to be ICE-TCP; absent: this listener takes none.
    pub ice_tcp: Option<Sink>,
}
