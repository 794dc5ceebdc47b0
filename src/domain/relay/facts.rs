//! What the relay knows of one session, for whoever asks: an operator, or the session's own record.

use std::{net::SocketAddr, time::Duration};

use super::{
    ClientKey, Core, FlowState, TrafficCount, TransportId,
    transport::{Media, Transport},
};
use crate::domain::ids::SessionId;

/// What one relay thread, or all of them together, know of one session at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionFacts {
    /// Its ICE generations that are open, in the order of their opening.
    pub transports: Vec<TransportFacts>,
}

/// One ICE generation of one BUNDLE transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportFacts {
    /// Its name in events.
    pub id: TransportId,
    /// Which of the session's media transports this is a generation of.
    pub line: u32,
    /// Where the node has this transport, where that is known.
    pub node: Option<SocketAddr>,
    /// How long ago its client's first authenticated STUN came.
    pub first_stun: Option<Duration>,
    /// From that to the first media.
    pub first_media: Option<Duration>,
    /// Whether media flows.
    pub media: MediaState,
    /// How often media that had flowed has stalled.
    pub stalls: u32,
    /// A newer generation has taken over, and this one ends soon.
    pub is_superseded: bool,
    /// What was passed on.
    pub traffic: TrafficCount,
    /// The client's tuples.
    pub flows: Vec<FlowFacts>,
}

/// Whether media flows on a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MediaState {
    /// It does.
    Flowing,
    /// It did.
    Stalled {
        /// For how long there has been none.
        silent: Duration,
    },
    /// There has been none.
    Awaited,
}

impl MediaState {
    /// The state as the admin API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flowing => "flowing",
            Self::Stalled { .. } => "stalled",
            Self::Awaited => "awaited",
        }
    }
}

/// One client tuple.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowFacts {
    /// The tuple.
    pub client: ClientKey,
    /// How far it has come.
    pub state: FlowState,
    /// How long ago it began.
    pub age: Duration,
    /// How long ago its client was last heard.
    pub silent: Duration,
}

impl SessionFacts {
    /// Takes in what another relay thread knows of the same session.
    pub fn merge(&mut self, other: Self) {
        for theirs in other.transports {
            match self.transports.iter_mut().find(|own| own.id == theirs.id) {
                Some(own) => own.merge(theirs),
                None => self.transports.push(theirs),
            }
        }
    }
}

impl TransportFacts {
    fn merge(&mut self, other: Self) {
        self.node = self.node.or(other.node);
        self.first_stun = self.first_stun.max(other.first_stun);
        self.first_media = [self.first_media, other.first_media].into_iter().flatten().min();
        self.media = self.media.min(other.media);
        self.stalls += other.stalls;
        self.is_superseded |= other.is_superseded;
        self.traffic.to_node.merge(other.traffic.to_node);
        self.traffic.to_client.merge(other.traffic.to_client);
        self.flows.extend(other.flows);
    }
}

impl Core {
    /// What this thread knows of a session; `None` where it knows none such.
    pub fn facts(&self, session: SessionId, now: std::time::Instant) -> Option<SessionFacts> {
        let now = self.nanos(now);
        let transports = &self.sessions.get(&session)?.transports;
        Some(SessionFacts { transports: transports.iter().map(|index| self.transport_facts(*index, now)).collect() })
    }

    /// The session of an open transport.
    pub fn session_of(&self, id: TransportId) -> Option<SessionId> {
        self.by_id.get(&id).map(|transport| self.transports[*transport].session)
    }

    fn transport_facts(&self, index: u32, now: u64) -> TransportFacts {
        let ago = |then: u64| Duration::from_nanos(now.saturating_sub(then));
        let Transport { id, line, backend, first_stun, first_media, media, stalls, ends, traffic, .. } =
            self.transports[index];
        let flows = self.transports[index].flows.as_slice().iter().map(|flow| {
            let flow = &self.flows[*flow];
            FlowFacts { client: flow.client, state: flow.state, age: ago(flow.born), silent: ago(flow.last_rx) }
        });
        TransportFacts {
            id,
            line,
            node: backend,
            first_stun: first_stun.map(ago),
            first_media: first_media.zip(first_stun).map(|(media, stun)| Duration::from_nanos(media - stun)),
            media: match media {
                Media::Awaited | Media::Silent => MediaState::Awaited,
                Media::Flowing { .. } => MediaState::Flowing,
                Media::Stalled { last } => MediaState::Stalled { silent: ago(last) },
            },
            stalls,
            is_superseded: ends.is_some(),
            traffic,
            flows: flows.collect(),
        }
    }
}
