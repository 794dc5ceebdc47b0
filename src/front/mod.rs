//! Faces the clients: accepts, reads requests, answers what is the door's own, and hands WebSockets to `sessions`.
//!
//! It knows no nodes, streams or MongoDB.

mod http;
mod listener;
mod ws;

use std::{sync::Arc, time::Duration};

pub use listener::serve;

use crate::{config::Apps, health::Readiness, sessions::Sessions, telemetry::metrics::Metrics};

/// A static page by its path: content type and bytes.
pub type Pages = fn(&str) -> Option<(&'static str, &'static [u8])>;

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
}
