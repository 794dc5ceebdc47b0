//! What the media relay can carry: its own threads over real sockets, with clients that authenticate, beside bare loops.
//!
//! ```text
//! clients 127.1.x.y ──► relay thread ──► nodes 127.2.x.y      core 0: sends, and counts what arrives
//!                   ◄──              ◄──                      core 1: the relay, or the loop whose turn it is
//! ```
//!
//! One process on loopback, so packets cost what the kernel takes for them and no network hides anything. Relay and loops
//! take turns, so that what else the machine does meets all of them. `cargo bench --bench relay -- --help`

#![allow(clippy::print_stdout, reason = "a bench prints its results")]

#[path = "../support/allocations.rs"]
mod allocations;
mod baseline;
mod batch;
mod flows;
mod load;
mod options;
#[path = "../support/stun.rs"]
mod stun;
mod table;

use std::{error::Error, fs, net::SocketAddrV4, ops::Range, time::Instant};

use baseline::Loop;
use batch::Thread;
use flows::{Ends, Lane, Relay};
use load::{Junk, Order, Outcome, Pace, Turn};
use options::Options;
use table::{COLUMNS, Table, Target};

/// Flows that carry packets during a turn; the others are open and silent.
const LANES: u16 = 64;
/// Where the load runs.
const LOAD_CORE: usize = 0;
/// Where the relay and the loops run.
const RELAY_CORE: usize = 1;
/// Packets per second while delays are measured.
const CALM: u64 = 50_000;
/// Packets per second of media, and of junk beside it.
const FLOODED: (u64, u64) = (80_000, 100_000);

/// The ways of passing packets on, by their columns: the relay first.
const SYSTEMS: Range<usize> = 0..COLUMNS.len();

/// A way of passing packets on.
struct System {
    thread: Thread,
    /// Where clients send to.
    public: SocketAddrV4,
    to_node: Vec<Lane>,
    /// Empty where it makes no difference.
    to_client: Vec<Lane>,
}

/// A kind of load at full speed.
struct Speed {
    order: Order,
    size: usize,
    /// The far end takes bursts as they are, as a network card that cuts them by itself does; otherwise whoever sends
    /// them also pays for cutting them.
    joined: bool,
    /// What the relay must carry per core, in thousands of packets a second.
    target: Target,
}

const SPEEDS: [Speed; 6] = [
    Speed { order: Order::Interleaved, size: 1200, joined: false, target: Target::AtLeast(200.0) },
    Speed { order: Order::Interleaved, size: 200, joined: false, target: Target::AtLeast(210.0) },
    Speed { order: Order::Joined, size: 1200, joined: true, target: Target::AtLeast(450.0) },
    Speed { order: Order::Joined, size: 200, joined: true, target: Target::AtLeast(450.0) },
    Speed { order: Order::Joined, size: 1200, joined: false, target: Target::None },
    Speed { order: Order::InARow, size: 1200, joined: true, target: Target::None },
];

/// All that the turns share.
struct Bench {
    options: Options,
    ends: Ends,
    relay: Relay,
    systems: Vec<System>,
    direct: Vec<Lane>,
    turns: u32,
    table: Table,
    /// Packets through the relay at full speed, and what the process allocated meanwhile.
    allocated: (u64, u64),
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(options) = Options::parse(std::env::args().skip(1)) else {
        print!("{}", options::HELP);
        return Ok(());
    };
    println!("machine: {}; load {}", machine(), load_average());
    let began = Instant::now();
    // Threads inherit this until they are bound elsewhere: nothing but what is measured runs on its core.
    Thread::this().pin(LOAD_CORE);
    let ends = Ends::open()?;
    let mut table = Table::default();
    let (relay, pool) = open_flows(&ends, options.flows, &mut table)?;
    let loops = [
        Loop::batched("bench-bare", ends.routes(options.flows), false)?,
        Loop::batched("bench-bare-gso", ends.routes(options.flows), true)?,
        Loop::tokio("bench-tokio", ends.routes(options.flows))?,
    ];
    let systems = systems(&ends, &relay, pool, &loops);
    systems.iter().for_each(|system| system.thread.pin(RELAY_CORE));
    let direct = ends.direct(LANES);
    let mut bench = Bench { options, ends, relay, systems, direct, turns: 0, table, allocated: (0, 0) };
    for round in 1..=bench.options.rounds {
        bench.round()?;
        println!("round {round} of {} after {:.0?}; load {}", bench.options.rounds, began.elapsed(), load_average());
    }
    bench.finish()
}

/// Starts the relay and opens its flows; notes what they take.
fn open_flows(ends: &Ends, flows: u16, table: &mut Table) -> Result<(Relay, SocketAddrV4), Box<dyn Error>> {
    let mut relay = Relay::start(flows)?;
    let (bytes, resident, began) = (allocations::bytes(), resident(), Instant::now());
    let mut pool = relay.open_next(ends)?;
    for _ in 1..flows {
        pool = relay.open_next(ends)?;
    }
    let each = |bytes: u64| bytes as f64 / f64::from(flows);
    let pair = (each(allocations::bytes() - bytes), each(self::resident().saturating_sub(resident)));
    table.add_pair("memory per flow with its session, bytes (resident)", Target::AtMost(2048.0), 0, 0, pair);
    println!("{flows} flows opened, authenticated and nominated in {:.1?}", began.elapsed());
    Ok((relay, pool))
}

fn systems(ends: &Ends, relay: &Relay, pool: SocketAddrV4, loops: &[Loop]) -> Vec<System> {
    let to_node = ends.clients_to(LANES, relay.public);
    let to_client = ends.nodes_to(LANES, pool);
    let mut systems = vec![System { thread: relay.thread, public: relay.public, to_node, to_client }];
    systems.extend(loops.iter().map(|held| System {
        thread: held.thread,
        public: held.address,
        to_node: ends.clients_to(LANES, held.address),
        to_client: Vec::new(),
    }));
    systems
}

impl Bench {
    /// Every measurement once, the systems in turn.
    fn round(&mut self) -> Result<(), Box<dyn Error>> {
        if self.options.has("throughput") {
            let is_asked = |speed: &&Speed| speed.line(false).contains(&self.options.only);
            for speed in SPEEDS.iter().filter(is_asked).collect::<Vec<_>>() {
                self.throughput(speed)?;
            }
        }
        if self.options.has("latency") {
            self.latency()?;
        }
        if self.options.has("loss") {
            self.loss()?;
        }
        if self.options.has("flood") {
            self.flood("unknown ufrags", &(0..64).map(flows::check_of_nobody).collect::<Vec<_>>())?;
            self.flood("wrong passwords", &(0..64).map(flows::forged_check).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn throughput(&mut self, speed: &Speed) -> Result<(), Box<dyn Error>> {
        let Speed { order, size, joined, .. } = *speed;
        for nth in SYSTEMS {
            for to_client in [false, true] {
                if to_client && self.systems[nth].to_client.is_empty() {
                    continue;
                }
                let turn = |turn: Turn<'_>| Turn { order, size, takes_joined: joined, ..turn }.run();
                let outcome = self.turn(nth, to_client, turn)?;
                let per_core = outcome.received as f64 / outcome.cpu.as_secs_f64() / 1e3;
                let by_clock = outcome.received as f64 / outcome.took.as_secs_f64() / 1e3;
                self.note_speed(speed, nth, to_client, (per_core, by_clock));
                if nth == 0 {
                    self.allocated.0 += outcome.received;
                    self.allocated.1 += outcome.allocations;
                }
            }
        }
        Ok(())
    }

    /// The loops know no direction: what they reach stands beside both of the relay's.
    fn note_speed(&mut self, speed: &Speed, nth: usize, to_client: bool, pair: (f64, f64)) {
        let both = [false, true].into_iter().filter(|line| nth > 0 || *line == to_client);
        for to_client in both {
            self.table.add_pair(&speed.line(to_client), speed.target, 0, nth, pair);
            if (speed.order, speed.size) == (Order::Interleaved, 1200) {
                let line = format!("µs of CPU per packet, 1200 B interleaved, {}", direction(to_client));
                self.table.add(&line, Target::AtMost(5.0), 2, nth, 1e3 / pair.0);
            }
        }
    }

    fn latency(&mut self) -> Result<(), Box<dyn Error>> {
        let calm = |turn: Turn<'_>| Turn { pace: Pace::Rate(CALM), stamped: true, ..turn }.run();
        let lanes = std::mem::take(&mut self.direct);
        let direct = self.turn(0, false, |turn| calm(Turn { lanes: &lanes, ..turn }))?;
        self.direct = lanes;
        let base = direct.delays.quantile(0.5);
        for nth in SYSTEMS {
            let outcome = self.turn(nth, false, calm)?;
            let added = |quantile| outcome.delays.quantile(quantile) - base;
            self.table.add("added delay at 50 kpps, p50, µs", Target::AtMost(60.0), 0, nth, added(0.5));
            self.table.add("added delay at 50 kpps, p99, µs", Target::AtMost(3000.0), 0, nth, added(0.99));
        }
        Ok(())
    }

    fn loss(&mut self) -> Result<(), Box<dyn Error>> {
        let line = SPEEDS[0].line(false);
        let Some(full) = self.table.median_beside(&line, 0).or(self.table.median(&line, 0)) else {
            return Ok(());
        };
        let rate = (full * 500.0) as u64;
        for nth in SYSTEMS {
            let outcome = self.turn(nth, false, |turn| Turn { pace: Pace::Rate(rate), ..turn }.run())?;
            let lost = 100.0 * (outcome.sent - outcome.received) as f64 / outcome.sent as f64;
            let kpps = outcome.sent as f64 / outcome.sending.as_secs_f64() / 1e3;
            self.table.add_pair(
                "lost at half of the relay's speed, % (kpps sent)",
                Target::AtMost(0.0),
                2,
                nth,
                (lost, kpps),
            );
        }
        Ok(())
    }

    fn flood(&mut self, what: &str, kinds: &[Vec<u8>]) -> Result<(), Box<dyn Error>> {
        let (media, per_second) = FLOODED;
        for nth in SYSTEMS {
            let junk = Junk { per_second, kinds, to: self.systems[nth].public };
            let outcome =
                self.turn(nth, false, |turn| Turn { pace: Pace::Rate(media), junk: Some(junk), ..turn }.run())?;
            let kept = 100.0 * outcome.received as f64 / outcome.sent as f64;
            let busy = 100.0 * outcome.cpu.as_secs_f64() / outcome.sending.as_secs_f64();
            let line = format!("media kept of 80 kpps under 100 kpps of STUN with {what}, % (core busy, %)");
            self.table.add_pair(&line, Target::AtLeast(90.0), 1, nth, (kept, busy));
            let kpps = |packets: u64| packets as f64 / outcome.sending.as_secs_f64() / 1e3;
            self.table.add_pair(
                "  so much was sent, kpps (junk)",
                Target::None,
                0,
                nth,
                (kpps(outcome.sent), kpps(outcome.junk)),
            );
        }
        Ok(())
    }

    /// Runs one turn of a system; `set` makes of the usual one what is to be measured.
    fn turn(
        &mut self,
        nth: usize,
        to_client: bool,
        set: impl FnOnce(Turn<'_>) -> std::io::Result<Outcome>,
    ) -> std::io::Result<Outcome> {
        self.relay.keep_alive(&self.ends)?;
        self.turns += 1;
        let system = &self.systems[nth];
        let Ends { clients, nodes, .. } = &self.ends;
        let (lanes, from, at) =
            if to_client { (&system.to_client, nodes, clients) } else { (&system.to_node, clients, nodes) };
        let usual = Turn {
            number: self.turns,
            lanes,
            from,
            at,
            order: Order::Interleaved,
            size: 1200,
            pace: Pace::Full,
            lasts: self.options.turn,
            junk: None,
            takes_joined: false,
            stamped: false,
            thread: system.thread,
            core: LOAD_CORE,
        };
        let outcome = set(usual)?;
        if self.options.verbose {
            println!("{}: {outcome}", COLUMNS[nth]);
        }
        Ok(outcome)
    }

    fn finish(mut self) -> Result<(), Box<dyn Error>> {
        let (packets, allocations) = self.allocated;
        if packets > 0 {
            let each = allocations as f64 / packets as f64;
            self.table.add("allocations per packet", Target::AtMost(0.0005), 6, 0, each);
            println!("{allocations} allocations in {packets} packets at full speed");
        }
        println!("dropped by the relay: {:?}", self.relay.drops());
        println!("\nkpps per core: by CPU time of the thread (by the clock)\n\n{}", self.table.text());
        let (targets, met) = self.table.score();
        println!("{met} of {targets} targets met");
        if !self.relay.finish() {
            return Err("the relay did not end".into());
        }
        Ok(())
    }
}

impl Speed {
    fn line(&self, to_client: bool) -> String {
        let Self { order, size, joined, .. } = self;
        let order = match (order, joined) {
            (Order::Interleaved, _) => "interleaved",
            (Order::Joined, true) => "bursts of 8",
            (Order::Joined, false) => "bursts of 8, cut on the way",
            (Order::InARow, _) => "8 in a row",
        };
        format!("kpps per core, {size} B {order}, {}", direction(to_client))
    }
}

fn direction(to_client: bool) -> &'static str {
    if to_client { "to clients" } else { "to nodes" }
}

fn machine() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores of {}, Linux {}", model.trim_start_matches([':', ' ', '\t']), kernel.trim())
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("").to_owned()
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
