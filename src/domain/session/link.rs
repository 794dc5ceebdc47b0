//! One link: the WebSocket to one node on behalf of this session, and when it was last heard of.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::domain::ids::NodeId;

/// A link silent for so long gets an AMS `ping` (design.md §5).
pub(super) const SILENCE: Duration = Duration::from_secs(5);
/// No `pong` within this: the link is lost.
pub(super) const PONG_LIMIT: Duration = Duration::from_secs(3);
/// A link without legs stays so long for late answers (`publish_finished`, replies to reads), then it closes.
pub(super) const LINGER: Duration = Duration::from_secs(10);

/// A link that is being dialled or is up.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) node: NodeId,
    /// Where the node is; its media goes nowhere else.
    pub(super) address: IpAddr,
    pub(super) up: bool,
    /// When the node was last heard of on it; the time of dialling before that.
    pub(super) heard: Instant,
    pub(super) pinged: Option<Instant>,
    /// Since when no leg uses it.
    pub(super) unused: Option<Instant>,
}

impl Link {
    pub(super) fn dialling(node: NodeId, address: IpAddr, now: Instant) -> Self {
        Self { node, address, up: false, heard: now, pinged: None, unused: None }
    }

    /// Something arrived.
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = None;
    }

    /// When it next needs attention.
    pub(super) fn due(&self) -> Option<Instant> {
        if !self.up {
            return None;
        }
        let life = self.pinged.map_or(self.heard + SILENCE, |pinged| pinged + PONG_LIMIT);
        Some(self.unused.map_or(life, |since| life.min(since + LINGER)))
    }
}
