//! Every bound of the pure rooms, with the answer when it is reached.

/// Longest app name (design.md §4: `[A-Za-z0-9_-]{1,64}`); a longer one is a 404.
pub const MAX_APP_NAME: usize = 64;
/// Longest stream id; AMS names none, MongoDB index keys allow more. A longer one is `invalidStreamName`.
pub const MAX_STREAM_ID: usize = 256;
/// Longest node id; a longer one is a configuration problem.
pub const MAX_NODE_ID: usize = 128;
