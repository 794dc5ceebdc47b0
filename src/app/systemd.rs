//! Tells systemd how the door is: ready, reloading, ending, alive. Without `NOTIFY_SOCKET` it tells nobody.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::shutdown::Shutdown;

/// systemd waits this much longer than the door means to need.
const MARGIN: Duration = Duration::from_secs(10);

/// The door serves. `MAINPID` matters to a generation that another one started.
pub(super) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::MainPid(std::process::id())]);
}

/// A reload begins; [`ready`] ends it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The door ends, within `limit`: however short the unit's own limit is, it is not killed before.
pub(super) fn stopping(limit: Duration) {
    let micros = u32::try_from((limit + MARGIN).as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
}

/// Says that the process lives, twice as often as systemd wants to hear it, from the runtime that serves clients: one
/// that is stuck falls silent. Ends with `shutdown`, or when `retired` is done.
pub(super) fn keep_alive(retired: impl Future<Output = ()> + Send + 'static, shutdown: &Shutdown) {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else { return };
    let stop = shutdown.child();
    shutdown.spawn(async move {
        let mut beats = tokio::time::interval(limit / 2);
        let beating = async {
            loop {
                beats.tick().await;
                tell(&[NotifyState::Watchdog]);
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = retired => {}
            () = beating => {}
        }
    });
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
