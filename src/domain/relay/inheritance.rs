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
    ClientKey, Core, FlowState, TransportId,
    core::{Slot, Tombstone},
    flow::Flow,
    transport::{Remembered, Transport},
};

/// What a chosen tuple leaves to the next transport of its leg.
#[derive(Debug)]
pub(super) struct Estate {
    of: TransportId,
    /// Hash of the ufrag that its client named as its own.
    claim: u64,
    /// Which requests have passed: under the same credentials their copies are still copies.
    remembered: Remembered,
}

impl Estate {
    pub(super) fn of(transport: &Transport, flow: &Flow) -> Self {
        Self { of: transport.id, claim: flow.claim, remembered: transport.remembered.clone() }
    }
}

impl Core {
    /// Gives a transport whose node is known what its predecessor has, or left a moment ago. Where that is nothing, its
    /// client's next check makes a flow as any other does.
    pub(super) fn inherit(&mut self, index: u32, now: u64) {
        let Transport { succeeds: Some(before), backend: Some(_), .. } = self.transports[index] else { return };
        match self.by_id.get(&before).copied() {
            Some(living) => self.take_over(index, living, now),
            None => self.inherit_from_dead(index, before, now),
        }
    }

    fn take_over(&mut self, index: u32, living: u32, now: u64) {
        if self.transports[living].session != self.transports[index].session {
            return;
        }
        self.transports[index].remembered = self.transports[living].remembered.clone();
        let mut flows = self.transports[living].flows.copied();
        let Some(flow) = flows.find(|flow| self.flows[*flow].state == FlowState::Nominated) else { return };
        let claim = self.flows[flow].claim;
        if self.is_claimed(index, claim) {
            // Refused, it stays where it is, and the client's next check moves it.
            if self.rebind(flow, index, claim, now).is_ok() {
                self.flows[flow].untried = true;
            }
        }
    }

    fn inherit_from_dead(&mut self, index: u32, before: TransportId, now: u64) {
        let session = self.transports[index].session;
        let is_of = |buried: &&Tombstone| buried.estate.as_ref().is_some_and(|estate| estate.of == before);
        let buried = self.tombstones.iter().rev().filter(is_of);
        let Some(buried) = buried.filter(|buried| buried.session == session && buried.until > now).next() else { return };
        let Some(Estate { claim, remembered, .. }) = buried.estate.as_deref() else { return };
        let (client, claim, number) = (buried.client, *claim, buried.number);
        self.transports[index].remembered = remembered.clone();
        let is_untouched = self.by_client.get(&client) == Some(&Slot::Tombstone(number));
        // A connection was closed with its flow.
        let is_there = matches!(client, ClientKey::Udp(_)) && is_untouched;
        if !is_there || !self.is_claimed(index, claim) {
            return;
        }
        if let Ok(flow) = self.open_flow(index, client, claim, now) {
            self.validate(flow, now);
            self.flows[flow].untried = true;
        }
    }

    /// The node is at another port than it seemed when the tuple was inherited.
    pub(super) fn redirect(&mut self, index: u32, backend: SocketAddr, now: u64) {
        let Flow { transport, path: before, .. } = self.flows[index];
        if let Ok(path) = self.take_path(transport, backend, now) {
            self.by_path.remove(&before);
            self.by_path.insert(path, Slot::Flow(index));
            self.flows[index].path = path;
        }
    }

    /// Whether a tuple whose client named itself so may be of this transport's client.
    fn is_claimed(&self, index: u32, claim: u64) -> bool {
        self.transports[index].client.as_ref().is_none_or(|client| client.ufrag == claim)
    }
}
