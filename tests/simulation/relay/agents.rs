//! The two ICE agents of one session, as far as the relay can tell them from real ones: a client that checks, answers,
//! moves and restarts, and a node that answers, checks every path that it hears of, and sends media only where its
//! checks were answered.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use forebay::domain::{
    ids::SessionId,
    relay::{Credentials, TransportId, TransportSpec},
};

use super::stun::{self, TransactionId};

/// How long an agent believes in a path whose checks are not answered (a fifteenth of RFC 7675's).
const CONSENT: Duration = Duration::from_secs(2);

/// What a datagram really is, whatever its sender's address says. Copies keep it, damage makes it junk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Truth {
    /// A client's check of its node.
    ClientCheck { transport: TransportId, id: TransactionId, nominate: bool },
    /// The node's answer to it.
    NodeAnswer { transport: TransportId, id: TransactionId },
    /// The node's check of its client.
    NodeCheck { transport: TransportId, id: TransactionId, nominate: bool },
    /// The client's answer to it.
    ClientAnswer { transport: TransportId, id: TransactionId },
    /// RTP of one session, towards its node.
    MediaUp { session: SessionId },
    /// RTP of one session, towards its client.
    MediaDown { session: SessionId },
    /// Anything that nobody of the two sent.
    Junk,
}

#[derive(Debug, Clone)]
pub(crate) struct Datagram {
    pub(crate) bytes: Vec<u8>,
    pub(crate) truth: Truth,
}

/// What the node knows of one remote address: one pool socket of the relay.
#[derive(Debug, Default)]
struct Pair {
    asked: Vec<TransactionId>,
    answered: Option<Instant>,
    wanted: bool,
}

/// One ICE generation: both descriptions, and the node's view of its pairs.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) id: TransportId,
    pub(crate) server: Credentials,
    /// What the client takes for the node's: those of the node before, where the leg was moved.
    pub(crate) shown: Credentials,
    pub(crate) client: Credentials,
    shown_key: hmac::Key,
    server_key: hmac::Key,
    client_key: hmac::Key,
    pub(crate) backend: SocketAddr,
    pairs: BTreeMap<u8, Pair>,
    selected: Option<u8>,
    /// The node never leaves the path that it has chosen, and checks no other.
    pub(crate) stays: bool,
    /// The relay knows what the client's description says.
    pub(crate) knows_client: bool,
}

impl Generation {
    pub(crate) fn new(id: TransportId, backend: SocketAddr) -> Self {
        let credentials = |side: &str| Credentials {
            ufrag: format!("{side}{:03}", id.0).into(),
            pwd: format!("{side}-password-of-generation-{}", id.0).into(),
        };
        let (server, client) = (credentials("s"), credentials("c"));
        let (server_key, client_key) = (stun::key(&server.pwd), stun::key(&client.pwd));
        Self {
            id,
            shown: server.clone(),
            shown_key: server_key.clone(),
            server,
            client,
            server_key,
            client_key,
            backend,
            pairs: BTreeMap::new(),
            selected: None,
            stays: false,
            knows_client: false,
        }
    }

    /// The same path in the words of somebody else.
    pub(crate) fn forged(&self, shown: Credentials, client: Credentials) -> Self {
        let (shown_key, client_key) = (stun::key(&shown.pwd), stun::key(&client.pwd));
        Self { shown, client, shown_key, client_key, ..Self::new(self.id, self.backend) }
    }

    /// The same leg on another node, for a client that notices nothing but another fingerprint.
    pub(crate) fn moved(&self, id: TransportId, backend: SocketAddr) -> Self {
        let Self { shown, shown_key, client, client_key, .. } = self;
        let (shown, shown_key) = (shown.clone(), shown_key.clone());
        Self { shown, shown_key, client: client.clone(), client_key: client_key.clone(), ..Self::new(id, backend) }
    }

    /// What the one for whom this is reads instead, where the node has two names.
    pub(crate) fn translation(&self, datagram: &Datagram) -> Option<Vec<u8>> {
        let (server, shown, client) = (&self.server.ufrag, &self.shown.ufrag, &self.client.ufrag);
        match datagram.truth {
            _ if server == shown => None,
            Truth::ClientCheck { id, nominate, .. } => {
                // Whatever it calls itself: who knows the node's password may try.
                let client = stun::sender(&datagram.bytes)?;
                Some(stun::message(stun::REQUEST, id, &format!("{server}:{client}"), nominate, &self.server_key))
            }
            Truth::NodeCheck { id, nominate, .. } => {
                Some(stun::message(stun::REQUEST, id, &format!("{client}:{shown}"), nominate, &self.client_key))
            }
            Truth::NodeAnswer { id, .. } => Some(stun::message(stun::SUCCESS, id, "", false, &self.shown_key)),
            _ => None,
        }
    }

    pub(crate) fn spec(&self, session: SessionId, knows_client: bool, knows_port: bool) -> TransportSpec {
        TransportSpec {
            id: self.id,
            session,
            line: 0,
            succeeds: None,
            node: self.backend.ip(),
            server: self.server.clone(),
            client: knows_client.then(|| self.client.clone()),
            backend_port: knows_port.then(|| self.backend.port()),
            node_is_lite: false,
            bytes_per_second: None,
        }
    }

    pub(crate) fn client_check(&self, id: TransactionId, nominate: bool) -> Datagram {
        let username = format!("{}:{}", self.shown.ufrag, self.client.ufrag);
        Datagram {
            bytes: stun::message(stun::REQUEST, id, &username, nominate, &self.shown_key),
            truth: Truth::ClientCheck { transport: self.id, id, nominate },
        }
    }

    pub(crate) fn client_answer(&self, id: TransactionId) -> Datagram {
        Datagram {
            bytes: stun::message(stun::SUCCESS, id, "", false, &self.client_key),
            truth: Truth::ClientAnswer { transport: self.id, id },
        }
    }

    pub(crate) fn node_answer(&self, id: TransactionId) -> Datagram {
        Datagram {
            bytes: stun::message(stun::SUCCESS, id, "", false, &self.server_key),
            truth: Truth::NodeAnswer { transport: self.id, id },
        }
    }

    fn node_check(&mut self, pool: u8, id: TransactionId, nominate: bool) -> Datagram {
        self.pairs.entry(pool).or_default().asked.push(id);
        let username = format!("{}:{}", self.client.ufrag, self.server.ufrag);
        Datagram {
            bytes: stun::message(stun::REQUEST, id, &username, nominate, &self.client_key),
            truth: Truth::NodeCheck { transport: self.id, id, nominate },
        }
    }

    /// The node hears a check on a path; its own check of that path, unless that is known to work.
    pub(crate) fn heard_check(
        &mut self,
        pool: u8,
        nominate: bool,
        id: TransactionId,
        now: Instant,
    ) -> Option<Datagram> {
        if self.stays && self.selected.is_some_and(|selected| selected != pool) {
            return None;
        }
        let pair = self.pairs.entry(pool).or_default();
        pair.wanted |= nominate;
        let valid = is_valid(pair, now);
        if nominate && valid {
            self.selected = Some(pool);
        }
        // RFC 8445 §7.3.1.4: a path that is not known to work is checked again at once.
        (!valid).then(|| self.node_check(pool, id, false))
    }

    /// The node hears an answer: a path is valid only if it asked there.
    pub(crate) fn heard_answer(&mut self, pool: u8, id: TransactionId, node_controls: bool, now: Instant) {
        let Some(pair) = self.pairs.get_mut(&pool).filter(|pair| pair.asked.contains(&id)) else { return };
        let was_valid = is_valid(pair, now);
        pair.answered = Some(now);
        if pair.wanted || (node_controls && !was_valid) {
            pair.wanted = false;
            if self.selected.is_none() || !self.stays {
                self.selected = Some(pool);
            }
        }
    }

    /// The checks that keep the node's paths open. One that was never answered is given up after a few.
    pub(crate) fn node_checks(&mut self, nominate: bool, mut id: impl FnMut() -> TransactionId) -> Vec<(u8, Datagram)> {
        let open = |pair: &&Pair| pair.asked.len() < 6 || pair.answered.is_some();
        let left = |pool: u8| self.stays && self.selected.is_some_and(|selected| selected != pool);
        let pools = self.pairs.iter().filter(|(pool, pair)| open(pair) && !left(**pool));
        let pools: Vec<u8> = pools.map(|(pool, _)| *pool).collect();
        pools.into_iter().map(|pool| (pool, self.node_check(pool, id(), nominate))).collect()
    }

    /// Where the node sends media.
    pub(crate) fn selected(&self, now: Instant) -> Option<u8> {
        self.selected.filter(|pool| self.stays || self.pairs.get(pool).is_some_and(|pair| is_valid(pair, now)))
    }
}

fn is_valid(pair: &Pair, now: Instant) -> bool {
    pair.answered.is_some_and(|at| now - at < CONSENT)
}

/// One client and what it has with its node.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) session: SessionId,
    pub(crate) node_controls: bool,
    /// Whether its node never leaves a path.
    pub(crate) node_stays: bool,
    /// Where it sends from now, and where it sent from before.
    pub(crate) address: SocketAddr,
    pub(crate) past: Vec<SocketAddr>,
    /// Oldest first; the client uses the last one.
    pub(crate) generations: Vec<Generation>,
    /// The node answered.
    pub(crate) connected: bool,
    pub(crate) closed: bool,
    pub(crate) last_down: Option<Instant>,
    pub(crate) last_up: Option<Instant>,
}

impl Peer {
    pub(crate) fn owns(&self, address: SocketAddr) -> bool {
        self.address == address || self.past.contains(&address)
    }

    pub(crate) fn generation(&mut self, id: TransportId) -> Option<&mut Generation> {
        self.generations.iter_mut().find(|generation| generation.id == id)
    }

    /// The newest generation that has a path for media.
    pub(crate) fn sending(&self, now: Instant) -> Option<(&Generation, u8)> {
        self.generations.iter().rev().find_map(|generation| Some((generation, generation.selected(now)?)))
    }
}
