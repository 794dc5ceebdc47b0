//! The servers as processes, and what the kernel says of them.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rcgen::{CertificateParams, KeyPair};

/// A certificate and its key.
pub(crate) struct Files {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// A certificate for the run: P-256, as Let's Encrypt's are by default.
pub(crate) fn certificate(dir: &Path) -> io::Result<Files> {
    let files = Files { cert: dir.join("bench.pem"), key: dir.join("bench.key") };
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let params = CertificateParams::new(["bench.example".to_owned()]).map_err(io::Error::other)?;
    fs::write(&files.cert, params.self_signed(&key).map_err(io::Error::other)?.pem())?;
    fs::write(&files.key, key.serialize_pem())?;
    Ok(files)
}

/// A running server. Killed when dropped.
pub(crate) struct Server {
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
    child: Child,
}

impl Server {
    /// `forebay serve` with a plain listener and one for TLS; what bounds one client is lifted, since the load is one.
    pub(crate) fn door(files: &Files, dir: &Path) -> io::Result<Self> {
        let (file, log) = (dir.join("bench.toml"), dir.join("door.log"));
        let [plain, tls] = [free()?, free()?];
        let text = format!(
            "[[listen]]\nbind = \"{plain}\"\n[[listen]]\nbind = \"{tls}\"\ntls = true\n\
             [tls]\ncertificates = [{{ cert = {:?}, key = {:?} }}]\n\
             [admin]\nbind = \"127.0.0.1:0\"\n[apps]\nLiveApp = {{}}\n[media]\nmode = \"direct\"\n\
             [limits]\nidle_timeout = \"1h\"\nsessions = 1000000\nsessions_per_client = 1000000\n\
             connections = 1000000\nconnections_per_client = 1000000\n\
             [[nodes.static]]\naddress = \"127.0.0.1:9\"\n",
            files.cert, files.key
        );
        fs::write(&file, text)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.arg("serve").arg("--config").arg(&file).stderr(fs::File::create(log)?);
        let (child, _) = ready(&mut command)?;
        Ok(Self { plain, tls, child })
    }

    /// This program again, as bare hyper.
    pub(crate) fn bare(files: &Files) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bare").arg(&files.cert).arg(&files.key);
        let (child, line) = ready(&mut command)?;
        let at = |word: &str| {
            let found = line.split_whitespace().find_map(|part| part.strip_prefix(word)?.parse().ok());
            found.ok_or_else(|| io::Error::other(format!("no {word} in {line:?}")))
        };
        Ok(Self { plain: at("plain=")?, tls: at("tls=")?, child })
    }

    /// CPU time so far, of all threads that live.
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        let mut nanos = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            nanos += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Resident memory, in bytes.
    pub(crate) fn rss(&self) -> io::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let line = text.lines().find(|line| line.starts_with("Rss:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        Ok(kib.unwrap_or(0) * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago: the door's ready line names its first one only.
fn free() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn ready(command: &mut Command) -> io::Result<(Child, String)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    if line.starts_with("ready ") {
        return Ok((child, line));
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(io::Error::other(format!("not ready: {line:?}")))
}

/// Descriptors that this process, and each of its children, may open.
pub(crate) fn descriptors() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(1024)
}
