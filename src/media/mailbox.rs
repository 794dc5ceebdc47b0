//! How sessions reach a relay thread: a bounded queue that the thread empties between batches, and a wake-up.
//!
//! The thread looks at one flag per batch and takes the lock only when something waits.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use mio::Waker;
use tokio::sync::oneshot;

use super::MediaBusy;
use crate::domain::{
    ids::SessionId,
    relay::{Command, SessionFacts},
};

/// Commands that wait for one thread; beyond it [`MediaBusy`].
const WAITING: usize = 4096;
/// The same for commands that end something: more than the transports that a thread may have, so that all of them may
/// end at once. Beyond it [`MediaBusy`], although only a thread that hangs gets there.
const ENDING: usize = 65_536;
/// Questions that wait for one thread; beyond it [`MediaBusy`].
const QUESTIONS: usize = 64;

/// Somebody wants to know what the thread knows of a session.
pub(super) struct Question {
    pub(super) session: SessionId,
    pub(super) answer: oneshot::Sender<SessionFacts>,
}

/// One thread's mailbox.
pub(super) struct Mailbox {
    /// Something waits, or the thread is to end.
    pending: AtomicBool,
    state: Mutex<State>,
    waker: Waker,
}

#[derive(Default)]
struct State {
    commands: Vec<Command>,
    questions: Vec<Question>,
    stop: bool,
    ended: bool,
}

impl Mailbox {
    pub(super) fn new(waker: Waker) -> Self {
        Self { pending: AtomicBool::new(false), state: Mutex::default(), waker }
    }

    /// Takes what waits into `commands` and `questions`, which are empty; says whether the thread is to end.
    pub(super) fn take(&self, commands: &mut Vec<Command>, questions: &mut Vec<Question>) -> bool {
        // Read before it is written: it is looked at for every batch, and nearly always false.
        if !self.pending.load(Ordering::Acquire) || !self.pending.swap(false, Ordering::AcqRel) {
            return false;
        }
        let mut state = self.state();
        std::mem::swap(&mut state.commands, commands);
        std::mem::swap(&mut state.questions, questions);
        state.stop
    }

    /// The thread is gone: nothing is taken any more.
    pub(super) fn ended(&self) {
        let mut state = self.state();
        state.ended = true;
        state.commands = Vec::new();
        state.questions = Vec::new();
    }

    /// Asks the thread; what it answers comes over the channel.
    pub(super) fn ask(&self, session: SessionId) -> Result<oneshot::Receiver<SessionFacts>, MediaBusy> {
        let mut state = self.state();
        if state.ended || state.questions.len() >= QUESTIONS {
            return Err(MediaBusy);
        }
        let (answer, answered) = oneshot::channel();
        state.questions.push(Question { session, answer });
        drop(state);
        self.wake();
        Ok(answered)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the thread look at what waits, here or in another queue of its own.
    pub(super) fn wake(&self) {
        // One wake-up is enough until the thread has looked.
        if !self.pending.swap(true, Ordering::Release) {
            self.waker.wake().expect("an eventfd that this process holds takes a write");
        }
    }
}

/// Posts to all or to none.
pub(super) fn post(mailboxes: &[Arc<Mailbox>], command: &Command) -> Result<(), MediaBusy> {
    let bound = match command {
        Command::Close(_) | Command::CloseSession(_) => ENDING,
        Command::Open(_) | Command::SetClient { .. } | Command::SetBackend { .. } => WAITING,
    };
    // Always in the same order, so two posts cannot wait for each other.
    let mut states: Vec<_> = mailboxes.iter().map(|mailbox| mailbox.state()).collect();
    if states.iter().any(|state| state.ended || state.commands.len() >= bound) {
        return Err(MediaBusy);
    }
    for state in &mut states {
        state.commands.push(command.clone());
    }
    drop(states);
    mailboxes.iter().for_each(|mailbox| mailbox.wake());
    Ok(())
}

/// Asks all threads to end.
pub(super) fn stop(mailboxes: &[Arc<Mailbox>]) {
    for mailbox in mailboxes {
        mailbox.state().stop = true;
        mailbox.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::relay::TransportId;

    fn mailbox() -> (mio::Poll, Arc<Mailbox>) {
        let poll = mio::Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), mio::Token(0)).unwrap();
        (poll, Arc::new(Mailbox::new(waker)))
    }

    fn set_backend() -> Command {
        Command::SetBackend { id: TransportId(1), port: 50_000 }
    }

    #[test]
    fn a_full_mailbox_says_so_and_still_takes_what_ends_something() {
        let (_poll, full) = mailbox();
        let (_poll, empty) = mailbox();
        let both = [Arc::clone(&empty), Arc::clone(&full)];
        for _ in 0..WAITING {
            post(&both[1..], &set_backend()).unwrap();
        }

        assert_eq!(post(&both, &set_backend()), Err(MediaBusy));
        assert_eq!(post(&both, &Command::Close(TransportId(1))), Ok(()));

        let mut taken = Vec::new();
        assert!(!empty.take(&mut taken, &mut Vec::new()));
        assert!(matches!(taken[..], [Command::Close(_)]), "what one thread refused, none got: {taken:?}");
    }

    #[test]
    fn questions_are_bounded_and_end_with_their_thread() {
        let (_poll, mailbox) = mailbox();
        let mut asked: Vec<_> = (0..QUESTIONS).map(|_| mailbox.ask(SessionId(1)).unwrap()).collect();
        assert_eq!(mailbox.ask(SessionId(1)).err(), Some(MediaBusy));
        mailbox.ended();
        assert!(asked[0].try_recv().is_err());
        assert_eq!(mailbox.ask(SessionId(1)).err(), Some(MediaBusy));
    }

    #[test]
    fn a_thread_that_has_ended_takes_nothing() {
        let (_poll, gone) = mailbox();
        gone.ended();
        assert_eq!(post(&[gone], &Command::Close(TransportId(1))), Err(MediaBusy));
    }
}
