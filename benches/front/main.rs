//! What a connection costs: a TLS handshake, full and resumed, and an idle connection, plain and TLS; the door beside bare
//! hyper over rustls, with the same certificate, in the same run.
//!
//! ```text
//! driver (this process) ─┬─► door (`forebay serve`)
//!                        └─► bare (this program again, a process of its own)
//! ```
//!
//! CPU time is what the kernel counted for the server's threads; memory is `smaps_rollup`, less what was there before, per
//! connection. Kernel socket buffers are not in it. `cargo bench --bench front -- --help`

#![allow(clippy::print_stdout, reason = "a bench prints its results")]

mod bare;
mod client;
mod server;

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::ClientConfig;
use tokio::task::JoinSet;

use client::Kind;
use server::Server;

/// Handshakes that are under way at the same time.
const AT_A_TIME: usize = 16;
/// Handshakes of one turn.
const TURN: usize = 1000;
/// What a server does behind its client's back is over by then: closed sockets, freed memory.
const SETTLE: Duration = Duration::from_millis(500);
/// Descriptors for everything that is no connection.
const SPARE: usize = 200;

const HELP: &str = "\
cargo bench --bench front -- [handshakes] [idle] [--rounds N] [--connections N]
  handshakes     TLS handshakes per second, and their CPU: full and resumed
  idle           memory of an idle connection after one request: plain, TLS, HTTP/2; of an idle session over TLS
  --rounds       turns of each server (5)
  --connections  idle connections (5000, as far as descriptors reach)
";

struct Options {
    parts: Vec<String>,
    rounds: usize,
    connections: usize,
}

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    if std::env::args().nth(1).as_deref() == Some("bare") {
        let [cert, key] = [args.nth(1), args.next()].map(Option::unwrap_or_default);
        return bare::run(Path::new(&cert), Path::new(&key));
    }
    let Some(options) = Options::parse(args) else {
        print!("{HELP}");
        return Ok(());
    };
    let dir = std::env::temp_dir().join(format!("forebay-bench-front-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ran = runtime.block_on(run(&options, &dir));
    if ran.is_ok() {
        std::fs::remove_dir_all(&dir)?;
    }
    ran
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self { parts: Vec::new(), rounds: 5, connections: 5000 };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => {} // cargo's own
                "handshakes" | "idle" => options.parts.push(arg),
                "--rounds" => options.rounds = args.next()?.parse().ok()?,
                "--connections" => options.connections = args.next()?.parse().ok()?,
                _ => return None,
            }
        }
        if options.parts.is_empty() {
            options.parts = ["handshakes", "idle"].map(str::to_owned).to_vec();
        }
        options.connections = options.connections.min(server::descriptors().saturating_sub(SPARE));
        Some(options)
    }
}

async fn run(options: &Options, dir: &Path) -> io::Result<()> {
    let files = server::certificate(dir)?;
    if options.parts.iter().any(|part| part == "handshakes") {
        handshakes(options, &files, dir).await?;
    }
    if options.parts.iter().any(|part| part == "idle") {
        idle(options, &files, dir).await?;
    }
    Ok(())
}

/// Both servers take turns; the median of the rounds counts.
async fn handshakes(options: &Options, files: &server::Files, dir: &Path) -> io::Result<()> {
    let servers = [("door", Server::door(files, dir)?), ("bare", Server::bare(files)?)];
    println!("TLS handshakes, {TURN} a turn, {AT_A_TIME} at a time, {} turns each", options.rounds);
    for resumed in [false, true] {
        let mut seen: Vec<Vec<(f64, f64)>> = vec![Vec::new(); servers.len()];
        for _ in 0..options.rounds {
            for ((_, server), seen) in servers.iter().zip(&mut seen) {
                seen.push(turn(server, resumed).await?);
            }
        }
        for ((name, _), mut seen) in servers.iter().zip(seen) {
            let mut median = |part: fn(&(f64, f64)) -> f64| {
                seen.sort_by(|a, b| part(a).total_cmp(&part(b)));
                part(&seen[seen.len() / 2])
            };
            let (rate, cpu) = (median(|seen| seen.0), median(|seen| seen.1));
            let kind = if resumed { "resumed" } else { "full" };
            println!("  {name:5} {kind:8} {rate:8.0} /s   {cpu:7.1} µs of CPU each");
        }
    }
    Ok(())
}

/// Handshakes per second, and CPU of the server per handshake in µs.
async fn turn(server: &Server, resumed: bool) -> io::Result<(f64, f64)> {
    let mut configs = Vec::new();
    for _ in 0..AT_A_TIME {
        let config = client::config(&["http/1.1"], resumed);
        if resumed {
            client::open(server.tls, Kind::Tls, &config).await?; // gets the first ticket
        }
        configs.push(config);
    }
    let (cpu, begun) = (server.cpu()?, Instant::now());
    let mut tasks = JoinSet::new();
    for config in configs {
        tasks.spawn(several(server.tls, config, TURN / AT_A_TIME, resumed));
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(io::Error::other)??;
    }
    let took = begun.elapsed();
    tokio::time::sleep(SETTLE).await;
    let count = (TURN / AT_A_TIME * AT_A_TIME) as f64;
    Ok((count / took.as_secs_f64(), (server.cpu()? - cpu).as_secs_f64() * 1e6 / count))
}

async fn several(at: std::net::SocketAddr, config: Arc<ClientConfig>, count: usize, resumed: bool) -> io::Result<()> {
    for _ in 0..count {
        let connection = client::open(at, Kind::Tls, &config).await?;
        if connection.is_resumed() != resumed {
            return Err(io::Error::other("a handshake of the wrong kind"));
        }
    }
    Ok(())
}

async fn idle(options: &Options, files: &server::Files, dir: &Path) -> io::Result<()> {
    println!("memory of an idle connection, {} of them", options.connections);
    for (name, kind) in
        [("plain", Kind::Plain), ("TLS", Kind::Tls), ("TLS, HTTP/2", Kind::Http2), ("session over TLS", Kind::Session)]
    {
        for is_door in [true, false] {
            if kind == Kind::Session && !is_door {
                continue; // bare hyper has none
            }
            // A process of its own for each, so that what one kind leaves behind is not the next one's room.
            let server = if is_door { Server::door(files, dir)? } else { Server::bare(files)? };
            let bytes = idle_bytes(&server, kind, options.connections).await?;
            let which = if is_door { "door" } else { "bare" };
            println!("  {which:5} {name:17} {:7.2} KiB", bytes / 1024.0);
        }
    }
    Ok(())
}

async fn idle_bytes(server: &Server, kind: Kind, connections: usize) -> io::Result<f64> {
    let alpn: &[&str] = if kind == Kind::Http2 { &["h2"] } else { &["http/1.1"] };
    let config = client::config(alpn, true);
    let at = if kind == Kind::Plain { server.plain } else { server.tls };
    client::open(at, kind, &config).await?;
    tokio::time::sleep(SETTLE).await;
    let before = server.rss()?;
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(client::open(at, kind, &config).await?);
    }
    tokio::time::sleep(SETTLE).await;
    let after = server.rss()?;
    drop(open);
    Ok(after.saturating_sub(before) as f64 / connections as f64)
}
