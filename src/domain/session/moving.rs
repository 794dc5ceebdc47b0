//! Legs that leave their node while their client stays: away from a node that was lost, off one that is being emptied, or
//! after a stream whose publisher has moved.
//!
//! ```text
//! lost     ─► placed elsewhere, the command said again ─► start, offer ─► *_started or media: moved
//! drained  ─► placed elsewhere while the old node still serves:
//!             play:    the new node's offer ─► the old node is told to stop ─► …
//!             publish: the new link is up ─► the old node is told to stop, and has (facts/ams.md, trap 16) ─► …
//!             nobody takes it: it stays where it is
//! finished ─► the old node says that the stream has ended: is it coming back? placed anew ─► …, else the client hears so
//! ```

use std::time::{Duration, Instant};

use super::{
    CloseReason, DropCause, Fact, LinkLoss, MediaSeen, MoveCause, Output, Purpose, Session, Stage,
    leg::{Gap, Moving, Old},
};
use crate::domain::{
    ids::{Kind, NodeId, StreamId},
    reject::Reject,
    relay::TransportId,
    signaling::{self, NodeCommand, NodeMessage, Notice, Text},
};

/// How long a publisher's old node may take to say that it has stopped; the new one is then asked all the same.
const LEAVE: Duration = Duration::from_secs(1);
/// How long a play waits for its stream to come back, at most: as long as AMS itself believes a dead origin's record.
const FOLLOW: Duration = Duration::from_secs(20);
/// A client that was asked to come again is closed this much later, plus up to as much again.
const FALLBACK_CLOSE: Duration = Duration::from_millis(500);

impl Session {
    /// A leg shall leave a node that still serves it. One that is not there, or not settled there, is left alone.
    pub(super) fn begin_move(&mut self, node: &NodeId, stream: &StreamId, kind: Kind, now: Instant) {
        let is_meant = |leg: &super::Leg| {
            leg.stream.as_ref() == Some(stream)
                && leg.purpose.kind() == Some(kind)
                && leg.is_on(node)
                && leg.stage.has_answer()
                && leg.moving.is_none()
        };
        let Some(at) = self.legs.iter().position(is_meant).filter(|_| self.closing.is_none()) else { return };
        let give_up = now + self.settings.give_up;
        let leg = &mut self.legs[at];
        let stage = std::mem::replace(&mut leg.stage, Stage::Behind);
        let old = Old { stage, media: leg.media.leave(), told: false };
        leg.moving = Some(Box::new(Moving::begin(node.clone(), MoveCause::Drain, Some(old), now)));
        leg.renew(now, give_up);
        leg.avoid = vec![node.clone()];
        self.fact(Fact::Moving { kind, stream: stream.clone(), from: node.clone(), cause: MoveCause::Drain });
        self.place_unless_behind(at, now);
    }

    /// Re-places a leg that had been answered, on a node that is lost: the stored command is said again on another node,
    /// whose `start` or offer the SDK takes in place (facts/clients.md §0.9).
    pub(super) fn move_away(&mut self, at: usize, loss: LinkLoss, now: Instant) {
        let cause = if loss == LinkLoss::Stopping { MoveCause::Stopping } else { MoveCause::Lost };
        let Some(kind) = self.legs[at].purpose.kind() else { return };
        let confirm_by = now + self.settings.confirm;
        let (ticket, from) = self.leave_node(at, now);
        let leg = &mut self.legs[at];
        let Some(from) = from else { return };
        let moving = leg.moving.get_or_insert_with(|| Box::new(Moving::begin(from.clone(), cause, None, now)));
        moving.confirm_by = if moving.since == now { confirm_by } else { moving.confirm_by };
        let give_up = moving.confirm_by;
        leg.renew(now, give_up);
        leg.avoid = vec![from.clone()];
        let stream = leg.stream.clone();
        self.out(Output::Release(ticket));
        if let Some(stream) = stream {
            self.fact(Fact::Moving { kind, stream, from, cause });
        }
        self.place_unless_behind(at, now);
    }

    /// The node says that the stream has ended. If its publisher has only moved, the play follows; placement knows. False
    /// if the client shall hear it at once: it never saw the stream.
    pub(super) fn follow(&mut self, at: usize, finished: &Text, now: Instant) -> bool {
        let leg = &self.legs[at];
        let has_started = matches!(leg.stage, Stage::Live(..)) || leg.moving.is_some();
        if leg.purpose != Purpose::Play || !has_started || self.closing.is_some() {
            return false;
        }
        let (ticket, from) = self.leave_node(at, now);
        let leg = &mut self.legs[at];
        let Some(from) = from else { return false };
        let moving = leg.moving.get_or_insert_with(|| Box::new(Moving::begin(from, MoveCause::Finished, None, now)));
        moving.finished = Some(finished.clone());
        let give_up = moving.since + FOLLOW;
        leg.renew(now, give_up);
        leg.avoid = Vec::new();
        self.out(Output::Release(ticket));
        self.place_unless_behind(at, now);
        true
    }

    /// The same of the old node of a play that is about to leave it: its publisher leaves as well. It is waited for as long
    /// as by any play that follows; a node that is asked already may have the stream in a moment.
    fn follow_from_old(&mut self, at: usize, finished: Text, now: Instant) {
        let leg = &mut self.legs[at];
        let Some(moving) = leg.moving.as_mut() else { return };
        moving.finished = Some(finished);
        leg.give_up = moving.since + FOLLOW;
        if let Stage::Placing(ticket) = leg.stage {
            self.out(Output::Release(ticket));
            self.place_unless_behind(at, now);
        }
    }

    /// Takes a leg that had been answered off its node; gives what the shell holds for it there, and the node.
    fn leave_node(&mut self, at: usize, now: Instant) -> (super::Ticket, Option<NodeId>) {
        let closed = self.close_media(at);
        let leg = &mut self.legs[at];
        leg.gap = Some(Gap { last: now, closed_at: now, closed });
        let stage = std::mem::replace(&mut leg.stage, Stage::Behind);
        (stage.ticket().unwrap_or(super::Ticket(0)), stage.node().cloned())
    }

    /// A publish whose new link is up: its old node is told to stop, and is waited for. False: there is none any more.
    pub(super) fn leaves_first(&mut self, at: usize, now: Instant) -> bool {
        let leg = &mut self.legs[at];
        let Stage::Dialling(node, ticket) = leg.stage.clone() else { return false };
        let (Purpose::Publish, Some(stream)) = (leg.purpose, leg.stream.clone()) else { return false };
        let Some(old) = leg.moving.as_mut().and_then(|moving| moving.old.as_mut()) else { return false };
        old.told = true;
        let from = old.stage.node().cloned();
        leg.gap = Some(Gap { last: now, closed_at: now, closed: Vec::new() });
        self.set_stage(at, Stage::Leaving { node, ticket, until: now + LEAVE }, now);
        if let Some(from) = from {
            self.out(Output::ToNode(from, signaling::stop(&stream)));
        }
        true
    }

    /// The old node has let go of a publish, or had its time to: the new one is asked.
    pub(super) fn has_left(&mut self, at: usize, now: Instant) {
        let Stage::Leaving { node, ticket, .. } = self.legs[at].stage.clone() else { return };
        self.commit_move(at, now);
        self.set_stage(at, Stage::Dialling(node, ticket), now);
        self.ask(at, now);
    }

    /// From here on there is no way back to the old node.
    pub(super) fn commit_move(&mut self, at: usize, now: Instant) {
        let confirm_by = now + self.settings.confirm;
        let leg = &mut self.legs[at];
        let Some(moving) = leg.moving.as_mut() else { return };
        if moving.finished.is_some() {
            moving.confirm_by = confirm_by;
        }
        let Some(old) = moving.old.take() else { return };
        moving.confirm_by = confirm_by;
        leg.give_up = confirm_by;
        let stop = leg.stream.as_ref().filter(|_| !old.told).map(signaling::stop);
        if let (Some(stop), Some(node)) = (stop, old.stage.node()) {
            self.out(Output::ToNode(node.clone(), stop));
        }
        self.let_go(at, old, now);
    }

    /// Gives back what a leg still had on the node that it has left.
    fn let_go(&mut self, at: usize, mut old: Old, now: Instant) {
        let closed = self.close_transports(&mut old.media);
        if let Some(ticket) = old.stage.ticket() {
            self.out(Output::Release(ticket));
        }
        if let Some(leg) = self.legs.get_mut(at) {
            let last = leg.gap.as_ref().map_or(now, |gap| gap.last);
            leg.gap = Some(Gap { last, closed_at: now, closed });
        }
    }

    /// What a leg that is taken out still has on an old node.
    pub(super) fn drop_old(&mut self, leg: &mut super::Leg) -> Option<NodeId> {
        let mut old = leg.moving.as_mut()?.old.take()?;
        self.close_transports(&mut old.media);
        if let Some(ticket) = old.stage.ticket() {
            self.out(Output::Release(ticket));
        }
        old.stage.node().cloned()
    }

    /// The old node of a moving leg is lost: there is no way back.
    pub(super) fn lose_old(&mut self, node: &NodeId, now: Instant) {
        for at in 0..self.legs.len() {
            let Some(old) = self.take_old(at, node) else { continue };
            self.let_go(at, old, now);
            let leg = &mut self.legs[at];
            leg.give_up = now + self.settings.confirm;
            if let Some(moving) = &mut leg.moving {
                moving.confirm_by = leg.give_up;
            }
            if matches!(self.legs[at].stage, Stage::Leaving { .. }) {
                self.has_left(at, now);
            }
        }
    }

    fn take_old(&mut self, at: usize, node: &NodeId) -> Option<Old> {
        let moving = self.legs[at].moving.as_mut()?;
        moving.old.take_if(|old| old.stage.node() == Some(node))
    }

    /// The moving leg whose old node speaks of it.
    pub(super) fn leaving_leg(&self, node: &NodeId, message: &NodeMessage) -> Option<usize> {
        let stream = message.stream.as_ref()?;
        self.legs.iter().position(|leg| leg.old_node() == Some(node) && leg.stream.as_ref() == Some(stream))
    }

    /// The old node of a leg that is about to leave it says something. Its `stop`, `*_finished` and errors are swallowed,
    /// and so are descriptions that would come between those of the new node.
    pub(super) fn on_old_node(&mut self, at: usize, node: &NodeId, command: NodeCommand, text: Text, now: Instant) {
        match command {
            NodeCommand::Notification(Notice::PublishFinished | Notice::PlayFinished) => {
                self.drop_message(DropCause::OldNode);
                if matches!(self.legs[at].stage, Stage::Leaving { .. }) {
                    return self.has_left(at, now);
                }
                let Some(old) = self.take_old(at, node) else { return };
                self.let_go(at, old, now);
                if self.legs[at].purpose == Purpose::Play {
                    self.follow_from_old(at, text, now);
                }
            }
            NodeCommand::Notification(_) | NodeCommand::Other => self.out(Output::ToClient(text)),
            NodeCommand::Start
            | NodeCommand::TakeConfiguration(_)
            | NodeCommand::TakeCandidate
            | NodeCommand::Stop
            | NodeCommand::Error(_)
            | NodeCommand::Pong => self.drop_message(DropCause::OldNode),
        }
    }

    /// The leg ends unplaced: it stays where it was, the client hears that the stream has ended, or it is asked to come
    /// again.
    pub(super) fn fail_move(&mut self, at: usize, now: Instant) {
        let leg = &mut self.legs[at];
        let Some(moving) = leg.moving.as_mut() else { return };
        let from = moving.from.clone();
        if let Some(old) = moving.old.take_if(|old| !old.told) {
            let given = leg.stage.ticket();
            leg.moving = None;
            leg.avoid = Vec::new();
            leg.refusal = None;
            let (kind, stage) = (leg.purpose.kind(), old.stage);
            self.close_media(at);
            self.legs[at].media = old.media;
            self.legs[at].gap = None;
            if let Some(ticket) = given {
                self.out(Output::Release(ticket));
            }
            self.set_stage(at, stage, now);
            if let Some(kind) = kind {
                self.fact(Fact::Stayed { kind, node: from });
            }
            return;
        }
        match moving.finished.take() {
            Some(finished) => {
                self.remove_leg(at);
                self.out(Output::ToClient(finished));
            }
            None => self.fall_back(at, now),
        }
    }

    /// The move failed: the client shall come again. SDK v1 does so by itself at `server_will_stop`; the close that
    /// follows is for the others, and comes jittered so that a lost node's clients do not come all at once.
    pub(super) fn fall_back(&mut self, at: usize, now: Instant) {
        let leg = self.remove_leg(at);
        if let (Some(kind), Some(moving), Some(stream)) = (leg.purpose.kind(), leg.moving, leg.stream) {
            let Moving { from, cause, .. } = *moving;
            self.fact(Fact::MoveFailed { kind, stream, from, cause });
        }
        self.ask_to_come_again(now);
    }

    fn ask_to_come_again(&mut self, now: Instant) {
        let jitter = FALLBACK_CLOSE.mul_f64((self.id.0 % 1000) as f64 / 1000.0);
        let at = now + FALLBACK_CLOSE + jitter;
        if self.closing.is_none_or(|(due, _)| at < due) {
            self.out(Output::ToClient(signaling::server_will_stop()));
            self.closing = Some((at, CloseReason::MoveFailed));
        }
    }

    /// The time of a drain is over: what this session still has on the node ends.
    pub(super) fn end_on(&mut self, node: &NodeId, now: Instant) {
        let mut ended = false;
        while let Some(at) = self.legs.iter().position(|leg| leg.is_on(node) || leg.old_node() == Some(node)) {
            let leg = self.remove_leg(at);
            let known = leg.stage.node().filter(|on| *on == node && leg.stage.is_known_to_node());
            if let (Some(node), Some(stream)) = (known, &leg.stream) {
                self.out(Output::ToNode(node.clone(), signaling::stop(stream)));
            }
            if let (Some(kind), Some(stream)) = (leg.purpose.kind(), leg.stream) {
                self.fact(Fact::MoveFailed { kind, stream, from: node.clone(), cause: MoveCause::Drain });
            }
            ended = true;
        }
        if ended {
            self.ask_to_come_again(now);
        }
    }

    /// The new node has the leg.
    pub(super) fn confirm_move(&mut self, at: usize, now: Instant) {
        let leg = &mut self.legs[at];
        let Some(moving) = leg.moving.take() else { return };
        self.revision = self.revision.wrapping_add(1);
        leg.avoid = Vec::new();
        let (Some(kind), Some(stream), Some(node)) =
            (leg.purpose.kind(), leg.stream.clone(), leg.stage.node().cloned())
        else {
            return;
        };
        let took = now.saturating_duration_since(moving.since);
        let Moving { from, cause, .. } = *moving;
        self.fact(Fact::Moved { kind, stream, from, node, cause, took });
        if self.settings.relay.is_none() {
            // Nobody here sees media: the signalling says it as nearly as it can.
            self.tell_gap(at, now);
        }
    }

    /// The relay saw something of a transport of this session.
    pub(super) fn on_media(&mut self, transport: TransportId, seen: MediaSeen, now: Instant) {
        match seen {
            MediaSeen::First => {
                let Some(at) = self.legs.iter().position(|leg| leg.media.has(transport)) else { return };
                if matches!(self.legs[at].stage, Stage::Answered(..)) {
                    self.confirm_move(at, now);
                }
                self.tell_gap(at, now);
            }
            MediaSeen::Closed { silent } => {
                let gaps = self.legs.iter_mut().filter_map(|leg| leg.gap.as_mut());
                let Some(gap) = gaps.into_iter().find(|gap| gap.closed.contains(&transport)) else { return };
                if let Some(last) = silent.and_then(|silent| gap.closed_at.checked_sub(silent)) {
                    gap.last = gap.last.min(last);
                }
            }
        }
    }

    pub(super) fn tell_gap(&mut self, at: usize, now: Instant) {
        let leg = &mut self.legs[at];
        let (Some(gap), Some(kind)) = (leg.gap.take(), leg.purpose.kind()) else { return };
        // Until others see that it has arrived, no drain asks it to go on.
        self.revision = self.revision.wrapping_add(1);
        self.fact(Fact::Gap { kind, gap: now.saturating_duration_since(gap.last) });
    }

    /// What becomes of a moving leg whose node refuses it for good.
    pub(super) fn refuse_move(&mut self, at: usize, now: Instant) {
        self.fail(at, Reject::Busy, now);
    }
}
