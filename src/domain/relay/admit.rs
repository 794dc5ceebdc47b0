//! How flows begin, move to a newer generation, and end.

use super::{
    ClientKey, Core, DropReason, EventKind, FlowEnd, FlowState, POOL_SOCKETS,
    core::{Slot, Tombstone, nanos},
    flow::{Flow, OldPath, Path},
    inheritance::Estate,
    settings::{LIVE, MAX_TOMBSTONES},
};

impl Core {
    /// A flow for a tuple whose STUN was authenticated. Refused, nothing has changed but the session's count of tries.
    pub(super) fn open_flow(
        &mut self,
        transport: u32,
        client: ClientKey,
        claim: u64,
        now: u64,
    ) -> Result<u32, DropReason> {
        let backend = self.transports[transport].backend.ok_or(DropReason::NoBackend)?;
        if self.flows.len() >= self.settings.max_flows {
            return Err(DropReason::TableFull);
        }
        let victim = self.room_for_tuple(transport, now)?;
        let session = self.transports[transport].session;
        let session = self.sessions.get_mut(&session).expect("a transport's session is known");
        if !session.tuples.take(self.rates.tuples, now) {
            return Err(DropReason::TupleRate);
        }
        if let Some(victim) = victim {
            self.close_flow(victim, FlowEnd::Replaced, now);
        }
        let path = self.take_path(transport, backend, now)?;
        let flow = self.flows.insert(Flow::new(transport, client, path, claim, now));
        self.by_client.insert(client, Slot::Flow(flow));
        self.by_path.insert(path, Slot::Flow(flow));
        self.transports[transport].flows.push(flow);
        self.stats.flows[FlowState::New as usize] += 1;
        Ok(flow)
    }

    /// Moves a flow to a newer generation of its session. Media of the older one still reaches the client.
    pub(super) fn rebind(&mut self, index: u32, to: u32, claim: u64, now: u64) -> Result<(), DropReason> {
        let backend = self.transports[to].backend.ok_or(DropReason::NoBackend)?;
        if let Some(victim) = self.room_for_tuple(to, now)? {
            self.close_flow(victim, FlowEnd::Replaced, now);
        }
        let Flow { transport: from, path: before, .. } = self.flows[index];
        let moves = before.backend != backend;
        if moves {
            let path = self.take_path(to, backend, now)?;
            self.forget_old_path(index);
            self.by_path.insert(path, Slot::Flow(index));
            self.flows[index].old = Some(OldPath { transport: from, path: before });
            self.flows[index].path = path;
        }
        self.transports[from].flows.remove(index);
        self.transports[to].flows.push(index);
        let flow = &mut self.flows[index];
        flow.transport = to;
        flow.claim = claim;
        flow.chosen = false;
        flow.answered = false;
        flow.checks = super::flow::Checks::default();
        flow.asked = None;
        flow.proved = now;
        if flow.state == FlowState::Nominated {
            self.set_state(index, FlowState::Validated);
        }
        Ok(())
    }

    /// Ends a flow: nothing passes from here on, and what still comes is dropped without blame for a while.
    pub(super) fn close_flow(&mut self, index: u32, reason: FlowEnd, now: u64) {
        self.forget_old_path(index);
        let Some(flow) = self.flows.remove(index) else { return };
        self.stats.flows[flow.state as usize] -= 1;
        self.transports[flow.transport].flows.remove(index);
        self.bury(&flow, reason, now);
        self.say(flow.transport, EventKind::FlowClosed { client: flow.client, reason });
    }

    /// The path of an older generation leads nowhere any more.
    pub(super) fn forget_old_path(&mut self, index: u32) {
        if let Some(old) = self.flows[index].old.take() {
            self.by_path.remove(&old.path);
        }
    }

    /// Which flow must make room for another tuple, if any must; a live one never does.
    fn room_for_tuple(&self, transport: u32, now: u64) -> Result<Option<u32>, DropReason> {
        let flows = &self.transports[transport].flows;
        if !flows.is_full() {
            return Ok(None);
        }
        let replaceable = flows.as_slice().iter().copied().filter(|flow| !self.flows[*flow].is_live(now, nanos(LIVE)));
        let oldest = replaceable.min_by_key(|flow| {
            let Flow { born, last_rx, .. } = self.flows[*flow];
            // Those that proved nothing go first, then those that died.
            if self.flows[*flow].is_validated() { (true, last_rx) } else { (false, born) }
        });
        oldest.map(Some).ok_or(DropReason::TuplesFull)
    }

    /// A private socket on which this node address means nobody else.
    pub(super) fn take_path(
        &mut self,
        transport: u32,
        backend: std::net::SocketAddr,
        now: u64,
    ) -> Result<Path, DropReason> {
        let session = self.transports[transport].session;
        let first = self.transports[transport].next_pool;
        for step in 0..POOL_SOCKETS {
            let pool = (first + step) % POOL_SOCKETS;
            let path = Path { pool, backend };
            match self.by_path.get(&path) {
                Some(Slot::Flow(other)) if self.transports[self.flows[*other].transport].session == session => continue,
                Some(Slot::Flow(other)) => {
                    // The node gave its port to another session, so the one that had it is over there.
                    let other = *other;
                    self.stats.backend_port_reuse += 1;
                    self.close_flow(other, FlowEnd::BackendReused, now);
                }
                Some(Slot::Tombstone(_)) | None => {}
            }
            self.transports[transport].next_pool = (pool + 1) % POOL_SOCKETS;
            return Ok(path);
        }
        Err(DropReason::TuplesFull)
    }

    fn bury(&mut self, flow: &Flow, reason: FlowEnd, now: u64) {
        if self.tombstones.len() >= MAX_TOMBSTONES {
            self.forget_oldest_tombstone();
        }
        let number = self.next_tombstone;
        self.next_tombstone += 1;
        self.by_client.insert(flow.client, Slot::Tombstone(number));
        self.by_path.insert(flow.path, Slot::Tombstone(number));
        let until = now + nanos(self.settings.tombstone);
        let transport = &self.transports[flow.transport];
        let (session, client, path) = (transport.session, flow.client, flow.path);
        let is_left = flow.state == FlowState::Nominated && reason == FlowEnd::Closed;
        let estate = is_left.then(|| Box::new(Estate::of(transport, flow)));
        self.tombstones.push_back(Tombstone { number, until, client, path, session, estate });
    }

    /// Forgets what the oldest tombstone stands for, unless a new flow stands there by now.
    pub(super) fn forget_oldest_tombstone(&mut self) {
        let Some(Tombstone { number, client, path, estate, .. }) = self.tombstones.pop_front() else { return };
        if self.by_client.get(&client) == Some(&Slot::Tombstone(number)) {
            self.by_client.remove(&client);
            if estate.is_some() && matches!(client, ClientKey::Tcp { .. }) {
                self.deserted.push_back(client);
            }
        }
        if self.by_path.get(&path) == Some(&Slot::Tombstone(number)) {
            self.by_path.remove(&path);
        }
    }
}
