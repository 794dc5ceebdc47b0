//! Launches a real mongod for one test: its own port, its own directory, gone with its guard.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use mongodb::{
    Client,
    bson::{Document, doc},
    options::ClientOptions,
};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// From the start of the process until it takes writes; a machine under load needs a multiple of the usual second.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The directories of tests; the id of their process follows.
const PREFIX: &str = "forebay-test-";
/// Linux's file system in memory.
const SHARED_MEMORY: &str = "/dev/shm";
/// Servers of several tests at once fit into this; containers often have much less there.
const MEMORY_NEEDED_MIB: u64 = 2048;

/// How a server stores and pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A replica set of one: change streams, transactions.
    ReplicaSet,
    /// As AMS's own installers deploy it: neither.
    Standalone,
}

/// A running server. Killed, and its directory removed, when dropped.
pub struct Mongod {
    shape: Shape,
    port: u16,
    dir: TempDir,
    child: Option<Child>,
}

impl Mongod {
    /// Starts a server on a free port and waits until it takes writes.
    pub async fn start(shape: Shape) -> Self {
        // Another process may take a free port before mongod binds it: such a start ends at once and is made again.
        for _ in 0..5 {
            let mut server = Self::prepare(shape);
            server.spawn();
            if server.becomes_ready().await {
                return server;
            }
        }
        panic!("mongod does not start in five attempts");
    }

    /// A server that is not started yet: nothing listens on its port.
    pub fn prepare(shape: Shape) -> Self {
        let dir = TempDir::in_memory("mongod");
        fs::create_dir_all(dir.path().join("db")).expect("the temporary directory is writable");
        Self { shape, port: free_port(), dir, child: None }
    }

    /// What a door or a node connects to.
    pub fn uri(&self) -> String {
        match self.shape {
            Shape::ReplicaSet => format!("mongodb://127.0.0.1:{}/?replicaSet=rs0", self.port),
            Shape::Standalone => format!("mongodb://127.0.0.1:{}", self.port),
        }
    }

    /// A client of the test itself, which talks to this server whatever its state.
    pub async fn client(&self) -> Client {
        let uri = format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port);
        let mut options = ClientOptions::parse(uri).await.expect("the URI is well formed");
        options.server_selection_timeout = Some(Duration::from_secs(5));
        Client::with_options(options).expect("the options are well formed")
    }

    /// Makes the next commands of these names fail or stall: `data` is `failCommand`'s (`errorCode`,
    /// `blockConnection`, `blockTimeMS`, `closeConnection`, …). Ends when the fault is dropped by [`Mongod::heal`].
    pub async fn fail(&self, commands: &[&str], mut data: Document) {
        data.insert("failCommands", commands);
        let fault = doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data };
        self.client().await.database("admin").run_command(fault).await.expect("the fault is injected");
    }

    /// Ends [`Mongod::fail`].
    pub async fn heal(&self) {
        let off = doc! { "configureFailPoint": "failCommand", "mode": "off" };
        self.client().await.database("admin").run_command(off).await.expect("the fault is removed");
    }

    /// How many `find` commands the server has run.
    pub async fn finds(&self) -> i64 {
        let status = self.client().await.database("admin").run_command(doc! { "serverStatus": 1 }).await;
        let status = status.expect("the server tells its status");
        let find = status.get_document("metrics").and_then(|m| m.get_document("commands"));
        let find = find.and_then(|c| c.get_document("find")).expect("the server counts commands");
        find.get_i64("total").expect("the server counts finds")
    }

    /// Freezes the process: connections stay, nothing answers.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Ends [`Mongod::freeze`].
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Kills the process as a crash would, and waits until it is gone.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.expect("the process can be killed");
        }
    }

    /// Starts the process (again) on its own port and data, and waits until it takes writes.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.spawn();
        assert!(self.becomes_ready().await, "mongod does not come back on its own port");
    }

    fn spawn(&mut self) {
        let binary = binary();
        let mut command = Command::new(&binary);
        command
            .args(["--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25", "--quiet"])
            .args(["--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=16MB)"])
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
            .args(["--setParameter", "ttlMonitorSleepSecs=1", "--setParameter", "enableTestCommands=1"])
            .arg("--port")
            .arg(self.port.to_string())
            .arg("--dbpath")
            .arg(self.dir.path().join("db"))
            .arg("--logpath")
            .arg(self.dir.path().join("log"))
            .arg("--logappend")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        if self.shape == Shape::ReplicaSet {
            command.args(["--replSet", "rs0", "--oplogSize", "64"]);
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("{} cannot run: {error}", binary.display()));
        self.child = Some(child);
    }

    /// Waits until the server takes writes; false if the process ended.
    async fn becomes_ready(&mut self) -> bool {
        let client = self.client().await;
        let admin = client.database("admin");
        let deadline = Instant::now() + START_LIMIT;
        let mut initiated = false;
        while Instant::now() < deadline {
            if !matches!(self.child.as_mut().map(Child::try_wait), Some(Ok(None))) {
                return false;
            }
            let hello = timeout(Duration::from_secs(2), admin.run_command(doc! { "hello": 1 })).await;
            if let Ok(Ok(hello)) = hello {
                if hello.get_bool("isWritablePrimary").unwrap_or(false) {
                    return true;
                }
                if self.shape == Shape::ReplicaSet && !initiated {
                    let host = format!("127.0.0.1:{}", self.port);
                    let set = doc! { "_id": "rs0", "members": [{ "_id": 0, "host": host }] };
                    // A restarted member knows its set already; the answer says so, and the next `hello` follows it.
                    let _ = admin.run_command(doc! { "replSetInitiate": set }).await;
                    initiated = true;
                }
            }
            // Asks again: there is nothing else to wait on from outside the process.
            sleep(Duration::from_millis(20)).await;
        }
        false
    }

    fn signal(&self, name: &str) {
        let id = self.child.as_ref().and_then(Child::id).expect("the process runs");
        let sent = std::process::Command::new("kill").arg(format!("-{name}")).arg(id.to_string()).status();
        assert!(sent.is_ok_and(|status| status.success()), "the process takes signals");
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        let Some(child) = self.child.as_mut() else { return };
        if child.start_kill().is_err() {
            return; // it has ended already
        }
        // Gone before its directory is removed, else it would write into what is left.
        let gone = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        let deadline = Instant::now() + Duration::from_secs(5);
        while !gone(child) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The server to run: `FOREBAY_TEST_MONGOD`, else the one that `tests/run` installs.
fn binary() -> PathBuf {
    let installed = || Path::new(env!("CARGO_MANIFEST_DIR")).join(".test-tools/mongod/fiftyone/db/bin/mongod");
    let binary = std::env::var_os("FOREBAY_TEST_MONGOD").map_or_else(installed, PathBuf::from);
    assert!(
        binary.is_file(),
        "no mongod at {}: `tests/run` installs it (or name one in FOREBAY_TEST_MONGOD); these tests do not run without",
        binary.display()
    );
    binary
}

/// A port that is free now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// A directory of this process, removed when dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    /// Makes an empty directory.
    pub fn new(what: &str) -> Self {
        Self::under(&std::env::temp_dir(), what)
    }

    /// Makes an empty directory in memory where there is room for it: a server that waits for the disk at each write
    /// makes a test slow, and no test here is about disks.
    pub fn in_memory(what: &str) -> Self {
        let memory = Path::new(SHARED_MEMORY);
        if free_mib(memory) < MEMORY_NEEDED_MIB {
            return Self::new(what);
        }
        remove_leftovers(memory);
        Self::under(memory, what)
    }

    fn under(parent: &Path, what: &str) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("{PREFIX}{}-{what}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = parent.join(name);
        fs::create_dir_all(&path).expect("the temporary directory is writable");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Free room of a file system; none where that is not known.
fn free_mib(path: &Path) -> u64 {
    let asked = std::process::Command::new("df").args(["--output=avail", "--block-size=1M"]).arg(path).output();
    let text = asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().nth(1).and_then(|line| line.trim().parse().ok()).unwrap_or(0)
}

/// Removes what tests that were killed have left in memory.
fn remove_leftovers(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner.to_string()).exists()) {
            // Another test may be at it, too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
