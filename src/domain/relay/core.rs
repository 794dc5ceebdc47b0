//! The relay's one entry per event: commands, datagrams of clients, datagrams of nodes, time.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{ClientKey, Command, DropReason, Event, Refused, RelaySettings, Stats, TrafficCount, TransportId, Verdict};

/// All that one relay thread knows.
pub struct Core {
    settings: RelaySettings,
    stats: Stats,
}

impl Core {
    /// An empty relay. `seed` makes its tables' order unpredictable from outside; the same seed and inputs give the
    /// same outputs.
    pub fn new(settings: RelaySettings, seed: u64, now: Instant) -> Self {
        let _ = (seed, now);
        Self { settings, stats: Stats::default() }
    }

    /// Takes one command of a session; a refused one has changed nothing.
    pub fn command(&mut self, command: Command, now: Instant) -> Result<(), Refused> {
        let _ = (command, now);
        if self.settings.max_transports == 0 { Err(Refused::Full) } else { Ok(()) }
    }

    /// One datagram of the public socket, or one frame of an ICE-TCP connection.
    pub fn from_client(&mut self, from: ClientKey, bytes: &[u8], now: Instant) -> Verdict {
        let _ = (from, bytes, now);
        Verdict::Drop(DropReason::UnknownTuple)
    }

    /// One datagram of the pool socket with index `pool`.
    pub fn from_node(&mut self, pool: u8, from: SocketAddr, bytes: &[u8], now: Instant) -> Verdict {
        let _ = (pool, from, bytes, now);
        Verdict::Drop(DropReason::UnknownNode)
    }

    /// Whether this tuple has a flow: an ICE-TCP connection without one after 5 s is to be closed.
    pub fn has_flow(&self, client: ClientKey) -> bool {
        let _ = client;
        false
    }

    /// An ICE-TCP connection ended: its flow, if any, ends with it.
    pub fn client_gone(&mut self, client: ClientKey, now: Instant) {
        let _ = (client, now);
    }

    /// What a transport has passed on so far; `None` once it ended.
    pub fn traffic(&self, id: TransportId) -> Option<TrafficCount> {
        let _ = id;
        None
    }

    /// When [`Self::tick`] wants to be called next; `None` while there is nothing to time.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Lets time pass: call it at [`Self::poll_timeout`] or later.
    pub fn tick(&mut self, now: Instant) {
        let _ = now;
    }

    /// The next event, oldest first; poll until `None` after each batch.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// What was counted so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}

const _: Duration = Duration::ZERO;
