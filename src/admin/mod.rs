//! The admin API: what the door knows, told to operators and Prometheus over HTTP.
//!
//! A listener, a thread and a runtime of its own, so that a busy door still answers and a busy dashboard slows no
//! client. Loopback by default; beyond it, every request carries the configured bearer token. Errors are RFC 9457
//! problem details; unknown fields and parameters are a 400, so that a slip of the pen is not silently ignored.
//!
//! | call | file |
//! |---|---|
//! | `GET /metrics` | [`metrics`] |
//! | `GET /v1/nodes`, `/v1/nodes/{id}` | [`nodes`] |
//! | `POST /v1/explain` | [`explain`] |

mod explain;
mod metrics;
mod nodes;
mod problem;
mod server;

use std::net::{SocketAddr, TcpListener};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, Live},
    net,
    registry::Registry,
    shutdown::Shutdown,
    telemetry::metrics::Metrics,
};

/// What the admin API tells of.
#[derive(Debug, Clone)]
pub struct AdminState {
    /// Nodes, records and placement.
    pub registry: Registry,
    /// The door's metrics.
    pub metrics: Metrics,
    /// The configuration in force: which apps exist, and what `explain` tells of waiting.
    pub config: Live,
}

/// Why the admin API could not start.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be bound, or no thread could be started for it.
    #[error("admin.bind: {0} cannot be served")]
    Bind(SocketAddr, #[source] std::io::Error),
}

/// Starts the admin API and returns its real address; it ends when `shutdown` says so. Call it inside the door's
/// runtime: what asks the store is run there.
///
/// # Errors
/// The address is taken, or no thread could be started.
pub fn start(config: &config::Admin, state: AdminState, shutdown: &Shutdown) -> Result<SocketAddr, AdminError> {
    let listener = net::bind(config.bind).map_err(|why| AdminError::Bind(config.bind, why))?;
    start_on(listener, config, state, shutdown.child())
}

/// The same on a listener that is there already; nothing more is accepted when `stop` is cancelled.
///
/// # Errors
/// No thread could be started.
pub fn start_on(
    listener: TcpListener,
    config: &config::Admin,
    state: AdminState,
    stop: CancellationToken,
) -> Result<SocketAddr, AdminError> {
    server::start(config, listener, Inner { state, door: Handle::current() }, stop)
}

/// What every handler gets.
#[derive(Debug, Clone)]
struct Inner {
    state: AdminState,
    /// The door's runtime, where the registry lives.
    door: Handle,
}
