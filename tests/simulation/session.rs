//! One session against a client that says anything and nodes that do anything, on a virtual clock.
//!
//! Replay one seed with `FOREBAY_SEED=n cargo test --test simulation session`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use forebay::domain::{
    ids::{NodeId, SessionId},
    reject::Reject,
    session::{CloseReason, Input, LinkLoss, Output, Placed, Session, SessionSettings, Ticket},
    signaling::{self, Text},
};

const SEEDS: u64 = 10_000;
const EVENTS: u32 = 80;
const NODES: usize = 3;
const GIVE_UP: Duration = Duration::from_millis(2700);
const CONFIRM: Duration = Duration::from_secs(8);
const DIAL_LIMIT: Duration = Duration::from_millis(800);

#[test]
fn any_session_ends_with_one_close_and_nothing_after_it_and_waits_for_nothing_for_ever() {
    let seeds =
        std::env::var("FOREBAY_SEED").ok().and_then(|seed| seed.parse().ok()).map_or(0..SEEDS, |seed| seed..seed + 1);
    let mut seen = BTreeMap::<String, u64>::new();
    for seed in seeds.clone() {
        let mut world = World::new(seed);
        world.live();
        world.end();
        for (what, times) in world.seen {
            *seen.entry(what).or_default() += times;
        }
    }
    println!("session simulation: seeds {seeds:?}, outputs seen: {seen:#?}");
    if seeds.end - seeds.start > 1 {
        for expected in [
            "Moved",
            "MoveFailed",
            "Retried",
            "LinkLost",
            "Started",
            "Rejected",
            "Close(TooEager)",
            "Close(ClientSilent)",
        ] {
            assert!(
                seen.keys().any(|what| what.starts_with(expected)),
                "the simulation never reached {expected}: it proves little"
            );
        }
    }
}

/// What the world knows of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkState {
    Dialling,
    Up,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Good,
    /// Accepts nothing, says nothing.
    Frozen,
    Refusing,
}

/// An input to come; one of a link is void once that link's generation has passed.
type Planned = (Option<(NodeId, u64)>, Input);

struct World {
    seed: u64,
    step: u32,
    rng: fastrand::Rng,
    now: Instant,
    session: Session,
    queue: BTreeMap<(Instant, u64), Planned>,
    order: u64,
    links: BTreeMap<NodeId, (LinkState, u64)>,
    generation: u64,
    health: Vec<Health>,
    tickets: BTreeSet<Ticket>,
    released: BTreeSet<Ticket>,
    from_client: BTreeSet<Vec<u8>>,
    from_nodes: BTreeSet<Vec<u8>>,
    unanswered: BTreeMap<(String, &'static str), Instant>,
    closes: u32,
    silent: bool,
    seen: BTreeMap<String, u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let mut rng = fastrand::Rng::with_seed(seed);
        let settings = SessionSettings {
            give_up: GIVE_UP,
            attempt: Duration::from_millis(1200),
            confirm: CONFIRM,
            max_to_node: 4096,
            max_legs: 6,
            messages_per_second: if rng.u8(..) < 16 { 1 } else { 100 },
            with_publisher: rng.bool(),
            ice_servers: signaling::ice_server_config("", "", ""),
            relay: None,
        };
        Self {
            seed,
            step: 0,
            now,
            session: Session::new(Arc::new(settings), SessionId(seed), now),
            queue: BTreeMap::new(),
            order: 0,
            links: BTreeMap::new(),
            generation: 0,
            health: vec![Health::Good; NODES],
            tickets: BTreeSet::new(),
            released: BTreeSet::new(),
            from_client: BTreeSet::new(),
            from_nodes: BTreeSet::new(),
            unanswered: BTreeMap::new(),
            closes: 0,
            silent: rng.u8(..) < 8,
            seen: BTreeMap::new(),
            rng,
        }
    }

    fn live(&mut self) {
        for step in 0..EVENTS {
            self.step = step;
            if self.closes > 0 {
                break;
            }
            match self.rng.u32(0..100) {
                0..40 if !self.silent || step < 10 => self.client_speaks(),
                0..46 => self.node_changes(),
                46..50 => self.link_breaks(),
                _ => self.time_passes(),
            }
        }
        // Silence: whatever is under way must come to its end by itself.
        for _ in 0..200 {
            if self.closes > 0 {
                return;
            }
            self.time_passes();
        }
    }

    fn end(&mut self) {
        if self.closes == 0 {
            self.input(Input::ClientGone(CloseReason::ClientClosed));
        }
        self.check(self.closes == 1, "exactly one close");
        self.check(
            self.session.is_closed() && self.session.poll_timeout().is_none(),
            "a closed session waits for nothing",
        );
        self.check(self.tickets == self.released, "what was reserved is given back");
        self.check(self.links.is_empty(), "no link outlives its session");
        for late in [
            Input::Tick,
            Input::Client(Text::from_static("{}")),
            Input::LinkUp(node(0)),
            Input::Close(CloseReason::Admin),
        ] {
            self.session.handle(late, self.now);
            let quiet = self.session.poll_output().is_none();
            self.check(quiet, "nothing follows the close");
        }
    }

    fn check(&self, holds: bool, promise: &str) {
        assert!(holds, "seed {} step {}: broken: {promise}; {:#?}", self.seed, self.step, self.session);
    }

    fn input(&mut self, input: Input) {
        self.session.handle(input, self.now);
        while let Some(output) = self.session.poll_output() {
            self.check(self.closes == 0, "nothing follows the close");
            self.output(output);
        }
        self.check_waits();
    }

    fn output(&mut self, output: Output) {
        let name = format!("{output:?}");
        let name = match &output {
            Output::Close(_) => name,
            Output::Fact(fact) => format!("{fact:?}").split([' ', '(', '{']).next().unwrap_or_default().to_owned(),
            _ => name.split(['(', ' ']).next().unwrap_or_default().to_owned(),
        };
        *self.seen.entry(name).or_default() += 1;
        match output {
            Output::ToClient(text) => {
                let own = text.len() < 200 && !self.from_nodes.contains(text.as_bytes());
                self.check(own || self.from_nodes.contains(text.as_bytes()), "what a node says passes byte for byte");
            }
            Output::ToNode(to, text) => {
                self.check(
                    self.links.get(&to).is_some_and(|(state, _)| *state == LinkState::Up),
                    "only links that are up are written to",
                );
                let own = text == signaling::ping() || text.as_bytes().starts_with(br#"{"command":"stop""#);
                self.check(
                    own || self.from_client.contains(text.as_bytes()),
                    "what a client says passes byte for byte",
                );
                self.node_hears(&to, &text);
            }
            Output::Dial(to) => {
                self.generation += 1;
                let before = self.links.insert(to.clone(), (LinkState::Dialling, self.generation));
                self.check(before.is_none(), "at most one link per node");
                let good = self.health[index(&to)] != Health::Frozen && self.rng.u8(..) > 20;
                let after = if good { self.delay(300) } else { DIAL_LIMIT };
                let outcome =
                    if good { Input::LinkUp(to.clone()) } else { Input::LinkDown(to.clone(), LinkLoss::Handshake) };
                self.later(after, Some((to, self.generation)), outcome);
            }
            Output::HangUp(to) => {
                let gone = self.links.remove(&to);
                self.check(gone.is_some(), "only a link that there is can be hung up");
            }
            Output::Place(ticket, ask) => {
                let unique = self.tickets.insert(ticket);
                self.check(unique, "tickets are unique");
                let free: Vec<_> = (0..NODES).map(node).filter(|node| !ask.avoid.contains(node)).collect();
                let result = match (free.is_empty(), self.rng.u8(..)) {
                    (true, _) | (_, 0..10) => Err(Reject::Busy),
                    (_, 10..20) => Err(Reject::NoSuchStream),
                    _ => Ok(Placed {
                        node: free[self.rng.usize(..free.len())].clone(),
                        address: [10, 0, 1, 1].into(),
                        origin: None,
                    }),
                };
                if self.rng.u8(..) > 5 {
                    let after = self.delay(200);
                    self.later(after, None, Input::Placed { ticket, result });
                } // else placement never answers
            }
            Output::Release(ticket) => {
                let once = self.tickets.contains(&ticket) && self.released.insert(ticket);
                self.check(once, "a ticket is given back once");
            }
            Output::Close(_) => self.closes += 1,
            Output::PingClient | Output::Fact(_) | Output::Relay(_) => {}
        }
    }

    /// No leg waits for its node's first answer longer than its deadline, and every wait has an end.
    fn check_waits(&mut self) {
        if self.closes > 0 {
            return;
        }
        let due = self.session.poll_timeout();
        self.check(due.is_some(), "an open session always knows when to look again");
        let waiting: BTreeSet<_> = self
            .session
            .legs()
            .filter(|leg| matches!(leg.state, "placing" | "dialling" | "asked"))
            .map(|leg| (leg.stream.to_string(), leg.kind.as_str()))
            .collect();
        let now = self.now;
        self.unanswered.retain(|leg, _| waiting.contains(leg));
        for leg in waiting {
            let since = *self.unanswered.entry(leg.clone()).or_insert(now);
            self.check(now - since <= GIVE_UP.max(CONFIRM) + GIVE_UP, "every leg is answered or refused in time");
        }
    }

    fn later(&mut self, after: Duration, link: Option<(NodeId, u64)>, input: Input) {
        self.order += 1;
        self.queue.insert((self.now + after, self.order), (link, input));
    }

    fn delay(&mut self, most_ms: u64) -> Duration {
        let slow = if self.rng.u8(..) < 20 { 10 } else { 1 };
        Duration::from_millis(self.rng.u64(0..most_ms) * slow)
    }

    fn time_passes(&mut self) {
        let due = self.session.poll_timeout();
        let next = self.queue.keys().next().copied();
        match (next, due) {
            (Some(key), due) if due.is_none_or(|due| key.0 <= due) => {
                let Some((link, input)) = self.queue.remove(&key) else { return };
                self.now = self.now.max(key.0);
                // What a dead link would have said is never heard.
                if let Some((to, generation)) = link {
                    match self.links.get_mut(&to) {
                        Some(state) if state.1 == generation => match &input {
                            Input::LinkUp(_) => state.0 = LinkState::Up,
                            Input::LinkDown(..) => drop(self.links.remove(&to)),
                            _ => {}
                        },
                        _ => return,
                    }
                }
                self.input(input);
            }
            (_, Some(due)) => {
                self.now = self.now.max(due);
                self.input(Input::Tick);
                if self.closes == 0 {
                    let again = self.session.poll_timeout();
                    self.check(again > Some(self.now), "a tick at its time settles what was due");
                }
                if !self.silent && self.rng.bool() {
                    self.input(Input::ClientAlive);
                }
            }
            (_, None) => {}
        }
    }

    fn link_breaks(&mut self) {
        let up: Vec<_> =
            self.links.iter().filter(|(_, (state, _))| *state == LinkState::Up).map(|(node, _)| node.clone()).collect();
        if let Some(broken) = up.get(self.rng.usize(..up.len().max(1))).cloned() {
            self.links.remove(&broken);
            let loss = if self.rng.bool() { LinkLoss::Closed } else { LinkLoss::Io };
            self.input(Input::LinkDown(broken, loss));
        }
    }

    fn node_changes(&mut self) {
        let at = self.rng.usize(..NODES);
        self.health[at] = match self.rng.u8(0..4) {
            0 => Health::Frozen,
            1 => Health::Refusing,
            _ => Health::Good,
        };
    }

    fn client_speaks(&mut self) {
        let stream = ["a", "b", "room1"][self.rng.usize(..3)];
        let text = match self.rng.u32(0..26) {
            0..4 => format!(r#"{{"command":"publish","streamId":"{stream}","mainTrack":"room1"}}"#),
            4..8 => format!(r#"{{"command":"play","streamId":"{stream}","userPublishId":"a"}}"#),
            8..10 => format!(r#"{{"command":"play","streamId":"{stream}","token":"t"}}"#),
            10..13 => format!(r#"{{"command":"stop","streamId":"{stream}"}}"#),
            13 => format!(
                r#"{{"command":"takeConfiguration","type":"offer","streamId":"{stream}","sdp":"v=0\r\na=ice-ufrag:pub\r\n"}}"#
            ),
            14 => format!(
                r#"{{"command":"takeConfiguration","type":"answer","streamId":"{stream}","sdp":"v=0\r\na=ice-ufrag:play\r\n"}}"#
            ),
            15 => format!(r#"{{"command":"takeCandidate","streamId":"{stream}","label":0,"id":"0","candidate":""}}"#),
            16 => r#"{"command":"ping"}"#.to_owned(),
            17 => r#"{"command":"getIceServerConfig"}"#.to_owned(),
            18 => format!(r#"{{"command":"getBroadcastObject","streamId":"{stream}"}}"#),
            19 => format!(r#"{{"command":"join","streamId":"p2p-{stream}"}}"#),
            20 => r#"{"command":"joinRoom","room":"room1"}"#.to_owned(),
            21 => format!(r#"{{"command":"enableTrack","streamId":"{stream}","trackId":"x","enabled":true}}"#),
            22 => r#"{"command":"sendPushNotification"}"#.to_owned(),
            23 => format!(r#"{{"command":"play","streamId":"x{}"}}"#, self.rng.u32(..)),
            24 => ["nonsense", r#"{"command":7}"#, r#"{"command":"start"}"#, r#"{"command":"play"}"#]
                [self.rng.usize(..4)]
            .to_owned(),
            _ => format!(
                r#"{{"command":"unheardOf","streamId":"{stream}","pad":"{}"}}"#,
                "x".repeat(self.rng.usize(..6000))
            ),
        };
        for _ in 0..if self.rng.u8(..) < 3 { 80 } else { 1 } {
            if self.closes == 0 {
                self.from_client.insert(text.clone().into_bytes());
                self.input(Input::Client(Text::from(text.clone())));
            }
        }
    }

    /// A node's answer to what it hears: proper, late, refusing, repeated or none.
    fn node_hears(&mut self, at: &NodeId, text: &Text) {
        let health = self.health[index(at)];
        if health == Health::Frozen {
            return;
        }
        let said: serde_json::Value = serde_json::from_slice(text.as_bytes()).unwrap_or_default();
        let stream = said["streamId"].as_str().unwrap_or_default().to_owned();
        let error =
            |definition: &str| format!(r#"{{"command":"error","definition":"{definition}","streamId":"{stream}"}}"#);
        let notify = |definition: &str| {
            format!(r#"{{"command":"notification","definition":"{definition}","streamId":"{stream}"}}"#)
        };
        let refusal =
            ["highResourceUsage", "no_stream_exist", "streamIdInUse", "not_initialized_yet", "server_error_check_logs"];
        let answers = match said["command"].as_str().unwrap_or_default() {
            "ping" => vec![r#"{"command":"pong"}"#.to_owned()],
            "publish" | "play" if health == Health::Refusing => vec![error(refusal[self.rng.usize(..refusal.len())])],
            "publish" => vec![format!(r#"{{"command":"start","streamId":"{stream}"}}"#), notify("publish_started")],
            "play" => {
                let sdp =
                    if self.rng.u8(..) < 40 { r"v=0\r\nm=audio 9\r\n" } else { r"v=0\r\nm=audio 9\r\nm=video 9\r\n" };
                let offer =
                    format!(r#"{{"command":"takeConfiguration","type":"offer","streamId":"{stream}","sdp":"{sdp}"}}"#);
                vec![offer, notify("play_started")]
            }
            "stop" => vec![notify("publish_finished")],
            _ if self.rng.u8(..) < 10 => vec![signaling_stop()],
            _ => vec![notify("broadcastObject")],
        };
        let Some((_, generation)) = self.links.get(at).copied() else { return };
        let mut after = Duration::ZERO;
        for answer in answers {
            after += self.delay(150);
            for _ in 0..if self.rng.u8(..) < 10 { 2 } else { 1 } {
                self.from_nodes.insert(answer.clone().into_bytes());
                self.later(after, Some((at.clone(), generation)), Input::Node(at.clone(), Text::from(answer.clone())));
            }
        }
    }
}

fn signaling_stop() -> String {
    r#"{"command":"notification","definition":"server_will_stop"}"#.to_owned()
}

fn node(at: usize) -> NodeId {
    format!("node-{at}").parse().unwrap()
}

fn index(node: &NodeId) -> usize {
    node.as_str()[5..].parse().unwrap()
}
