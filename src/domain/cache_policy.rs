//! When a cached record may still be used: pure rules, so that the registry only keeps entries and asks.
//!
//! ```text
//!            store answers                                     store is away
//! record     fresh for 3 s (30 s under a change stream),       the verdict of the last read holds for 10 min
//!            and a live one only until updateTime + window
//! miss       500 ms                                            nobody knows
//! hint       outranks every record older than itself; a start that no record confirms holds for a while
//! ```
//!
//! A hint is what the door saw pass through itself: `publish_started`, or the end of a publish. Records are written
//! by AMS up to half a second later, and by nodes whose clock may differ, so a hint and a record are compared by the
//! writer's clock (`now_ms`, already corrected by the measured skew), not by when they were read.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    record::{LIVE_WINDOW_MS, Record, Status},
    routing::Lookup,
};

/// The windows of the record cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachePolicy {
    /// How long a read record is used without asking again.
    pub fresh: Duration,
    /// The same while a change stream refreshes cached keys.
    pub fresh_watched: Duration,
    /// How long "there is none" is believed.
    pub miss: Duration,
    /// AMS's window, ms (`mongo.live_window`): a record not refreshed for so long counts as ended.
    pub live_window_ms: i64,
    /// How long the last verdict holds while the store does not answer.
    pub outage_hold: Duration,
    /// How long a seen start stands without a record: AMS writes the record asynchronously after `publish_started`.
    pub start_hold: Duration,
}

impl Default for CachePolicy {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(3),
            fresh_watched: Duration::from_secs(30),
            miss: Duration::from_millis(500),
            live_window_ms: LIVE_WINDOW_MS,
            outage_hold: Duration::from_secs(600),
            start_hold: Duration::from_secs(3),
        }
    }
}

/// What the cache keeps of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    read: Option<Read>,
    hint: Option<Box<Hint>>,
}

/// The last answer of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Read {
    /// `None`: the store answered that there is none.
    record: Option<Arc<Record>>,
    /// AMS's verdict at the moment of the read.
    live: bool,
    at: Instant,
}

/// What the door saw itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hint {
    seen: Seen,
    at: Instant,
    /// The same moment on the writers' clock.
    at_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// `publish_started` passed; the record that AMS is about to write.
    Started(Arc<Record>),
    Ended,
}

impl Entry {
    /// The record of the last read, if that read found one.
    pub fn record(&self) -> Option<&Arc<Record>> {
        self.read.as_ref()?.record.as_ref()
    }

    /// When the store last answered for this stream.
    pub fn read_at(&self) -> Option<Instant> {
        self.read.as_ref().map(|read| read.at)
    }
}

/// Whether a cached entry may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freshness {
    /// Yes, as this answer (never [`Lookup::Unknown`]).
    Use(Lookup),
    /// No: ask the store. If it does not answer either, the stream is [`Lookup::Unknown`].
    Reread,
}

impl CachePolicy {
    /// The entry after the store answered (`None`: there is no record); a hint that still outranks it is kept.
    /// `now_ms` is the wall clock in ms, corrected by the measured skew.
    pub fn read(&self, before: Option<&Entry>, record: Option<Arc<Record>>, now: Instant, now_ms: i64) -> Entry {
        let live = record.as_ref().is_some_and(|record| record.is_live(now_ms, self.live_window_ms));
        let hint = before.and_then(|entry| entry.hint.clone()).filter(|hint| hint.outranks(record.as_deref()));
        Entry { read: Some(Read { record, live, at: now }), hint }
    }

    /// The entry after `publish_started` of this stream passed through the door from the node that AMS calls `origin`.
    pub fn saw_start(&self, before: Option<&Entry>, origin: &str, now: Instant, now_ms: i64) -> Entry {
        let read = before.and_then(|entry| entry.read.clone());
        let main_track =
            read.as_ref().and_then(|read| read.record.as_ref()).and_then(|record| record.main_track.clone());
        let record = Record {
            status: Status::Broadcasting,
            origin: Some(origin.into()),
            updated_ms: now_ms,
            started_ms: now_ms,
            is_virtual: false,
            main_track,
        };
        let seen = Seen::Started(Arc::new(record));
        Entry { read, hint: Some(Box::new(Hint { seen, at: now, at_ms: now_ms })) }
    }

    /// The entry after the door itself saw the stream's publish end.
    pub fn saw_end(&self, before: Option<&Entry>, now: Instant, now_ms: i64) -> Entry {
        let read = before.and_then(|entry| entry.read.clone());
        Entry { read, hint: Some(Box::new(Hint { seen: Seen::Ended, at: now, at_ms: now_ms })) }
    }

    /// Whether `entry` may be used at `now`. `store_up`: the store answered last time it was asked; `watched`: a change
    /// stream refreshes cached keys; `now_ms`: the wall clock in ms, corrected by the measured skew.
    pub fn verdict(&self, entry: &Entry, now: Instant, now_ms: i64, store_up: bool, watched: bool) -> Freshness {
        if let Some(hint) = &entry.hint
            && let Some(lookup) = self.by_hint(hint, entry, now, store_up)
        {
            return match (&hint.seen, &entry.read) {
                // A seen end says nothing of a publish that began since: the store is asked as often as without it.
                (Seen::Ended, Some(read)) if store_up && self.is_old(read, now, now_ms, watched) => Freshness::Reread,
                _ => Freshness::Use(lookup),
            };
        }
        let Some(read) = &entry.read else { return Freshness::Reread };
        let usable = if store_up {
            !self.is_old(read, now, now_ms, watched)
        } else {
            // Only a store that answers says that there is no stream (design.md §5, "Play").
            read.record.is_some() && now.saturating_duration_since(read.at) < self.outage_hold
        };
        if usable { Freshness::Use(read.lookup(read.live)) } else { Freshness::Reread }
    }

    /// What the hint says, while it stands.
    fn by_hint(&self, hint: &Hint, entry: &Entry, now: Instant, store_up: bool) -> Option<Lookup> {
        let age = now.saturating_duration_since(hint.at);
        let hold = if store_up { self.start_hold } else { self.outage_hold };
        match &hint.seen {
            Seen::Started(record) if age < hold => Some(Lookup::Found { record: Arc::clone(record), live: true }),
            Seen::Started(_) => None,
            Seen::Ended => match &entry.read {
                Some(read) => Some(read.lookup(false)),
                None if age < self.miss => Some(Lookup::Missing),
                None => None,
            },
        }
    }

    /// Whether a store that answers should be asked again.
    fn is_old(&self, read: &Read, now: Instant, now_ms: i64, watched: bool) -> bool {
        let age = now.saturating_duration_since(read.at);
        match &read.record {
            None => age >= self.miss,
            Some(_) if age >= if watched { self.fresh_watched } else { self.fresh } => true,
            Some(record) => read.live && !record.is_live(now_ms, self.live_window_ms),
        }
    }
}

impl Read {
    fn lookup(&self, live: bool) -> Lookup {
        match &self.record {
            Some(record) => Lookup::Found { record: Arc::clone(record), live },
            None => Lookup::Missing,
        }
    }
}

impl Hint {
    /// Whether this is newer than what a read has brought. A missing record confirms an end, and says nothing of a start.
    fn outranks(&self, record: Option<&Record>) -> bool {
        match record {
            Some(record) => record.updated_ms.max(record.started_ms) < self.at_ms,
            None => matches!(self.seen, Seen::Started(_)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0_MS: i64 = 1_767_225_600_000;

    /// Any moment will do: the rules only see differences.
    #[expect(clippy::disallowed_methods, reason = "std has no other way to make an Instant")]
    fn any_moment() -> Instant {
        Instant::now()
    }

    fn after(t0: Instant, ms: u64) -> (Instant, i64) {
        (t0 + Duration::from_millis(ms), T0_MS + i64::try_from(ms).unwrap())
    }

    fn record(status: Status, updated_ms: i64) -> Arc<Record> {
        Arc::new(Record {
            status,
            origin: Some("10.0.1.11".into()),
            updated_ms,
            started_ms: updated_ms,
            is_virtual: false,
            main_track: None,
        })
    }

    #[derive(Debug, PartialEq)]
    enum Says {
        Live,
        Ended,
        Missing,
        Ask,
    }
    use Says::{Ask, Ended, Live, Missing};

    fn says(entry: &Entry, t0: Instant, ms: u64, store_up: bool, watched: bool) -> Says {
        let (now, now_ms) = after(t0, ms);
        match CachePolicy::default().verdict(entry, now, now_ms, store_up, watched) {
            Freshness::Use(Lookup::Found { live: true, .. }) => Live,
            Freshness::Use(Lookup::Found { live: false, .. }) => Ended,
            Freshness::Use(Lookup::Missing) => Missing,
            Freshness::Use(Lookup::Unknown) => unreachable!("a cached entry is never unknown"),
            Freshness::Reread => Ask,
        }
    }

    #[test]
    fn a_read_is_used_exactly_as_long_as_its_window() {
        let (policy, t0) = (CachePolicy::default(), any_moment());
        let live = policy.read(None, Some(record(Status::Broadcasting, T0_MS)), t0, T0_MS);
        let stale_soon = policy.read(None, Some(record(Status::Broadcasting, T0_MS - 19_000)), t0, T0_MS);
        let ended = policy.read(None, Some(record(Status::Finished, T0_MS)), t0, T0_MS);
        let expired = policy.read(None, Some(record(Status::Broadcasting, T0_MS - 20_000)), t0, T0_MS);
        let missing = policy.read(None, None, t0, T0_MS);
        // entry, ms later, store answers, change stream runs
        let table = [
            (&live, 0, true, false, Live),
            (&live, 2_999, true, false, Live),
            (&live, 3_000, true, false, Ask),
            (&live, 3_000, true, true, Live),
            (&live, 19_999, true, true, Live),
            (&live, 20_000, true, true, Ask),
            (&live, 20_000, false, true, Live),
            (&live, 599_999, false, false, Live),
            (&live, 600_000, false, false, Ask),
            (&stale_soon, 999, true, false, Live),
            (&stale_soon, 1_000, true, false, Ask),
            (&stale_soon, 1_000, false, false, Live),
            (&ended, 2_999, true, false, Ended),
            (&ended, 29_999, true, true, Ended),
            (&ended, 30_000, true, true, Ask),
            (&ended, 60_000, false, false, Ended),
            (&expired, 2_999, true, false, Ended),
            (&expired, 3_000, true, false, Ask),
            (&missing, 499, true, false, Missing),
            (&missing, 500, true, false, Ask),
            (&missing, 500, true, true, Ask),
            (&missing, 0, false, false, Ask),
        ];
        for (row, (entry, ms, store_up, watched, expected)) in table.into_iter().enumerate() {
            assert_eq!(says(entry, t0, ms, store_up, watched), expected, "row {row}");
        }
    }

    #[test]
    fn a_room_without_heartbeat_stays_live_as_long_as_it_is_fresh() {
        let (policy, t0) = (CachePolicy::default(), any_moment());
        let room = Record { is_virtual: true, updated_ms: 0, ..(*record(Status::Broadcasting, 0)).clone() };
        let entry = policy.read(None, Some(Arc::new(room)), t0, T0_MS);
        assert_eq!(says(&entry, t0, 2_999, true, false), Live);
        assert_eq!(says(&entry, t0, 29_999, true, true), Live);
        assert_eq!(says(&entry, t0, 3_000, true, false), Ask);
    }

    #[test]
    fn a_seen_start_outranks_the_record_that_ams_has_not_written_yet() {
        let (policy, t0) = (CachePolicy::default(), any_moment());
        let old = policy.read(None, Some(record(Status::Finished, T0_MS - 60_000)), t0, T0_MS);
        let (at, at_ms) = after(t0, 100);
        let started = policy.saw_start(Some(&old), "10.0.1.12", at, at_ms);
        assert_eq!(says(&started, t0, 100, true, false), Live);

        let (read_at, read_ms) = after(t0, 200);
        let read_too_early = policy.read(Some(&started), old.record().cloned(), read_at, read_ms);
        assert_eq!(says(&read_too_early, t0, 200, true, false), Live);
        let missing_too_early = policy.read(Some(&started), None, read_at, read_ms);
        assert_eq!(says(&missing_too_early, t0, 200, true, false), Live);
        assert_eq!(says(&missing_too_early, t0, 3_200, true, false), Ask, "a start that nothing confirms ends");
        assert_eq!(says(&missing_too_early, t0, 60_000, false, false), Live, "nothing can confirm it now");
    }

    #[test]
    fn a_record_newer_than_the_seen_start_decides() {
        let (policy, t0) = (CachePolicy::default(), any_moment());
        let started = policy.saw_start(None, "10.0.1.12", t0, T0_MS);
        let (at, at_ms) = after(t0, 600);
        let written = policy.read(Some(&started), Some(record(Status::Broadcasting, T0_MS + 400)), at, at_ms);
        let Freshness::Use(Lookup::Found { record: used, live: true }) =
            policy.verdict(&written, at, at_ms, true, false)
        else {
            panic!("a fresh live record is used");
        };
        assert_eq!(used.origin.as_deref(), Some("10.0.1.11"));
        let ended = policy.read(Some(&started), Some(record(Status::Finished, T0_MS + 500)), at, at_ms);
        assert_eq!(says(&ended, t0, 600, true, false), Ended);
    }

    #[test]
    fn a_seen_end_outranks_the_live_record_of_before_also_while_the_store_is_away() {
        let (policy, t0) = (CachePolicy::default(), any_moment());
        let live = policy.read(None, Some(record(Status::Broadcasting, T0_MS - 1_000)), t0, T0_MS);
        let ended = policy.saw_end(Some(&live), t0, T0_MS);
        assert_eq!(says(&ended, t0, 0, true, false), Ended);
        assert_eq!(says(&ended, t0, 599_000, false, false), Ended);
        assert_eq!(says(&ended, t0, 3_000, true, false), Ask);

        let (at, at_ms) = after(t0, 3_000);
        let still_old = policy.read(Some(&ended), live.record().cloned(), at, at_ms);
        assert_eq!(says(&still_old, t0, 3_100, true, false), Ended);
        let republished = policy.read(Some(&ended), Some(record(Status::Broadcasting, T0_MS + 2_000)), at, at_ms);
        assert_eq!(says(&republished, t0, 3_100, true, false), Live);
        let deleted = policy.read(Some(&ended), None, at, at_ms);
        assert_eq!(says(&deleted, t0, 3_100, true, false), Missing);
    }

    #[test]
    fn a_seen_end_of_a_stream_never_read_is_a_short_miss() {
        let (policy, t0) = (CachePolicy::default(), any_moment());
        let ended = policy.saw_end(None, t0, T0_MS);
        assert_eq!(says(&ended, t0, 499, true, false), Missing);
        assert_eq!(says(&ended, t0, 500, true, false), Ask);
    }

    #[test]
    fn absurd_times_decide_without_a_panic() {
        let (policy, t0) = (CachePolicy::default(), any_moment());
        for updated in [i64::MIN, -1, 0, i64::MAX] {
            for now_ms in [i64::MIN, 0, i64::MAX] {
                let entry = policy.read(None, Some(record(Status::Broadcasting, updated)), t0, now_ms);
                for store_up in [true, false] {
                    let _ = policy.verdict(&entry, t0, now_ms, store_up, false);
                    let _ = policy.verdict(&policy.saw_start(Some(&entry), "x", t0, now_ms), t0, 0, store_up, true);
                    let _ = policy.verdict(&policy.saw_end(Some(&entry), t0, now_ms), t0, 0, store_up, true);
                }
            }
        }
    }
}
