//! One client 5-tuple of one transport.

/// How far a flow has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FlowState {
    /// Its client sent an authenticated STUN request; that may have been a replay.
    New,
    /// Its client answered the node's check with its own password: it is no replay.
    Validated,
    /// Validated, and chosen by the controlling side.
    Nominated,
}

impl FlowState {
    /// All states, in the order of [`super::Stats::flows`]'s cells.
    pub const ALL: [Self; 3] = [Self::New, Self::Validated, Self::Nominated];

    /// The state as metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Validated => "validated",
            Self::Nominated => "nominated",
        }
    }
}
