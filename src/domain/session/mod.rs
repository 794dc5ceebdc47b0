//! The state machine of one client: its legs, the links to their nodes, every deadline. See `LIFECYCLE.md`.
//!
//! Sans-IO: [`Session::handle`] takes one event and `now`; then [`Session::poll_output`] until it is empty; then
//! wait for the next event or [`Session::poll_timeout`]. It never blocks, reads no clock and cannot fail: trouble is
//! an output. After [`Output::Close`] it says nothing any more.
//!
//! ```text
//!  client ──text──► from_client ─┬─► leg (by streamId, kind) ──► ToNode, byte for byte
//!                                └─► placing ── Place ──► Placed ── Dial ──► LinkUp ──► the command
//!  node ────text──► from_node ───┬─► its leg moves on ──► ToClient, byte for byte
//!                                └─► refusal before the first answer ──► placing, elsewhere
//! ```

mod bucket;
mod from_client;
mod from_node;
mod io;
mod leg;
mod link;
mod media;
#[cfg(test)]
mod media_tests;
mod moving;
#[cfg(test)]
mod moving_tests;
mod placing;
#[cfg(test)]
mod tests;
mod timers;

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bucket::Bucket;
use leg::{Leg, Stage};
use link::Link;

pub use media::RelaySide;

pub use io::{
    AfterEnd, Ask, CloseReason, DropCause, Fact, Input, LinkLoss, MediaSeen, MoveCause, Output, Placed, Purpose,
    RetryCause, SessionSettings, Ticket,
};

use super::{
    ids::{Kind, NodeId, SessionId, StreamId},
    reject::Reject,
    signaling::{self, SdpType},
};

/// One client's session.
#[derive(Debug)]
pub struct Session {
    settings: Arc<SessionSettings>,
    legs: Vec<Leg>,
    links: Vec<Link>,
    outputs: VecDeque<Output>,
    tickets: u32,
    /// Media transports opened so far.
    transports: u32,
    /// Counts what changes [`Session::legs`].
    revision: u32,
    /// Random, so that it also spreads what many sessions would otherwise do at once.
    id: SessionId,
    bucket: Bucket,
    bad_messages: u32,
    client_heard: Instant,
    client_pings: u32,
    /// A decided close that waits for its moment.
    closing: Option<(Instant, CloseReason)>,
    closed: bool,
}

/// A leg as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegView {
    /// The stream.
    pub stream: StreamId,
    /// What it does.
    pub kind: Kind,
    /// Its node, once it is placed.
    pub node: Option<NodeId>,
    /// `placing`, `dialling`, `asked`, `answered` or `live`.
    pub state: &'static str,
    /// Since when it is in that state.
    pub since: Instant,
    /// It leaves its node, or has left it and has had no media since.
    pub moving: bool,
}

impl Session {
    /// A session of a client that has just connected.
    pub fn new(settings: Arc<SessionSettings>, id: SessionId, now: Instant) -> Self {
        let bucket = Bucket::new(settings.messages_per_second, now);
        Self {
            settings,
            legs: Vec::new(),
            links: Vec::new(),
            outputs: VecDeque::new(),
            tickets: 0,
            transports: 0,
            revision: 0,
            id,
            bucket,
            bad_messages: 0,
            client_heard: now,
            client_pings: 0,
            closing: None,
            closed: false,
        }
    }

    /// Applies one event.
    pub fn handle(&mut self, input: Input, now: Instant) {
        if self.closed {
            return; // a late placement's seat is the shell's to drop: no ticket is open any more
        }
        match input {
            Input::Client(text) => self.on_client(text, now),
            Input::ClientBinary => self.close(CloseReason::Binary),
            Input::ClientAlive => self.hear_client(now),
            Input::ClientGone(reason) | Input::Close(reason) => self.close(reason),
            Input::EndWithin(limit) => self.end_within(limit, now),
            Input::Move { node, stream, kind } => self.begin_move(&node, &stream, kind, now),
            Input::EndOn(node) => self.end_on(&node, now),
            Input::Media { transport, seen } => self.on_media(transport, seen, now),
            Input::Placed { ticket, result } => self.on_placed(ticket, result, now),
            Input::LinkUp(node) => self.on_link_up(&node, now),
            Input::LinkDown(node, loss) => self.on_link_down(&node, loss, now),
            Input::Node(node, text) => self.on_node(&node, text, now),
            Input::Tick => self.on_tick(now),
        }
        if !self.closed {
            self.settle(now);
        }
    }

    /// The next effect, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether [`Output::Close`] has been said.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Another number whenever [`Session::legs`] may say something else than before.
    pub fn revision(&self) -> u32 {
        self.revision
    }

    /// The publishes and plays of this session.
    pub fn legs(&self) -> impl Iterator<Item = LegView> {
        self.legs.iter().filter_map(|leg| {
            Some(LegView {
                stream: leg.stream.clone()?,
                kind: leg.purpose.kind()?,
                node: leg.stage.node().or(leg.old_node()).cloned(),
                state: leg.stage.as_str(),
                since: leg.since,
                moving: leg.moving.is_some() || leg.gap.is_some(),
            })
        })
    }

    /// SDKs come back at once and without jitter of their own (facts/clients.md §0.3), so the door spreads them.
    fn end_within(&mut self, limit: Duration, now: Instant) {
        let at = now + limit.mul_f64((self.id.0 % 1000) as f64 / 1000.0);
        if self.closing.is_none_or(|(due, _)| at < due) {
            self.closing = Some((at, CloseReason::Shutdown));
        }
    }

    fn hear_client(&mut self, now: Instant) {
        self.client_heard = now;
        self.client_pings = 0;
    }

    fn out(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    fn fact(&mut self, fact: Fact) {
        self.out(Output::Fact(fact));
    }

    fn reject(&mut self, reject: Reject, stream: Option<&StreamId>) {
        self.fact(Fact::Rejected(reject));
        self.out(Output::ToClient(signaling::error(reject, stream)));
    }

    fn drop_message(&mut self, cause: DropCause) {
        self.fact(Fact::Dropped(cause));
    }

    fn described(&mut self, at: usize, sdp: SdpType, from_client: bool) {
        let leg = &self.legs[at];
        let (Some(stream), true) = (leg.stream.clone(), sdp != SdpType::Other) else { return };
        let (purpose, offer) = (leg.purpose, sdp == SdpType::Offer);
        self.fact(Fact::Described { purpose, stream, from_client, offer });
    }

    fn link(&mut self, node: &NodeId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.node == *node)
    }

    /// Where the leg's node is.
    fn node_address(&self, at: usize) -> Option<IpAddr> {
        let node = self.legs[at].stage.node()?;
        self.links.iter().find(|link| link.node == *node).map(|link| link.address)
    }

    fn set_stage(&mut self, at: usize, stage: Stage, now: Instant) {
        if self.legs[at].stage.as_str() != stage.as_str() {
            self.legs[at].since = now;
        }
        self.legs[at].stage = stage;
        self.revision = self.revision.wrapping_add(1);
    }

    /// Takes a leg out and gives back what was reserved for it.
    fn remove_leg(&mut self, at: usize) -> Leg {
        self.close_media(at);
        let mut leg = self.legs.remove(at);
        let old = self.drop_old(&mut leg);
        self.revision = self.revision.wrapping_add(1);
        if let Some(ticket) = leg.stage.ticket() {
            self.out(Output::Release(ticket));
        }
        if let (Some(kind), Some(stream)) = (leg.purpose.kind(), leg.stream.clone()) {
            let started = matches!(leg.stage, Stage::Live(..)) || old.is_some();
            let node = old.or_else(|| leg.stage.node().cloned());
            self.fact(Fact::Ended { kind, stream, node, started });
        }
        leg
    }

    fn hang_up(&mut self, node: &NodeId) {
        if let Some(at) = self.links.iter().position(|link| link.node == *node) {
            self.links.remove(at);
            self.out(Output::HangUp(node.clone()));
        }
    }

    /// What follows from any event: links that nobody waits for any more, plays that waited for their publish.
    fn settle(&mut self, now: Instant) {
        for at in (0..self.links.len()).rev() {
            let node = &self.links[at].node;
            let used = self.legs.iter().any(|leg| leg.is_on(node) || leg.old_node() == Some(node));
            if used {
                self.links[at].unused = None;
            } else if self.links[at].up {
                self.links[at].unused.get_or_insert(now);
            } else {
                let node = node.clone();
                self.hang_up(&node);
            }
        }
        self.place_followers(now);
    }

    fn close(&mut self, reason: CloseReason) {
        for at in (0..self.legs.len()).rev() {
            self.remove_leg(at);
        }
        for at in (0..self.links.len()).rev() {
            let node = self.links[at].node.clone();
            self.hang_up(&node);
        }
        self.closed = true;
        self.out(Output::Close(reason));
    }
}
