//! SDP as the relay needs it: read the ICE credentials, take out every address, put in the door's own.
//!
//! ```text
//! node ── offer/answer, takeCandidate, sdpfrag ─► to_client ─► client sees the door's public candidates only
//! client ── offer/answer, takeCandidate, sdpfrag ─► to_node ─► node sees one private candidate of the door, or none
//! ```
//!
//! The rules are facts/relay.md §3.3. Text is rewritten line by line, so what no rule names stays byte for byte: order,
//! unknown attributes and line endings included. Rewriting twice gives what rewriting once gave. An address out of an SDP
//! is never a place to send to: of a node's candidate only the port counts, and a client's candidates count for nothing.
//!
//! ICE restart and renegotiation are just another call: nothing here remembers an earlier description.

mod candidate;
mod description;
mod frag;
mod leaks;
mod lines;
mod outline;
mod pair;
mod restart;
mod rewrite;
#[cfg(test)]
mod tests;

pub use super::relay::Credentials;
pub use candidate::{
    Candidate, CandidateKind, Host, PublicCandidate, Transport, Trickled, acceptable, candidate_lines, parse_candidate,
    trickled,
};
pub use description::{Description, Media, MediaKind, NodeCandidate};
pub use frag::{frag_to_client, frag_to_node};
pub use leaks::leaks;
pub use pair::{Answers, Unanswerable, answer_both};
pub use restart::{Fragment, answered_frag, has_candidates, leading, read_frag, renamed, restarted, with_candidates};
pub use rewrite::{to_client, to_node};

/// Bytes of a description or fragment; browsers stay below 20 KiB.
pub const MAX_SDP: usize = 64 * 1024;

/// `a=candidate` lines of one description, all sections together.
pub const MAX_CANDIDATES: usize = 64;

/// m-sections of one description.
pub const MAX_SECTIONS: usize = 32;

/// Characters of an ICE user fragment (RFC 8839 §5.4).
pub const UFRAG_CHARS: std::ops::RangeInclusive<usize> = 4..=256;

/// Characters of an ICE password (RFC 8839 §5.4).
pub const PWD_CHARS: std::ops::RangeInclusive<usize> = 22..=256;

/// Why a description cannot be relayed. The session that sent it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// No section that is in use has an ICE user fragment and password.
    #[error("an m-section has no ICE credentials")]
    NoCredentials,
    /// A user fragment or password is too short, too long, has a character that ICE forbids, or contradicts another.
    #[error("the ICE credentials are malformed or contradict each other")]
    BadCredentials,
    /// More than [`MAX_CANDIDATES`].
    #[error("more than {MAX_CANDIDATES} candidates")]
    TooManyCandidates,
    /// More than [`MAX_SECTIONS`].
    #[error("more than {MAX_SECTIONS} m-sections")]
    TooManySections,
    /// More than [`MAX_SDP`] bytes.
    #[error("more than {MAX_SDP} bytes")]
    TooLarge,
    /// A line is not `letter=value`, or an `m=` or `o=` line lacks its fields.
    #[error("not SDP")]
    Malformed,
}
