//! Every deadline of a session, and what happens when it passes.

use std::time::{Duration, Instant};

use super::{CloseReason, LinkLoss, Output, RetryCause, Session, Stage, link::LINGER, link::PONG_LIMIT, link::SILENCE};
use crate::domain::{ids::NodeId, reject::Reject, signaling};

/// A client silent for so long gets a WebSocket ping; an SLB closes idle sockets after 15 s (facts/alibaba.md).
const CLIENT_SILENCE: Duration = Duration::from_secs(10);
/// So many unanswered pings close it.
const CLIENT_PINGS: u32 = 3;
/// A node that has not answered a command for so long is asked whether it lives.
const PROBE_AFTER: Duration = Duration::from_millis(300);

impl Session {
    /// When [`super::Input::Tick`] is due. `None` once closed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.closed {
            return None;
        }
        let client = self.client_heard + CLIENT_SILENCE * (self.client_pings + 1);
        let links = self.links.iter().filter_map(|link| link.due());
        let legs = (0..self.legs.len()).filter_map(|at| self.leg_due(at));
        let closing = self.closing.map(|(at, _)| at);
        links.chain(legs).chain(closing).chain(Some(client)).min()
    }

    pub(super) fn on_tick(&mut self, now: Instant) {
        if let Some((at, reason)) = self.closing
            && at <= now
        {
            return self.close(reason);
        }
        if self.client_heard + CLIENT_SILENCE * (self.client_pings + 1) <= now {
            if self.client_pings >= CLIENT_PINGS {
                return self.close(CloseReason::ClientSilent);
            }
            self.client_pings += 1;
            self.out(Output::PingClient);
        }
        self.tick_links(now);
        self.tick_legs(now);
    }

    fn tick_links(&mut self, now: Instant) {
        for at in (0..self.links.len()).rev() {
            // A lost link takes its legs elsewhere, perhaps over a new link: the list may have changed.
            let Some(link) = self.links.get_mut(at).filter(|link| link.up) else { continue };
            let node = link.node.clone();
            if link.unused.is_some_and(|since| since + LINGER <= now) {
                self.hang_up(&node);
            } else if link.pinged.is_some_and(|pinged| pinged + PONG_LIMIT <= now) {
                self.give_up_link(&node, LinkLoss::Silent, now);
            } else if link.pinged.is_none() && link.heard + SILENCE <= now {
                link.pinged = Some(now);
                self.out(Output::ToNode(node, signaling::ping()));
            }
        }
    }

    fn tick_legs(&mut self, now: Instant) {
        let mut at = 0;
        while at < self.legs.len() {
            let before = self.legs.len();
            if self.leg_due(at).is_some_and(|due| due <= now) {
                self.tick_leg(at, now);
            }
            at += usize::from(self.legs.len() == before);
        }
    }

    fn leg_due(&self, at: usize) -> Option<Instant> {
        let leg = &self.legs[at];
        let confirm = leg.moving.as_ref().map(|moving| moving.confirm_by);
        match &leg.stage {
            Stage::Live(..) => None,
            Stage::Answered(..) => confirm,
            Stage::Behind | Stage::Placing(_) | Stage::Dialling(..) => Some(leg.give_up),
            Stage::Leaving { until, .. } => Some((*until).min(leg.give_up)),
            Stage::Resting(until) => Some((*until).min(leg.give_up)),
            Stage::Asked { at, probed: false, .. } => Some((*at + PROBE_AFTER).min(leg.give_up)),
            // A node that has shown life since is waited for.
            Stage::Asked { node, at, .. } if self.is_mute_since(node, *at) => {
                Some((*at + self.settings.attempt).min(leg.give_up))
            }
            Stage::Asked { .. } => Some(leg.give_up),
        }
    }

    fn is_mute_since(&self, node: &NodeId, since: Instant) -> bool {
        self.links.iter().any(|link| link.node == *node && link.heard <= since)
    }

    fn tick_leg(&mut self, at: usize, now: Instant) {
        let leg = &mut self.legs[at];
        if leg.stage.has_answer() {
            return self.fall_back(at, now); // the new node has not confirmed in time
        }
        if matches!(leg.stage, Stage::Leaving { .. }) {
            return self.has_left(at, now);
        }
        if leg.give_up <= now {
            return self.give_up_leg(at, now);
        }
        match leg.stage.clone() {
            Stage::Resting(_) => self.place_unless_behind(at, now),
            Stage::Asked { node, ticket, at: asked, probed: false } => {
                leg.stage = Stage::Asked { node: node.clone(), ticket, at: asked, probed: true };
                self.out(Output::ToNode(node, signaling::ping()));
            }
            Stage::Asked { node, .. } => self.give_up_node(at, &node, now),
            Stage::Behind
            | Stage::Placing(_)
            | Stage::Dialling(..)
            | Stage::Leaving { .. }
            | Stage::Answered(..)
            | Stage::Live(..) => {}
        }
    }

    /// The time for a first answer is over: the client hears it before its own watchdog barks.
    fn give_up_leg(&mut self, at: usize, now: Instant) {
        let stage = self.legs[at].stage.clone();
        if let (Stage::Asked { node, .. }, Some(stream)) = (&stage, self.legs[at].stream.clone()) {
            self.out(Output::ToNode(node.clone(), signaling::stop(&stream)));
        }
        self.fail(at, Reject::Busy, now);
        if let Stage::Asked { node, .. } = &stage
            && !self.legs.iter().any(|leg| leg.is_on(node))
        {
            self.hang_up(node);
        }
    }

    /// The node has shown no sign of life since it was asked. If other legs live on the link, only this one leaves:
    /// the link's own rule decides about them.
    fn give_up_node(&mut self, at: usize, node: &NodeId, now: Instant) {
        let shared = self.legs.iter().any(|leg| leg.is_on(node) && leg.stage.has_answer());
        if !shared {
            return self.give_up_link(node, LinkLoss::Silent, now);
        }
        if let Some(stream) = self.legs[at].stream.clone() {
            self.out(Output::ToNode(node.clone(), signaling::stop(&stream)));
        }
        self.retry(at, RetryCause::Link(LinkLoss::Silent), now);
    }
}
