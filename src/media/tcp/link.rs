//! What the task of a connection and its relay thread share.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::frames::{PREFIX, put};

/// Bytes that wait for the client to take them; a frame that does not fit is dropped.
pub(super) const BUFFER: usize = 64 << 10;
/// Frames of one connection that wait for the relay thread; a further one is dropped.
pub(super) const WAITING: usize = 256;

/// One connection's queue to its client, and what else both sides know of it.
#[derive(Debug, Default)]
pub(super) struct Link {
    out: Mutex<Out>,
    more: Notify,
    ended: CancellationToken,
    proven: AtomicBool,
    /// Frames that wait for the relay thread.
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct Out {
    framed: Vec<u8>,
    /// Bytes that the task took and has not written yet.
    writing: usize,
}

impl Link {
    /// Frames a datagram for the client; false if there is no room.
    pub(super) fn push(&self, datagram: &[u8]) -> bool {
        let mut out = self.out();
        let fits = out.framed.len() + out.writing + PREFIX + datagram.len() <= BUFFER;
        if fits {
            put(datagram, &mut out.framed);
            drop(out);
            self.more.notify_one();
        }
        fits
    }

    /// Waits for bytes to write and takes them all; those taken before are written by now. Cancel safe.
    pub(super) async fn take(&self, into: &mut Vec<u8>) {
        into.clear();
        loop {
            {
                let mut out = self.out();
                std::mem::swap(&mut out.framed, into);
                out.writing = into.len();
            }
            if !into.is_empty() {
                return;
            }
            self.more.notified().await;
        }
    }

    /// A frame is about to wait for the relay thread; false if too many do.
    pub(super) fn queue(&self) -> bool {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        if before >= WAITING {
            self.unqueue();
        }
        before < WAITING
    }

    /// A frame does not wait any more.
    pub(super) fn unqueue(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// The client authenticated.
    pub(super) fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// The connection is of no further use.
    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_buffer_drops_what_comes_and_has_room_again_when_it_was_written() {
        let (link, mut bytes) = (Link::default(), Vec::new());
        let datagram = [5; 1022];
        assert_eq!((0..100).filter(|_| link.push(&datagram)).count(), BUFFER / 1024);

        link.take(&mut bytes).await;
        assert_eq!(bytes.len(), BUFFER);
        assert!(!link.push(&datagram), "what is being written still counts");

        // The task comes back for more only when it has written: here there is none yet, so it waits.
        tokio::select! {
            biased;
            () = link.take(&mut bytes) => panic!("nothing was pushed"),
            () = std::future::ready(()) => {}
        }
        assert!(link.push(&datagram));
        link.take(&mut bytes).await;
        assert_eq!(bytes.len(), 1024);
    }

    #[test]
    fn a_connection_has_only_its_share_of_the_threads_queue() {
        let link = Link::default();
        assert_eq!((0..2 * WAITING).filter(|_| link.queue()).count(), WAITING);
        link.unqueue();
        assert!(link.queue());
    }
}
