//! Follows the store's changes, one feed per app, and refreshes what is cached. Where the store pushes nothing, records
//! simply expire and are read again.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    facade::Inner,
    source::Source,
    store::{Bookmark, Feed, StoreError, StreamStore},
};
use crate::{clock, domain::ids::AppName};

/// Apps whose changes are followed; records of one more expire.
const MAX_WATCHED_APPS: usize = 64;
/// The first pause after a feed failed; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A feed that lived so long was a good one: its loss starts the pauses anew.
const GOOD_FEED: Duration = Duration::from_secs(5);
/// A store without change streams, or which does not permit them, is asked again so often: people change that.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// Which apps' changes are being followed.
#[derive(Debug, Default)]
pub(super) struct Watches {
    apps: Mutex<HashMap<AppName, Arc<AtomicBool>>>,
    said_polling: AtomicBool,
    said_forbidden: AtomicBool,
}

impl Watches {
    /// Whether changes of this app arrive by themselves at this moment.
    pub(super) fn is_on(&self, app: &AppName) -> bool {
        self.lock().get(app).is_some_and(|on| on.load(Ordering::Acquire))
    }

    /// Whether they do for every app that is in use (and one is).
    pub(super) fn all_on(&self) -> bool {
        let apps = self.lock();
        !apps.is_empty() && apps.values().all(|on| on.load(Ordering::Acquire))
    }

    /// The apps that are followed, or were tried to be.
    pub(super) fn apps(&self) -> Vec<AppName> {
        self.lock().keys().cloned().collect()
    }

    /// A flag for an app that nobody follows yet; `None` if somebody does, or if there are too many.
    fn claim(&self, app: &AppName) -> Option<Arc<AtomicBool>> {
        let mut apps = self.lock();
        if apps.len() >= MAX_WATCHED_APPS || apps.contains_key(app) {
            return None;
        }
        let on = Arc::new(AtomicBool::new(false));
        apps.insert(app.clone(), Arc::clone(&on));
        Some(on)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AppName, Arc<AtomicBool>>> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows an app's changes from now on, if nobody does yet.
pub(super) fn ensure(inner: &Arc<Inner>, app: &AppName) {
    let Some(source) = inner.source.clone().filter(|_| inner.follows_changes) else { return };
    let Some(on) = inner.watches.claim(app) else { return };
    let (task, app, stop) = (Arc::clone(inner), app.clone(), inner.shutdown.child());
    inner.shutdown.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow(&task, &source, &app, &on) => {}
        }
    });
}

async fn follow(inner: &Inner, source: &Source, app: &AppName, on: &AtomicBool) {
    let mut bookmark: Option<Bookmark> = None;
    let mut pause = FIRST_PAUSE;
    loop {
        let opened = clock::now();
        let error = match source.watch(app, bookmark.clone()).await {
            Ok(mut feed) => {
                // Changes before the feed's beginning were not seen; after it, none is missed.
                if bookmark.is_none() {
                    inner.cache.doubt(app);
                }
                on.store(true, Ordering::Release);
                let error = drain(inner, app, &mut feed).await;
                on.store(false, Ordering::Release);
                bookmark = feed.bookmark();
                error
            }
            Err(error) => error,
        };
        if clock::now() - opened >= GOOD_FEED {
            pause = FIRST_PAUSE;
        }
        let rest = react(inner, app, &error, &mut bookmark).unwrap_or(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
        tokio::time::sleep(jittered(rest)).await;
    }
}

/// Applies changes until the feed fails.
async fn drain(inner: &Inner, app: &AppName, feed: &mut Feed) -> StoreError {
    loop {
        match feed.next().await {
            Ok(None) => {}
            Ok(Some(change)) => {
                inner.facts.changes.add();
                if let Some(key) = inner.cache.change(app, change, &*inner.skews) {
                    inner.waiters.wake(&key);
                }
            }
            Err(error) => return error,
        }
    }
}

/// What a failed feed means; gives the pause if it is not the usual one.
fn react(inner: &Inner, app: &AppName, error: &StoreError, bookmark: &mut Option<Bookmark>) -> Option<Duration> {
    let watches = &inner.watches;
    match error {
        StoreError::NoChanges(_) => {
            *bookmark = None;
            if !watches.said_polling.swap(true, Ordering::Relaxed) {
                tracing::info!(%error, "cached records expire after {:?} and are read again", inner.cache.policy.fresh);
            }
            Some(ASK_AGAIN)
        }
        StoreError::Unauthorized(_) => {
            *bookmark = None;
            inner.facts.store_errors.add();
            if !watches.said_forbidden.swap(true, Ordering::Relaxed) {
                tracing::warn!(%app, %error, "changes may not be followed: grant `changeStream` and `find` on broadcast");
            }
            Some(ASK_AGAIN)
        }
        StoreError::HistoryLost(_) | StoreError::Refused { .. } => {
            inner.facts.store_errors.add();
            tracing::warn!(%app, %error, "the feed of changes starts anew; cached records are read again");
            *bookmark = None;
            inner.cache.doubt(app);
            None
        }
        StoreError::Away(_) | StoreError::Busy => {
            inner.facts.store_errors.add();
            tracing::debug!(%app, %error, "the feed of changes was lost");
            None
        }
    }
}

/// Up to a fifth longer, so that the doors of a cluster do not come back all at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(1.0 + fastrand::f64() / 5.0)
}
