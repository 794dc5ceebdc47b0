//! The older generation's side of an upgrade: it starts the program anew, hands its listening sockets over, and lets go
//! of them once the new one serves. Whatever goes wrong before that, it goes on as if nothing had happened.
//!
//! ```text
//! old ── sockets ─► new     builds all rooms, serves nothing
//! old ◄── ready ─── new
//! old ── serve ───► new     both accept for a moment: the sockets are the same
//! old ◄─ serving ── new
//! old accepts no more, finishes its sessions      new ── ICE-TCP connections of those sessions ─► old
//! ```

use std::{
    ffi::OsString,
    io,
    net::TcpStream,
    os::fd::{AsFd, OwnedFd},
    path::{MAIN_SEPARATOR, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use super::{
    channel::{Channel, ToNew, ToOld, pair},
    predecessor::MARK,
    sockets::Sockets,
};
use crate::{domain::ids::ClientAddr, front::Sink};

/// From its start until the new generation serves; beyond it, it is killed.
const READY: Duration = Duration::from_secs(30);
/// Variables that speak of this process and not of its successor.
const OURS: [&str; 5] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_FDS_FIRST_FD", "WATCHDOG_PID"];

/// Why there is no new generation.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpgradeError {
    #[error("the door is process 1, with which everything ends; start it under an init")]
    Init,
    #[error("{0:?} cannot be started")]
    Start(PathBuf, #[source] io::Error),
    #[error("the new process ended before it served ({0}); its log says why")]
    Ended(ExitStatus),
    #[error("the new process did not serve within {READY:?} and was killed")]
    Slow,
    #[error("the new process cannot be talked to")]
    Talk(#[from] io::Error),
}

/// How this process was started.
#[derive(Debug, Clone)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// Notes it. To be called at the start: the file may be replaced later, and then it is the new one that counts.
    pub(super) fn this() -> io::Result<Self> {
        let mut arguments = std::env::args_os();
        let name = PathBuf::from(arguments.next().unwrap_or_default());
        // A path is kept as it was given, since it may be a link that is turned to the next version; a bare name was
        // found by the shell.
        let is_path = name.as_os_str().to_string_lossy().contains(MAIN_SEPARATOR);
        let path = if is_path { std::path::absolute(name)? } else { std::env::current_exe()? };
        Ok(Self { path, arguments: arguments.collect() })
    }
}

/// The generation that serves now.
#[derive(Debug)]
pub(super) struct Successor {
    channel: Channel,
    /// Its process id.
    pub(super) pid: u32,
}

/// Starts the program anew and waits until it serves. Dropping the future ends what was started.
pub(super) async fn hand_over(program: &Program, sockets: &Sockets) -> Result<Successor, UpgradeError> {
    if std::process::id() == 1 {
        return Err(UpgradeError::Init);
    }
    let (ours, theirs) = pair()?;
    let mut started = Started::new(program, theirs)?;
    let channel = Channel::new(ours)?;
    match tokio::time::timeout(READY, agree(&channel, sockets)).await {
        Ok(Ok(true)) => Ok(Successor { channel, pid: started.keep() }),
        Ok(Ok(false)) => Err(started.end().map_or_else(UpgradeError::Talk, UpgradeError::Ended)),
        Ok(Err(error)) => Err(UpgradeError::Talk(error)),
        Err(_) => Err(UpgradeError::Slow),
    }
}

/// The talk; false if the other end left it.
async fn agree(channel: &Channel, sockets: &Sockets) -> io::Result<bool> {
    let binds = sockets.used().iter().map(|used| used.bind).collect();
    let listeners: Vec<_> = sockets.used().iter().map(|used| used.listener.as_fd()).collect();
    let talk = async {
        channel.say(&ToNew::Sockets(binds), &listeners).await?;
        if !matches!(channel.hear().await?, Some((ToOld::Ready, _))) {
            return Ok::<bool, io::Error>(false);
        }
        channel.say(&ToNew::Serve, &[]).await?;
        Ok(matches!(channel.hear().await?, Some((ToOld::Serving, _))))
    };
    match talk.await {
        // It may be gone before it was told anything.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other,
    }
}

impl Successor {
    /// Takes the connections that belong to this generation's sessions, until the new generation is gone.
    pub(super) async fn take_connections(&self, sink: Option<&Sink>) {
        loop {
            match self.channel.hear().await {
                Ok(Some((ToOld::IceTcp { client, read }, attached))) => {
                    for (stream, sink) in attached.into_iter().zip(sink) {
                        match taken(stream) {
                            Ok(stream) => sink.take(stream, ClientAddr(client), &read),
                            Err(error) => tracing::debug!(%error, "a connection that was handed over cannot be used"),
                        }
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => return tracing::warn!(%error, "the new generation cannot be understood"),
            }
        }
    }
}

fn taken(stream: OwnedFd) -> io::Result<tokio::net::TcpStream> {
    let stream = TcpStream::from(stream);
    stream.set_nonblocking(true)?;
    tokio::net::TcpStream::from_std(stream)
}

/// A process that is killed when this is dropped, unless it is kept.
struct Started(Option<Child>);

impl Started {
    fn new(program: &Program, channel: OwnedFd) -> Result<Self, UpgradeError> {
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).env(MARK, "1").stdin(Stdio::from(channel));
        for name in OURS {
            command.env_remove(name);
        }
        let child = command.spawn().map_err(|why| UpgradeError::Start(program.path.clone(), why))?;
        Ok(Self(Some(child)))
    }

    /// Lets it live on; its process id.
    fn keep(&mut self) -> u32 {
        let Some(mut child) = self.0.take() else { return 0 };
        let pid = child.id();
        // Should it end before this process does, it shall not stay behind as a zombie.
        thread::spawn(move || child.wait());
        pid
    }

    /// Ends it; how it ended.
    fn end(&mut self) -> io::Result<ExitStatus> {
        let Some(mut child) = self.0.take() else { return Err(io::Error::other("it was ended already")) };
        // One that left the talk by itself is given its own exit code.
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(50));
        if child.try_wait()?.is_none() {
            child.kill()?;
        }
        child.wait()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Err(error) = self.0.is_some().then(|| self.end()).transpose() {
            tracing::warn!(%error, "the new process may still be there");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(path: &str, arguments: &[&str]) -> Program {
        Program { path: path.into(), arguments: arguments.iter().map(OsString::from).collect() }
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_or_ends_at_once_is_told_apart() {
        let sockets = Sockets::default();
        let missing = hand_over(&program("/nonexistent/forebay", &[]), &sockets).await.unwrap_err();
        assert!(matches!(missing, UpgradeError::Start(..)), "{missing:?}");
        let ended = hand_over(&program("/bin/sh", &["-c", "exit 78"]), &sockets).await.unwrap_err();
        let UpgradeError::Ended(status) = ended else { panic!("{ended:?}") };
        assert_eq!(status.code(), Some(78));
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_that_says_nothing_is_killed_in_time() {
        let slow = hand_over(&program("/bin/sh", &["-c", "exec sleep 600"]), &Sockets::default()).await;
        assert!(matches!(slow, Err(UpgradeError::Slow)), "{slow:?}");
    }
}
