//! One app's change stream.

use std::{
    fmt,
    time::{Duration, Instant},
};

pub use mongodb::change_stream::event::ResumeToken;
use mongodb::{
    Collection,
    bson::{Bson, Document, doc},
    change_stream::ChangeStream,
    error::{Error, ErrorKind},
};
use tokio::time::{sleep, timeout};

use super::{reader::BACKGROUND_LIMIT, wire};
use crate::{
    clock,
    registry::store::{Bookmark, Change, StoreError, Subject},
};

/// How long the server may hold a question for the next change.
const AWAIT_CHANGE: Duration = Duration::from_secs(1);
/// Least time between two questions that found nothing: some servers answer at once instead of holding them.
const IDLE_PACE: Duration = Duration::from_millis(100);
/// Codes of servers without change streams: a standalone mongod, FerretDB, and older servers of several makes.
const NO_CHANGE_STREAMS: [i32; 4] = [40_573, 238, 1, 40_324];

/// Changes of one app's `broadcast` collection.
pub struct MongoFeed {
    stream: ChangeStream<Document>,
    pace: Pace,
}

/// How fast the server is asked for more.
#[derive(Debug, Default)]
struct Pace {
    /// When the last question was sent, if it found nothing.
    idle_since: Option<Instant>,
}

impl Pace {
    /// How long to wait before the next question: not at all while changes come.
    fn pause(&self, now: Instant) -> Duration {
        let idle_for = |since| now.saturating_duration_since(since);
        self.idle_since.map_or(Duration::ZERO, |since| IDLE_PACE.saturating_sub(idle_for(since)))
    }

    fn asked(&mut self, at: Instant, found: bool) {
        self.idle_since = (!found).then_some(at);
    }
}

impl fmt::Debug for MongoFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MongoFeed")
    }
}

impl MongoFeed {
    pub(super) async fn open(broadcasts: &Collection<Document>, resume: Option<Bookmark>) -> Result<Self, StoreError> {
        let opened = broadcasts
            .watch()
            .pipeline(pipeline())
            .resume_after(resume.map(|bookmark| bookmark.0))
            .max_await_time(AWAIT_CHANGE)
            .await;
        match opened {
            Ok(stream) => Ok(Self { stream: stream.with_type(), pace: Pace::default() }),
            Err(error) => Err(watch_error(&error)),
        }
    }

    /// The next change; `None`: nothing for now.
    pub(in crate::registry) async fn next(&mut self) -> Result<Option<Change>, StoreError> {
        if !self.stream.is_alive() {
            return Err(StoreError::Away("the change stream has ended".into()));
        }
        sleep(self.pace.pause(clock::now())).await;
        let asked = clock::now();
        // A server that froze answers nothing and closes nothing.
        match timeout(AWAIT_CHANGE + BACKGROUND_LIMIT, self.stream.next_if_any()).await {
            Ok(Ok(event)) => {
                self.pace.asked(asked, event.is_some());
                Ok(event.as_ref().and_then(read_event))
            }
            Ok(Err(error)) => Err(watch_error(&error)),
            Err(_) => Err(StoreError::Away("the change stream went silent".into())),
        }
    }

    pub(in crate::registry) fn bookmark(&self) -> Option<Bookmark> {
        self.stream.resume_token().map(Bookmark)
    }
}

fn watch_error(error: &Error) -> StoreError {
    match error.kind.as_ref() {
        ErrorKind::Command(command) if NO_CHANGE_STREAMS.contains(&command.code) => {
            StoreError::NoChanges(format!("{} (code {})", command.message, command.code))
        }
        _ => wire::store_error(error),
    }
}

/// Only what routing reads leaves the server: no password, no URL, no statistics.
fn pipeline() -> [Document; 2] {
    let mut shown = doc! { "operationType": 1, "ns": 1, "documentKey": 1, "updateDescription.removedFields": 1 };
    for field in wire::FIELDS {
        shown.insert(format!("fullDocument.{field}"), 1);
        shown.insert(format!("updateDescription.updatedFields.{field}"), 1);
    }
    shown.insert("fullDocument._id", 1);
    let kinds = ["insert", "update", "replace", "delete", "drop", "rename", "dropDatabase", "invalidate"];
    [doc! { "$match": { "operationType": { "$in": kinds.as_slice() } } }, doc! { "$project": shown }]
}

/// What an event means for the cache; `None` if it touches nothing that routing reads.
fn read_event(event: &Document) -> Option<Change> {
    let id = || event.get_document("documentKey").ok()?.get("_id").map(wire::doc_id);
    match event.get_str("operationType").unwrap_or_default() {
        "insert" | "replace" => {
            let document = event.get_document("fullDocument").ok()?;
            let stream = document.get_str("streamId").ok()?.parse().ok()?;
            Some(Change::Put(stream, wire::row(document)))
        }
        "update" => {
            let patch = event.get_document("updateDescription").map(update).unwrap_or_default();
            Some(Change::Patch(id()?, wire::patch(&patch))).filter(|_| !patch.is_empty())
        }
        "delete" => Some(Change::Gone(Subject::Doc(id()?))),
        _ => Some(Change::Unsure),
    }
}

/// New values by field; a removed field has the value that AMS's reader gives a missing one.
fn update(description: &Document) -> Document {
    let mut fields = description.get_document("updatedFields").cloned().unwrap_or_default();
    let removed = description.get_array("removedFields").map(Vec::as_slice).unwrap_or_default();
    for name in removed.iter().filter_map(Bson::as_str) {
        let missing: Bson = match name {
            "status" | "originAdress" | "mainTrackStreamId" => "".into(),
            "updateTime" | "startTime" => 0_i64.into(),
            "virtual" => false.into(),
            _ => continue,
        };
        fields.insert(name, missing);
    }
    fields
}

#[cfg(test)]
mod tests {
    use mongodb::bson::oid::ObjectId;

    use super::*;
    use crate::{domain::record::Status, registry::store::Patch};

    #[test]
    fn a_server_that_answers_at_once_that_there_is_nothing_is_asked_ten_times_a_second() {
        let (mut pace, t0) = (Pace::default(), clock::now());
        assert_eq!(pace.pause(t0), Duration::ZERO);
        pace.asked(t0, false);
        assert_eq!(pace.pause(t0 + Duration::from_millis(1)), Duration::from_millis(99));
        assert_eq!(pace.pause(t0 + AWAIT_CHANGE), Duration::ZERO, "one that held the question is asked at once");
        pace.asked(t0 + AWAIT_CHANGE, true);
        assert_eq!(pace.pause(t0 + AWAIT_CHANGE), Duration::ZERO, "and so is one that has more");
    }

    #[test]
    fn an_update_becomes_a_patch_of_the_fields_that_routing_reads() {
        let id = ObjectId::from_bytes([3; 12]);
        let event = doc! {
            "operationType": "update", "documentKey": { "_id": id },
            "updateDescription": {
                "updatedFields": { "status": "finished", "updateTime": 9_i64 },
                "removedFields": ["originAdress", "token"]
            }
        };
        let patch =
            Patch { status: Some(Status::Finished), updated_ms: Some(9), origin: Some(None), ..Patch::default() };
        assert_eq!(read_event(&event), Some(Change::Patch(wire::doc_id(&id.into()), patch)));
    }

    #[test]
    fn an_update_of_statistics_alone_is_no_change() {
        let event = doc! {
            "operationType": "update", "documentKey": { "_id": ObjectId::new() },
            "updateDescription": { "updatedFields": {}, "removedFields": [] }
        };
        assert_eq!(read_event(&event), None);
    }

    #[test]
    fn a_dropped_collection_makes_everything_unsure() {
        for kind in ["drop", "invalidate", "dropDatabase", "rename", "something new"] {
            assert_eq!(read_event(&doc! { "operationType": kind }), Some(Change::Unsure), "{kind}");
        }
    }
}
