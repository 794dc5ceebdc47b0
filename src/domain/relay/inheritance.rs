//! A leg that was moved to another node goes on where it was: its new transport begins with the tuple that its client and
//! the node before had chosen.
//!
//! ```text
//! client ◄── flow of the old transport ──► old node
//!            moved ─► flow of the new one, validated, not yet chosen
//! client ◄── the same tuple ──► new node      its checks come at once, and so do both handshakes
//! ```
//!
//! Browsers begin no new path for this. With new credentials from the same address (seen: Chromium 156) a publisher, which
//! restarts nothing itself, keeps the pair that it has and checks nothing else until that has died after 5 s; a viewer
//! sends its handshake into the old pair for 3.5 s. So the client goes on with the credentials that it knows (`mask`), and
//! all that is new to it is the node's fingerprint: it begins the handshake at once, on the path that works.
//!
//! The tuple is no stranger's: it has answered checks with the client's password until a moment ago, both agents had chosen
//! it, and nothing has ended its session since. It has to answer the new node's checks like any other.

use std::net::SocketAddr;

use super::{
    Core, FlowState, Nomination, TransportId,
    core::{Slot, Tombstone},
    flow::{Flow, Heritage, Path},
    settings::NOMINATIONS,
    stun::{self, Key},
    transport::{Remembered, Transport},
};

/// What a chosen tuple leaves to the next transport of its leg.
#[derive(Debug)]
pub(super) struct Estate {
    of: TransportId,
    /// Hash of the ufrag that its client named as its own.
    claim: u64,
    /// The client is who chose it.
    chosen_by_client: bool,
    /// Which requests have passed: under the same credentials their copies are still copies.
    remembered: Remembered,
}

impl Estate {
    pub(super) fn of(transport: &Transport, flow: &Flow) -> Self {
        let Flow { claim, chosen_by_client, .. } = *flow;
        Self { of: transport.id, claim, chosen_by_client, remembered: transport.remembered.clone() }
    }
}

impl Core {
    /// Gives a transport whose node is known what its predecessor has, or left a moment ago. Where that is nothing, its
    /// client's next check makes a flow as any other does.
    pub(super) fn inherit(&mut self, index: u32, now: u64) {
        let Transport { succeeds: Some(before), backend: Some(_), .. } = self.transports[index] else { return };
        let flow = match self.by_id.get(&before).copied() {
            Some(living) => self.take_over(index, living, now),
            None => self.inherit_from_dead(index, before, now),
        };
        if let Some(flow) = flow {
            self.flows[flow].heritage = Heritage::Untried;
        }
    }

    fn take_over(&mut self, index: u32, living: u32, now: u64) -> Option<u32> {
        if self.transports[living].session != self.transports[index].session {
            return None;
        }
        self.transports[index].remembered = self.transports[living].remembered.clone();
        let mut flows = self.transports[living].flows.copied();
        let flow = flows.find(|flow| self.flows[*flow].state == FlowState::Nominated)?;
        let claim = self.flows[flow].claim;
        // Refused, it stays where it is, and the client's next check moves it.
        let moved = self.is_claimed(index, claim) && self.rebind(flow, index, claim, now).is_ok();
        moved.then_some(flow)
    }

    fn inherit_from_dead(&mut self, index: u32, before: TransportId, now: u64) -> Option<u32> {
        let session = self.transports[index].session;
        let is_of = |estate: &Estate| estate.of == before;
        let is_left = |buried: &&Tombstone| buried.session == session && buried.estate.as_deref().is_some_and(is_of);
        let buried = self.tombstones.iter().rev().find(is_left).filter(|buried| buried.until > now)?;
        let Estate { claim, chosen_by_client, remembered, .. } = buried.estate.as_deref()?;
        let (client, number, claim, chosen_by_client) = (buried.client, buried.number, *claim, *chosen_by_client);
        self.transports[index].remembered = remembered.clone();
        let is_untouched = self.by_client.get(&client) == Some(&Slot::Tombstone(number));
        if !is_untouched || !self.is_claimed(index, claim) {
            return None;
        }
        let flow = self.open_flow(index, client, claim, now).ok()?;
        self.validate(flow, now);
        self.flows[flow].chosen_by_client = chosen_by_client;
        Some(flow)
    }

    /// The node is at another port than it seemed when the tuple was inherited.
    pub(super) fn redirect(&mut self, index: u32, backend: SocketAddr, now: u64) {
        let Flow { transport, path: before, .. } = self.flows[index];
        let same = Path { backend, ..before };
        let path = match self.by_path.get(&same) {
            Some(Slot::Flow(_)) => self.take_path(transport, backend, now).ok(),
            Some(Slot::Tombstone(_)) | None => Some(same),
        };
        if let Some(path) = path {
            self.by_path.remove(&before);
            self.by_path.insert(path, Slot::Flow(index));
            self.flows[index].path = path;
        }
    }

    /// Tells the node what the client has chosen, now that both know that the path works: some stacks (seen: rtc-ice) make
    /// nothing of it earlier.
    pub(super) fn nominate_for_client(&mut self, index: u32) {
        let Flow { transport, path: Path { pool, backend: to }, chosen_by_client, .. } = self.flows[index];
        self.flows[index].heritage = Heritage::None;
        if !chosen_by_client || self.nominations.len() >= NOMINATIONS {
            return;
        }
        let Transport { masked: Some(own), client: Some(client), .. } = &self.transports[transport] else { return };
        let username = [&*own.ufrag, ":", client.named()].concat();
        self.checks_made += 1;
        let mut id = *b"for a client";
        id[4..].copy_from_slice(&self.hash.of(&self.checks_made.to_be_bytes()).to_be_bytes());
        let bytes = stun::nomination(username.as_bytes(), id, &Key::new(&own.pwd));
        self.nominations.push_back(Nomination { pool, to, bytes });
    }

    /// Whether a tuple whose client named itself so may be of this transport's client.
    fn is_claimed(&self, index: u32, claim: u64) -> bool {
        self.transports[index].client.as_ref().is_none_or(|client| client.ufrag == claim)
    }
}
