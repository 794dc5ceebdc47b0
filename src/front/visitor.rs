//! Who asks: what one request knows of its client.

use crate::domain::ids::ClientAddr;

/// The client of one request, as far as the door may believe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Visitor {
    /// The client's own address: the far end of the connection, or what a trusted peer says it is.
    pub client: ClientAddr,
    /// Whether the client itself speaks TLS, to this door or to a trusted peer before it.
    pub secure: bool,
}
