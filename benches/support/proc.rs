//! Processes under load: started here, ended with their value, and what the kernel says of them.

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
/// The build of the door that belongs to this bench.
pub(crate) const OWN: &str = env!("CARGO_BIN_EXE_forebay");

/// A process that ends with this value.
pub(crate) struct Proc {
    pub(crate) name: &'static str,
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    /// Workers that it has started.
    children: Vec<u32>,
    child: Child,
}

impl Proc {
    /// This program again, in another role; also gives the line that it begins with.
    pub(crate) fn own(name: &'static str, arguments: &[String]) -> io::Result<(Self, String)> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let line = first_line(&mut child)?;
        let address = line.split_whitespace().next().and_then(|first| first.parse().ok());
        let address = address.ok_or_else(|| io::Error::other(format!("{name} did not say where it listens")))?;
        Ok((Self { name, address, children: Vec::new(), child }, line))
    }

    /// `forebay serve` with this configuration, in a directory of its own, since the door watches that; its log goes to
    /// `NAME.log` in `dir`.
    pub(crate) fn door(name: &'static str, program: &Path, config: &str, dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir.join(name))?;
        let file = dir.join(name).join("forebay.toml");
        fs::write(&file, config)?;
        let log = fs::File::create(dir.join(format!("{name}.log")))?;
        let mut command = Command::new(program);
        command.args(["serve", "--config"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn()?;
        let line = first_line(&mut child)?;
        let address = line.split_once("http=http://").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        let unready = || io::Error::other(format!("no ready line: {line:?}; see {}/{name}.log", dir.display()));
        Ok(Self { name, address: address.ok_or_else(unready)?, children: Vec::new(), child })
    }

    /// Somebody else's proxy, which listens at `address` once it is ready; its words go to `NAME.out` in `dir`. `None`
    /// where it is not installed.
    pub(crate) fn other(
        name: &'static str,
        address: SocketAddr,
        mut command: Command,
        dir: &Path,
    ) -> io::Result<Option<Self>> {
        let log = fs::File::create(dir.join(format!("{name}.out")))?;
        let child = match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            spawned => spawned?,
        };
        let mut proc = Self { name, address, children: Vec::new(), child };
        let until = Instant::now() + READY;
        while TcpStream::connect(address).is_err() {
            if Instant::now() > until {
                return Err(io::Error::other(format!("{name} does not listen; see {}/{name}.out", dir.display())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let id = proc.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        proc.children = children.split_whitespace().filter_map(|id| id.parse().ok()).collect();
        Ok(Some(proc))
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// CPU time so far, user and system, of all threads that live.
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        let mut nanos = 0;
        for id in self.children.iter().copied().chain([self.id()]) {
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

/// A port that was free a moment ago, for those who cannot tell which one they took.
pub(crate) fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Runs `work` with a directory of its own, which goes unless something went wrong.
pub(crate) fn in_scratch(name: &str, work: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let dir = std::env::temp_dir().join(format!("forebay-bench-{name}-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    work(&dir)?;
    fs::remove_dir_all(&dir)
}

fn first_line(child: &mut Child) -> io::Result<String> {
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    Ok(line)
}
