//! What the process is asked to do by signals.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that a door heeds.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    user_2: Signal,
}

/// An end that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// SIGINT: now.
    Now,
    /// SIGTERM: as `[shutdown]` says.
    Gently,
}

/// Anything that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// SIGINT or SIGTERM.
    End(End),
    /// SIGHUP: read the configuration anew.
    Reload,
    /// SIGUSR2: hand over to the program as it is now.
    Upgrade,
}

impl Signals {
    /// From here on they are heeded, and do not end the process by themselves.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            user_2: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next one. Cancel safe.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Asked::End(End::Now),
            _ = self.terminate.recv() => Asked::End(End::Gently),
            _ = self.hang_up.recv() => Asked::Reload,
            _ = self.user_2.recv() => Asked::Upgrade,
        }
    }

    /// The next one that asks for an end. Cancel safe.
    pub(super) async fn end(&mut self) -> End {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => End::Now,
            _ = self.terminate.recv() => End::Gently,
        }
    }
}
