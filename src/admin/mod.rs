//! Temporary.
use std::{net::SocketAddr, sync::Arc};

use crate::{config, registry::Registry, shutdown::Shutdown, telemetry::metrics::Metrics};

/// State.
pub struct AdminState {
    /// r
    pub registry: Registry,
    /// m
    pub metrics: Metrics,
    /// a
    pub apps: Arc<config::Apps>,
}

/// Start.
pub fn start(config: &config::Admin, state: AdminState, _shutdown: &Shutdown) -> Result<SocketAddr, std::io::Error> {
    let _ = (state.registry, state.metrics, state.apps);
    Ok(config.bind)
}
