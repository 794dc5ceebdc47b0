//! Who hears what relay threads tell: everybody who wants all of it, and per session the one who watches it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{broadcast, mpsc};

use super::MediaEvent;
use crate::{domain::ids::SessionId, telemetry::metrics::Metrics};

/// Events that wait for a slow subscriber to all of them; beyond it the oldest are lost to it, which its receiver counts
/// (`RecvError::Lagged`).
const EVENTS: usize = 4096;
/// Events that wait for who watches one session; further ones are dropped and counted. A session has a handful.
const WATCHED: usize = 64;

/// Where relay threads put their events.
pub(super) struct Desk {
    all: broadcast::Sender<MediaEvent>,
    /// As many as there are sessions that are watched.
    watches: Mutex<HashMap<SessionId, mpsc::Sender<MediaEvent>>>,
    metrics: Metrics,
}

impl Desk {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { all: broadcast::channel(EVENTS).0, watches: Mutex::default(), metrics }
    }

    /// `session` is absent where nobody knows any more whose event it was.
    pub(super) fn tell(&self, session: Option<SessionId>, event: MediaEvent) {
        if let Some(watch) = session.and_then(|session| self.watches().get(&session).cloned())
            && watch.try_send(event.clone()).is_err_and(|full| matches!(full, mpsc::error::TrySendError::Full(_)))
        {
            self.metrics.media_event_lost();
        }
        // Nobody may be listening.
        let _ = self.all.send(event);
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<MediaEvent> {
        self.all.subscribe()
    }

    pub(super) fn watch(self: &Arc<Self>, session: SessionId) -> Watch {
        let (sender, events) = mpsc::channel(WATCHED);
        self.watches().insert(session, sender.clone());
        Watch { desk: Arc::clone(self), session, sender, events }
    }

    fn watches(&self) -> MutexGuard<'_, HashMap<SessionId, mpsc::Sender<MediaEvent>>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The events of one session, until it drops. Of several watches of one session only the latest hears anything.
pub struct Watch {
    desk: Arc<Desk>,
    session: SessionId,
    sender: mpsc::Sender<MediaEvent>,
    events: mpsc::Receiver<MediaEvent>,
}

impl Watch {
    /// The next event. Cancel-safe; never completes once the relay has ended.
    pub async fn next(&mut self) -> MediaEvent {
        self.events.recv().await.expect("the watch holds a sender itself")
    }

    /// The next event, if one has come already.
    pub fn try_next(&mut self) -> Option<MediaEvent> {
        self.events.try_recv().ok()
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("session", &self.session).finish_non_exhaustive()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watches = self.desk.watches();
        if watches.get(&self.session).is_some_and(|held| held.same_channel(&self.sender)) {
            watches.remove(&self.session);
        }
    }
}
