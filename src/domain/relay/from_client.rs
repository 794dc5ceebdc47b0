//! Datagrams of clients: authenticated, or of a flow that was.

use super::{
    ClientKey, Core, DropReason, EventKind, FlowEnd, FlowState,
    core::{Slot, nanos},
    demux::{Class, class},
    flow::{Asked, Flow, Heritage, Path},
    settings::{LIVE, MAX_DATAGRAM},
    stun::{Key, Kind, Message},
    transport::Media,
};

/// A STUN request that was authenticated.
#[derive(Debug, Clone, Copy)]
struct Authenticated {
    transport: u32,
    /// Hash of its transaction's id.
    transaction: u64,
    /// Hash of the ufrag that the client says is its own.
    claim: u64,
    use_candidate: bool,
}

impl Core {
    /// Where the datagram goes on to.
    pub(super) fn client_datagram(&mut self, from: ClientKey, bytes: &[u8], now: u64) -> Result<Path, DropReason> {
        if bytes.len() > MAX_DATAGRAM {
            return Err(DropReason::Oversized);
        }
        let class = class(bytes).ok_or(DropReason::BadClass)?;
        match (self.by_client.get(&from), class) {
            (Some(Slot::Flow(flow)), Class::Stun) => self.stun_of_flow(*flow, bytes, now),
            (Some(Slot::Flow(flow)), _) => self.payload_of_flow(*flow, class, bytes, now),
            (slot, Class::Stun) => {
                let is_late = slot.is_some();
                self.stun_of_stranger(from, is_late, bytes, now)
            }
            (Some(Slot::Tombstone(_)), _) => Err(DropReason::Tombstone),
            (None, _) => Err(DropReason::UnknownTuple),
        }
    }

    /// DTLS, RTP or RTCP on a flow: opaque.
    fn payload_of_flow(&mut self, index: u32, class: Class, bytes: &[u8], now: u64) -> Result<Path, DropReason> {
        let flow = &mut self.flows[index];
        if !flow.may_send() {
            return Err(before_validation(class));
        }
        let length = bytes.len();
        let transport = &mut self.transports[flow.transport];
        if transport.byte_rate.is_some_and(|rate| !transport.bytes_to_node.take_bytes(length, rate, now)) {
            return Err(DropReason::ByteRate);
        }
        flow.last_rx = now;
        transport.traffic.to_node.add(length);
        if class == Class::Dtls && transport.media == Media::Awaited && is_first_flight(bytes) {
            transport.media = Media::Silent;
        }
        let (path, transport) = (flow.path, flow.transport);
        if class == Class::Rtp && flow.is_validated() {
            self.note_media(transport, now);
        }
        Ok(path)
    }

    /// STUN of a tuple that has a flow: its failures are nobody's blame, since anybody can fake its address.
    fn stun_of_flow(&mut self, index: u32, bytes: &[u8], now: u64) -> Result<Path, DropReason> {
        let message = self.checked(bytes).inspect_err(|_| self.stats.auth_failures += 1)?;
        match message.kind() {
            Kind::Request => self.request_of_flow(index, &message, bytes.len(), now),
            Kind::Success | Kind::Error => self.response_of_flow(index, &message, bytes.len(), now),
            Kind::Indication => Err(DropReason::StunClass),
        }
    }

    fn request_of_flow(
        &mut self,
        index: u32,
        message: &Message<'_>,
        length: usize,
        now: u64,
    ) -> Result<Path, DropReason> {
        let request = self.authenticate(message).inspect_err(|_| self.stats.auth_failures += 1)?;
        let (own, client, old) = {
            let flow = &self.flows[index];
            (flow.transport, flow.client, flow.old.filter(|old| old.transport == request.transport))
        };
        self.take_stun(index, now)?;
        if request.transport == own {
            return Ok(self.pass_request(index, request, length, now));
        }
        if let Some(old) = old {
            // The older generation is still being checked; the flow stays with the newer one.
            self.pass_unbound_request(index, request, length, now);
            return Ok(old.path);
        }
        if self.transports[request.transport].follows(&self.transports[own]) {
            self.note_first_stun(request.transport, now);
            self.rebind(index, request.transport, request.claim, now)?;
            return Ok(self.pass_request(index, request, length, now));
        }
        let (named, owner) = (&self.transports[request.transport], &self.transports[own]);
        if named.session == owner.session && named.backend == Some(self.flows[index].path.backend) {
            // A restart on the same port of the node: both generations share the path.
            self.pass_unbound_request(index, request, length, now);
            return Ok(self.flows[index].path);
        }
        if named.session == owner.session || self.flows[index].is_live(now, nanos(LIVE)) {
            return Err(DropReason::TupleTaken);
        }
        self.close_flow(index, FlowEnd::Replaced, now);
        self.admit(client, request, length, now)
    }

    /// A response passes only where the node asked: a sniffed one, replayed from elsewhere, validates nothing.
    fn response_of_flow(
        &mut self,
        index: u32,
        message: &Message<'_>,
        length: usize,
        now: u64,
    ) -> Result<Path, DropReason> {
        let flow = &self.flows[index];
        let asked = flow.checks.find(message.transaction()).ok_or(DropReason::StunClass)?;
        let at = match asked {
            Asked::Here => Some((flow.transport, flow.path)),
            Asked::OnOldPath => flow.old.map(|old| (old.transport, old.path)),
            Asked::InPlaceOfAnother => {
                let deserted = self.deserted(flow.transport, now);
                deserted.map(|other| (flow.transport, self.flows[other].path))
            }
        };
        let (transport, path) = at.ok_or(DropReason::StunClass)?;
        let client = self.transports[transport].client.as_ref();
        if !client.is_some_and(|client| message.is_authentic(&client.key())) {
            self.stats.auth_failures += 1;
            return Err(DropReason::BadIntegrity);
        }
        self.take_stun(index, now)?;
        let flow = &mut self.flows[index];
        flow.last_stun = now;
        flow.last_rx = now;
        flow.unproven.received(length);
        if asked != Asked::InPlaceOfAnother {
            flow.proved = now;
            flow.asked = None;
        }
        if message.kind() == Kind::Success && asked != Asked::OnOldPath {
            self.validate(index, now);
            if self.flows[index].heritage != Heritage::None {
                self.nominate_for_client(index);
            }
        }
        if asked == Asked::InPlaceOfAnother
            && let Some(deserted) = self.deserted(transport, now)
        {
            self.succeed(deserted, now);
        }
        self.transports[transport].traffic.to_node.add(length);
        Ok(path)
    }

    /// STUN of a tuple without a flow: only a request of a live transport makes one.
    fn stun_of_stranger(&mut self, from: ClientKey, is_late: bool, bytes: &[u8], now: u64) -> Result<Path, DropReason> {
        if self.failures.is_spent(self.rates.failures, now) {
            return Err(DropReason::GlobalLimited);
        }
        if self.sources.is_spent(from.source(), now) {
            return Err(DropReason::SourceLimited);
        }
        let authenticated = self.checked(bytes).and_then(|message| match message.kind() {
            Kind::Request => self.authenticate(&message),
            _ => Err(DropReason::StunClass),
        });
        let request = match authenticated {
            Ok(request) => request,
            // What a client still sends after its session ended is not an attack.
            Err(_) if is_late => return Err(DropReason::Tombstone),
            Err(reason) => {
                self.blame(from, reason, now);
                return Err(reason);
            }
        };
        // A tuple that was known a moment ago may say again what it said.
        if !is_late && self.transports[request.transport].remembered.has(request.transaction) {
            return Err(DropReason::Replayed);
        }
        self.admit(from, request, bytes.len(), now)
    }

    fn admit(&mut self, from: ClientKey, request: Authenticated, length: usize, now: u64) -> Result<Path, DropReason> {
        self.note_first_stun(request.transport, now);
        let flow = self.open_flow(request.transport, from, request.claim, now)?;
        Ok(self.pass_request(flow, request, length, now))
    }

    fn pass_request(&mut self, index: u32, request: Authenticated, length: usize, now: u64) -> Path {
        let flow = &mut self.flows[index];
        flow.last_stun = now;
        flow.last_rx = now;
        flow.unproven.received(length);
        flow.chosen |= request.use_candidate;
        flow.chosen_by_client |= request.use_candidate;
        let (path, chosen) = (flow.path, flow.chosen && flow.state == FlowState::Validated);
        self.note_request(request, length);
        if chosen {
            self.nominate(index, now);
        }
        path
    }

    /// A check of an older generation: it keeps the flow alive and changes nothing else.
    fn pass_unbound_request(&mut self, index: u32, request: Authenticated, length: usize, now: u64) {
        let flow = &mut self.flows[index];
        flow.last_stun = now;
        flow.last_rx = now;
        flow.unproven.received(length);
        self.note_request(request, length);
    }

    fn note_request(&mut self, request: Authenticated, length: usize) {
        let transport = &mut self.transports[request.transport];
        transport.remembered.note(request.transaction);
        if transport.masked.is_some() {
            self.masked_request = Some(request.transport);
        }
        transport.traffic.to_node.add(length);
    }

    /// Framing and FINGERPRINT: cheap, and all that an unknown sender's bytes are worth.
    fn checked<'a>(&self, bytes: &'a [u8]) -> Result<Message<'a>, DropReason> {
        let message = Message::parse(bytes).map_err(|_| DropReason::BadStun)?;
        if message.has_fingerprint() { Ok(message) } else { Err(DropReason::BadFingerprint) }
    }

    /// The transport that a request belongs to. Where several have the server's ufrag, the client's ufrag decides, and
    /// where that is not known, the password.
    fn authenticate(&self, message: &Message<'_>) -> Result<Authenticated, DropReason> {
        let (server, client) = message.ufrags().ok_or(DropReason::UnknownUfrag)?;
        let claim = self.hash.of(client);
        let mut next = self.by_ufrag.get(&self.hash.of(server)).copied();
        let mut failed = DropReason::UnknownUfrag;
        while let Some(index) = next {
            let transport = &self.transports[index];
            next = transport.next_alike;
            let named = transport.server.ufrag.as_bytes() == server
                && transport.client.as_ref().is_none_or(|client| client.ufrag == claim);
            if named && message.is_authentic(&Key::new(&transport.server.pwd)) {
                let transaction = self.hash.of(&message.transaction());
                let use_candidate = message.use_candidate();
                return Ok(Authenticated { transport: index, transaction, claim, use_candidate });
            }
            if named {
                failed = DropReason::BadIntegrity;
            }
        }
        Err(failed)
    }

    /// Every flow has a bucket of its own, so that a replay from elsewhere cannot starve a client's checks.
    fn take_stun(&mut self, index: u32, now: u64) -> Result<(), DropReason> {
        let flow = &mut self.flows[index];
        let rate = if flow.is_validated() { self.rates.stun } else { self.rates.unproven_stun };
        if flow.stun.take(rate, now) { Ok(()) } else { Err(DropReason::StunRate) }
    }

    fn blame(&mut self, from: ClientKey, reason: DropReason, now: u64) {
        self.stats.auth_failures += 1;
        self.sources.charge(from.source(), now);
        if reason == DropReason::BadIntegrity {
            self.failures.charge(self.rates.failures, now);
        }
    }

    fn note_first_stun(&mut self, transport: u32, now: u64) {
        let held = &mut self.transports[transport];
        if held.first_stun.is_none() {
            held.first_stun = Some(now);
            self.say(transport, EventKind::FirstStun);
        }
    }
}

/// Why a payload does not pass on a flow whose client may be a replay.
pub(super) fn before_validation(class: Class) -> DropReason {
    match class {
        Class::Dtls => DropReason::DtlsBeforeValidation,
        Class::Stun | Class::Rtp | Class::Rtcp => DropReason::MediaBeforeValidation,
    }
}

/// Flows are looked up once per packet: what a lookup drags through the cache stays small.
const _: () = assert!(size_of::<Flow>() <= 320);

/// A handshake record of epoch 0 (RFC 6347 §4.1): a `ClientHello`, or what belongs to it.
fn is_first_flight(bytes: &[u8]) -> bool {
    const HANDSHAKE: u8 = 22;
    matches!(bytes, [HANDSHAKE, _, _, 0, 0, ..])
}
