//! The one place that asks what time it is. Tests pause tokio's clock, and with it this one.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, on the monotonic clock; follows tokio's clock where a test has paused it.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Now, on the wall clock.
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The wall clock as AMS stores it: ms since the epoch.
pub fn wall_ms() -> i64 {
    let since = wall().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// An instant of this process as RFC 3339 in UTC, for people and the admin API.
pub fn rfc3339(at: Instant) -> String {
    let ago = now().saturating_duration_since(at);
    humantime::format_rfc3339_millis(wall() - ago).to_string()
}

/// Completes at `deadline`; never, if there is none.
pub async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
