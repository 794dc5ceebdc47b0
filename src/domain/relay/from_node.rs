//! Datagrams of nodes: only from the very address that a flow was opened to, and payload only to clients that proved
//! that they are no replay.

use super::{
    ClientKey, Core, DropReason, FlowState,
    core::Slot,
    demux::{Class, class},
    flow::{Asked, Flow, Heritage, Path},
    from_client::before_validation,
    settings::MAX_DATAGRAM,
    stun::{Kind, Message},
};

impl Core {
    /// Whom the datagram goes on to.
    pub(super) fn node_datagram(&mut self, path: Path, bytes: &[u8], now: u64) -> Result<ClientKey, DropReason> {
        if bytes.len() > MAX_DATAGRAM {
            return Err(DropReason::Oversized);
        }
        let class = class(bytes).ok_or(DropReason::BadClass)?;
        let mut index = match self.by_path.get(&path) {
            Some(Slot::Flow(flow)) => *flow,
            Some(Slot::Tombstone(_)) => return Err(DropReason::Tombstone),
            None => return Err(DropReason::UnknownNode),
        };
        if class != Class::Stun && self.is_deserted(index, now) {
            index = self.feed_deserted(index, path, now);
        }
        let flow = &self.flows[index];
        let old = flow.old.filter(|old| old.path == path);
        let transport = old.map_or(flow.transport, |old| old.transport);
        let whose = if class == Class::Stun {
            self.stun_of_node(index, old.is_some(), bytes, now)?
        } else if flow.is_validated() {
            self.payload_of_node(transport, class, bytes.len(), now)?;
            index
        } else {
            return Err(before_validation(class));
        };
        self.transports[transport].traffic.to_client.add(bytes.len());
        Ok(self.flows[whose].client)
    }

    fn payload_of_node(&mut self, transport: u32, class: Class, length: usize, now: u64) -> Result<(), DropReason> {
        let held = &mut self.transports[transport];
        if held.byte_rate.is_some_and(|rate| !held.bytes_to_client.take_bytes(length, rate, now)) {
            return Err(DropReason::ByteRate);
        }
        if class == Class::Rtp {
            self.note_media(transport, now);
        }
        Ok(())
    }

    /// Who is asked a request of the node in place of a flow that nobody is at. A check that is sent again goes where it went
    /// before: asked of two tuples, the answer of the one would prove the other, which may be a replay's.
    fn asked_in_place(
        &mut self,
        index: u32,
        message: &Message<'_>,
        length: usize,
        now: u64,
    ) -> Result<Option<u32>, DropReason> {
        let transaction = message.transaction();
        if self.flows[index].checks.find(transaction).is_some() {
            return Ok(None);
        }
        let siblings = self.transports[self.flows[index].transport].flows.as_slice();
        let asked = siblings.iter().copied().find(|flow| self.flows[*flow].checks.find(transaction).is_some());
        if let Some(asked) = asked {
            let Flow { checks, state, unproven, .. } = &mut self.flows[asked];
            return match checks.find(transaction) {
                Some(Asked::InPlaceOfAnother) if *state == FlowState::New && !unproven.may_send(length) => {
                    Err(DropReason::Unproven)
                }
                Some(Asked::InPlaceOfAnother) => Ok(Some(asked)),
                _ => Ok(None),
            };
        }
        let Some(candidate) = self.candidate(index, now) else { return Ok(None) };
        let Flow { checks, unproven, .. } = &mut self.flows[candidate];
        if !unproven.may_send(length) {
            return Ok(None);
        }
        checks.note(transaction, Asked::InPlaceOfAnother);
        Ok(Some(candidate))
    }

    /// The node is who its address says, on a private network: its messages are read, not authenticated. Says whose it is.
    fn stun_of_node(&mut self, index: u32, on_old_path: bool, bytes: &[u8], now: u64) -> Result<u32, DropReason> {
        let message = Message::parse(bytes).map_err(|_| DropReason::BadStun)?;
        if message.kind() == Kind::Request
            && !on_old_path
            && let Some(candidate) = self.asked_in_place(index, &message, bytes.len(), now)?
        {
            return Ok(candidate);
        }
        let flow = &mut self.flows[index];
        if flow.heritage == Heritage::Untried {
            flow.heritage = Heritage::Tried;
        }
        if !flow.is_validated() && !flow.unproven.may_send(bytes.len()) {
            return Err(DropReason::Unproven);
        }
        match message.kind() {
            Kind::Request => {
                let asked = if on_old_path { Asked::OnOldPath } else { Asked::Here };
                flow.checks.note(message.transaction(), asked);
                if !on_old_path || flow.old.is_some_and(|old| old.transport == flow.transport) {
                    flow.asked.get_or_insert(now);
                }
                flow.chosen |= message.use_candidate() && !on_old_path;
                if flow.chosen && flow.state == FlowState::Validated {
                    self.nominate(index, now);
                }
            }
            Kind::Success if !on_old_path => {
                flow.answered = true;
                if self.transports[flow.transport].node_is_lite {
                    self.validate(index, now);
                }
            }
            Kind::Success | Kind::Error | Kind::Indication => {}
        }
        Ok(index)
    }
}
