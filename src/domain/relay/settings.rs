//! Every bound of the relay, with the answer when it is reached.

use std::{ops::RangeInclusive, time::Duration};

/// Private sockets per relay thread, and with it the tuples of one transport: a further tuple replaces one that was
/// never validated or is dead, else it is dropped as `TuplesFull`.
pub const POOL_SOCKETS: u8 = 8;
/// Longest datagram that is passed on, in bytes; a longer one is dropped as `Oversized`.
pub(super) const MAX_DATAGRAM: usize = 1500;
/// Transports of one session, generations included; one more is refused as `SessionFull`.
pub(super) const MAX_TRANSPORTS_PER_SESSION: usize = 128;
/// Transports with one server ufrag, each of which may cost one HMAC per request; one more is refused as `UfragTaken`.
pub(super) const MAX_SAME_UFRAG: usize = 8;
/// Events that wait to be polled; further ones are dropped and counted as `events_lost`.
pub(super) const EVENT_QUEUE: usize = 4096;
/// Nominations that wait to be sent; a further one is left to the client's own next check.
pub(super) const NOMINATIONS: usize = 256;
/// Closed tuples that are remembered; beyond it the oldest is forgotten early.
pub(super) const MAX_TOMBSTONES: usize = 4096;
/// Sources whose failures are remembered; where a set of the table is full, the least blamed is forgotten.
pub(super) const BLAMED_SOURCES: usize = 8192;
/// How often the sweep runs; each run looks at one of [`SWEEP_SLICES`] parts of the table.
pub(super) const SWEEP_EVERY: Duration = Duration::from_millis(100);
/// Parts of the table: every flow is looked at once in [`SWEEP_EVERY`] times this.
pub(super) const SWEEP_SLICES: u32 = 10;
/// Checks of the node that go unanswered for this long show that nobody is there any more: another tuple of the same
/// client, if one proved itself meanwhile, takes the path over.
pub(super) const UNANSWERED: Duration = Duration::from_millis(500);
/// A path that carried the node's payload within this is the one that the node has chosen.
pub(super) const FED: Duration = Duration::from_secs(1);
/// Requests of one transport that are remembered, so that a copy from elsewhere is known as one: five minutes of a
/// connection that is up. An older one that is replayed counts as a new tuple.
pub(super) const REMEMBERED: usize = 128;
/// How long a validated flow must be silent before another tuple may take its place.
pub(super) const LIVE: Duration = Duration::from_secs(30);

/// What an operator may set, and the timers that the rules name.
#[derive(Debug, Clone)]
pub struct RelaySettings {
    /// Ports of nodes that may be sent to; anything else in signalling is refused as `BadPort`.
    pub node_ports: RangeInclusive<u16>,
    /// Transports of this thread; one more is refused as `Full`.
    pub max_transports: usize,
    /// Flows of this thread; a further tuple is dropped as `TableFull`.
    pub max_flows: usize,
    /// A flow whose client sent no authenticated STUN for this long ends (RFC 7675 gives up after 30 s).
    pub consent: Duration,
    /// How long the old generation lives after the new one nominates.
    pub generation_grace: Duration,
    /// How long packets of a closed tuple are dropped without blame.
    pub tombstone: Duration,
    /// A transport whose signalling is done ends when no client has authenticated for this long.
    pub half_open: Duration,
    /// Media that pauses for longer than this is a stall.
    pub stall: Duration,
    /// Failed authentications per second that one source (/32, /64) may make before it is dropped unparsed.
    pub source_failures_per_second: u32,
    /// How many it may make at once.
    pub source_failure_burst: u32,
    /// Wrong MESSAGE-INTEGRITY per second, of all sources together, before STUN of unknown tuples is dropped
    /// unparsed: what an attacker with a sniffed ufrag may cost.
    pub failures_per_second: u32,
    /// STUN packets per second of one validated flow, and of all the unvalidated flows that a transport may have together:
    /// each of those has its own share.
    pub stun_per_second: u32,
    /// New tuples per minute of one session, those not counted that prove themselves.
    pub tuples_per_minute: u32,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            node_ports: 50_000..=60_000,
            max_transports: 16_384,
            max_flows: 65_536,
            consent: Duration::from_secs(35),
            generation_grace: Duration::from_secs(30),
            tombstone: Duration::from_secs(5),
            half_open: Duration::from_secs(15),
            stall: Duration::from_secs(2),
            source_failures_per_second: 50,
            source_failure_burst: 100,
            failures_per_second: 100_000,
            stun_per_second: 100,
            tuples_per_minute: 20,
        }
    }
}
