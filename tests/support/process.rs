//! The program itself as a child process: its one line of stdout, its log, signals by its own id.

use std::{
    collections::BTreeMap,
    os::fd::AsRawFd,
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// From the start to the ready line; a loaded machine needs a multiple of the usual 0.1 s.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// A running `forebay`. Killed when dropped.
pub struct Process {
    child: Child,
    /// The words of the ready line: `http`, `admin`, `media`, `pid`, `node`.
    pub ready: BTreeMap<String, String>,
    stdout: BufReader<ChildStdout>,
    log: Arc<Mutex<String>>,
}

impl Process {
    /// Starts `forebay ARGS` and waits for its ready line.
    pub async fn start(args: &[&str]) -> Self {
        Self::start_with(args, &[]).await
    }

    /// The same with variables in its environment.
    pub async fn start_with(args: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = command(args);
        command.envs(environment.iter().copied());
        Self::run(command, args).await
    }

    /// The same inside a network namespace; the test cannot reach its addresses.
    pub async fn start_in(namespace: &str, args: &[&str]) -> Self {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", namespace, env!("CARGO_BIN_EXE_forebay")]).args(args);
        Self::run(piped(inside), args).await
    }

    async fn run(mut command: Command, args: &[&str]) -> Self {
        let mut child = command.spawn().expect("the program starts");
        let log = collect(&mut child);
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut stdout = BufReader::new(stdout);
        let in_time = timeout(READY_LIMIT, stdout.read_line(&mut line)).await;
        let process = Self { child, ready: words(&line), stdout, log };
        assert!(
            matches!(in_time, Ok(Ok(_))) && line.starts_with("ready "),
            "{args:?} said {line:?}\n{}",
            process.log()
        );
        process
    }

    /// The same as systemd starts a service with sockets: as descriptors from 3 on, each with its name.
    pub async fn start_activated(
        args: &[&str],
        environment: &[(&str, &str)],
        sockets: &[(&str, &std::net::TcpListener)],
    ) -> Self {
        // Descriptors without close-on-exec, which the shell moves to where systemd has them.
        let open: Vec<_> = sockets.iter().map(|(_, socket)| rustix::io::dup(socket).expect("a descriptor")).collect();
        let moves = open.iter().enumerate().map(|(nth, fd)| format!("{}<&{1} {1}<&-", nth + 3, fd.as_raw_fd()));
        let moves = moves.collect::<Vec<_>>().join(" ");
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("export LISTEN_PID=$$; exec \"$@\" {moves}"), "bash"]);
        shell.arg(env!("CARGO_BIN_EXE_forebay")).args(args).envs(environment.iter().copied());
        let names = sockets.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(":");
        shell.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", names);
        Self::run(piped(shell), args).await
    }

    /// The words of the ready line of a process that this one started, which has the same stdout.
    pub async fn next_ready(&mut self) -> BTreeMap<String, String> {
        let mut line = String::new();
        let in_time = timeout(READY_LIMIT, self.stdout.read_line(&mut line)).await;
        assert!(matches!(in_time, Ok(Ok(_))) && line.starts_with("ready "), "{line:?}\n{}", self.log());
        words(&line)
    }

    /// Its first public address, `IP:PORT`.
    pub fn http(&self) -> &str {
        self.ready["http"].split_once("://").expect("a URL").1
    }

    /// Its admin address, `IP:PORT`.
    pub fn admin(&self) -> &str {
        self.ready["admin"].strip_prefix("http://").expect("an http URL")
    }

    /// Where clients open their WebSocket.
    pub fn url(&self) -> String {
        format!("ws://{}/LiveApp/websocket", self.http())
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("the log's reader does not panic").clone()
    }

    /// The first line that it logs with all of these words, once it does: lines come a little after what they tell of.
    pub async fn logged(&self, words: &[&str]) -> String {
        let begun = Instant::now();
        loop {
            let log = self.log();
            if let Some(line) = log.lines().find(|line| words.iter().all(|word| line.contains(word))) {
                return line.to_owned();
            }
            assert!(begun.elapsed() < READY_LIMIT, "no line with {words:?} in\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("the process has not been waited for")
    }

    /// Sends a signal by name (`TERM`, `INT`, `STOP`, `CONT`, `KILL`).
    pub fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "the process is there to be signalled");
    }

    /// Waits for its end and returns the exit code.
    pub async fn ended(&mut self, limit: Duration) -> Option<i32> {
        let ended = timeout(limit, self.child.wait()).await;
        ended
            .unwrap_or_else(|_| panic!("still running after {limit:?}\n{}", self.log()))
            .expect("it can be waited for")
            .code()
    }

    /// `GET path` on its admin listener, as JSON.
    pub async fn admin_get(&self, path: &str) -> Value {
        let answer = http(self.admin(), &format!("GET {path} HTTP/1.0\r\n\r\n")).await;
        json_body(&answer)
    }

    /// `POST path` on its admin listener, as JSON.
    pub async fn admin_post(&self, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let head =
            format!("POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        json_body(&http(self.admin(), &format!("{head}{body}")).await)
    }

    /// One sample of `GET /metrics`, by its name with labels.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let text = http(self.admin(), "GET /metrics HTTP/1.0\r\n\r\n").await;
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

/// Runs `forebay ARGS` to its end: exit code, stdout, stderr.
pub async fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = timeout(READY_LIMIT, command(args).output()).await.expect("it ends").expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Sends a raw request and reads until the peer closes.
pub async fn http(address: &str, request: &str) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = Vec::new();
        // A reset after the answer is as good as a close.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    timeout(READY_LIMIT, exchange).await.expect("it answers and closes")
}

fn json_body(answer: &str) -> Value {
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).unwrap_or_else(|_| panic!("not JSON: {answer}"))
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(args);
    piped(command)
}

fn piped(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Keeps reading the log, so that the process never waits for its reader.
fn collect(child: &mut Child) -> Arc<Mutex<String>> {
    let log = Arc::new(Mutex::new(String::new()));
    let (kept, stderr) = (Arc::clone(&log), child.stderr.take().expect("stderr is piped"));
    tokio::spawn(async move {
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let mut log = kept.lock().expect("nobody panics with the log");
            log.push_str(&line);
            log.push('\n');
        }
    });
    log
}

fn words(line: &str) -> BTreeMap<String, String> {
    line.split_whitespace().filter_map(|word| word.split_once('=')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}
