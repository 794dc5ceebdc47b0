//! A thousand sessions on nodes that are drained one after the other, on a virtual clock: an edge, then an origin.
//!
//! Replay one seed with `FOREBAY_SEED=n cargo test --test simulation drain`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use forebay::domain::{
    balance::{BalanceSettings, Book, Drain, NodeSpec, Request, Want},
    drain::{LegKey, LegThere, Pacer},
    ids::{Kind, NodeAddr, NodeId, Role, SessionId, StreamKey},
    reject::Reject,
    session::{Ask, Fact, Input, MoveCause, Output, Placed, Purpose, Session, SessionSettings, Ticket},
    signaling::{self, Text},
};
use serde_json::{Value, json};

const SESSIONS: u64 = 1_000;
const STREAMS: u64 = 100;
const PER_SECOND: f64 = 50.0;
const TICK: Duration = Duration::from_millis(100);
const SEEDS: u64 = 3;

#[test]
fn a_thousand_sessions_leave_a_draining_node_in_pace_none_lost_and_none_moved_twice() {
    let seeds =
        std::env::var("FOREBAY_SEED").ok().and_then(|seed| seed.parse().ok()).map_or(0..SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        println!("seed {seed}");
        let mut world = World::new(seed);
        world.begin();
        world.drain("e1");
        world.drain("o1");
    }
}

/// What comes to a session, or ticks.
type Planned = (u64, Input);

struct World {
    rng: fastrand::Rng,
    now: Instant,
    book: Book,
    sessions: BTreeMap<u64, Session>,
    queue: BTreeMap<(Instant, u64), Planned>,
    order: u64,
    /// What placement has reserved.
    seats: BTreeMap<(u64, Ticket), (NodeId, Kind)>,
    /// Where each stream is published.
    origins: BTreeMap<String, NodeId>,
    /// Who plays what where, as the nodes know it.
    plays: BTreeSet<(NodeId, String, u64)>,
    /// Plays that wait for their stream to come back.
    waiting: Vec<(u64, Ticket, Ask)>,
    moved: BTreeMap<(LegKey, MoveCause), u32>,
    moved_at: Vec<Instant>,
    stayed: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let mut book = Book::new(BalanceSettings::default());
        let roles = [("o1", Role::Origin), ("o2", Role::Origin), ("o3", Role::Origin)];
        let edges = ["e1", "e2", "e3", "e4"].map(|id| (id, Role::Edge));
        let specs = roles.into_iter().chain(edges).zip(1..).map(|((id, role), at): (_, u8)| NodeSpec {
            id: node(id),
            address: NodeAddr(([10, 0, 0, at], 5080).into()),
            role,
            zone: None,
            aliases: Vec::new(),
            max_publishes: Some(1000),
            max_plays: Some(2000),
        });
        book.set_nodes(specs.collect(), now);
        let settings = Arc::new(SessionSettings {
            give_up: Duration::from_millis(2700),
            attempt: Duration::from_millis(1200),
            confirm: Duration::from_secs(8),
            max_to_node: 4096,
            max_legs: 6,
            messages_per_second: 100,
            with_publisher: true,
            ice_servers: signaling::ice_server_config("", "", ""),
            relay: None,
        });
        let sessions = (0..SESSIONS).map(|id| (id, Session::new(Arc::clone(&settings), SessionId(id), now)));
        Self {
            rng: fastrand::Rng::with_seed(seed),
            now,
            book,
            sessions: sessions.collect(),
            queue: BTreeMap::new(),
            order: 0,
            seats: BTreeMap::new(),
            origins: BTreeMap::new(),
            plays: BTreeSet::new(),
            waiting: Vec::new(),
            moved: BTreeMap::new(),
            moved_at: Vec::new(),
            stayed: 0,
        }
    }

    /// The first hundred sessions publish a stream each; the others play one, some streams far more often than others.
    fn begin(&mut self) {
        for id in 0..SESSIONS {
            let (command, stream) = if id < STREAMS {
                ("publish", id)
            } else {
                ("play", (self.rng.u64(0..STREAMS) * self.rng.u64(0..STREAMS)) / STREAMS)
            };
            self.plan(id, if id < STREAMS { 0 } else { 3_000 }, client(command, &format!("s{stream}")));
        }
        self.run(Duration::from_secs(10));
        assert_eq!(self.live().len() as u64, SESSIONS, "all are served before anything is drained");
    }

    fn drain(&mut self, drained: &str) {
        let drained = node(drained);
        let on_it: BTreeSet<LegKey> = self.legs_on(&drained).into_iter().map(|leg| leg.key).collect();
        let followers: BTreeSet<u64> = self.viewers_of(&on_it);
        assert!(on_it.len() > 20, "{} legs on {drained} prove little", on_it.len());
        self.book.set_drain(&drained, Some(Drain::Draining), self.now);
        (self.moved, self.moved_at) = (BTreeMap::new(), Vec::new());
        let mut pacer = Pacer::new(self.now);
        let begun = self.now;
        while !self.legs_on(&drained).is_empty() {
            assert!(self.now < begun + Duration::from_secs(120), "{} legs are left", self.legs_on(&drained).len());
            let there = self.legs_on(&drained);
            let mut rng = self.rng.fork();
            for key in pacer.due(&there, PER_SECOND, self.now, || rng.f64()) {
                let order = Input::Move { node: drained.clone(), stream: key.stream.stream, kind: key.kind };
                self.plan(key.session.0, 0, order);
                self.moved_at.push(self.now);
            }
            self.run(TICK);
        }
        let took = self.now - begun;
        self.run(Duration::from_secs(10));
        println!("{drained}: {} legs in {took:?}, {} viewers followed", on_it.len(), followers.len());

        let moved: BTreeSet<LegKey> = self.of_cause(MoveCause::Drain);
        assert_eq!(moved, on_it, "exactly what was there has moved");
        let followed: BTreeSet<u64> = self.of_cause(MoveCause::Finished).iter().map(|key| key.session.0).collect();
        assert_eq!(followed, followers, "and exactly the viewers of moved publishers have followed");
        assert!(self.moved.values().all(|times| *times == 1), "none moved twice: {:?}", self.moved);
        assert_eq!(self.stayed, 0);
        assert_eq!(self.live().len() as u64, SESSIONS, "none is lost");
        let first = Duration::from_secs_f64(on_it.len() as f64 / PER_SECOND);
        assert!(took + Duration::from_secs(1) >= first.mul_f64(0.9), "not faster than its pace: {took:?}");
        for (at, begin) in self.moved_at.iter().enumerate() {
            let within = self.moved_at[at..].iter().take_while(|then| **then < *begin + Duration::from_secs(1)).count();
            assert!(within as f64 <= PER_SECOND * 1.5 + 10.0, "{within} within a second");
        }
        let legs = self.book.own_legs();
        assert!(!legs.contains_key(&drained), "placement agrees: {legs:?}");
        assert_eq!(legs.values().map(|legs| u64::from(legs.publish + legs.play)).sum::<u64>(), SESSIONS);
    }

    fn of_cause(&self, cause: MoveCause) -> BTreeSet<LegKey> {
        self.moved.keys().filter(|(_, of)| *of == cause).map(|(key, _)| key.clone()).collect()
    }

    fn viewers_of(&self, legs: &BTreeSet<LegKey>) -> BTreeSet<u64> {
        let published: BTreeSet<&str> =
            legs.iter().filter(|key| key.kind == Kind::Publish).map(|key| key.stream.stream.as_str()).collect();
        let of = |session: &Session| {
            session.legs().any(|leg| leg.kind == Kind::Play && published.contains(leg.stream.as_str()))
        };
        self.sessions.iter().filter(|(_, session)| of(session)).map(|(id, _)| *id).collect()
    }

    fn live(&self) -> Vec<u64> {
        let is_live = |session: &Session| !session.is_closed() && session.legs().all(|leg| leg.state == "live");
        let live = self.sessions.iter().filter(|(_, session)| session.legs().count() == 1 && is_live(session));
        live.map(|(id, _)| *id).collect()
    }

    fn legs_on(&self, node: &NodeId) -> Vec<LegThere> {
        let mut there = Vec::new();
        for (id, session) in &self.sessions {
            for leg in session.legs().filter(|leg| leg.node.as_ref() == Some(node)) {
                let key = LegKey { session: SessionId(*id), stream: key(leg.stream.as_str()), kind: leg.kind };
                there.push(LegThere { key, settled: leg.state == "live", leaving: leg.moving });
            }
        }
        there
    }

    fn plan(&mut self, session: u64, ms: u64, input: Input) {
        self.order += 1;
        self.queue.insert((self.now + Duration::from_millis(ms), self.order), (session, input));
    }

    /// Lets time pass, with all that falls due.
    fn run(&mut self, lasts: Duration) {
        let end = self.now + lasts;
        loop {
            let tick = self.sessions.iter().filter_map(|(id, session)| Some((session.poll_timeout()?, *id))).min();
            let next = self.queue.first_key_value().map(|((at, _), _)| *at);
            match (next, tick) {
                (Some(at), tick) if at <= end && tick.is_none_or(|(due, _)| at <= due) => {
                    let Some(((at, _), (session, input))) = self.queue.pop_first() else { break };
                    self.now = self.now.max(at);
                    self.feed(session, input);
                }
                (_, Some((due, session))) if due <= end => {
                    self.now = self.now.max(due);
                    // The client answers pings, as every client does.
                    self.feed(session, Input::Tick);
                    self.feed(session, Input::ClientAlive);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn feed(&mut self, id: u64, input: Input) {
        let mut outputs = Vec::new();
        let session = self.sessions.get_mut(&id).expect("a session of this world");
        session.handle(input, self.now);
        while let Some(output) = session.poll_output() {
            outputs.push(output);
        }
        for output in outputs {
            self.take(id, output);
        }
    }

    fn take(&mut self, id: u64, output: Output) {
        let latency = self.rng.u64(5..60);
        match output {
            Output::Place(ticket, ask) => self.place(id, ticket, ask),
            Output::Release(ticket) => {
                self.waiting.retain(|(session, waiting, _)| (*session, *waiting) != (id, ticket));
                if let Some((node, kind)) = self.seats.remove(&(id, ticket)) {
                    self.book.leg_ended(&node, kind, self.now);
                }
            }
            Output::Dial(node) => self.plan(id, latency, Input::LinkUp(node)),
            Output::ToNode(node, text) => self.node_hears(id, &node, &text, latency),
            Output::ToClient(text) => self.client_hears(id, &text, latency),
            Output::Fact(Fact::Moved { kind, stream, cause, .. }) => {
                let key = LegKey { session: SessionId(id), stream: key(stream.as_str()), kind };
                *self.moved.entry((key, cause)).or_default() += 1;
            }
            Output::Fact(Fact::Stayed { .. }) => self.stayed += 1,
            Output::Fact(Fact::MoveFailed { stream, .. }) => panic!("session {id} could not move {stream}"),
            Output::Close(reason) => panic!("session {id} ended: {reason:?}"),
            Output::HangUp(_) | Output::PingClient | Output::Relay(_) | Output::Fact(_) => {}
        }
    }

    fn place(&mut self, id: u64, ticket: Ticket, ask: Ask) {
        let stream = ask.stream.clone().expect("these legs have streams");
        if ask.after_end.is_some() && !self.origins.contains_key(stream.as_str()) {
            return self.waiting.push((id, ticket, ask));
        }
        let (kind, want) = match ask.purpose {
            Purpose::Publish => (Kind::Publish, Want::Publish),
            _ => (Kind::Play, Want::Play { origin_zone: None, origin: None }),
        };
        let key = key(stream.as_str());
        let request = Request {
            stream: &key,
            want,
            rule: "policy",
            kind: Some(kind),
            exclude: &ask.avoid,
            seed: self.rng.u64(..),
        };
        let result = match self.book.place(&request, self.now) {
            Ok(placement) => {
                self.seats.insert((id, ticket), (placement.node.clone(), kind));
                let origin = self.origins.get(stream.as_str()).cloned();
                Ok(Placed { node: placement.node, address: [10, 0, 0, 1].into(), origin })
            }
            Err(_) => Err(Reject::Busy),
        };
        self.plan(id, 1, Input::Placed { ticket, result });
    }

    /// What a node does with a client's words.
    fn node_hears(&mut self, id: u64, node: &NodeId, text: &Text, latency: u64) {
        let message: Value = serde_json::from_slice(text.as_bytes()).expect("sessions speak JSON");
        let stream = message["streamId"].as_str().unwrap_or_default().to_owned();
        let say = |world: &mut Self, ms, answer: Value| {
            world.plan(id, ms, Input::Node(node.clone(), Text::from(answer.to_string())));
        };
        match message["command"].as_str() {
            Some("ping") => say(self, latency, json!({ "command": "pong" })),
            Some("publish") => {
                assert!(!self.origins.contains_key(&stream), "{stream} is still published elsewhere");
                say(self, latency, json!({ "command": "start", "streamId": stream }));
            }
            Some("play") => {
                self.plays.insert((node.clone(), stream.clone(), id));
                say(
                    self,
                    latency,
                    json!({ "command": "takeConfiguration", "type": "offer", "sdp": "m=video 9", "streamId": stream }),
                );
            }
            Some("takeConfiguration") if message["type"] == "offer" => {
                self.origins.insert(stream.clone(), node.clone());
                say(self, latency + 200, notice("publish_started", &stream));
                self.come_back(&stream, latency + 400);
            }
            Some("takeConfiguration") => say(self, latency + 200, notice("play_started", &stream)),
            Some("stop") if self.plays.remove(&(node.clone(), stream.clone(), id)) => {
                say(self, latency, notice("play_finished", &stream));
            }
            Some("stop") => {
                if self.origins.get(&stream) == Some(node) {
                    self.origins.remove(&stream);
                }
                say(self, latency, notice("publish_finished", &stream));
                self.finish(&stream);
            }
            other => panic!("a node does not know {other:?}"),
        }
    }

    /// The edges lose a stream: their viewers hear of an end.
    fn finish(&mut self, stream: &str) {
        let viewers: Vec<_> = self.plays.iter().filter(|(_, played, _)| played == stream).cloned().collect();
        for (edge, _, viewer) in viewers {
            self.plays.remove(&(edge.clone(), stream.to_owned(), viewer));
            let ms = self.rng.u64(5..300);
            self.plan(viewer, ms, Input::Node(edge, Text::from(notice("play_finished", stream).to_string())));
        }
    }

    /// Its publisher has arrived: plays that wait are placed.
    fn come_back(&mut self, stream: &str, _ms: u64) {
        let (back, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(_, _, ask)| ask.stream.as_ref().is_some_and(|of| of.as_str() == stream));
        self.waiting = waiting;
        let back: Vec<(u64, Ticket, Ask)> = back;
        for (id, ticket, ask) in back {
            self.place(id, ticket, ask);
        }
    }

    fn client_hears(&mut self, id: u64, text: &Text, latency: u64) {
        let message: Value = serde_json::from_slice(text.as_bytes()).expect("sessions speak JSON");
        let stream = message["streamId"].as_str().unwrap_or_default();
        let describes = |kind: &str| {
            let words = json!({ "command": "takeConfiguration", "type": kind, "sdp": "m=video 9", "streamId": stream });
            Input::Client(Text::from(words.to_string()))
        };
        match (message["command"].as_str(), message["definition"].as_str()) {
            (Some("start"), _) => self.plan(id, latency, describes("offer")),
            (Some("takeConfiguration"), _) if message["type"] == "offer" => {
                self.plan(id, latency, describes("answer"));
            }
            (Some("error"), why) => panic!("session {id} hears {why:?}"),
            (_, Some("play_finished" | "publish_finished" | "server_will_stop")) => {
                panic!("session {id} hears of an end: {message}");
            }
            _ => {}
        }
    }
}

fn client(command: &str, stream: &str) -> Input {
    Input::Client(Text::from(json!({ "command": command, "streamId": stream }).to_string()))
}

fn notice(definition: &str, stream: &str) -> Value {
    json!({ "command": "notification", "definition": definition, "streamId": stream })
}

fn node(id: &str) -> NodeId {
    id.parse().unwrap()
}

fn key(stream: &str) -> StreamKey {
    StreamKey { app: "LiveApp".parse().unwrap(), stream: stream.parse().unwrap() }
}
