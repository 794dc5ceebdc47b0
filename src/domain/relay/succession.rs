//! A client whose address changed: its new tuple takes over the path that its node has chosen, so that the node need not
//! notice. Nothing is taken from anybody who is there: the old tuple has left the node's checks unanswered, and the new one
//! has answered a check with the client's password, which no replay can.
//!
//! ```text
//! node ─check─► old tuple: no answer for half a second
//! node ─check─► new tuple, if it authenticated since: one of two, so that the old one is still asked
//!          new tuple ─answer─► node: the path is the new tuple's
//! ```
//!
//! Nodes that check a new path by themselves (RFC 8445 §7.3.1.4) have asked the new tuple already.

use super::{
    Core, FlowEnd, FlowState,
    core::{Slot, nanos},
    flow::{Flow, OldPath, Path},
    settings::FED,
};

impl Core {
    /// The node sends its payload on this path, where nobody is: whose it is from here on.
    pub(super) fn feed_deserted(&mut self, index: u32, path: Path, now: u64) -> u32 {
        let flow = &mut self.flows[index];
        match flow.old {
            Some(old) if old.path == path && old.transport == flow.transport => {
                flow.old = Some(OldPath { path: flow.path, ..old });
                flow.path = path;
                flow.checks.change_paths();
            }
            _ if flow.path == path => {}
            _ => return index,
        }
        flow.fed = now;
        self.succeed(index, now).unwrap_or(index)
    }

    /// Who is there in place of a deserted flow, if anybody has proved that it is the same client. That tuple has the path
    /// from here on, beside its own.
    pub(super) fn succeed(&mut self, index: u32, now: u64) -> Option<u32> {
        let Flow { transport, path, .. } = self.flows[index];
        let heir = self.heir(index, now)?;
        self.close_flow(index, FlowEnd::Moved, now);
        self.forget_old_path(heir);
        self.by_path.insert(path, Slot::Flow(heir));
        let flow = &mut self.flows[heir];
        if flow.chosen {
            // The agents have chosen the new path themselves; until the node sends there, it must be heard here.
            flow.old = Some(OldPath { transport, path });
            return Some(heir);
        }
        flow.old = Some(OldPath { transport, path: flow.path });
        flow.path = path;
        flow.checks.change_paths();
        flow.chosen = true;
        self.nominate(heir, now);
        Some(heir)
    }

    /// The flow of this transport that its node has chosen and nobody is at.
    pub(super) fn deserted(&self, transport: u32, now: u64) -> Option<u32> {
        let flows = self.transports[transport].flows.as_slice();
        flows.iter().copied().find(|flow| self.is_deserted(*flow, now))
    }

    pub(super) fn is_deserted(&self, index: u32, now: u64) -> bool {
        let flow = &self.flows[index];
        flow.state == FlowState::Nominated && flow.is_unanswered(now)
    }

    /// Who may answer the node's next check in place of a deserted flow that the node still sends payload to.
    pub(super) fn candidate(&mut self, index: u32, now: u64) -> Option<u32> {
        if !self.is_deserted(index, now) || now.saturating_sub(self.flows[index].fed) > nanos(FED) {
            return None;
        }
        let offer = !self.flows[index].offered;
        let candidates = self.since(index).filter(|other| !self.flows[*other].is_validated());
        // Everyone in turn, who was heard last before the others.
        let candidate = candidates.min_by_key(|other| {
            let Flow { offers, last_rx, .. } = self.flows[*other];
            (offers, u64::MAX - last_rx)
        })?;
        self.flows[index].offered = offer;
        if !offer {
            return None;
        }
        let offers = &mut self.flows[candidate].offers;
        *offers = offers.saturating_add(1);
        Some(candidate)
    }

    fn heir(&self, index: u32, now: u64) -> Option<u32> {
        let proved = |other: &u32| self.flows[*other].is_validated() && !self.flows[*other].is_unanswered(now);
        self.since(index).filter(proved).max_by_key(|other| self.flows[*other].last_rx)
    }

    /// The flows of the same transport that were heard since this one's client last answered.
    fn since(&self, index: u32) -> impl Iterator<Item = u32> {
        let Flow { transport, proved, .. } = self.flows[index];
        let others = self.transports[transport].flows.as_slice().iter().copied().filter(move |other| *other != index);
        others.filter(move |other| self.flows[*other].last_rx > proved)
    }
}
