//! What forwarding HTTP costs: requests per second, p99 and CPU for small and 1 MiB bodies, and p99 of health under full
//! load; the door beside a bare hyper proxy, and nginx and HAProxy where they are installed.
//!
//! ```text
//! driver (this process) ──► door ─────┐
//!    64 connections      ├─► bare ────┼─► node: hyper answering with made-up bytes (this program again)
//!                        └─► nginx ───┘
//! ```
//!
//! The proxies take turns within one run; CPU is what the kernel counted for their threads. `cargo bench --bench http -- --help`

#![allow(clippy::print_stdout, reason = "a bench prints its results")]

mod load;
#[path = "../support/proc.rs"]
mod proc;
mod proxies;
mod servers;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use load::{Seen, percentile};
use proc::in_scratch;
use proxies::Proxy;

/// Connections that ask at the same time.
const BUSY: usize = 64;
/// How long one turn takes.
const TURN: Duration = Duration::from_secs(2);
/// Between two questions for health while the rest is busy.
const HEALTH_PACE: Duration = Duration::from_millis(5);

const HELP: &str = "\
cargo bench --bench http -- [small] [large] [health] [--rounds N] [--busy N] [--log off|redacted|full] [--beside PROGRAM]
  small     forwarding bodies of 1 KiB
  large     forwarding bodies of 1 MiB
  health    p99 of /healthz while small bodies are forwarded at full load
  --rounds  turns of each proxy (5)
  --busy    connections that ask at the same time (64)
  --log     the door's access log, which goes to a file (redacted, the default of `serve`)
  --beside  another build of the door, measured in the same run
";

struct Options {
    parts: Vec<String>,
    rounds: usize,
    busy: usize,
    log: String,
    beside: Option<PathBuf>,
}

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let role = args.next().unwrap_or_default();
    if matches!(&*role, "node" | "bare") {
        let to = args.next().and_then(|to| to.parse().ok());
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        return runtime.block_on(servers::run(to));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Some(options) = Options::parse(std::env::args().skip(1)) else {
        print!("{HELP}");
        return Ok(());
    };
    in_scratch("http", |dir| runtime.block_on(run(&options, dir)))
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self { parts: Vec::new(), rounds: 5, busy: BUSY, log: "redacted".to_owned(), beside: None };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => {} // cargo's own
                "small" | "large" | "health" => options.parts.push(arg),
                "--rounds" => options.rounds = args.next()?.parse().ok()?,
                "--busy" => options.busy = args.next()?.parse().ok()?,
                "--log" => options.log = args.next()?,
                "--beside" => options.beside = Some(args.next()?.into()),
                _ => return None,
            }
        }
        if options.parts.is_empty() {
            options.parts = ["small", "large", "health"].map(str::to_owned).to_vec();
        }
        Some(options)
    }
}

async fn run(options: &Options, dir: &Path) -> io::Result<()> {
    let node = proxies::own("node", None)?;
    let mut proxies = vec![Proxy::from(proxies::own("bare", Some(node.address))?)];
    proxies.push(proxies::door("door", Path::new(proc::OWN), &node, dir, &options.log)?);
    if let Some(program) = &options.beside {
        proxies.push(proxies::door("beside", program, &node, dir, &options.log)?);
    }
    proxies.extend(proxies::nginx(&node, dir)?.map(Proxy::from));
    proxies.extend(proxies::haproxy(&node, dir)?.map(Proxy::from));
    for part in &options.parts {
        match part.as_str() {
            "small" => forwarding("1 KiB", servers::SMALL, options, &proxies).await?,
            "large" => forwarding("1 MiB", servers::LARGE, options, &proxies).await?,
            _ => health(options, &proxies).await?,
        }
    }
    Ok(())
}

/// Median of one figure over the rounds.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

async fn forwarding(what: &str, path: &'static str, options: &Options, proxies: &[Proxy]) -> io::Result<()> {
    println!("\nforwarding {what}: {} connections, {} turns of {TURN:?}", options.busy, options.rounds);
    println!(
        "{:>10} {:>12} {:>10} {:>10} {:>14} {:>12}",
        "", "requests/s", "p50 ms", "p99 ms", "CPU µs/request", "CPU ns/byte"
    );
    let mut turns: Vec<Vec<[f64; 5]>> = vec![Vec::new(); proxies.len()];
    for _ in 0..options.rounds {
        for (proxy, turns) in proxies.iter().zip(&mut turns) {
            let before = proxy.proc.cpu()?;
            let seen = load::busy(proxy.proc.address, path, options.busy, TURN).await?;
            let cpu = (proxy.proc.cpu()? - before).as_nanos() as f64;
            let count = seen.times.len().max(1) as f64;
            turns.push([
                count / TURN.as_secs_f64(),
                percentile(&seen, 50),
                percentile(&seen, 99),
                cpu / count / 1000.0,
                cpu / seen.bytes.max(1) as f64,
            ]);
        }
    }
    for (proxy, turns) in proxies.iter().zip(turns) {
        let figure = |nth: usize| median(turns.iter().map(|turn| turn[nth]).collect());
        println!(
            "{:>10} {:>12.0} {:>10.2} {:>10.2} {:>14.1} {:>12.2}",
            proxy.proc.name,
            figure(0),
            figure(1),
            figure(2),
            figure(3),
            figure(4)
        );
    }
    Ok(())
}

async fn health(options: &Options, proxies: &[Proxy]) -> io::Result<()> {
    println!("\n/healthz while {} connections ask for 1 KiB, {} turns of {TURN:?}", options.busy, options.rounds);
    println!("{:>18} {:>10} {:>10}", "", "p50 ms", "p99 ms");
    let places: Vec<(String, SocketAddr, SocketAddr)> = proxies
        .iter()
        .filter(|proxy| matches!(proxy.proc.name, "bare" | "door" | "beside"))
        .flat_map(|proxy| {
            let public = (format!("{} public", proxy.proc.name), proxy.proc.address, proxy.proc.address);
            let own = proxy.health.map(|health| (format!("{} [health]", proxy.proc.name), proxy.proc.address, health));
            std::iter::once(public).chain(own)
        })
        .collect();
    let mut turns: Vec<Vec<[f64; 2]>> = vec![Vec::new(); places.len()];
    for _ in 0..options.rounds {
        for ((_, busy, health), turns) in places.iter().zip(&mut turns) {
            let load = load::busy(*busy, servers::SMALL, options.busy, TURN);
            let asked = load::paced(*health, "/healthz", HEALTH_PACE, TURN);
            let (_, seen): (Seen, Seen) = tokio::try_join!(load, asked)?;
            turns.push([percentile(&seen, 50), percentile(&seen, 99)]);
        }
    }
    for ((name, ..), turns) in places.iter().zip(turns) {
        let figure = |nth: usize| median(turns.iter().map(|turn| turn[nth]).collect());
        println!("{name:>18} {:>10.2} {:>10.2}", figure(0), figure(1));
    }
    Ok(())
}
