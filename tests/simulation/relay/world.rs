//! The network, the two agents at its ends, and what must hold whatever happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use fastrand::Rng;
use forebay::domain::{
    ids::SessionId,
    relay::{
        ClientKey, Command, Core, DropReason, EventKind, Nomination, Predecessor, RelaySettings, TransportId,
        TransportSpec, Verdict,
    },
};

use super::{
    agents::{Datagram, Generation, Peer, Truth},
    stun::TransactionId,
};

pub(super) const CHAOS: Duration = Duration::from_millis(3000);
const CALM: Duration = Duration::from_millis(2200);
const CHECKS_EVERY: u64 = 250;
const MEDIA_EVERY: u64 = 250;
pub(super) const ATTACK_EVERY: u64 = 80;

/// What was seen, by kind and name.
pub(crate) type What = (&'static str, &'static str);

/// What one life reached.
pub(crate) struct Outcome {
    pub(crate) seen: BTreeMap<What, u64>,
}

/// Something that is due.
#[derive(Debug, Clone)]
pub(super) enum Due {
    AtDoor(SocketAddr, Datagram),
    AtPool(u8, SocketAddr, Datagram),
    AtClient(SocketAddr, Datagram),
    AtNode(SocketAddr, u8, Datagram),
    Checks(usize),
    Media(usize),
    Rebind(usize),
    Restart(usize),
    Move(usize),
    Shut(TransportId),
    Close(usize),
    Tell(SessionId, TransportId, Told),
    Attack,
}

/// What signalling tells the relay later than it opened the transport.
#[derive(Debug, Clone, Copy)]
pub(super) enum Told {
    Client,
    Port,
}

pub(crate) struct World {
    seed: u64,
    pub(super) rng: Rng,
    pub(super) start: Instant,
    pub(super) now: Instant,
    core: Core,
    queue: BTreeMap<(Instant, u64), Due>,
    next: u64,
    ids: u64,
    pub(super) peers: Vec<Peer>,
    /// Tuples from which an authentic check of a transport arrived, by transport, while it is open.
    heard: BTreeMap<TransportId, BTreeSet<SocketAddr>>,
    /// The same, and kept after its end.
    places: BTreeMap<TransportId, BTreeSet<SocketAddr>>,
    /// All that the attacker overheard.
    pub(super) sniffed: Vec<(SocketAddr, Datagram)>,
    loss: f64,
    seen: BTreeMap<What, u64>,
}

impl World {
    /// One life, from the first offer to the last close.
    pub(crate) fn live(seed: u64) -> Outcome {
        let start = Instant::now();
        let mut world = Self::new(seed, start);
        world.run(start + CHAOS);
        world.loss = 0.0;
        let calm = world.now;
        world.run(calm + CALM);
        world.check_calm();
        world.close_all();
        world.finish()
    }

    fn new(seed: u64, start: Instant) -> Self {
        let settings = RelaySettings {
            consent: Duration::from_millis(2300),
            generation_grace: Duration::from_millis(1500),
            tombstone: Duration::from_millis(500),
            half_open: Duration::from_secs(1),
            stall: Duration::from_millis(400),
            tuples_per_minute: 60,
            ..RelaySettings::default()
        };
        let mut rng = Rng::with_seed(seed);
        let core = Core::new(settings, rng.u64(..), start);
        let loss = [0.0, 0.05, 0.2][rng.usize(..3)];
        let (queue, heard, places, seen) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (peers, sniffed) = (Vec::new(), Vec::new());
        let mut world = Self {
            seed,
            rng,
            start,
            now: start,
            core,
            queue,
            next: 0,
            ids: 0,
            peers,
            heard,
            places,
            sniffed,
            loss,
            seen,
        };
        for at in 0..world.rng.usize(1..=2) {
            world.begin(at);
        }
        world.after(ATTACK_EVERY, Due::Attack);
        world
    }

    fn begin(&mut self, at: usize) {
        let session = SessionId(at as u64 + 1);
        let address = SocketAddr::from(([203, 0, 113, 10 + at as u8], 40_000));
        let (node_controls, node_stays) = (self.rng.bool(), self.rng.u8(..4) == 0);
        self.peers.push(Peer {
            session,
            node_controls,
            node_stays,
            address,
            past: Vec::new(),
            generations: Vec::new(),
            connected: false,
            closed: false,
            last_down: None,
            last_up: None,
        });
        self.next_generation(at);
        let chaos = CHAOS.as_millis() as u64;
        self.after(0, Due::Checks(at));
        self.after(0, Due::Media(at));
        for _ in 0..self.rng.usize(0..=2) {
            let when = self.rng.u64(..chaos);
            self.after(when, Due::Rebind(at));
        }
        for _ in 0..self.rng.usize(0..=2) {
            let when = self.rng.u64(..chaos);
            self.after(when, Due::Restart(at));
        }
        for _ in 0..self.rng.usize(0..=2) {
            let when = self.rng.u64(..chaos);
            self.after(when, Due::Move(at));
        }
        if self.rng.u8(..4) == 0 {
            let when = self.rng.u64(chaos / 2..chaos);
            self.after(when, Due::Close(at));
        }
    }

    /// The node's description has come; the rest of signalling may follow later.
    fn next_generation(&mut self, at: usize) {
        let same_port = self.rng.u8(..3) == 0;
        let id = self.next_transport(at);
        let node = IpAddr::from([10, 0, 1, 20 + at as u8]);
        let backend = match self.peers[at].generations.last() {
            Some(last) if same_port => last.backend,
            Some(last) => SocketAddr::new(last.backend.ip(), 50_000 + id.0 as u16),
            None => SocketAddr::new(node, 50_000 + id.0 as u16),
        };
        self.open(at, Generation::new(id, backend), None);
    }

    fn next_transport(&self, at: usize) -> TransportId {
        TransportId(self.peers[at].session.0 * 100 + self.peers[at].generations.len() as u64)
    }

    /// The leg goes to another node; its old transport is closed sooner or later than the new one opens.
    fn move_leg(&mut self, at: usize) {
        self.count("moves");
        let id = self.next_transport(at);
        let old: Vec<_> = self.peers[at].generations.iter().map(|generation| generation.id).collect();
        let last = self.peers[at].generations.last().unwrap();
        let backend = SocketAddr::from(([10, 0, 2, (id.0 % 250) as u8], 50_000 + id.0 as u16));
        let before = Predecessor { id: last.id, shown: last.shown.clone() };
        let moved = last.moved(id, backend);
        let first = self.rng.bool();
        for id in &old {
            match first {
                true => self.shut(*id),
                false => {
                    let later = self.rng.u64(..50);
                    self.after(later, Due::Shut(*id));
                }
            }
        }
        self.open(at, moved, Some(before));
    }

    fn shut(&mut self, id: TransportId) {
        // A generation may have been superseded meanwhile.
        let _ = self.core.command(Command::Close(id), self.now);
        self.hear_events();
    }

    fn open(&mut self, at: usize, mut generation: Generation, succeeds: Option<Predecessor>) {
        let (id, session) = (generation.id, self.peers[at].session);
        generation.stays = self.peers[at].node_stays;
        let (client, known_port) = (self.rng.bool(), self.rng.bool());
        generation.knows_client = client;
        // What was this client's place on the leg's last node is its place on the next.
        let mut heard = BTreeSet::new();
        if let Some(before) = &succeeds {
            heard
                .extend(self.places.get(&before.id).into_iter().flatten().filter(|place| self.peers[at].owns(**place)));
        }
        let spec = TransportSpec { succeeds, ..generation.spec(session, client, known_port) };
        self.core.command(Command::Open(spec), self.now).unwrap();
        self.places.insert(id, heard.clone());
        self.heard.insert(id, heard);
        self.peers[at].generations.push(generation);
        for (known, told) in [(client, Told::Client), (known_port, Told::Port)] {
            if !known {
                let delay = self.rng.u64(..300);
                self.after(delay, Due::Tell(session, id, told));
            }
        }
        self.hear_events();
    }

    fn run(&mut self, end: Instant) {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, _), due) = entry.remove_entry();
            self.pass_to(at);
            self.happen(due);
            self.hear_events();
        }
        self.pass_to(end);
        self.hear_events();
    }

    fn pass_to(&mut self, at: Instant) {
        while let Some(due) = self.core.poll_timeout().filter(|due| *due <= at) {
            self.now = self.now.max(due);
            self.core.tick(self.now);
        }
        self.now = at;
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::AtDoor(from, datagram) => self.at_door(from, datagram),
            Due::AtPool(pool, from, datagram) => self.at_pool(pool, from, datagram),
            Due::AtClient(to, datagram) => self.at_client(to, &datagram),
            Due::AtNode(to, pool, datagram) => self.at_node(to, pool, &datagram),
            Due::Checks(at) => self.checks(at),
            Due::Media(at) => self.media(at),
            Due::Rebind(at) => self.rebind(at),
            Due::Restart(at) if !self.peers[at].closed => {
                self.count("restarts");
                self.next_generation(at);
            }
            Due::Move(at) if !self.peers[at].closed => self.move_leg(at),
            Due::Restart(_) | Due::Move(_) => {}
            Due::Shut(id) => self.shut(id),
            Due::Close(at) => self.close(at),
            Due::Tell(session, id, told) => self.tell(session, id, told),
            Due::Attack => self.attack(),
        }
    }

    // --- the relay, and what must hold

    fn at_door(&mut self, from: SocketAddr, datagram: Datagram) {
        let verdict = self.core.from_client(ClientKey::Udp(from), &datagram.bytes, self.now);
        if let Truth::ClientCheck { transport, .. } = datagram.truth {
            self.note_heard(transport, from);
        }
        match verdict {
            Verdict::Drop(reason) => self.count_named("drop", reason.as_str()),
            Verdict::ToClient(_) | Verdict::TranslatedToClient(_) => {
                self.fail("a client's datagram went back to a client")
            }
            Verdict::TranslatedToNode { pool, to } => {
                let translated = self.translated(to, &datagram);
                self.goes_to_node(from, pool, to, translated);
            }
            Verdict::ToNode { pool, to } => {
                let reads_otherwise = self.expected(to, &datagram).is_some_and(|expected| expected != datagram.bytes);
                self.hold(!reads_otherwise, "a client's check passed in words that its node does not know");
                self.goes_to_node(from, pool, to, datagram);
            }
        }
        while let Some(Nomination { pool, to, bytes }) = self.core.poll_nomination() {
            self.count("nominations");
            let mut id = TransactionId::default();
            id.copy_from_slice(&bytes[8..20]);
            let transport = self.generation_at(to).map(|generation| generation.id).unwrap();
            let truth = Truth::ClientCheck { transport, id, nominate: true };
            self.goes_to_node(from, pool, to, Datagram { bytes, truth });
        }
    }

    fn goes_to_node(&mut self, from: SocketAddr, pool: u8, to: SocketAddr, datagram: Datagram) {
        let named = self.heard.iter().any(|(id, heard)| heard.contains(&from) && self.backend_of(*id) == Some(to));
        self.hold(named && pool < 8, "a datagram went to a node that its tuple never authenticated for");
        self.carry(20, Due::AtNode(to, pool, datagram));
    }

    /// A check authenticates for every transport that its client knows by the same names.
    fn note_heard(&mut self, transport: TransportId, from: SocketAddr) {
        let generations = || self.peers.iter().flat_map(|peer| &peer.generations);
        let Some(named) = generations().find(|generation| generation.id == transport) else { return };
        let alike =
            |other: &&Generation| other.shown.ufrag == named.shown.ufrag && other.client.ufrag == named.client.ufrag;
        let alike: Vec<_> = generations().filter(alike).map(|generation| generation.id).collect();
        for id in alike {
            if let Some(heard) = self.heard.get_mut(&id) {
                heard.insert(from);
                self.places.entry(id).or_default().insert(from);
            }
        }
    }

    /// What stands in the core in place of a datagram, which must be what its reader understands.
    fn translated(&mut self, backend: SocketAddr, datagram: &Datagram) -> Datagram {
        let bytes = self.core.translated().to_vec();
        self.hold(self.expected(backend, datagram).as_ref() == Some(&bytes), "a translation says something else");
        self.count("translations");
        Datagram { bytes, truth: datagram.truth }
    }

    /// What must arrive in place of a message on its way from or to a node's port.
    fn expected(&self, backend: SocketAddr, datagram: &Datagram) -> Option<Vec<u8>> {
        let generations = || self.peers.iter().flat_map(|peer| peer.generations.iter().rev());
        let (Truth::ClientCheck { transport, .. }
        | Truth::NodeCheck { transport, .. }
        | Truth::NodeAnswer { transport, .. }) = datagram.truth
        else {
            return None;
        };
        let named = generations().find(|generation| generation.id == transport)?;
        // Before the client's description nothing can be said in its words.
        if matches!(datagram.truth, Truth::NodeCheck { .. }) && !named.knows_client {
            return None;
        }
        // A client's check is for whoever bears the name that it uses by now.
        let alike = |other: &&Generation| {
            other.backend == backend && other.shown.ufrag == named.shown.ufrag && self.heard.contains_key(&other.id)
        };
        generations().find(alike)?.translation(datagram)
    }

    /// The newest generation at a node's port.
    fn generation_at(&self, backend: SocketAddr) -> Option<&Generation> {
        self.peers
            .iter()
            .flat_map(|peer| peer.generations.iter().rev())
            .find(|generation| generation.backend == backend)
    }

    fn at_pool(&mut self, pool: u8, from: SocketAddr, datagram: Datagram) {
        match self.core.from_node(pool, from, &datagram.bytes, self.now) {
            Verdict::Drop(reason) => self.count_named("drop", reason.as_str()),
            Verdict::ToNode { .. } | Verdict::TranslatedToNode { .. } => self.fail("a node's datagram went to a node"),
            Verdict::TranslatedToClient(ClientKey::Tcp { .. }) => self.fail("nobody connected"),
            Verdict::TranslatedToClient(ClientKey::Udp(to)) => {
                let translated = self.translated(from, &datagram);
                self.goes_to_client(from, to, translated);
            }
            Verdict::ToClient(ClientKey::Tcp { .. }) => self.fail("nobody connected"),
            Verdict::ToClient(ClientKey::Udp(to)) => {
                let reads_otherwise = self.expected(from, &datagram).is_some_and(|expected| expected != datagram.bytes);
                self.hold(!reads_otherwise, "a node's message passed in words that its client does not know");
                self.goes_to_client(from, to, datagram);
            }
        }
    }

    fn goes_to_client(&mut self, from: SocketAddr, to: SocketAddr, datagram: Datagram) {
        let heard = self.heard.values().any(|heard| heard.contains(&to));
        self.hold(heard, "a datagram went to an address that never authenticated");
        self.hold(self.heard.keys().any(|id| self.backend_of(*id) == Some(from)), "no node of ours was heard");
        if let Truth::MediaDown { session } = datagram.truth {
            let owner = self.peers.iter().any(|peer| peer.session == session && peer.owns(to));
            self.hold(owner, "media went to somebody else than the session's client");
            self.count("media to clients");
        }
        self.carry(20, Due::AtClient(to, datagram));
    }

    /// After a calm in which the client could check and answer, media flows both ways over its latest address.
    fn check_calm(&mut self) {
        let limited = [DropReason::TupleRate, DropReason::TuplesFull, DropReason::StunRate, DropReason::SourceLimited];
        let was_limited = limited.iter().any(|reason| self.core.stats().dropped(*reason) > 0);
        for at in 0..self.peers.len() {
            let peer = &self.peers[at];
            if peer.closed || was_limited {
                continue;
            }
            let recent = |at: Option<Instant>| at.is_some_and(|at| self.now - at < Duration::from_millis(600));
            let (up, down) = (recent(peer.last_up), recent(peer.last_down));
            if peer.node_stays {
                // What such a node loses by breaking RFC 8445, the relay makes good nearly always.
                self.count(if up && down { "sessions of stubborn nodes" } else { "sessions that stubborn nodes lost" });
                continue;
            }
            self.count("sessions that reached the calm");
            self.hold(up && down, "a session has no media in the calm");
        }
    }

    fn close_all(&mut self) {
        for at in 0..self.peers.len() {
            self.close(at);
        }
        self.hold(self.core.stats().flows == [0, 0, 0], "a flow outlived its session");
        self.hold(self.core.stats().transports == 0, "a transport outlived its session");
        self.run(self.now + Duration::from_secs(1));
        self.queue.clear();
        self.pass_to(self.now + Duration::from_secs(1));
        self.hold(self.core.poll_timeout().is_none(), "an empty relay still waits for something");
    }

    fn finish(mut self) -> Outcome {
        self.hear_events();
        self.hold(self.core.stats().events_lost == 0, "events were lost");
        Outcome { seen: self.seen }
    }

    fn hear_events(&mut self) {
        while let Some(event) = self.core.poll_event() {
            match event.kind {
                EventKind::FlowClosed { reason, .. } => self.count_named("flow", reason.as_str()),
                EventKind::Closed { reason, .. } => {
                    self.heard.remove(&event.transport);
                    self.count_named("transport", reason.as_str());
                }
                EventKind::Resumed { .. } => self.count("resumed"),
                EventKind::Validated { client: ClientKey::Udp(client) } => {
                    let owner = self.peers.iter().any(|peer| peer.session == event.session && peer.owns(client));
                    self.hold(owner, "an attacker's tuple was validated");
                }
                _ => {}
            }
        }
    }

    // --- the agents

    fn at_client(&mut self, to: SocketAddr, datagram: &Datagram) {
        let Some(at) = self.peers.iter().position(|peer| peer.address == to && !peer.closed) else { return };
        match datagram.truth {
            Truth::NodeAnswer { .. } => self.peers[at].connected = true,
            Truth::NodeCheck { transport, id, .. } => {
                let answer = self.peers[at].generation(transport).map(|generation| generation.client_answer(id));
                if let Some(answer) = answer {
                    self.client_sends(at, answer);
                }
            }
            Truth::MediaDown { session } if session == self.peers[at].session => {
                self.peers[at].last_down = Some(self.now);
            }
            _ => {}
        }
    }

    fn at_node(&mut self, to: SocketAddr, pool: u8, datagram: &Datagram) {
        let (now, id) = (self.now, self.id());
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.generations.iter().any(|g| g.backend == to)) else {
            return;
        };
        if peer.closed {
            return;
        }
        let node_controls = peer.node_controls;
        match datagram.truth {
            Truth::ClientCheck { transport, id: check, nominate } => {
                let Some(generation) = peer.generation(transport).filter(|generation| generation.backend == to) else {
                    return;
                };
                let answer = generation.node_answer(check);
                let own = generation.heard_check(pool, nominate, id, now);
                self.carry(20, Due::AtPool(pool, to, answer));
                if let Some(own) = own {
                    self.carry(20, Due::AtPool(pool, to, own));
                }
            }
            Truth::ClientAnswer { transport, id } => {
                if let Some(generation) = peer.generation(transport).filter(|generation| generation.backend == to) {
                    generation.heard_answer(pool, id, node_controls, now);
                }
            }
            Truth::MediaUp { session } if session == peer.session => {
                peer.last_up = Some(now);
                self.count("media to nodes");
            }
            _ => {}
        }
    }

    fn checks(&mut self, at: usize) {
        if self.peers[at].closed {
            return;
        }
        let id = self.id();
        let peer = &self.peers[at];
        let check = peer.generations.last().unwrap().client_check(id, !peer.node_controls);
        self.client_sends(at, check);
        let (mut ids, nominate) = (self.ids, self.peers[at].node_controls);
        let newest = self.peers[at].generations.len().saturating_sub(2);
        let mut sent = Vec::new();
        for generation in &mut self.peers[at].generations[newest..] {
            let backend = generation.backend;
            let next = || {
                ids += 1;
                transaction(ids)
            };
            sent.extend(generation.node_checks(nominate, next).into_iter().map(|(pool, check)| (pool, backend, check)));
        }
        self.ids = ids;
        for (pool, backend, check) in sent {
            self.carry(20, Due::AtPool(pool, backend, check));
        }
        self.after(CHECKS_EVERY, Due::Checks(at));
    }

    fn media(&mut self, at: usize) {
        let peer = &self.peers[at];
        if peer.closed {
            return;
        }
        let session = peer.session;
        let rtp = |truth| Datagram { bytes: vec![0x80, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1], truth };
        if let Some((generation, pool)) = peer.sending(self.now) {
            let from = generation.backend;
            self.carry(20, Due::AtPool(pool, from, rtp(Truth::MediaDown { session })));
        }
        if self.peers[at].connected {
            self.client_sends(at, rtp(Truth::MediaUp { session }));
        }
        self.after(MEDIA_EVERY, Due::Media(at));
    }

    fn rebind(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        let before = peer.address;
        peer.past.push(before);
        peer.address.set_port(before.port() + 1);
        self.count("rebinds");
    }

    fn close(&mut self, at: usize) {
        if std::mem::replace(&mut self.peers[at].closed, true) {
            return;
        }
        let session = self.peers[at].session;
        self.core.command(Command::CloseSession(session), self.now).unwrap();
        self.hear_events();
    }

    fn tell(&mut self, session: SessionId, id: TransportId, told: Told) {
        let peer = self.peers.iter_mut().find(|peer| peer.session == session).unwrap();
        let generation = peer.generation(id).unwrap();
        let command = match told {
            Told::Client => {
                generation.knows_client = true;
                Command::SetClient { id, client: generation.client.clone() }
            }
            Told::Port => Command::SetBackend { id, port: generation.backend.port() },
        };
        // A generation may have been superseded meanwhile.
        let _ = self.core.command(command, self.now);
    }

    // --- the network

    fn client_sends(&mut self, at: usize, datagram: Datagram) {
        let from = self.peers[at].address;
        if self.sniffed.len() < 200 {
            self.sniffed.push((from, datagram.clone()));
        }
        self.carry(30, Due::AtDoor(from, datagram));
    }

    /// Carries a datagram somewhere within `most` ms: lost, doubled and overtaken as the network likes.
    pub(super) fn carry(&mut self, most: u64, due: Due) {
        if self.rng.f64() < self.loss {
            return;
        }
        if self.rng.u8(..20) == 0 && self.loss > 0.0 {
            let delay = self.rng.u64(1..=3 * most);
            self.after(delay, due.clone());
        }
        let delay = self.rng.u64(1..=most);
        self.after(delay, due);
    }

    pub(super) fn after(&mut self, ms: u64, due: Due) {
        self.next += 1;
        self.queue.insert((self.now + Duration::from_millis(ms), self.next), due);
    }

    // --- small things

    fn backend_of(&self, id: TransportId) -> Option<SocketAddr> {
        self.peers.iter().flat_map(|peer| &peer.generations).find(|g| g.id == id).map(|g| g.backend)
    }

    pub(super) fn id(&mut self) -> TransactionId {
        self.ids += 1;
        transaction(self.ids)
    }

    pub(super) fn count(&mut self, what: &'static str) {
        self.count_named(what, "");
    }

    fn count_named(&mut self, kind: &'static str, name: &'static str) {
        *self.seen.entry((kind, name)).or_default() += 1;
    }

    fn hold(&self, holds: bool, promise: &str) {
        if !holds {
            self.fail(promise);
        }
    }

    fn fail(&self, what: &str) -> ! {
        let ms = (self.now - self.start).as_millis();
        panic!("FOREBAY_SEED={} at {ms} ms: {what}\n{:#?}", self.seed, self.core.stats());
    }
}

fn transaction(n: u64) -> TransactionId {
    let mut id = [0; 12];
    id[..8].copy_from_slice(&n.to_be_bytes());
    id
}
