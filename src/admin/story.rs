//! A session's story, and events as they happen, as JSON.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::Serialize;
use utoipa::ToSchema;

use super::words::{Kind, Verdict};
use crate::{
    clock,
    domain::balance::Candidate,
    sessions::story::{Chosen, Event, What},
};

/// One event of a session. Beside `at`, `after_ms` and `event` it has what that event has to say.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(super) struct Line {
    /// RFC 3339, UTC.
    at: String,
    /// Since the session was opened.
    after_ms: u64,
    /// `opened`, `command`, `placement`, `not_placed`, `link`, `link_lost`, `offer`, `answer`, `node_answered`,
    /// `started`, `ended`, `retried`, `moving`, `moved`, `stayed`, `gap`, `move_failed`, `refused`, `node_full`, `bad_description`,
    /// `first_stun`, `first_media`, `stall`, `resumed` or `close`.
    #[schema(example = "placement")]
    event: &'static str,
    /// What the leg is for: `publish`, `play`, `peer`, `room` or `errand`.
    #[serde(skip_serializing_if = "Option::is_none")]
    purpose: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// Who sent a description: `client` or `node`.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'static str>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    /// How long it took, or how long there was nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<u64>,
    /// The rule that placed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'static str>,
}

/// One placement of a session, with what it was chosen from.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Placement {
    /// RFC 3339, UTC.
    at: String,
    stream: Option<String>,
    /// Null for what is no leg: a peer, a room, an errand.
    kind: Option<Kind>,
    node: String,
    /// The rule that chose it.
    rule: &'static str,
    /// No record stands behind it.
    blind: bool,
    /// The best few candidates, the chosen one first.
    candidates: Vec<Explanation>,
    /// How many nodes got each verdict.
    tally: BTreeMap<&'static str, u32>,
}

/// One node that was looked at.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Explanation {
    node: String,
    /// The policy's score: predicted load for publishes (lower is better), hash order for plays (higher is better).
    score: f64,
    /// Its predicted load at that moment.
    predicted: f32,
    verdict: Verdict,
    /// The verdict in words.
    why: &'static str,
}

impl From<&Candidate> for Explanation {
    fn from(candidate: &Candidate) -> Self {
        let verdict = Verdict::from(candidate.verdict);
        let (score, predicted) = (candidate.score, candidate.predicted);
        Self { node: candidate.node.to_string(), score, predicted, verdict, why: verdict.in_words() }
    }
}

/// How many nodes got each verdict, by its word.
pub(super) fn tally(rows: &[(crate::domain::balance::Verdict, u32)]) -> BTreeMap<&'static str, u32> {
    rows.iter().map(|(verdict, count)| (Verdict::from(*verdict).as_str(), *count)).collect()
}

impl Placement {
    /// The event's placement, if it is one.
    pub(super) fn of(event: &Event) -> Option<Self> {
        let What::Placed(chosen) = &event.what else { return None };
        let Chosen { purpose, stream, node, rule, blind, candidates, tally: rows } = &**chosen;
        Some(Self {
            at: clock::rfc3339(event.at),
            stream: stream.as_ref().map(ToString::to_string),
            kind: purpose.kind().map(Kind::from),
            node: node.to_string(),
            rule,
            blind: *blind,
            candidates: candidates.iter().map(Explanation::from).collect(),
            tally: tally(rows),
        })
    }
}

impl Line {
    /// A session was opened.
    pub(super) fn opened(at: Instant) -> Self {
        Self { at: clock::rfc3339(at), event: "opened", ..Self::default() }
    }

    /// An event of a session that was opened then.
    pub(super) fn of(event: &Event, opened: Instant) -> Self {
        let mut line = Self {
            at: clock::rfc3339(event.at),
            after_ms: ms(event.at.saturating_duration_since(opened)),
            event: event.what.as_str(),
            ..Self::default()
        };
        line.fill(&event.what);
        line
    }

    fn fill(&mut self, what: &What) {
        match what {
            What::Commanded { purpose, stream } => self.leg(purpose.as_str(), stream.as_ref()),
            What::Placed(chosen) => {
                self.leg(chosen.purpose.as_str(), chosen.stream.as_ref());
                self.node = Some(chosen.node.to_string());
                self.rule = Some(chosen.rule);
            }
            What::NotPlaced { purpose, stream, reject } => {
                self.leg(purpose.as_str(), stream.as_ref());
                self.cause = Some(reject.as_str());
            }
            What::Linked { node, took } => {
                (self.node, self.took_ms) = (Some(node.to_string()), Some(ms(*took)));
            }
            What::LinkLost { node, loss } => {
                (self.node, self.cause) = (Some(node.to_string()), Some(loss.as_str()));
            }
            What::Described { purpose, stream, from_client, .. } => {
                self.leg(purpose.as_str(), Some(stream));
                self.from = Some(if *from_client { "client" } else { "node" });
            }
            What::Answered { purpose, node, took } => {
                self.purpose = Some(purpose.as_str());
                (self.node, self.took_ms) = (Some(node.to_string()), Some(ms(*took)));
            }
            What::Started { kind, stream, node } => {
                self.leg(kind.as_str(), Some(stream));
                self.node = Some(node.to_string());
            }
            What::Ended { kind, stream, node } => {
                self.leg(kind.as_str(), Some(stream));
                self.node = node.as_ref().map(ToString::to_string);
            }
            What::Retried { purpose, cause } => {
                (self.purpose, self.cause) = (Some(purpose.as_str()), Some(cause.as_str()));
            }
            What::Moving(kind) | What::MoveFailed(kind) => self.purpose = Some(kind.as_str()),
            What::Stayed { kind, node } => {
                self.purpose = Some(kind.as_str());
                self.node = Some(node.to_string());
            }
            What::Gap { kind, gap } => (self.purpose, self.took_ms) = (Some(kind.as_str()), Some(ms(*gap))),
            What::Moved { kind, node, took } => {
                self.purpose = Some(kind.as_str());
                (self.node, self.took_ms) = (Some(node.to_string()), Some(ms(*took)));
            }
            What::Refused(reject) => self.cause = Some(reject.as_str()),
            What::NodeFull(node) => self.node = Some(node.to_string()),
            What::FirstMedia { after } | What::Resumed { after } => self.took_ms = Some(ms(*after)),
            What::Closed(reason) => self.cause = Some(reason.as_str()),
            What::BadDescription | What::FirstStun | What::Stalled => {}
        }
    }

    fn leg(&mut self, purpose: &'static str, stream: Option<&crate::domain::ids::StreamId>) {
        self.purpose = Some(purpose);
        self.stream = stream.map(ToString::to_string);
    }
}

/// Whole milliseconds.
pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
