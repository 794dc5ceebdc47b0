//! The span that every event of a session stands in. Made in one place, so that field names are the same everywhere.

use tracing::{Span, field};

use crate::domain::ids::{AppName, ClientAddr, NodeId, SessionId, StreamId};

/// A session's span: `session` and `app` from the start; `stream` and `node` of the latest leg as they become known;
/// `peer`, the client's address, only where debug is shown.
pub fn session(id: SessionId, app: &AppName, client: ClientAddr) -> Span {
    let span = tracing::info_span!(
        "session",
        session = %id,
        app = %app,
        stream = field::Empty,
        node = field::Empty,
        peer = field::Empty,
    );
    if tracing::enabled!(tracing::Level::DEBUG) {
        span.record("peer", field::display(client.0));
    }
    span
}

/// A child span for what concerns one leg.
pub fn leg(session: &Span, stream: &StreamId, kind: &'static str) -> Span {
    tracing::info_span!(parent: session, "leg", stream = %stream, kind, node = field::Empty)
}

/// Notes the node of a leg or session, once it is known.
pub fn record_node(span: &Span, node: &NodeId) {
    span.record("node", field::display(node));
}
