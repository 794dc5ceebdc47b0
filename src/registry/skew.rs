//! How far the writers' clocks are from ours. AMS compares a record's `updateTime`, written by one machine's clock, with
//! another machine's, so a node whose clock is off has streams that end early or never (facts/ams.md §1.4).
//!
//! A heartbeat that a poll finds changed was written between the poll before and this one. That bounds its writer's
//! skew from both sides; heartbeats narrow the bounds, and the smallest skew inside them is the one that is used.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::cache::WritersClock;
use crate::clock;

/// A skew above this is worth a person's attention: AMS's own windows are ten times as long.
pub(super) const LARGE_SKEW_MS: i64 = 2_000;

/// A store that was away for less has kept nobody from writing: AMS refreshes a record several times in its window.
const BRIEF: Duration = Duration::from_secs(1);

/// Bounds of one clock's distance from ours, in ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    low: i64,
    high: i64,
}

impl Bounds {
    /// What one heartbeat says: `written_ms` (its writer's clock) lies between two moments of ours.
    pub(super) fn of(written_ms: i64, after_ms: i64, before_ms: i64) -> Self {
        let low = written_ms.saturating_sub(before_ms);
        Self { low, high: written_ms.saturating_sub(after_ms).max(low) }
    }

    /// Both; where they contradict each other a clock was set, and the newer bounds count alone.
    pub(super) fn and(self, newer: Self) -> Self {
        let both = Self { low: self.low.max(newer.low), high: self.high.min(newer.high) };
        if both.low <= both.high { both } else { newer }
    }

    /// The smallest skew that explains what was seen.
    pub(super) fn skew_ms(self) -> i64 {
        0_i64.clamp(self.low, self.high)
    }
}

/// The skews as measured last, and when the store was away.
#[derive(Debug)]
pub(super) struct Skews {
    now: ArcSwap<Measured>,
    /// How long a record may go without a refresh, ms.
    live_window_ms: i64,
    outage: Mutex<Option<Outage>>,
}

/// A time in which nobody could refresh a record.
#[derive(Debug, Clone, Copy)]
struct Outage {
    from: Instant,
    to: Instant,
}

/// One set of measurements.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Measured {
    /// Of the store's own clock; stands in for writers that were not measured.
    pub(super) store_ms: i64,
    /// By what records call the writer.
    pub(super) origins: HashMap<Box<str>, i64>,
}

impl Skews {
    pub(super) fn new(live_window_ms: i64) -> Self {
        Self { now: ArcSwap::default(), live_window_ms, outage: Mutex::default() }
    }

    /// The store was away. Its writers have one window from then on to refresh what they could not.
    pub(super) fn was_away(&self, from: Instant, to: Instant) {
        if to.saturating_duration_since(from) < BRIEF {
            return;
        }
        let mut outage = self.lock();
        // Back for less than a window: not everybody has come to write.
        let before = outage.filter(|before| self.is_within(before, from));
        *outage = Some(Outage { from: before.map_or(from, |before| before.from), to });
    }

    fn is_within(&self, outage: &Outage, now: Instant) -> bool {
        i64::try_from(now.saturating_duration_since(outage.to).as_millis()).is_ok_and(|ms| ms < self.live_window_ms)
    }

    /// By how much records are judged earlier than now, ms.
    fn grace_ms(&self, now: Instant) -> i64 {
        let lasted = |outage: Outage| outage.to.saturating_duration_since(outage.from).as_millis();
        let outage = *self.lock();
        outage
            .filter(|outage| self.is_within(outage, now))
            .and_then(|outage| i64::try_from(lasted(outage)).ok())
            .unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Outage>> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn publish(&self, measured: Measured) {
        self.now.store(std::sync::Arc::new(measured));
    }

    /// The one that is farthest from zero.
    pub(super) fn largest_ms(&self) -> i64 {
        let now = self.now.load();
        let all = now.origins.values().copied().chain([now.store_ms]);
        all.max_by_key(|skew| skew.saturating_abs()).unwrap_or(0)
    }
}

impl WritersClock for Skews {
    fn now_ms(&self, origin: Option<&str>) -> i64 {
        let now = self.now.load();
        let skew = origin.and_then(|origin| now.origins.get(origin)).copied().unwrap_or(now.store_ms);
        clock::wall_ms().saturating_add(skew)
    }

    fn judged_ms(&self, origin: Option<&str>) -> i64 {
        self.now_ms(origin).saturating_sub(self.grace_ms(clock::now()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn after_an_outage_records_are_judged_as_of_its_beginning_for_one_window() {
        let (skews, t0, s) = (Skews::new(20_000), Instant::now(), Duration::from_secs);
        let grace = |at| skews.grace_ms(t0 + at);
        assert_eq!(grace(s(0)), 0);
        skews.was_away(t0 + s(10), t0 + s(130));
        assert_eq!((grace(s(130)), grace(s(149)), grace(s(150))), (120_000, 120_000, 0));
        // Away again before everybody has written: all of it counts.
        skews.was_away(t0 + s(135), t0 + s(140));
        assert_eq!((grace(s(141)), grace(s(160))), (130_000, 0));
        skews.was_away(t0 + s(200), t0 + s(205));
        assert_eq!(grace(s(206)), 5_000);
    }

    #[test]
    fn an_exact_clock_is_not_corrected_whenever_its_heartbeats_are_found() {
        let bounds = Bounds::of(10_000, 9_000, 11_000).and(Bounds::of(15_000, 14_999, 17_000));
        assert_eq!(bounds.skew_ms(), 0);
    }

    #[test]
    fn heartbeats_narrow_a_skew_down() {
        let first = Bounds::of(20_000, 13_000, 15_000);
        assert_eq!(first.skew_ms(), 5_000);
        let ahead = first.and(Bounds::of(25_000, 19_000, 19_200));
        assert_eq!(ahead.skew_ms(), 5_800);
        let behind = Bounds::of(1_000, 7_000, 9_000);
        assert_eq!(behind.skew_ms(), -6_000);
    }

    #[test]
    fn a_clock_that_was_set_is_measured_anew() {
        let off = Bounds::of(20_000, 13_000, 15_000);
        assert_eq!(off.and(Bounds::of(30_000, 29_000, 31_000)).skew_ms(), 0);
    }

    #[test]
    fn absurd_clocks_do_not_panic() {
        for written in [i64::MIN, 0, i64::MAX] {
            let _ = Bounds::of(written, i64::MIN, i64::MAX).and(Bounds::of(written, 5, 1)).skew_ms();
        }
    }
}
