//! What is counted of legs that leave their nodes, and of doors that agree where streams go.

use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;

use super::{Book, Counters, Metrics, StoreFacts, Word, catch_up, word};
use crate::domain::ids::Kind;

/// Seconds without media; the SDK's own renegotiation takes most of them (facts/clients.md §1.4).
const GAP_SECONDS: [f64; 12] = [0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 10.0, 15.0, 30.0];

#[derive(Debug)]
pub(super) struct DrainMetrics {
    migrations: Counters<3>,
    publish_gap: Histogram,
    play_gap: Histogram,
    pins: Counters<1>,
}

impl DrainMetrics {
    pub(super) fn new(book: &mut Book) -> Self {
        let gap = "from the last media on the old node to the first on the new one";
        Self {
            migrations: book.counters(
                "migrations",
                &["kind", "cause", "result"],
                "live legs that left their node, with why, and what became of them",
            ),
            publish_gap: book.seconds("migration_publish_gap", &GAP_SECONDS, gap),
            play_gap: book.seconds("migration_play_gap", &GAP_SECONDS, gap),
            pins: book.counters("pins", &["result"], "placements by whether doors agreed on them first"),
        }
    }

    pub(super) fn collect(&self, store: &StoreFacts) {
        let rows = [("claimed", store.pins_claimed), ("followed", store.pins_lost), ("late", store.pins_late)];
        for (result, total) in rows {
            catch_up(&self.pins.get_or_create_owned(&[word("result", result)]), total);
        }
    }
}

impl Metrics {
    /// A live leg's move ended: `moved`, `failed` or `stayed`, with why it left.
    pub fn migrated(&self, kind: Kind, cause: Word, result: Word) {
        let labels = [word("kind", kind.as_str()), word("cause", cause), word("result", result)];
        self.0.drains.migrations.get_or_create(&labels).inc();
    }

    /// A moved leg has media again, after so long without.
    pub fn migration_gap(&self, kind: Kind, gap: Duration) {
        let gaps = match kind {
            Kind::Publish => &self.0.drains.publish_gap,
            Kind::Play => &self.0.drains.play_gap,
        };
        gaps.observe(gap.as_secs_f64());
    }
}
