//! The bodies that clients get: the door's own, and those that stream through from nodes.

use std::error::Error;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};

/// A body whose source may fail while it streams; a failure ends the client's stream or connection unfinished.
pub(super) type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// Bytes that are part of the program.
pub(super) fn fixed(bytes: &'static [u8]) -> Body {
    whole(Bytes::from_static(bytes))
}

/// Bytes that are there already.
pub(super) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// No bytes.
pub(super) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}
