//! What takes part besides the driver: the stand-in for the nodes, and the proxies before it.

use std::{fs, io, net::SocketAddr, path::Path, process::Command};

use crate::proc::{Proc, free_port};

/// What a process has in memory, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) rss: u64,
    pub(crate) pss: u64,
}

/// Origin and edge.
pub(crate) struct StandIn {
    proc: Proc,
    pub(crate) edge: SocketAddr,
}

impl Memory {
    pub(crate) fn of(proc: &Proc) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", proc.id()))?;
        let field = |name| {
            let line = text.lines().find(|line: &&str| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        Ok(Self { rss: field("Rss:").unwrap_or(0) * 1024, pss: field("Pss:").unwrap_or(0) * 1024 })
    }
}

impl StandIn {
    pub(crate) fn start() -> io::Result<Self> {
        let (proc, line) = Proc::own("bare", &["stand-in".to_owned()])?;
        let edge = line.split_whitespace().nth(1).and_then(|second| second.parse().ok());
        let edge = edge.ok_or_else(|| io::Error::other("the stand-in did not say where its edge listens"))?;
        Ok(Self { proc, edge })
    }

    /// The origin, as something to connect to without a proxy.
    pub(crate) fn origin(&self) -> &Proc {
        &self.proc
    }
}

/// Which build of the door, and under which name.
#[derive(Clone, Copy)]
pub(crate) struct Build<'a> {
    pub(crate) name: &'static str,
    pub(crate) program: &'a Path,
}

/// `forebay serve` in front of the stand-ins.
pub(crate) fn door(build: Build<'_>, stand_in: &StandIn, dir: &Path, log: &str) -> io::Result<Proc> {
    let (origin, edge) = (stand_in.origin().address, stand_in.edge);
    // Limits that guard against one client are lifted: the load is one client.
    let config = format!(
        r#"
[[listen]]
bind = "127.0.0.1:0"
[admin]
bind = "127.0.0.1:0"
[apps]
LiveApp = {{}}
[nodes]
discover = false
slow_start = "0s"
permit = ["127.0.0.0/8"]
[[nodes.static]]
name = "origin-1"
address = "{origin}"
role = "origin"
[[nodes.static]]
name = "edge-1"
address = "{edge}"
role = "edge"
[publish]
cost = 0.000001
[play]
cost = 0.000001
[limits]
sessions = 100000
sessions_per_client = 100000
connections = 100000
connections_per_client = 100000
messages_per_second = 1000000
[media]
mode = "direct"
[telemetry]
log = "{log}"
[door]
name = "bench"
state_dir = "{}"
"#,
        dir.join(build.name).display()
    );
    Proc::door(build.name, build.program, &config, dir)
}

/// HAProxy in front of the same origin, upgraded connections tunnelled. `None` where it is not installed.
pub(crate) fn haproxy(stand_in: &StandIn, dir: &Path, threads: usize, sessions: usize) -> io::Result<Option<Proc>> {
    let (address, config) = (free_port()?, dir.join("haproxy.cfg"));
    fs::write(
        &config,
        format!(
            "global\n  nbthread {threads}\n  maxconn {}\n  no strict-limits\n\
             defaults\n  mode http\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n  timeout tunnel 1h\n\
             frontend clients\n  bind {address}\n  maxconn {}\n  default_backend nodes\n\
             backend nodes\n  server origin {} maxconn 100000\n",
            sessions + 20,
            sessions + 20,
            stand_in.origin().address,
        ),
    )?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&config);
    Proc::other("haproxy", address, command, dir)
}

/// Descriptors that this process, and each of its children, may open.
pub(crate) fn descriptors() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(1024)
}
