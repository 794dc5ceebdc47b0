//! What a session costs: CPU of a round trip and of a new session, memory of an idle one; the door beside HAProxy.
//!
//! ```text
//! driver (this process) ──► door ─────┐
//!    64 busy, or 10,000  ├─► haproxy ─┼─► stand-in: origin and edge (this program again, a process of its own)
//!    idle clients        └────────────┘
//! ```
//!
//! Everything is on loopback. The proxies take turns within one run, so that what else the machine does meets both;
//! their CPU time is what the kernel counted for their threads. `cargo bench --bench sessions -- --help`

#![allow(clippy::print_stdout, reason = "a bench prints its results")]

mod client;
#[path = "../support/proc.rs"]
mod proc;
mod process;
mod stand_in;
mod wire;
mod words;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};

use client::Client;
use proc::{Proc, in_scratch};
use process::{Build, Memory, StandIn};

/// Sessions that talk at the same time.
const BUSY: usize = 64;
/// Sessions that are opened at the same time.
const OPENING: usize = 16;
/// How long one turn of round trips takes.
const TURN: Duration = Duration::from_secs(2);
/// Sessions of one turn of new ones.
const NEW: usize = 1000;
/// What a proxy does behind its client's back is over by then: closing handshakes, freed memory.
const SETTLE: Duration = Duration::from_millis(500);
/// How long idle sessions are watched for the CPU that they take.
const WATCH: Duration = Duration::from_secs(12);
/// No single step of a session takes longer; a load that hangs is a failure.
const STEP: Duration = Duration::from_secs(20);
/// Descriptors for everything that is no session.
const SPARE: usize = 100;

const HELP: &str = "\
cargo bench --bench sessions -- [round-trip] [new] [idle] [--rounds N] [--sessions N] [--threads N] [--log FILTER] [--beside PROGRAM]
  round-trip  CPU of a message of 200 bytes there and one back, 64 busy sessions
  new         CPU of a session: connect, handshake, publish, start, close
  idle        memory of an idle session, and the CPU that it takes
  --rounds    turns of each proxy (5)
  --sessions  idle sessions (10000, as far as descriptors reach)
  --threads   threads of HAProxy (as many as the machine has cores: so many has the door)
  --log       the door's log filter (info, the default of `serve`)
  --beside    another build of the door, measured in the same run
";

struct Options {
    parts: Vec<String>,
    rounds: usize,
    sessions: usize,
    threads: usize,
    log: String,
    beside: Option<PathBuf>,
}

fn main() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if std::env::args().nth(1).as_deref() == Some("stand-in") {
        return runtime.block_on(stand_in::run());
    }
    let Some(options) = Options::parse(std::env::args().skip(1)) else {
        print!("{HELP}");
        return Ok(());
    };
    in_scratch("sessions", |dir| runtime.block_on(run(&options, dir)))
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Option<Self> {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let mut options = Self {
            parts: Vec::new(),
            rounds: 5,
            sessions: 10_000,
            threads: cores,
            log: "info".to_owned(),
            beside: None,
        };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => {} // cargo's own
                "round-trip" | "new" | "idle" => options.parts.push(arg),
                "--rounds" => options.rounds = args.next()?.parse().ok()?,
                "--sessions" => options.sessions = args.next()?.parse().ok()?,
                "--threads" => options.threads = args.next()?.parse().ok()?,
                "--log" => options.log = args.next()?,
                "--beside" => options.beside = Some(args.next()?.into()),
                _ => return None,
            }
        }
        if options.parts.is_empty() {
            options.parts = ["round-trip", "new", "idle"].map(str::to_owned).to_vec();
        }
        // Each session is two descriptors of its proxy.
        options.sessions = options.sessions.min(process::descriptors().saturating_sub(SPARE) / 2);
        Some(options)
    }

    fn builds(&self) -> Vec<Build<'_>> {
        let own = Build { name: "door", program: Path::new(proc::OWN) };
        let beside = self.beside.as_deref().map(|program| Build { name: "beside", program });
        [own].into_iter().chain(beside).collect()
    }

    fn has(&self, part: &str) -> bool {
        self.parts.iter().any(|asked| asked == part)
    }
}

async fn run(options: &Options, dir: &Path) -> io::Result<()> {
    println!("machine: {} cores, load {}", options.threads, load());
    if options.has("round-trip") || options.has("new") {
        let stand_in = StandIn::start()?;
        let doors: Vec<_> = options
            .builds()
            .into_iter()
            .map(|build| process::door(build, &stand_in, dir, &options.log))
            .collect::<io::Result<_>>()?;
        let haproxy = process::haproxy(&stand_in, dir, options.threads, BUSY + OPENING)?;
        if haproxy.is_none() {
            println!("haproxy is not installed (apt-get install haproxy): nothing to compare with");
        }
        let proxies: Vec<&Proc> = doors.iter().chain(&haproxy).chain([stand_in.origin()]).collect();
        if options.has("round-trip") {
            round_trips(&proxies, options.rounds).await?;
        }
        if options.has("new") {
            new_sessions(&proxies, options.rounds).await?;
        }
    }
    if options.has("idle") {
        let stand_in = StandIn::start()?;
        for build in options.builds() {
            idle(&process::door(build, &stand_in, dir, &options.log)?, options.sessions).await?;
        }
        if let Some(haproxy) = process::haproxy(&stand_in, dir, options.threads, options.sessions)? {
            idle(&haproxy, options.sessions).await?;
        }
    }
    println!("load at the end {}", load());
    Ok(())
}

// === round trips

async fn round_trips(proxies: &[&Proc], rounds: usize) -> io::Result<()> {
    println!("\n{BUSY} busy sessions, {} bytes there and {} back", words::SMALL, words::SMALL);
    let mut costs = vec![Vec::new(); proxies.len()];
    let mut busy = Vec::new();
    for proxy in proxies {
        let opened = open(proxy, BUSY).await?;
        busy.push(opened);
    }
    for round in 1..=rounds {
        for (at, proxy) in proxies.iter().enumerate() {
            let before = proxy.cpu()?;
            let started = Instant::now();
            let (clients, count) = talk(std::mem::take(&mut busy[at])).await?;
            let (took, cpu) = (started.elapsed(), proxy.cpu()?.saturating_sub(before));
            busy[at] = clients;
            let cost = micros(cpu, count);
            println!(
                "  round {round}  {:8} {cost:7.2} µs CPU each, {:6.0} per second, {:5.2} cores",
                proxy.name,
                count as f64 / took.as_secs_f64(),
                cpu.as_secs_f64() / took.as_secs_f64()
            );
            costs[at].push(cost);
        }
    }
    print_medians("CPU of a round trip", proxies, &costs);
    Ok(())
}

/// Lets all clients talk for a turn, each as fast as it is answered.
async fn talk(clients: Vec<Client>) -> io::Result<(Vec<Client>, u64)> {
    let until = Instant::now() + TURN;
    let mut tasks = JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move {
            let mut count = 0;
            while Instant::now() < until {
                client.round_trip().await?;
                count += 1;
            }
            io::Result::Ok((client, count))
        });
    }
    let (mut clients, mut all) = (Vec::new(), 0);
    while let Some(done) = bounded(tasks.join_next()).await? {
        let (client, count) = done.map_err(io::Error::other)??;
        clients.push(client);
        all += count;
    }
    Ok((clients, all))
}

// === new sessions

async fn new_sessions(proxies: &[&Proc], rounds: usize) -> io::Result<()> {
    println!("\n{NEW} sessions per turn, {OPENING} at a time: connect, handshake, publish, start, close");
    let mut costs = vec![Vec::new(); proxies.len()];
    for round in 1..=rounds {
        for (at, proxy) in proxies.iter().enumerate() {
            let before = proxy.cpu()?;
            let started = Instant::now();
            for_each_session(proxy, NEW, |client| client.close()).await?;
            let took = started.elapsed();
            tokio::time::sleep(SETTLE).await;
            let cost = micros(proxy.cpu()?.saturating_sub(before), NEW as u64);
            println!(
                "  round {round}  {:8} {cost:7.1} µs CPU each, {:6.0} per second",
                proxy.name,
                NEW as f64 / took.as_secs_f64()
            );
            costs[at].push(cost);
        }
    }
    print_medians("CPU of a new session", proxies, &costs);
    Ok(())
}

async fn open(proxy: &Proc, count: usize) -> io::Result<Vec<Client>> {
    for_each_session(proxy, count, |client| async { Ok(client) }).await
}

/// Opens sessions, some at a time, and does `then` with each.
async fn for_each_session<T: Send + 'static, F>(
    proxy: &Proc,
    count: usize,
    then: impl Fn(Client) -> F + Send + Sync + 'static,
) -> io::Result<Vec<T>>
where
    F: Future<Output = io::Result<T>> + Send,
{
    let address = proxy.address;
    let (permits, then) = (Arc::new(Semaphore::new(OPENING)), Arc::new(then));
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let (permits, then) = (Arc::clone(&permits), Arc::clone(&then));
        tasks.spawn(async move {
            let _permit = permits.acquire().await.map_err(io::Error::other)?;
            let opened = async {
                let client = Client::publish(address, format!("bench-{number:06}")).await?;
                then(client).await
            };
            bounded(opened).await?
        });
    }
    let mut results = Vec::with_capacity(count);
    while let Some(done) = tasks.join_next().await {
        results.push(done.map_err(io::Error::other)??);
    }
    Ok(results)
}

// === idle sessions

/// What idle clients are to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Rest,
    Offer,
}

async fn idle(proxy: &Proc, count: usize) -> io::Result<()> {
    println!("\n{count} idle sessions, {}", proxy.name);
    // What the first sessions allocate once and for all is not theirs.
    for_each_session(proxy, BUSY, |client| client.close()).await?;
    tokio::time::sleep(SETTLE).await;
    let empty = Memory::of(proxy)?;
    let started = Instant::now();
    let clients = open(proxy, count).await?;
    println!("  opened in {:.1} s, {:.1} MiB before", started.elapsed().as_secs_f64(), mib(empty.rss));
    let (order, orders) = watch::channel(Order::Rest);
    let (done, mut dones) = mpsc::channel(count);
    let mut tasks = JoinSet::new();
    for client in clients {
        tasks.spawn(rest(client, orders.clone(), done.clone()));
    }
    tokio::time::sleep(SETTLE).await;
    print_memory("after publish and start", empty, Memory::of(proxy)?, count);
    let before = proxy.cpu()?;
    tokio::time::sleep(WATCH).await;
    let cpu = proxy.cpu()?.saturating_sub(before);
    println!("  CPU while idle: {:.2} µs per session and second", micros(cpu, count as u64) / WATCH.as_secs_f64());
    print_memory("after 12 s more", empty, Memory::of(proxy)?, count);
    order.send_replace(Order::Offer);
    for _ in 0..count {
        if bounded(dones.recv()).await?.is_none() {
            break;
        }
    }
    tokio::time::sleep(SETTLE).await;
    print_memory("after an SDP of 7 kB each way", empty, Memory::of(proxy)?, count);
    tokio::time::sleep(WATCH).await;
    print_memory("after 12 s more", empty, Memory::of(proxy)?, count);
    // A session that ended by itself would have made the figures smaller than they are.
    if let Some(ended) = tasks.try_join_next() {
        return Err(io::Error::other(format!("a session ended: {ended:?}")));
    }
    drop(order);
    while let Some(ended) = bounded(tasks.join_next()).await? {
        ended.map_err(io::Error::other)??;
    }
    tokio::time::sleep(SETTLE).await;
    println!("  all closed: {:.1} MiB", mib(Memory::of(proxy)?.rss));
    Ok(())
}

async fn rest(mut client: Client, mut orders: watch::Receiver<Order>, done: mpsc::Sender<()>) -> io::Result<()> {
    loop {
        tokio::select! {
            error = client.idle() => return Err(error),
            changed = orders.changed() => {
                if changed.is_err() {
                    return client.close().await;
                }
            }
        }
        let order = *orders.borrow_and_update();
        if order == Order::Offer {
            client.offer().await?;
            done.send(()).await.map_err(io::Error::other)?;
        }
    }
}

// === figures

async fn bounded<T>(step: impl Future<Output = T>) -> io::Result<T> {
    tokio::time::timeout(STEP, step).await.map_err(io::Error::from)
}

fn micros(cpu: Duration, count: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / count.max(1) as f64
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

fn print_memory(when: &str, empty: Memory, now: Memory, count: usize) {
    let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / 1024.0 / count as f64;
    println!(
        "  {when:30} {:6.2} KiB per session (PSS {:6.2}), {:6.1} MiB in all",
        each(now.rss, empty.rss),
        each(now.pss, empty.pss),
        mib(now.rss)
    );
}

fn print_medians(what: &str, proxies: &[&Proc], costs: &[Vec<f64>]) {
    let yardstick = proxies.iter().position(|proxy| proxy.name == "haproxy").and_then(|at| costs.get(at));
    for (proxy, own) in proxies.iter().zip(costs) {
        // The stand-in's own cost is the floor under both, not a proxy's.
        print!("{what}, median: {:8} {:7.2} µs", proxy.name, median(own.iter().copied()));
        // Round by round: what else the machine does in one meets both.
        if let Some(yardstick) = yardstick.filter(|_| proxy.name != "haproxy" && proxy.name != "bare") {
            print!(", {:.2} × haproxy", median(own.iter().zip(yardstick).map(|(own, yardstick)| own / yardstick)));
        }
        println!();
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<_> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}

/// How busy the machine is with everything, as the kernel tells it: 1, 5, 15 minutes.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
