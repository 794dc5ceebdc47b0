//! `GET /metrics`: OpenMetrics text.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use super::{Inner, capacity};
use crate::{
    registry::{Registry, StoreStatus},
    telemetry::metrics::{CONTENT_TYPE, StoreFacts},
};

/// All metrics as OpenMetrics text, for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "cluster",
    responses((status = 200, content_type = "application/openmetrics-text", body = String))
)]
pub(super) async fn scrape(State(inner): State<Inner>) -> Response {
    let state = &inner.state;
    capacity::measure(&inner);
    if let Some(logs) = &state.logs {
        state.metrics.log_lines_lost(logs.lost());
    }
    let text = state.metrics.scrape(&state.registry.snapshot(), store_facts(&state.registry));
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

fn store_facts(registry: &Registry) -> StoreFacts {
    let (state, facts) = (registry.store_state(), registry.facts());
    StoreFacts {
        up: !matches!(state.status, StoreStatus::Away(_)),
        cached_records: state.cached_records,
        #[expect(clippy::cast_precision_loss, reason = "a skew beyond 2^53 ms is no skew")]
        clock_skew_seconds: (state.status != StoreStatus::None).then_some(state.clock_skew_ms as f64 / 1000.0),
        waiters: facts.waiting.get(),
        reads: facts.store_reads.get(),
        errors: facts.store_errors.get(),
        changes: facts.changes.get(),
        cache_hits: facts.cache_hits.get(),
        cache_misses: facts.cache_misses.get(),
        live: facts.lookups_live.get(),
        not_live: facts.lookups_not_live.get(),
        missing: facts.lookups_missing.get(),
        unknown: facts.lookups_unknown.get(),
        reads_shed: facts.reads_shed.get(),
        waits_shed: facts.waits_shed.get(),
        pins_claimed: facts.pins_claimed.get(),
        pins_lost: facts.pins_lost.get(),
        pins_late: facts.pins_late.get(),
    }
}
