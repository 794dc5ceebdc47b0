//! From a command to a node, again if need be, and away from a node that is lost.

use std::time::{Duration, Instant};

use super::{
    AfterEnd, Fact, LinkLoss, Output, Placed, Purpose, RetryCause, Session, Stage, Ticket, io::Ask, link::Link,
};
use crate::domain::{ids::NodeId, reject::Reject};

/// Nodes asked for one leg before the client hears what the last one said.
const ATTEMPTS: usize = 4;
/// From `no_stream_exist` to the next question, while the record says that the stream is live (facts/ams.md §5.2).
const REST: Duration = Duration::from_millis(250);

impl Session {
    /// Asks placement, unless the leg is a play that belongs to a publish which is itself being placed.
    pub(super) fn place_unless_behind(&mut self, at: usize, now: Instant) {
        let publisher = self.publisher_of(at);
        let undecided = publisher.is_some_and(|publisher| self.legs[publisher].stage.node().is_none());
        if undecided {
            return self.set_stage(at, Stage::Behind, now);
        }
        let with_publisher = publisher.and_then(|publisher| self.legs[publisher].stage.node().cloned());
        self.tickets = self.tickets.wrapping_add(1);
        let ticket = Ticket(self.tickets);
        let leg = &self.legs[at];
        let ask = Ask {
            purpose: leg.purpose,
            stream: leg.stream.clone(),
            room: leg.room.clone(),
            with_publisher: with_publisher.filter(|node| !leg.avoid.contains(node)),
            avoid: leg.avoid.clone(),
            is_move: leg.moving.is_some(),
            after_end: leg
                .moving
                .as_ref()
                .filter(|moving| moving.finished.is_some())
                .map(|_| AfterEnd { origin: leg.origin.clone() }),
            until: leg.give_up,
        };
        self.set_stage(at, Stage::Placing(ticket), now);
        self.out(Output::Place(ticket, ask));
    }

    fn publisher_of(&self, at: usize) -> Option<usize> {
        let leg = &self.legs[at];
        let publish =
            leg.user_publish.as_ref().filter(|_| self.settings.with_publisher && leg.purpose == Purpose::Play)?;
        self.legs.iter().position(|other| other.purpose == Purpose::Publish && other.stream.as_ref() == Some(publish))
    }

    /// Plays that waited for their publish's placement go on.
    pub(super) fn place_followers(&mut self, now: Instant) {
        for at in 0..self.legs.len() {
            if self.legs[at].stage == Stage::Behind {
                self.place_unless_behind(at, now);
            }
        }
    }

    pub(super) fn on_placed(&mut self, ticket: Ticket, result: Result<Placed, Reject>, now: Instant) {
        let Some(at) = self.legs.iter().position(|leg| leg.stage == Stage::Placing(ticket)) else {
            return; // stopped meanwhile; the ticket was released then
        };
        let Placed { node, address, origin } = match result {
            Ok(placed) => placed,
            Err(reject) => return self.fail(at, reject, now),
        };
        self.legs[at].origin = origin;
        self.tell_following(at);
        self.set_stage(at, Stage::Dialling(node.clone(), ticket), now);
        match self.link(&node).map(|link| link.up) {
            Some(true) => self.ask(at, now),
            Some(false) => {}
            None => {
                self.links.reserve_exact(1);
                self.links.push(Link::dialling(node.clone(), address, now));
                self.out(Output::Dial(node));
            }
        }
    }

    pub(super) fn on_link_up(&mut self, node: &NodeId, now: Instant) {
        let Some(link) = self.link(node) else {
            return self.out(Output::HangUp(node.clone()));
        };
        link.up = true;
        link.hear(now);
        let mut at = 0;
        while at < self.legs.len() {
            let before = self.legs.len();
            if matches!(&self.legs[at].stage, Stage::Dialling(waiting, _) if waiting == node) {
                self.ask(at, now);
            }
            at += usize::from(self.legs.len() == before); // an errand is done with its delivery, and gone
        }
    }

    /// Sends the leg's command, and what the client said after it, to the chosen node, whose link is up.
    pub(super) fn ask(&mut self, at: usize, now: Instant) {
        let Stage::Dialling(node, ticket) = self.legs[at].stage.clone() else { return };
        if self.leaves_first(at, now) {
            return;
        }
        let leg = &self.legs[at];
        let texts: Vec<_> = std::iter::once(&leg.command).chain(&leg.held).cloned().collect();
        for text in texts {
            self.out(Output::ToNode(node.clone(), text));
        }
        match self.legs[at].purpose {
            Purpose::Errand => drop(self.remove_leg(at)),
            // Peers and rooms have no single first answer: what passes between is theirs.
            Purpose::Peer | Purpose::Room => self.answered(at, now),
            Purpose::Publish | Purpose::Play => {
                self.set_stage(at, Stage::Asked { node, ticket, at: now, probed: false }, now);
            }
        }
    }

    /// The node has answered: what was held is with it, and it will not be asked again elsewhere.
    pub(super) fn answered(&mut self, at: usize, now: Instant) {
        let leg = &mut self.legs[at];
        let (Stage::Asked { node, ticket, .. } | Stage::Dialling(node, ticket)) = leg.stage.clone() else { return };
        leg.held = Vec::new();
        leg.refusal = None;
        let (purpose, took) = (leg.purpose, now.saturating_duration_since(leg.commanded));
        self.set_stage(at, Stage::Answered(node.clone(), ticket), now);
        self.commit_move(at, now);
        self.fact(Fact::Answered { purpose, node, took });
    }

    pub(super) fn on_link_down(&mut self, node: &NodeId, loss: LinkLoss, now: Instant) {
        let Some(at) = self.links.iter().position(|link| link.node == *node) else {
            return; // the session hung up itself
        };
        self.links.remove(at);
        self.lose_node(node, loss, now);
    }

    /// A link that the session itself takes for lost.
    pub(super) fn give_up_link(&mut self, node: &NodeId, loss: LinkLoss, now: Instant) {
        self.hang_up(node);
        self.lose_node(node, loss, now);
    }

    fn lose_node(&mut self, node: &NodeId, loss: LinkLoss, now: Instant) {
        self.fact(Fact::LinkLost(node.clone(), loss));
        self.lose_old(node, now);
        let mut at = 0;
        while at < self.legs.len() && !self.closed {
            let before = self.legs.len();
            if self.legs[at].is_on(node) {
                match self.legs[at].purpose.kind() {
                    Some(_) if self.legs[at].stage.has_answer() => self.move_away(at, loss, now),
                    _ => self.retry(at, RetryCause::Link(loss), now),
                }
            }
            at += usize::from(self.legs.len() == before);
        }
    }

    /// Asks placement again, without the node that the leg was on.
    pub(super) fn retry(&mut self, at: usize, cause: RetryCause, now: Instant) {
        self.close_media(at);
        let leg = &mut self.legs[at];
        let stage = std::mem::replace(&mut leg.stage, Stage::Behind);
        leg.avoid.extend(stage.node().filter(|_| cause != RetryCause::NotYet).cloned());
        if stage.has_answer() {
            // A peer or a room that had been home starts anew.
            leg.give_up = now + self.settings.give_up;
            leg.avoid = stage.node().cloned().into_iter().collect();
        }
        let (purpose, exhausted) = (leg.purpose, leg.avoid.len() >= ATTEMPTS || leg.give_up <= now);
        if let Some(ticket) = stage.ticket() {
            self.out(Output::Release(ticket));
        }
        if exhausted {
            return self.fail(at, Reject::Busy, now);
        }
        self.fact(Fact::Retried(purpose, cause));
        match cause {
            RetryCause::NotYet => self.set_stage(at, Stage::Resting(now + REST), now),
            RetryCause::Link(_) | RetryCause::Refused => self.place_unless_behind(at, now),
        }
    }

    /// The leg ends unplaced: the client hears what the last node said, else the door's own word.
    pub(super) fn fail(&mut self, at: usize, reject: Reject, now: Instant) {
        if self.legs[at].moving.is_some() {
            return self.fail_move(at, now);
        }
        let leg = self.remove_leg(at);
        match leg.refusal {
            Some(refusal) => self.out(Output::ToClient(refusal)),
            None => self.reject(reject, leg.stream.as_ref()),
        }
    }

    /// A play that follows its stream begins to move only now: until then the stream might have ended.
    fn tell_following(&mut self, at: usize) {
        let leg = &mut self.legs[at];
        let follows = leg.moving.as_mut().filter(|moving| moving.finished.is_some() && !moving.told);
        let Some(moving) = follows else { return };
        moving.told = true;
        if let (Some(kind), Some(stream)) = (leg.purpose.kind(), leg.stream.clone()) {
            let (from, cause) = (moving.from.clone(), moving.cause);
            self.fact(Fact::Moving { kind, stream, from, cause });
        }
    }
}
