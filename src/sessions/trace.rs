//! A session's story as a trace: one span for the session, one for each of its legs, the rest as events.

use std::time::{Instant, SystemTime};

use super::{
    Card,
    story::{Event, What},
};
use crate::{
    clock,
    domain::{
        ids::{NodeId, StreamId},
        session::Purpose,
    },
    telemetry::otlp::{Span, SpanEvent},
};

/// The spans of a session that has ended. Its client's address is not in them.
pub(super) fn of(card: &Card) -> Vec<Span> {
    let (now, wall) = (clock::now(), clock::wall());
    let at = |at: Instant| wall - now.saturating_duration_since(at);
    let page = card.page();
    let (ended, reason) = page.ended.unwrap_or((now, None));
    let (trace, root) = (fastrand::u128(..), card.id.0);
    let mut session = Span {
        trace,
        id: root,
        parent: None,
        name: "session".into(),
        begin: at(card.opened),
        end: at(ended),
        attributes: vec![("forebay.session", card.id.to_string()), ("forebay.app", card.app.to_string())],
        events: Vec::new(),
        failure: reason.is_none().then_some("failed"),
    };
    if let Some(reason) = reason {
        session.attributes.push(("forebay.close", reason.as_str().to_owned()));
    }
    let mut legs: Vec<Leg> = Vec::new();
    for event in page.story.events() {
        if let What::Commanded { purpose, stream: Some(stream) } = &event.what
            && purpose.kind().is_some()
        {
            legs.push(Leg::new(*purpose, stream, &session, at(event.at)));
        }
        let told = span_event(event, at(event.at));
        match legs.iter_mut().rev().find(|leg| leg.concerns(&event.what)) {
            Some(leg) => leg.take(&event.what, told),
            None => session.events.push(told),
        }
    }
    let last = session.end;
    let legs = legs.into_iter().map(|leg| leg.finish(last));
    std::iter::once(session).chain(legs).collect()
}

/// A leg's span while its story is read.
struct Leg {
    purpose: Purpose,
    stream: StreamId,
    node: Option<NodeId>,
    ended: bool,
    span: Span,
}

impl Leg {
    fn new(purpose: Purpose, stream: &StreamId, session: &Span, begin: SystemTime) -> Self {
        let span = Span {
            trace: session.trace,
            id: fastrand::u64(1..),
            parent: Some(session.id),
            name: purpose.as_str().into(),
            begin,
            end: begin,
            attributes: vec![("forebay.stream", stream.to_string())],
            events: Vec::new(),
            failure: None,
        };
        Self { purpose, stream: stream.clone(), node: None, ended: false, span }
    }

    /// Whether an event is this leg's: by its stream and purpose, else by its node.
    fn concerns(&self, what: &What) -> bool {
        let same = |purpose: Purpose, stream: Option<&StreamId>| {
            purpose == self.purpose && stream.is_none_or(|stream| *stream == self.stream)
        };
        let kind = |kind| self.purpose.kind() == Some(kind);
        !self.ended
            && match what {
                What::Commanded { purpose, stream } | What::NotPlaced { purpose, stream, .. } => {
                    same(*purpose, stream.as_ref())
                }
                What::Placed(chosen) => same(chosen.purpose, chosen.stream.as_ref()),
                What::Described { purpose, stream, .. } => same(*purpose, Some(stream)),
                What::Answered { purpose, node, .. } => same(*purpose, None) && self.node.as_ref() == Some(node),
                What::Retried { purpose, .. } => same(*purpose, None),
                What::Started { kind: of, stream, .. } | What::Ended { kind: of, stream, .. } => {
                    kind(*of) && *stream == self.stream
                }
                What::Moving(of)
                | What::MoveFailed(of)
                | What::Moved { kind: of, .. }
                | What::Stayed { kind: of, .. }
                | What::Gap { kind: of, .. } => kind(*of),
                What::Linked { node, .. } | What::LinkLost { node, .. } | What::NodeFull(node) => {
                    self.node.as_ref() == Some(node)
                }
                What::Refused(_)
                | What::BadDescription
                | What::FirstStun
                | What::FirstMedia { .. }
                | What::Stalled
                | What::Resumed { .. }
                | What::Closed(_) => false,
            }
    }

    fn take(&mut self, what: &What, told: SpanEvent) {
        match what {
            What::Placed(chosen) => self.node = Some(chosen.node.clone()),
            What::Moved { node, .. } => self.node = Some(node.clone()),
            What::NotPlaced { reject, .. } => self.span.failure = Some(reject.as_str()),
            What::MoveFailed(_) => self.span.failure = Some("move_failed"),
            What::Started { .. } => self.span.failure = None,
            _ => {}
        }
        self.ended = matches!(what, What::Ended { .. });
        self.span.end = told.at;
        self.span.events.push(told);
    }

    fn finish(mut self, last: SystemTime) -> Span {
        if !self.ended {
            self.span.end = last;
        }
        let node = self.node.map(|node| ("forebay.node", node.to_string()));
        self.span.attributes.extend(node);
        self.span
    }
}

fn span_event(event: &Event, at: SystemTime) -> SpanEvent {
    let mut attributes = Vec::new();
    let mut add = |key, value: &dyn std::fmt::Display| attributes.push((key, value.to_string()));
    match &event.what {
        What::Placed(chosen) => {
            add("forebay.node", &chosen.node);
            add("forebay.rule", &chosen.rule);
            for candidate in &chosen.candidates {
                let text = format!("{} {:.3} {:?}", candidate.node, candidate.predicted, candidate.verdict);
                add("forebay.candidate", &text);
            }
        }
        What::NotPlaced { reject, .. } | What::Refused(reject) => add("forebay.cause", &reject.as_str()),
        What::LinkLost { node, loss } => {
            add("forebay.node", node);
            add("forebay.cause", &loss.as_str());
        }
        What::Retried { cause, .. } => add("forebay.cause", &cause.as_str()),
        What::Linked { node, .. }
        | What::Answered { node, .. }
        | What::Started { node, .. }
        | What::Moved { node, .. }
        | What::Stayed { node, .. }
        | What::NodeFull(node) => add("forebay.node", node),
        What::Gap { gap, .. } => add("forebay.gap_ms", &gap.as_millis()),
        What::Described { from_client, .. } => add("forebay.from", &if *from_client { "client" } else { "node" }),
        What::Closed(reason) => add("forebay.cause", &reason.as_str()),
        What::Commanded { .. }
        | What::Ended { .. }
        | What::Moving(_)
        | What::MoveFailed(_)
        | What::BadDescription
        | What::FirstStun
        | What::FirstMedia { .. }
        | What::Stalled
        | What::Resumed { .. } => {}
    }
    SpanEvent { at, name: event.what.as_str(), attributes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{
            ids::{ClientAddr, Kind, SessionId},
            session::CloseReason,
        },
        sessions::Directory,
    };

    #[tokio::test]
    async fn a_leg_is_a_span_of_its_own_from_its_command_to_its_end() {
        let directory = Directory::default();
        let client = ClientAddr("192.0.2.1:4000".parse().unwrap());
        let desk = directory.open_desk(SessionId(7), "LiveApp".parse().unwrap(), client, false);
        let (stream, node): (StreamId, NodeId) = ("s".parse().unwrap(), "edge-1".parse().unwrap());
        desk.tell(What::Commanded { purpose: Purpose::Play, stream: Some(stream.clone()) });
        desk.tell(What::Described { purpose: Purpose::Play, stream: stream.clone(), from_client: false, offer: true });
        desk.tell(What::FirstStun);
        desk.tell(What::Ended { kind: Kind::Play, stream: stream.clone(), node: Some(node) });
        desk.tell(What::Commanded { purpose: Purpose::Play, stream: Some(stream) });
        desk.close(CloseReason::ClientClosed);
        let spans = of(&directory.get(SessionId(7)).unwrap());
        let shape: Vec<(&str, Vec<&str>)> = spans
            .iter()
            .map(|span| (span.name.as_str(), span.events.iter().map(|event| event.name).collect()))
            .collect();
        let expected = [
            ("session", vec!["first_stun", "close"]),
            ("play", vec!["command", "offer", "ended"]),
            ("play", vec!["command"]),
        ];
        assert_eq!(shape, expected);
        assert!(spans.iter().all(|span| span.trace == spans[0].trace && span.begin <= span.end));
        assert!(spans[1..].iter().all(|leg| leg.parent == Some(spans[0].id)));
        assert!(!format!("{spans:?}").contains("192.0.2.1"));
    }
}
