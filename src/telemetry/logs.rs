//! Logs: on stderr, for people or as JSON, with a filter that can be changed while the door runs.
//!
//! Lines are written by a thread of their own: a reader of stderr that hangs costs lines, which are counted, and no client
//! waits for it.
//!
//! What the levels mean: `trace` per packet or message, `debug` a path not taken and anything with a client's address,
//! `info` a session opened, placed, closed, `warn` worth waking someone, `error` we stop.

use std::io::{self, BufWriter, IsTerminal};

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Registry, filter::LevelFilter, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

/// Libraries speak of their own affairs at `info`; a filter that names them wins over this.
const QUIET: &str = "mongodb=warn,webrtc=warn,rtc=warn,rtc_ice=error,rtc_sctp=error,rtc_dtls=error,hyper=warn,h2=warn";

/// Lines that wait to be written; one more is dropped and counted.
const WAITING: usize = 16_384;
/// Bytes that are written at once where many lines wait.
const AT_ONCE: usize = 64 * 1024;

/// Why logging could not start or a filter was refused.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The text is no filter.
    #[error("{0:?} is no log filter ({1})")]
    Filter(String, String),
    /// Something else in this process has already taken the logs.
    #[error("logging was already started")]
    Taken,
}

/// Changes the filter of running logs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
    lost: ErrorCounter,
}

/// Writes the logs. When it drops, what still waits is written, for up to a second.
#[derive(Debug)]
#[must_use = "without it nothing is written"]
pub struct LogWriter(#[expect(dead_code, reason = "its drop is what it is for")] WorkerGuard);

impl LogHandle {
    /// Puts a new filter in force, at once and for all threads.
    ///
    /// # Errors
    /// [`LogError::Filter`]; the old filter stays.
    pub fn set(&self, filter: &str) -> Result<(), LogError> {
        let parsed = parse(filter)?;
        self.filter.reload(parsed).map_err(|why| LogError::Filter(filter.to_owned(), why.to_string()))
    }

    /// The filter in force, as its parts; empty if the logs have ended.
    pub fn now(&self) -> String {
        self.filter.with_current(ToString::to_string).unwrap_or_default()
    }

    /// Lines that were not written, since too many waited.
    pub fn lost(&self) -> u64 {
        self.lost.dropped_lines() as u64
    }
}

/// Starts logging to stderr: one line per event, as text (coloured where a person watches) or as a JSON object.
///
/// # Errors
/// A bad filter, or logs that were already started.
pub fn start(filter: &str, json: bool) -> Result<(LogHandle, LogWriter), LogError> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let base = tracing_subscriber::registry().with(filter);
    let builder = NonBlockingBuilder::default().buffered_lines_limit(WAITING).lossy(true).thread_name("logs");
    // The thread writes what it has gathered as soon as no line waits.
    let (lines, writer) = builder.finish(BufWriter::with_capacity(AT_ONCE, io::stderr()));
    let lost = lines.error_counter();
    let started = if json {
        base.with(fmt::layer().json().flatten_event(true).with_writer(lines)).try_init()
    } else {
        base.with(fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(lines)).try_init()
    };
    started.map_err(|_| LogError::Taken)?;
    Ok((LogHandle { filter: handle, lost }, LogWriter(writer)))
}

/// Says whether a text is a filter, without starting anything.
///
/// # Errors
/// [`LogError::Filter`], with the reason.
pub fn check_filter(filter: &str) -> Result<(), LogError> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    // Later directives replace earlier ones of the same target.
    let whole = format!("{QUIET},{filter}");
    builder.parse(whole).map_err(|why| LogError::Filter(filter.to_owned(), why.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_checked_before_it_is_used() {
        for good in ["info", "debug", "info,forebay::sessions=debug", "warn,mongodb=debug", ""] {
            assert!(check_filter(good).is_ok(), "{good}");
        }
        for bad in ["forebay=loud", "info,a=b=c"] {
            assert!(check_filter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn libraries_are_quiet_unless_they_are_asked() {
        let shown = |filter: &str| parse(filter).unwrap().to_string();
        assert!(shown("debug").contains("mongodb=warn"));
        assert!(shown("debug,mongodb=debug").contains("mongodb=debug"));
        assert!(!shown("debug,mongodb=debug").contains("mongodb=warn"));
    }
}
