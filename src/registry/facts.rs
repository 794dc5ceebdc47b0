//! What the registry counts, for telemetry to export. Plain atomics: the counting side never waits.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows, or a level that rises and falls.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Raises a level until the guard is dropped.
    pub(super) fn raise(&self) -> Raised<'_> {
        self.add();
        Raised(self)
    }
}

/// Gives back what [`Count::raise`] took.
#[derive(Debug)]
pub(super) struct Raised<'a>(&'a Count);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counters and levels of one registry.
#[derive(Debug, Default)]
pub struct Facts {
    /// Look-ups that found a live record.
    pub lookups_live: Count,
    /// Look-ups that found a record that is not live.
    pub lookups_not_live: Count,
    /// Look-ups that the store answered with "there is none".
    pub lookups_missing: Count,
    /// Look-ups that nobody could answer.
    pub lookups_unknown: Count,
    /// Look-ups answered from the cache.
    pub cache_hits: Count,
    /// Look-ups that had to ask the store.
    pub cache_misses: Count,
    /// Reads sent to the store.
    pub store_reads: Count,
    /// Reads, polls and change streams that the store failed.
    pub store_errors: Count,
    /// Changes that the store pushed.
    pub changes: Count,
    /// Level: plays waiting for a stream to become live.
    pub waiting: Count,
    /// Level: reads that the store has not answered yet.
    pub reads_in_flight: Count,
    /// Reads refused because too many were in flight.
    pub reads_shed: Count,
    /// Waits refused because too many streams were waited for.
    pub waits_shed: Count,
    /// Pins that the store has answered for.
    pub pins_claimed: Count,
    /// Those of them that another door had.
    pub pins_lost: Count,
    /// Placements that did not wait any longer for their pin.
    pub pins_late: Count,
}
