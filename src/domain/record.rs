//! A stream's record as AMS keeps it, cut down to what routing needs, and AMS's rule of liveness.

use std::sync::Arc;

use super::ids::StreamId;

/// AMS's window: a record not refreshed for this long counts as ended (`Broadcast.getStatus`, 2 × 10 s).
pub const LIVE_WINDOW_MS: i64 = 20_000;

/// The raw `status` field. MongoDB keeps the last written value also when the node died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Made by REST, not yet published.
    Created,
    /// Media flows, if the record is fresh.
    Broadcasting,
    /// About to have media.
    Preparing,
    /// Ended.
    Finished,
    /// `error`, `failed`, `terminated_unexpectedly`, or a word of a later release: never live.
    Other,
}

impl Status {
    /// Reads AMS's word (`IAntMediaStreamHandler`).
    pub fn from_ams(word: &str) -> Self {
        match word {
            "created" => Self::Created,
            "broadcasting" => Self::Broadcasting,
            "preparing" => Self::Preparing,
            "finished" => Self::Finished,
            _ => Self::Other,
        }
    }
}

/// One `broadcast` document, projected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The raw status; see [`Record::is_live`].
    pub status: Status,
    /// `originAdress` (sic): a bare host or address. Meaningless unless the record is live (facts/ams.md, trap 2).
    pub origin: Option<Arc<str>>,
    /// `updateTime`, the writer's clock, ms since the epoch.
    pub updated_ms: i64,
    /// `startTime`, the writer's clock, ms since the epoch: the epoch of this publish.
    pub started_ms: i64,
    /// A room or main track without media of its own: live by status alone.
    pub is_virtual: bool,
    /// The room that this stream belongs to.
    pub main_track: Option<StreamId>,
}

impl Record {
    /// AMS's rule (`Broadcast.java`): streaming status, and virtual or refreshed within `window_ms`.
    /// `now_ms` is the reader's clock, already corrected by the measured skew.
    pub fn is_live(&self, now_ms: i64, window_ms: i64) -> bool {
        matches!(self.status, Status::Broadcasting | Status::Preparing)
            && (self.is_virtual || now_ms.saturating_sub(self.updated_ms) < window_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(status: Status, updated_ms: i64, is_virtual: bool) -> Record {
        Record { status, origin: None, updated_ms, started_ms: 0, is_virtual, main_track: None }
    }

    #[test]
    fn a_record_is_live_only_while_its_status_streams_and_it_is_fresh_or_virtual() {
        let now = 1_000_000;
        assert!(record(Status::Broadcasting, now - 19_999, false).is_live(now, LIVE_WINDOW_MS));
        assert!(!record(Status::Broadcasting, now - 20_000, false).is_live(now, LIVE_WINDOW_MS));
        assert!(record(Status::Preparing, now, false).is_live(now, LIVE_WINDOW_MS));
        assert!(!record(Status::Finished, now, false).is_live(now, LIVE_WINDOW_MS), "updateTime moves on finish too");
        assert!(record(Status::Broadcasting, 0, true).is_live(now, LIVE_WINDOW_MS), "rooms have no heartbeat");
    }
}
