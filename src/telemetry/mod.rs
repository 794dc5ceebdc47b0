//! What an operator sees: logs on stderr, one span per session, metrics.
//!
//! Fields and labels have the same names everywhere (`session`, `app`, `stream`, `node`). Labels come from enums and node
//! ids, never from a stream, a user or a client's address.

pub mod access;
pub mod logs;
pub mod metrics;
pub mod otlp;
pub mod spans;

macro_rules! features {
    () => {
        "mongodb, media-relay"
    };
}

/// The commit that this build was made from, or `unknown`.
pub const COMMIT: &str = env!("FOREBAY_COMMIT");
/// This build's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What is built in.
pub const FEATURES: &str = features!();
/// Version, commit and features, for `--version` and the first log line.
pub const BUILD: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("FOREBAY_COMMIT"), "; features: ", features!(), ")");
