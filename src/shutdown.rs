//! How the process ends: one token that every room watches, one tracker that counts what still runs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Handed to every room: spawn through it, stop when it says so.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    /// Set before the token is cancelled: who is asked at every message cannot take the token's lock.
    is_stopping: Arc<AtomicBool>,
    tasks: TaskTracker,
}

impl Shutdown {
    /// A new one, not yet stopping.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` as one that [`Shutdown::finish`] waits for.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Completes once the process is asked to end.
    pub async fn stopping(&self) {
        self.token.cancelled().await;
    }

    /// Whether the process was asked to end.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// A token that tells a room to stop; cancelled with this one, and by itself if need be.
    pub fn child(&self) -> CancellationToken {
        self.token.child_token()
    }

    /// Asks everything to end.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// Asks everything to end and waits for it, at most `limit`. Says whether all ended.
    pub async fn finish(&self, limit: Duration) -> bool {
        self.stop();
        self.tasks.close();
        tokio::time::timeout(limit, self.tasks.wait()).await.is_ok()
    }
}
