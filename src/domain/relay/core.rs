//! What one relay thread knows, and the one entry per event: commands, datagrams of clients and nodes, time.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    ClientKey, Command, DropReason, Event, EventKind, FlowEnd, FlowState, Nomination, POOL_SOCKETS, Refused,
    RelaySettings, Stats, TrafficCount, TransportId, Verdict,
    buckets::{Bucket, Rate, Sources},
    demux::{Class, class},
    flow::{Flow, Path},
    hash::Seeded,
    inheritance::Estate,
    settings::{EVENT_QUEUE, SWEEP_EVERY},
    slab::Slab,
    transport::{Media, Transport},
};
use crate::domain::ids::SessionId;

pub(super) type Map<K, V> = HashMap<K, V, Seeded>;

/// What a tuple or path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// A live flow.
    Flow(u32),
    /// A flow that ended a moment ago, by the number of its tombstone.
    Tombstone(u64),
}

/// A tuple that ended a moment ago.
#[derive(Debug)]
pub(super) struct Tombstone {
    pub(super) number: u64,
    pub(super) until: u64,
    pub(super) client: ClientKey,
    pub(super) path: Path,
    pub(super) session: SessionId,
    /// What the leg's next node may have of it, if both agents had chosen it.
    pub(super) estate: Option<Box<Estate>>,
}

/// A session, as far as the relay knows it.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// Its transports, in the order of their opening.
    pub(super) transports: Vec<u32>,
    /// New tuples that it may still have.
    pub(super) tuples: Bucket,
}

/// The rates of the settings, worked out once.
#[derive(Debug)]
pub(super) struct Rates {
    pub(super) stun: Rate,
    /// Of one flow that proved nothing.
    pub(super) unproven_stun: Rate,
    pub(super) tuples: Rate,
    pub(super) failures: Rate,
}

/// All that one relay thread knows. See the module's page.
pub struct Core {
    pub(super) settings: RelaySettings,
    pub(super) rates: Rates,
    pub(super) hash: Seeded,
    pub(super) epoch: Instant,
    pub(super) transports: Slab<Transport>,
    pub(super) flows: Slab<Flow>,
    pub(super) by_id: Map<TransportId, u32>,
    pub(super) sessions: Map<SessionId, Session>,
    /// The first transport of the chain whose server ufrag hashes so.
    pub(super) by_ufrag: Map<u64, u32>,
    pub(super) by_client: Map<ClientKey, Slot>,
    pub(super) by_path: Map<Path, Slot>,
    /// Oldest first.
    pub(super) tombstones: VecDeque<Tombstone>,
    pub(super) next_tombstone: u64,
    pub(super) next_generation: u64,
    pub(super) sources: Sources,
    pub(super) failures: Bucket,
    pub(super) events: VecDeque<Event>,
    /// ICE-TCP tuples that waited for an heir in vain; no more than there are tombstones.
    pub(super) deserted: VecDeque<ClientKey>,
    /// What is to be said to nodes in their clients' names.
    pub(super) nominations: VecDeque<Nomination>,
    /// How many there were.
    pub(super) checks_made: u64,
    /// The transport of the request that has just passed, if its node knows itself by another name.
    pub(super) masked_request: Option<u32>,
    /// What [`Self::translated`] shows.
    pub(super) translated: Vec<u8>,
    pub(super) next_sweep: u64,
    pub(super) slice: u32,
    pub(super) stats: Stats,
}

impl Core {
    /// An empty relay. `seed` makes its tables' order unpredictable from outside; equal seeds and inputs give equal
    /// outputs.
    pub fn new(settings: RelaySettings, seed: u64, now: Instant) -> Self {
        let hash = Seeded::new(seed);
        let second = Duration::from_secs(1);
        let blame = Rate::new(settings.source_failures_per_second, second, settings.source_failure_burst);
        let rates = Rates {
            stun: Rate::new(settings.stun_per_second, second, settings.stun_per_second),
            unproven_stun: Rate::new(
                settings.stun_per_second / u32::from(POOL_SOCKETS),
                second,
                settings.stun_per_second / 4,
            ),
            tuples: Rate::new(settings.tuples_per_minute, Duration::from_secs(60), settings.tuples_per_minute),
            failures: Rate::new(settings.failures_per_second, second, settings.failures_per_second / 10),
        };
        Self {
            settings,
            rates,
            hash,
            epoch: now,
            transports: Slab::new(),
            flows: Slab::new(),
            by_id: Map::with_hasher(hash),
            sessions: Map::with_hasher(hash),
            by_ufrag: Map::with_hasher(hash),
            by_client: Map::with_hasher(hash),
            by_path: Map::with_hasher(hash),
            tombstones: VecDeque::new(),
            next_tombstone: 0,
            next_generation: 0,
            sources: Sources::new(blame, hash),
            failures: Bucket::default(),
            // All at once, so that no packet ever makes it grow.
            events: VecDeque::with_capacity(EVENT_QUEUE),
            deserted: VecDeque::new(),
            nominations: VecDeque::new(),
            checks_made: 0,
            masked_request: None,
            translated: Vec::new(),
            next_sweep: 0,
            slice: 0,
            stats: Stats::default(),
        }
    }

    /// Takes one command of a session; a refused one has changed nothing.
    ///
    /// # Errors
    /// Says which rule or bound the command breaks; `Unknown` where its transport ended meanwhile.
    pub fn command(&mut self, command: Command, now: Instant) -> Result<(), Refused> {
        let now = self.nanos(now);
        match command {
            Command::Open(spec) => self.open(&spec, now),
            Command::SetClient { id, client } => self.set_client(id, &client, now),
            Command::SetBackend { id, port } => self.set_backend(id, port, now),
            Command::Close(id) => self.close(id, now),
            Command::CloseSession(session) => self.close_session(session, now),
        }
    }

    /// One datagram of the public socket, or one frame of an ICE-TCP connection.
    pub fn from_client(&mut self, from: ClientKey, bytes: &[u8], now: Instant) -> Verdict {
        let now = self.nanos(now);
        match self.client_datagram(from, bytes, now) {
            Ok(path) => {
                self.stats.traffic.to_node.add(bytes.len());
                if let Some(transport) = self.masked_request.take()
                    && self.translate_to_node(transport, bytes)
                {
                    return Verdict::TranslatedToNode { pool: path.pool, to: path.backend };
                }
                Verdict::ToNode { pool: path.pool, to: path.backend }
            }
            Err(reason) => self.drop_datagram(reason),
        }
    }

    /// One datagram of the pool socket with index `pool`.
    pub fn from_node(&mut self, pool: u8, from: SocketAddr, bytes: &[u8], now: Instant) -> Verdict {
        let now = self.nanos(now);
        let path = Path { pool, backend: SocketAddr::new(from.ip().to_canonical(), from.port()) };
        match self.node_datagram(path, bytes, now) {
            Ok(client) => {
                self.stats.traffic.to_client.add(bytes.len());
                if class(bytes) == Some(Class::Stun) && self.translate_to_client(path, bytes) {
                    return Verdict::TranslatedToClient(client);
                }
                Verdict::ToClient(client)
            }
            Err(reason) => self.drop_datagram(reason),
        }
    }

    /// A check to be sent to a node, after what the datagrams before it gave rise to: of a leg that was moved, whose client
    /// had chosen the tuple that it goes on with. The client says so itself with its next check, up to 2.5 s later, and some
    /// nodes wait for that. Poll until `None` after each batch.
    pub fn poll_nomination(&mut self) -> Option<Nomination> {
        self.nominations.pop_front()
    }

    /// What is to be sent in place of the datagram that was passed in last, where its verdict says so.
    pub fn translated(&self) -> &[u8] {
        &self.translated
    }

    /// Whether this tuple has a flow: an ICE-TCP connection without one after 5 s is to be closed.
    pub fn has_flow(&self, client: ClientKey) -> bool {
        matches!(self.by_client.get(&client), Some(Slot::Flow(_)))
    }

    /// Whether this tuple is waiting for its leg's next node: its ICE-TCP connection stays open until
    /// [`Self::poll_deserted`] says otherwise.
    pub fn awaits_heir(&self, client: ClientKey) -> bool {
        let Some(Slot::Tombstone(number)) = self.by_client.get(&client) else { return false };
        let buried = self.tombstones.iter().rev().find(|buried| buried.number == *number);
        buried.is_some_and(|buried| buried.estate.is_some())
    }

    /// A tuple of an ICE-TCP connection that waited for an heir, and none came; poll until `None` after each tick.
    pub fn poll_deserted(&mut self) -> Option<ClientKey> {
        self.deserted.pop_front()
    }

    /// An ICE-TCP connection ended: its flow, if any, ends with it.
    pub fn client_gone(&mut self, client: ClientKey, now: Instant) {
        match self.by_client.get(&client) {
            Some(Slot::Flow(flow)) => self.close_flow(*flow, FlowEnd::HungUp, self.nanos(now)),
            // Nothing can be inherited of it.
            Some(Slot::Tombstone(_)) => {
                self.by_client.remove(&client);
            }
            None => {}
        }
    }

    /// What a transport has passed on so far; `None` once it ended.
    pub fn traffic(&self, id: TransportId) -> Option<TrafficCount> {
        self.by_id.get(&id).map(|transport| self.transports[*transport].traffic)
    }

    /// When [`Self::tick`] wants to be called next; `None` while there is nothing to time.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let idle = self.transports.len() == 0 && self.tombstones.is_empty();
        (!idle).then(|| self.epoch + Duration::from_nanos(self.next_sweep))
    }

    /// Lets time pass: call it at [`Self::poll_timeout`] or later.
    pub fn tick(&mut self, now: Instant) {
        let now = self.nanos(now);
        if now >= self.next_sweep {
            self.sweep(now);
            self.next_sweep = now + nanos(SWEEP_EVERY);
        }
    }

    /// The next event, oldest first; poll until `None` after each batch.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What was counted so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Nanoseconds since the core began; an `Instant` from before counts as its beginning.
    pub(super) fn nanos(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.epoch))
    }

    pub(super) fn say(&mut self, transport: u32, kind: EventKind) {
        if self.events.len() >= EVENT_QUEUE {
            self.stats.events_lost += 1;
            return;
        }
        let Transport { id, session, .. } = self.transports[transport];
        self.events.push_back(Event { transport: id, session, kind });
    }

    pub(super) fn set_state(&mut self, flow: u32, state: FlowState) {
        let held = &mut self.flows[flow].state;
        self.stats.flows[*held as usize] -= 1;
        self.stats.flows[state as usize] += 1;
        *held = state;
    }

    /// The client answered the node's check: its tuple is no replay.
    pub(super) fn validate(&mut self, flow: u32, now: u64) {
        let Flow { transport, client, state, chosen, .. } = self.flows[flow];
        if state == FlowState::New {
            self.set_state(flow, FlowState::Validated);
            let session = self.transports[transport].session;
            let session = self.sessions.get_mut(&session).expect("a transport's session is known");
            session.tuples.refund(self.rates.tuples);
            self.say(transport, EventKind::Validated { client });
        }
        if chosen {
            self.nominate(flow, now);
        }
    }

    /// A validated flow was chosen: its generation takes over from the older ones of its line.
    pub(super) fn nominate(&mut self, flow: u32, now: u64) {
        let Flow { transport, client, state, .. } = self.flows[flow];
        if state == FlowState::Nominated {
            return;
        }
        self.set_state(flow, FlowState::Nominated);
        self.say(transport, EventKind::Nominated { client });
        self.transports[transport].nominated = true;
        let Transport { session, line, generation, .. } = self.transports[transport];
        let ends = now + nanos(self.settings.generation_grace);
        for other in self.sessions.get(&session).into_iter().flat_map(|session| &session.transports) {
            let other = &mut self.transports[*other];
            if other.line == line && other.generation < generation {
                other.ends.get_or_insert(ends);
            }
        }
    }

    /// An RTP packet passed on a validated flow.
    pub(super) fn note_media(&mut self, transport: u32, now: u64) {
        let held = &mut self.transports[transport];
        let before = std::mem::replace(&mut held.media, Media::Flowing { last: now });
        let first_stun = *held.first_stun.get_or_insert(now);
        match before {
            Media::Flowing { .. } => {}
            Media::Awaited => held.media = Media::Awaited,
            Media::Silent => {
                held.first_media = Some(now);
                self.say(transport, EventKind::FirstMedia { after: Duration::from_nanos(now - first_stun) });
            }
            Media::Stalled { last } => {
                self.say(transport, EventKind::Resumed { after: Duration::from_nanos(now - last) });
            }
        }
    }

    fn drop_datagram(&mut self, reason: DropReason) -> Verdict {
        self.stats.drops[reason as usize] += 1;
        Verdict::Drop(reason)
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
