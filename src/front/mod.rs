//! Faces the clients: accepts, reads requests, answers what is the door's own, and hands WebSockets to `sessions`.
//!
//! It knows no nodes, streams or MongoDB.

mod body;
mod connection;
mod http;
mod listener;
mod locate;
mod pace;
mod proxy_protocol;
mod seats;
mod sniff;
mod tls;
mod transport;
mod visitor;
mod ws;

use std::{fmt, sync::Arc};

pub use listener::{Listening, Settings, serve};
pub use locate::{Locate, Peers};
pub use tls::{CertificateError, Tls, TlsError};

use arc_swap::ArcSwap;
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
    /// What `/healthz` says.
    pub readiness: Readiness,
    /// Counts.
    pub metrics: Metrics,
    /// What `/forebay/locate` answers.
    pub locate: Locate,
    /// The demo's page; absent in `serve`.
    pub pages: Option<Pages>,
}
