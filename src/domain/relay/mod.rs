//! The media relay without its sockets: which datagram may go where, decided packet by packet.
//!
//! ```text
//! client ─► public port ─► from_client ─► pool socket k ─► node     k: the client's n-th address has the n-th private
//! client ◄─ public port ◄─ from_node  ◄── pool socket k ◄─ node        port, so ICE sees every path as it is
//! ```
//!
//! One [`Core`] belongs to one relay thread and owns all that the thread knows: nothing is shared, locked or looked
//! up elsewhere per packet, and once a flow exists its packets allocate nothing. STUN from clients is authenticated
//! with the ICE passwords seen in signalling before it creates any state or is passed on; everything else that is not
//! a packet of a live flow is dropped without an answer. What is passed on is passed on byte for byte, but for the STUN
//! of a leg that was moved, whose client and node know each other by other names (`mask`).
//!
//! The core answers with a [`Verdict`] and never sends: the thread that owns the sockets does. Of its own it says one thing
//! only, a [`Nomination`].

mod admit;
mod buckets;
mod commands;
mod core;
mod credentials;
pub mod demux;
mod facts;
mod flow;
mod from_client;
mod from_node;
mod hash;
mod inheritance;
mod io;
mod mask;
#[cfg(test)]
mod moved_tests;
mod settings;
mod slab;
mod stats;
pub mod stun;
mod succession;
mod sweep;
#[cfg(test)]
mod tests;
mod transport;

pub use self::{
    core::Core,
    credentials::Credentials,
    facts::{FlowFacts, MediaState, SessionFacts, TransportFacts},
    flow::FlowState,
    io::{
        ClientKey, Command, Event, EventKind, FlowEnd, Nomination, Predecessor, Refused, TransportEnd, TransportId,
        TransportSpec, Verdict,
    },
    settings::{POOL_SOCKETS, RelaySettings},
    stats::{DropReason, Stats, Traffic, TrafficCount},
};
