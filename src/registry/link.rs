//! Whether the store answers, as its last answer or silence has shown.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::store::StoreError;
use crate::clock;

/// Least time between two lines of the log about one kind of trouble.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// The store's state, shared by all who ask it.
#[derive(Debug)]
pub(super) struct Link {
    state: Mutex<State>,
    lost: Notify,
}

#[derive(Debug)]
struct State {
    /// Since when it is away.
    away: Option<Instant>,
    /// It has let a question go unanswered since then: before the first one, nobody knows.
    failed: bool,
    said_away: bool,
    said_refusal: Option<Instant>,
}

impl Link {
    /// A store that was not asked yet counts as away.
    pub(super) fn new() -> Self {
        let state = State { away: Some(clock::now()), failed: false, said_away: false, said_refusal: None };
        Self { state: Mutex::new(state), lost: Notify::new() }
    }

    pub(super) fn is_up(&self) -> bool {
        self.lock().away.is_none()
    }

    pub(super) fn away_since(&self) -> Option<Instant> {
        self.lock().away
    }

    /// Since when it has been seen to be away.
    pub(super) fn failing_since(&self) -> Option<Instant> {
        let state = self.lock();
        state.away.filter(|_| state.failed)
    }

    /// The store answered.
    pub(super) fn answered(&self) {
        let mut state = self.lock();
        state.failed = false;
        if let Some(since) = state.away.take()
            && std::mem::take(&mut state.said_away)
        {
            tracing::info!(away = ?clock::now() - since, "the store answers again");
        }
    }

    /// The store failed: silence means away, an error of its own does not.
    pub(super) fn failed(&self, error: &StoreError) {
        let mut state = self.lock();
        let now = clock::now();
        match error {
            StoreError::Away(_) => {
                let news = state.away.is_none();
                state.away.get_or_insert(now);
                state.failed = true;
                if news {
                    self.lost.notify_waiters();
                }
            }
            StoreError::Unauthorized(_) | StoreError::Refused { .. } => {
                if state.said_refusal.is_none_or(|said| now - said >= SAY_AGAIN) {
                    state.said_refusal = Some(now);
                    tracing::warn!(%error, "the store refuses a read; its streams are placed without their records");
                }
            }
            StoreError::Busy | StoreError::NoChanges(_) | StoreError::HistoryLost(_) => {}
        }
    }

    /// The store was asked again and is still away: now a person should know.
    pub(super) fn still_away(&self, error: &StoreError) {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.said_away, true) {
            tracing::warn!(%error, "the store is away; known streams are served from memory, others without a record");
        }
    }

    /// Completes when the store goes away.
    pub(super) async fn lost(&self) {
        self.lost.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
