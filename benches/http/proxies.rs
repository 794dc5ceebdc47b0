//! The processes under load, and what the kernel says of them.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long a process may take to be ready.
const READY: Duration = Duration::from_secs(10);
/// The build that belongs to this bench.
pub(crate) const OWN: &str = env!("CARGO_BIN_EXE_forebay");

/// A process that ends with this value.
pub(crate) struct Proc {
    pub(crate) name: &'static str,
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    /// Where only health is answered.
    pub(crate) health: Option<SocketAddr>,
    /// nginx has its workers as children.
    children: Vec<u32>,
    child: Child,
}

impl Proc {
    fn new(name: &'static str, address: SocketAddr, child: Child) -> Self {
        Self { name, address, health: None, children: Vec::new(), child }
    }

    /// CPU time so far, user and system, of all threads that live.
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        let mut nanos = 0;
        for id in self.children.iter().copied().chain([self.child.id()]) {
            for task in fs::read_dir(format!("/proc/{id}/task"))? {
                let text = fs::read_to_string(task?.path().join("schedstat"))?;
                nanos += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
            }
        }
        Ok(Duration::from_nanos(nanos))
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This program again, as the node or as the bare proxy before it.
pub(crate) fn own(name: &'static str, to: Option<SocketAddr>) -> io::Result<Proc> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(name).args(to.map(|to| to.to_string()));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let line = first_line(&mut child)?;
    let address = line.trim().parse().map_err(|_| io::Error::other(format!("{name} did not say where it listens")))?;
    Ok(Proc::new(name, address, child))
}

/// `forebay serve` in front of the node.
pub(crate) fn door(name: &'static str, program: &Path, node: &Proc, dir: &Path, log: &str) -> io::Result<Proc> {
    let dir = dir.join(name);
    fs::create_dir_all(&dir)?;
    let (config, health) = (dir.join("forebay.toml"), free_port()?);
    // Limits that guard against one client are lifted: the load is one client.
    fs::write(
        &config,
        format!(
            "[[listen]]\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"127.0.0.1:0\"\n[health]\nbind = \"{health}\"\nprobe_path = \"\"\n\
             [apps]\nLiveApp = {{}}\n[nodes]\nslow_start = \"0s\"\n[[nodes.static]]\nname = \"edge-1\"\naddress = \"{}\"\nrole = \"edge\"\n\
             [limits]\nsessions_per_client = 100000\n[media]\nmode = \"direct\"\n[telemetry]\naccess_log = \"{log}\"\n",
            node.address
        ),
    )?;
    let mut child = Command::new(program)
        .args(["serve", "--config"])
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(dir.join("door.log"))?)
        .spawn()?;
    let line = first_line(&mut child)?;
    let address = line.split_once("http=http://").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    let Some(address) = address else {
        return Err(io::Error::other(format!("no ready line: {line:?}; see {}/door.log", dir.display())));
    };
    let mut proc = Proc::new(name, address, child);
    proc.health = Some(health);
    Ok(proc)
}

/// nginx in front of the node, with connections kept. `None` where it is not installed.
pub(crate) fn nginx(node: &Proc, dir: &Path) -> io::Result<Option<Proc>> {
    let (address, config) = (free_port()?, dir.join("nginx.conf"));
    fs::write(
        &config,
        format!(
            "daemon off;\nworker_processes auto;\npid {0}/nginx.pid;\nerror_log {0}/nginx.log;\nevents {{ worker_connections 4096; }}\n\
             http {{\n  access_log {0}/access.log;\n  keepalive_requests 1000000000;\n  client_body_temp_path {0};\n  proxy_temp_path {0};\n\
             upstream nodes {{ server {1}; keepalive 128; keepalive_requests 1000000000; }}\n\
             server {{ listen {address}; location / {{ proxy_pass http://nodes; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
             proxy_set_header Host $host; proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $remote_addr; }} }}\n}}\n",
            dir.display(),
            node.address
        ),
    )?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&config).arg("-p").arg(dir);
    let Some(mut proc) = started("nginx", address, command, dir)? else { return Ok(None) };
    let id = proc.child.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
    proc.children = children.split_whitespace().filter_map(|id| id.parse().ok()).collect();
    Ok(Some(proc))
}

/// HAProxy in front of the node. `None` where it is not installed.
pub(crate) fn haproxy(node: &Proc, dir: &Path) -> io::Result<Option<Proc>> {
    let (address, config) = (free_port()?, dir.join("haproxy.cfg"));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    fs::write(
        &config,
        format!(
            "global\n  nbthread {threads}\n  no strict-limits\ndefaults\n  mode http\n  option forwardfor\n  http-reuse safe\n\
             timeout connect 2s\n  timeout client 60s\n  timeout server 60s\nfrontend clients\n  bind {address}\n\
             default_backend nodes\nbackend nodes\n  server node {}\n",
            node.address
        ),
    )?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&config);
    started("haproxy", address, command, dir)
}

fn started(name: &'static str, address: SocketAddr, mut command: Command, dir: &Path) -> io::Result<Option<Proc>> {
    let log = fs::File::create(dir.join(format!("{name}.out")))?;
    let child = match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        spawned => spawned?,
    };
    let proc = Proc::new(name, address, child);
    let until = Instant::now() + READY;
    while TcpStream::connect(address).is_err() {
        if Instant::now() > until {
            return Err(io::Error::other(format!("{name} does not listen; see {}/{name}.out", dir.display())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Some(proc))
}

/// A port that was free a moment ago, for those who cannot tell which one they took.
fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn first_line(child: &mut Child) -> io::Result<String> {
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    Ok(line)
}
