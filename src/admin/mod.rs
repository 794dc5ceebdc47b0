//! The admin API: what the door knows, told to operators and Prometheus over HTTP.
//!
//! A listener, a thread and a runtime of its own, so that a busy door still answers and a busy dashboard slows no
//! client. Loopback by default; beyond it, every request carries the configured bearer token. Errors are RFC 9457
//! problem details; unknown fields and parameters are a 400, so that a slip of the pen is not silently ignored.
//!
//! | call | file |
//! |---|---|
//! | `GET /v1/nodes`, `/v1/nodes/{id}` | [`nodes`] |
//! | `PUT`, `DELETE /v1/nodes/{id}/drain` | [`drains`] |
//! | `GET /v1/sessions`, `/v1/sessions/{id}`, `DELETE` | [`sessions`], [`story`] |
//! | `GET /v1/streams`, `/v1/streams/{app}/{streamId}` | [`streams`] |
//! | `POST /v1/explain` | [`explain`] |
//! | `GET /v1/capacity` | [`capacity`], [`history`] |
//! | `GET /v1/door`, `PUT`, `DELETE /v1/door/drain` | [`door`] |
//! | `PUT /v1/log` | [`log`] |
//! | `GET /v1/events` | [`events`] |
//! | `GET /metrics`, `/openapi.json` | [`metrics`], [`openapi`] |
//! | `GET /`, `/page/…` | [`page`], the dashboard |
//!
//! A change is written to the audit log (`forebay::audit`): who, from where, what, before and after ([`access`]).

mod access;
mod ask;
mod capacity;
mod door;
mod drains;
mod events;
mod explain;
mod history;
mod log;
mod metrics;
mod nodes;
mod openapi;
mod page;
mod problem;
mod server;
mod sessions;
mod story;
mod streams;
#[cfg(test)]
mod tests;
mod tls;
mod words;

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Instant,
};

use tokio::{
    runtime::Handle,
    sync::{Semaphore, broadcast},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    config::{self, Live},
    health::{Probes, Readiness},
    net::{self, pem::CertificateError},
    registry::Registry,
    sessions::Sessions,
    shutdown::Shutdown,
    telemetry::{logs::LogHandle, metrics::Metrics},
};

/// What the admin API tells of.
#[derive(Debug, Clone)]
pub struct AdminState {
    /// Nodes, records, placement and drains.
    pub registry: Registry,
    /// Who is connected.
    pub sessions: Sessions,
    /// What nodes answer to probes.
    pub probes: Probes,
    /// What the door says of itself.
    pub readiness: Readiness,
    /// The door's metrics.
    pub metrics: Metrics,
    /// The running logs; absent where the process has none of its own.
    pub logs: Option<LogHandle>,
    /// The configuration in force: which apps exist, and what the answers tell of it.
    pub config: Live,
}

/// Why the admin API could not start.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be bound, or no thread could be started for it.
    #[error("admin.bind: {0} cannot be served")]
    Bind(SocketAddr, #[source] std::io::Error),
    /// A certificate, or the authorities of callers, cannot be used.
    #[error("admin.tls_cert, admin.tls_key or admin.client_ca cannot be used")]
    Certificate(#[from] CertificateError),
}

/// Starts the admin API and returns its real address; it ends when `shutdown` says so. Call it inside the door's
/// runtime: what asks the store is run there.
///
/// # Errors
/// The address is taken, a certificate cannot be used, or no thread could be started.
pub fn start(config: &config::Admin, state: AdminState, shutdown: &Shutdown) -> Result<SocketAddr, AdminError> {
    let listener = net::bind(config.bind).map_err(|why| AdminError::Bind(config.bind, why))?;
    start_on(listener, config, state, shutdown.child())
}

/// The same on a listener that is there already; nothing more is accepted when `stop` is cancelled.
///
/// # Errors
/// A certificate cannot be used, or no thread could be started.
pub fn start_on(
    listener: TcpListener,
    config: &config::Admin,
    state: AdminState,
    stop: CancellationToken,
) -> Result<SocketAddr, AdminError> {
    let inner = Inner {
        emptier: door::Emptier::new(&state),
        state,
        door: Handle::current(),
        started: clock::now(),
        access: Arc::new(access::Access::new(config)),
        history: Arc::default(),
        told: broadcast::Sender::new(events::WAITING),
        listeners: Arc::new(Semaphore::new(events::LISTENERS)),
    };
    server::start(config, listener, inner, stop)
}

/// What every handler gets.
#[derive(Debug, Clone)]
struct Inner {
    state: AdminState,
    /// The door's runtime, where the registry lives.
    door: Handle,
    started: Instant,
    access: Arc<access::Access>,
    history: Arc<history::Recorder>,
    told: broadcast::Sender<events::Told>,
    listeners: Arc<Semaphore>,
    emptier: Arc<door::Emptier>,
}

impl Inner {
    /// Tells those who listen to events, if anybody does.
    fn tell(&self, told: events::Told) {
        let _ = self.told.send(told);
    }
}
