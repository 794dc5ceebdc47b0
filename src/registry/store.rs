//! What the door needs of a store, whichever one is behind it.

use std::{future::Future, sync::Arc};

use crate::domain::{
    ids::{AppName, StreamId, StreamKey},
    record::{Record, Status},
};

/// Streams' records, read only.
pub trait StreamStore: Send + Sync {
    /// Reads one record, cut down to what routing needs. Answers within the read limit.
    fn find(&self, key: &StreamKey) -> impl Future<Output = Result<Option<Row>, StoreError>> + Send;

    /// Opens the feed of an app's changes, after `resume` if there is one.
    fn watch(&self, app: &AppName, resume: Option<Bookmark>) -> impl Future<Output = Result<Feed, StoreError>> + Send;
}

/// The cluster's nodes as AMS lists them, read only.
pub trait NodeStore: Send + Sync {
    /// All `clusternode` rows, at most [`MAX_NODE_ROWS`].
    fn nodes(&self) -> impl Future<Output = Result<Vec<NodeRow>, StoreError>> + Send;

    /// The store's own wall clock, ms since the epoch. The cheapest question there is: also asks whether it answers.
    fn wall_ms(&self) -> impl Future<Output = Result<i64, StoreError>> + Send;
}

/// Most `clusternode` rows that are read; what is beyond is not seen.
pub const MAX_NODE_ROWS: usize = 4096;

/// Why a store did not say what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It did not answer in time, or cannot be reached.
    #[error("no answer: {0}")]
    Away(String),
    /// Too many reads are unanswered; this one was not sent.
    #[error("too many reads at once")]
    Busy,
    /// It answered, but not to us.
    #[error("not permitted: {0}")]
    Unauthorized(String),
    /// It answered with an error.
    #[error("error {code}: {message}")]
    Refused {
        /// MongoDB's code.
        code: i32,
        /// MongoDB's words.
        message: String,
    },
    /// It has no change streams.
    #[error("no change streams: {0}")]
    NoChanges(String),
    /// The feed cannot go on where it was: changes were missed.
    #[error("changes were missed: {0}")]
    HistoryLost(String),
}

/// A document's `_id`: deletions and updates name only this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DocId(pub [u8; 12]);

impl DocId {
    /// Reads an `ObjectId` as JSON shows it: 24 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let number = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 24 && text.is_ascii())?;
        let bytes = number.to_be_bytes();
        bytes[4..].try_into().ok().map(Self)
    }
}

/// A record with its document's id, where it has a usable one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// `_id`
    pub id: Option<DocId>,
    /// The projected fields.
    pub record: Record,
}

/// Where a feed can be taken up again.
#[derive(Debug, Clone, PartialEq)]
pub struct Bookmark(pub(super) super::mongo::ResumeToken);

/// Changes of one app's records, in order.
pub enum Feed {
    /// Of the database inside this process.
    Memory(super::memory::MemoryFeed),
    /// A change stream.
    Mongo(Box<super::mongo::MongoFeed>),
}

impl Feed {
    /// The next change; `None`: nothing for now, ask again. Waits at most about a second.
    pub async fn next(&mut self) -> Result<Option<Change>, StoreError> {
        match self {
            Self::Memory(feed) => feed.next().await,
            Self::Mongo(feed) => feed.next().await,
        }
    }

    /// Where the feed stands.
    pub fn bookmark(&self) -> Option<Bookmark> {
        match self {
            Self::Memory(_) => None,
            Self::Mongo(feed) => feed.bookmark(),
        }
    }
}

/// What a change was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A stream.
    Stream(StreamId),
    /// A document whose stream only those know who have read it.
    Doc(DocId),
}

/// One change of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The record is now this.
    Put(StreamId, Row),
    /// These fields are new.
    Patch(DocId, Patch),
    /// The record is gone.
    Gone(Subject),
    /// Anything may have changed: the collection was dropped, or the feed fell behind.
    Unsure,
}

/// New values of some fields of a record; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patch {
    /// `status`
    pub status: Option<Status>,
    /// `originAdress`; `Some(None)`: emptied.
    pub origin: Option<Option<Arc<str>>>,
    /// `updateTime`
    pub updated_ms: Option<i64>,
    /// `startTime`
    pub started_ms: Option<i64>,
    /// `virtual`
    pub is_virtual: Option<bool>,
    /// `mainTrackStreamId`; `Some(None)`: emptied.
    pub main_track: Option<Option<StreamId>>,
}

impl Patch {
    /// Whether nothing that routing reads has changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Sets the new values.
    pub fn apply(&self, record: &mut Record) {
        record.status = self.status.unwrap_or(record.status);
        record.updated_ms = self.updated_ms.unwrap_or(record.updated_ms);
        record.started_ms = self.started_ms.unwrap_or(record.started_ms);
        record.is_virtual = self.is_virtual.unwrap_or(record.is_virtual);
        if let Some(origin) = &self.origin {
            record.origin.clone_from(origin);
        }
        if let Some(main_track) = &self.main_track {
            record.main_track.clone_from(main_track);
        }
    }
}

/// One `clusternode` row.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRow {
    /// `_id`, in whatever form; never a node's id.
    pub id: String,
    /// `ip`: an address or a host name, of the same family as `originAdress`.
    pub ip: String,
    /// `lastUpdateTime`, the node's clock, ms since the epoch.
    pub updated_ms: i64,
    /// `cpu`, 0 to 1.
    pub cpu: Option<f32>,
    /// `memory`, 0 to 1.
    pub memory: Option<f32>,
    /// `dbQueryAveargeTimeMs` (sic).
    pub db_query_ms: Option<i64>,
}

impl NodeRow {
    /// CPU as AMS writes it into MongoDB: percent in a string.
    pub fn cpu_fraction(text: &str) -> Option<f32> {
        let percent: f32 = text.trim().parse().ok()?;
        percent.is_finite().then(|| (percent / 100.0).clamp(0.0, 1.0))
    }

    /// Memory as AMS writes it: `"used/total"` in MB.
    pub fn memory_fraction(text: &str) -> Option<f32> {
        let (used, total) = text.split_once('/')?;
        let (used, total): (f32, f32) = (used.trim().parse().ok()?, total.trim().parse().ok()?);
        (used.is_finite() && total.is_finite() && total > 0.0).then(|| (used / total).clamp(0.0, 1.0))
    }
}
