//! systemd as far as a service sees it: the socket that it is told things over.

use std::{path::PathBuf, time::Duration};

use tokio::{net::UnixDatagram, time::timeout};

use super::mongod::TempDir;

/// Longer than anything that is waited for takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One service manager.
pub struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    _dir: TempDir,
}

impl Manager {
    pub fn new() -> Self {
        let dir = TempDir::new("systemd");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a path that nobody has");
        Self { socket, path, _dir: dir }
    }

    /// `NOTIFY_SOCKET`
    pub fn path(&self) -> &str {
        self.path.to_str().expect("a path of ASCII")
    }

    /// Waits until the service says a line that begins so, and returns the whole datagram.
    pub async fn until(&self, begins: &str) -> String {
        let heard = async {
            loop {
                let mut bytes = [0; 4096];
                let length = self.socket.recv(&mut bytes).await.expect("the socket is ours");
                let said = String::from_utf8_lossy(&bytes[..length]).into_owned();
                if said.lines().any(|line| line.starts_with(begins)) {
                    return said;
                }
            }
        };
        timeout(PATIENCE, heard).await.unwrap_or_else(|_| panic!("the service never said {begins}"))
    }

    /// Whether something is waiting to be heard that begins so.
    pub fn has_heard(&self, begins: &str) -> bool {
        let mut bytes = [0; 4096];
        while let Ok(length) = self.socket.try_recv(&mut bytes) {
            if String::from_utf8_lossy(&bytes[..length]).lines().any(|line| line.starts_with(begins)) {
                return true;
            }
        }
        false
    }
}
