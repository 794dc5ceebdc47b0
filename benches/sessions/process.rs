//! The processes under load, and what the kernel says of them.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use std::io::{BufRead, BufReader};

/// How long a process may take to be ready.
const READY: Duration = Duration::from_secs(10);

/// A process that ends with this value.
pub(crate) struct Proc {
    pub(crate) name: &'static str,
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    child: Child,
}

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

impl Proc {
    /// CPU time so far, user and system, of all threads that live.
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        let mut nanos = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            nanos += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanos))
    }

    pub(crate) fn memory(&self) -> io::Result<Memory> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let field = |name| {
            let line = text.lines().find(|line: &&str| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        Ok(Memory { rss: field("Rss:").unwrap_or(0) * 1024, pss: field("Pss:").unwrap_or(0) * 1024 })
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl StandIn {
    pub(crate) fn start() -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("stand-in")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let line = first_line(&mut child)?;
        let mut addresses = line.split_whitespace().filter_map(|address| address.parse().ok());
        let (Some(address), Some(edge)) = (addresses.next(), addresses.next()) else {
            return Err(io::Error::other("the stand-in did not say where it listens"));
        };
        Ok(Self { proc: Proc { name: "bare", address, child }, edge })
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

/// The build that belongs to this bench.
pub(crate) const OWN: &str = env!("CARGO_BIN_EXE_forebay");

/// `forebay serve` in front of the stand-ins.
pub(crate) fn door(build: Build<'_>, stand_in: &StandIn, dir: &Path, log: &str) -> io::Result<Proc> {
    let (origin, edge) = (stand_in.origin().address, stand_in.edge);
    let dir = dir.join(build.name);
    fs::create_dir_all(&dir)?;
    let config = dir.join("forebay.toml");
    // Limits that guard against one client are lifted: the load is one client.
    fs::write(
        &config,
        format!(
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
messages_per_second = 1000000
[telemetry]
log = "{log}"
[door]
name = "bench"
state_dir = "{}"
"#,
            dir.display()
        ),
    )?;
    let mut child = Command::new(build.program)
        .args(["serve", "--config"])
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(dir.join("door.log"))?)
        .spawn()?;
    let line = first_line(&mut child)?;
    let address = line.split_once("http=http://").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    match address {
        Some(address) => Ok(Proc { name: build.name, address, child }),
        None => Err(io::Error::other(format!("no ready line: {line:?}; see {}/door.log", dir.display()))),
    }
}

/// HAProxy in front of the same origin, upgraded connections tunnelled. `None` where it is not installed.
pub(crate) fn haproxy(stand_in: &StandIn, dir: &Path, threads: usize, sessions: usize) -> io::Result<Option<Proc>> {
    // It cannot tell which port it took, so it is given one that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let config = dir.join("haproxy.cfg");
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
    let spawned = Command::new("haproxy")
        .arg("-db")
        .arg("-f")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(dir.join("haproxy.log"))?)
        .spawn();
    let child = match spawned {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        spawned => spawned?,
    };
    let proc = Proc { name: "haproxy", address, child };
    let until = Instant::now() + READY;
    while TcpStream::connect(address).is_err() {
        if Instant::now() > until {
            return Err(io::Error::other(format!("haproxy does not listen; see {}/haproxy.log", dir.display())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Some(proc))
}

fn first_line(child: &mut Child) -> io::Result<String> {
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    Ok(line)
}

/// Descriptors that this process, and each of its children, may open.
pub(crate) fn descriptors() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(1024)
}
