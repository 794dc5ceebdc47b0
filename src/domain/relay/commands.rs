//! What sessions ask for: transports opened, completed and closed.

use std::{net::SocketAddr, time::Duration};

use super::{
    Core, Credentials, EventKind, FlowEnd, Refused, TransportEnd, TransportId, TransportSpec,
    flow::Heritage,
    settings::{MAX_SAME_UFRAG, MAX_TRANSPORTS_PER_SESSION},
    transport::{Client, Media, Transport, check_credentials, check_node, shown},
};
use crate::domain::ids::SessionId;

impl Core {
    pub(super) fn open(&mut self, spec: &TransportSpec, now: u64) -> Result<(), Refused> {
        self.check_spec(spec)?;
        if let Some(generation) = self.generation_in_the_way(spec) {
            self.end_transport(generation, TransportEnd::Superseded, now);
        }
        if self.transports.len() >= self.settings.max_transports {
            return Err(Refused::Full);
        }
        let generation = self.next_generation;
        self.next_generation += 1;
        let index = self.transports.insert(Transport::new(spec, generation, self.hash, now));
        let ufrag = self.hash.of(shown(spec).ufrag.as_bytes());
        self.transports[index].next_alike = self.by_ufrag.insert(ufrag, index);
        self.by_id.insert(spec.id, index);
        self.sessions.entry(spec.session).or_default().transports.push(index);
        self.stats.transports += 1;
        self.inherit(index, now);
        Ok(())
    }

    pub(super) fn set_client(&mut self, id: TransportId, client: &Credentials, now: u64) -> Result<(), Refused> {
        let index = *self.by_id.get(&id).ok_or(Refused::Unknown)?;
        check_credentials(client)?;
        let client = Client::new(client, self.hash);
        let ufrag = client.ufrag;
        self.transports[index].client = Some(client);
        self.transports[index].note_ready(now);
        for flow in self.transports[index].flows.copied() {
            if self.flows[flow].claim != ufrag {
                self.stats.claim_mismatches += 1;
                self.close_flow(flow, FlowEnd::ClaimMismatch, now);
            }
        }
        Ok(())
    }

    /// A second port replaces the first for what is not validated yet: the first did not answer.
    pub(super) fn set_backend(&mut self, id: TransportId, port: u16, now: u64) -> Result<(), Refused> {
        let index = *self.by_id.get(&id).ok_or(Refused::Unknown)?;
        self.check_port(port)?;
        let transport = &mut self.transports[index];
        let backend = SocketAddr::new(transport.node, port);
        let before = transport.backend.replace(backend);
        transport.note_ready(now);
        if before.is_none() {
            self.inherit(index, now);
        }
        if before.is_none() || before == Some(backend) {
            return Ok(());
        }
        for flow in self.transports[index].flows.copied() {
            if self.flows[flow].heritage == Heritage::Untried {
                self.redirect(flow, backend, now);
            } else if !self.flows[flow].is_validated() {
                // The client's next check opens it again, towards the new port.
                self.close_flow(flow, FlowEnd::Replaced, now);
            }
        }
        Ok(())
    }

    pub(super) fn close(&mut self, id: TransportId, now: u64) -> Result<(), Refused> {
        let index = *self.by_id.get(&id).ok_or(Refused::Unknown)?;
        self.end_transport(index, TransportEnd::Closed, now);
        Ok(())
    }

    pub(super) fn close_session(&mut self, session: SessionId, now: u64) -> Result<(), Refused> {
        let transports = self.sessions.get(&session).map(|session| session.transports.clone());
        for index in transports.ok_or(Refused::Unknown)? {
            let first = self.next_tombstone;
            self.end_transport(index, TransportEnd::Closed, now);
            // There will be no next node.
            for buried in self.tombstones.iter_mut().rev().take_while(|buried| buried.number >= first) {
                buried.estate = None;
            }
        }
        Ok(())
    }

    /// Ends a transport and all that hangs on it, at once.
    pub(super) fn end_transport(&mut self, index: u32, reason: TransportEnd, now: u64) {
        for flow in self.transports[index].flows.copied() {
            self.close_flow(flow, FlowEnd::Closed, now);
        }
        self.forget_old_paths_of(index);
        let traffic = self.transports[index].traffic;
        let silent = match self.transports[index].media {
            Media::Awaited | Media::Silent => None,
            Media::Flowing { last } | Media::Stalled { last } => Some(Duration::from_nanos(now.saturating_sub(last))),
        };
        self.say(index, EventKind::Closed { reason, silent, traffic });
        self.unlink_ufrag(index);
        let Some(transport) = self.transports.remove(index) else { return };
        self.by_id.remove(&transport.id);
        if let Some(session) = self.sessions.get_mut(&transport.session) {
            session.transports.retain(|held| *held != index);
            if session.transports.is_empty() {
                self.sessions.remove(&transport.session);
            }
        }
        self.stats.transports -= 1;
    }

    fn check_spec(&self, spec: &TransportSpec) -> Result<(), Refused> {
        check_node(spec.node)?;
        check_credentials(&spec.server)?;
        check_credentials(shown(spec))?;
        spec.client.as_ref().map_or(Ok(()), check_credentials)?;
        spec.backend_port.map_or(Ok(()), |port| self.check_port(port))?;
        if self.by_id.contains_key(&spec.id) {
            return Err(Refused::Duplicate);
        }
        let in_session = self.sessions.get(&spec.session).map_or(0, |session| session.transports.len());
        if in_session >= MAX_TRANSPORTS_PER_SESSION {
            return Err(Refused::SessionFull);
        }
        if self.chain(self.hash.of(shown(spec).ufrag.as_bytes())).count() >= MAX_SAME_UFRAG {
            return Err(Refused::UfragTaken);
        }
        if self.transports.len() >= self.settings.max_transports && self.generation_in_the_way(spec).is_none() {
            return Err(Refused::Full);
        }
        Ok(())
    }

    fn check_port(&self, port: u16) -> Result<(), Refused> {
        if port != 0 && self.settings.node_ports.contains(&port) { Ok(()) } else { Err(Refused::BadPort) }
    }

    /// A line has two generations at most: a third ends the later of the two if that one never got to carry anything,
    /// else the older.
    fn generation_in_the_way(&self, spec: &TransportSpec) -> Option<u32> {
        let session = self.sessions.get(&spec.session)?;
        let mut line = session.transports.iter().copied().filter(|index| self.transports[*index].line == spec.line);
        let (older, newer) = (line.next()?, line.next()?);
        if self.transports[newer].nominated { Some(older) } else { Some(newer) }
    }

    fn chain(&self, ufrag: u64) -> impl Iterator<Item = u32> {
        let first = self.by_ufrag.get(&ufrag).copied();
        std::iter::successors(first, |index| self.transports[*index].next_alike)
    }

    fn unlink_ufrag(&mut self, index: u32) {
        let ufrag = self.hash.of(self.transports[index].server.ufrag.as_bytes());
        let next = self.transports[index].next_alike;
        let before = self.chain(ufrag).find(|other| self.transports[*other].next_alike == Some(index));
        match (before, next) {
            (Some(before), next) => self.transports[before].next_alike = next,
            (None, Some(next)) => {
                self.by_ufrag.insert(ufrag, next);
            }
            (None, None) => {
                self.by_ufrag.remove(&ufrag);
            }
        }
    }

    /// Flows that moved on to a newer generation keep no path of one that ended.
    fn forget_old_paths_of(&mut self, index: u32) {
        let session = self.transports[index].session;
        let siblings = self.sessions.get(&session).map(|session| session.transports.clone()).unwrap_or_default();
        for sibling in siblings {
            for flow in self.transports[sibling].flows.copied() {
                if self.flows[flow].old.is_some_and(|old| old.transport == index) {
                    self.forget_old_path(flow);
                }
            }
        }
    }
}
