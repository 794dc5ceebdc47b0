//! Which node a forwarded request goes to: feeds `domain::http::choose`, asks placement, and remembers who watches where.

mod viewers;

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

pub(super) use self::viewers::Viewers;
use self::viewers::{Viewer, Watching};
use super::{Sessions, router::LegSeat};
use crate::{
    domain::{
        balance::{Request, Snapshot, Want},
        http::{
            choose::{self, Pick, choose, tag},
            errand::Errand,
        },
        ids::{AppName, Kind, NodeAddr, NodeId, StreamId, StreamKey},
        routing::Lookup,
    },
    registry::Registry,
};

/// A forwarded request's question.
#[derive(Debug, Clone, Copy)]
pub struct HttpAsk<'a> {
    /// The app.
    pub app: &'a AppName,
    /// What it wants.
    pub errand: &'a Errand,
    /// The file below `streams/`, for [`Errand::Watch`].
    pub file: &'a str,
    /// The client's address.
    pub client: IpAddr,
    /// The client's `User-Agent`: viewers behind one address are told apart by it.
    pub agent: &'a [u8],
    /// The tag of the node that the client's cookie names ([`HttpNode::tag`]).
    pub cookie: Option<u64>,
    /// Nodes that have already failed this request.
    pub avoid: &'a [NodeId],
}

/// The node that was chosen for a request.
#[derive(Debug)]
pub struct HttpNode {
    /// Its id.
    pub id: NodeId,
    /// Where its HTTP port is.
    pub address: NodeAddr,
    /// The rule that chose it, for logs.
    pub rule: &'static str,
    registry: Registry,
    shared: Arc<HttpShared>,
    /// A viewer who is to be remembered here once he is served.
    viewer: Option<(Viewer, StreamId, LegSeat)>,
}

/// No node takes the request now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no node takes this request now")]
pub struct NoNode;

/// What the choices of one door have in common.
#[derive(Debug, Default)]
pub(super) struct HttpShared {
    pub(super) viewers: Viewers,
    /// Nodes whose last forwarded request failed, so that the next good one is worth telling.
    failing: Mutex<HashSet<NodeId>>,
    any_failing: AtomicBool,
}

impl HttpNode {
    /// A word that stands for the node in a cookie; the same at every door.
    pub fn tag(&self) -> u64 {
        tag(&self.id)
    }

    /// The node has answered: what failed before may be over.
    pub fn answered(&self) {
        if !self.shared.any_failing.load(Ordering::Relaxed) {
            return;
        }
        let mut failing = self.shared.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if failing.remove(&self.id) {
            self.registry.link_ok(&self.id);
        }
        self.shared.any_failing.store(!failing.is_empty(), Ordering::Relaxed);
    }

    /// The node has failed this request: three in a row and it is left alone for a while.
    pub fn failed(&self, cause: &str) {
        let mut failing = self.shared.failing.lock().unwrap_or_else(PoisonError::into_inner);
        // Ids of nodes that are gone would add up.
        failing.retain(|node| self.registry.snapshot().get(node).is_some());
        failing.insert(self.id.clone());
        self.shared.any_failing.store(true, Ordering::Relaxed);
        drop(failing);
        self.registry.link_failed(&self.id, cause);
    }

    /// The viewer has got what he asked for: from now on he is counted and stays here. Without this the place that was
    /// reserved for him is given back.
    pub fn served(&mut self) {
        if let Some((viewer, stream, seat)) = self.viewer.take() {
            self.shared.viewers.enter(viewer, stream, seat);
        }
    }
}

impl Sessions {
    /// Chooses the node for a forwarded request. Waits for the store at most its read limit (500 ms).
    ///
    /// # Errors
    /// [`NoNode`]: a 503.
    pub async fn http_node(&self, ask: HttpAsk<'_>) -> Result<HttpNode, NoNode> {
        let registry = self.shared.router.registry();
        let chosen = Choosing { registry, shared: &self.shared.http, ask }.run().await?;
        let snapshot = registry.snapshot();
        let address = snapshot.get(&chosen.node).map(|node| node.spec.address).ok_or(NoNode)?;
        Ok(HttpNode {
            id: chosen.node,
            address,
            rule: chosen.rule,
            registry: registry.clone(),
            shared: Arc::clone(&self.shared.http),
            viewer: chosen.viewer,
        })
    }
}

struct Choosing<'a> {
    registry: &'a Registry,
    shared: &'a HttpShared,
    ask: HttpAsk<'a>,
}

struct Chosen {
    node: NodeId,
    rule: &'static str,
    viewer: Option<(Viewer, StreamId, LegSeat)>,
}

impl Choosing<'_> {
    async fn run(self) -> Result<Chosen, NoNode> {
        let viewer = Viewer::new(self.ask.app, self.ask.client, self.ask.agent);
        let mut stream = match self.ask.errand {
            Errand::Watch(stream) | Errand::Change(stream) => stream.clone(),
            Errand::ReadAtOrigin(stream) => Some(stream.clone()),
            Errand::Page | Errand::Read | Errand::Create => None,
        };
        if let Errand::Watch(_) = self.ask.errand {
            match self.shared.viewers.find(&viewer, self.ask.file) {
                Some(Watching { node, .. }) if self.may_keep(&node) => return Ok(known(node, "viewer")),
                // His edge is gone: he goes on with the same stream elsewhere.
                Some(watching) => stream = Some(watching.stream),
                None => {}
            }
        }
        let lookup = match &stream {
            Some(stream) => self.registry.look_up(&self.key(stream)).await,
            None => Lookup::Missing,
        };
        if let Some(node) = self.by_cookie(&lookup)
            && let Some(chosen) = self.keep(node, &viewer, stream.as_ref())
        {
            return Ok(chosen);
        }
        let snapshot = self.registry.snapshot();
        let picks = choose(self.ask.errand, &lookup, self.ask.avoid, &snapshot);
        drop(snapshot);
        let hashed = stream.clone().map_or_else(|| self.own_key(), |stream| self.key(&stream));
        picks.into_iter().find_map(|pick| self.take(pick, &hashed, &viewer, stream.as_ref())).ok_or(NoNode)
    }

    fn key(&self, stream: &StreamId) -> StreamKey {
        StreamKey { app: self.ask.app.clone(), stream: stream.clone() }
    }

    /// What is hashed where no stream is: the viewer, so that he finds the same node again; for calls by REST, chance.
    fn own_key(&self) -> StreamKey {
        let number = match self.ask.errand {
            Errand::Watch(_) | Errand::Page => {
                let mut hasher = DefaultHasher::new();
                (self.ask.client, self.ask.agent).hash(&mut hasher);
                hasher.finish()
            }
            Errand::Read | Errand::ReadAtOrigin(_) | Errand::Create | Errand::Change(_) => fastrand::u64(..),
        };
        self.key(&format!("{number:x}").parse().expect("hexadecimal digits are a legal id"))
    }

    fn may_keep(&self, node: &NodeId) -> bool {
        choose::may_keep(node, self.ask.avoid, &self.registry.snapshot())
    }

    /// The node of the viewer's cookie, where it may be kept. Recordings lie where they lie, whatever he has.
    fn by_cookie(&self, lookup: &Lookup) -> Option<NodeId> {
        let is_recording = matches!(lookup, Lookup::Found { live: false, .. });
        if is_recording || !matches!(self.ask.errand, Errand::Watch(_) | Errand::Page) {
            return None;
        }
        let cookie = self.ask.cookie?;
        let snapshot: Arc<Snapshot> = self.registry.snapshot();
        let node = snapshot.nodes.iter().find(|node| tag(&node.spec.id) == cookie)?;
        choose::may_keep(&node.spec.id, self.ask.avoid, &snapshot).then(|| node.spec.id.clone())
    }

    /// Stays with the node of his cookie, if it has room for one more that this door did not know of.
    fn keep(&self, node: NodeId, viewer: &Viewer, stream: Option<&StreamId>) -> Option<Chosen> {
        let (Errand::Watch(_), Some(stream)) = (self.ask.errand, stream) else { return Some(known(node, "cookie")) };
        let pick = Pick::Ask { want: Want::Only(node), kind: Some(Kind::Play) };
        self.take(pick, &self.key(stream), viewer, Some(stream))
    }

    fn take(&self, pick: Pick, key: &StreamKey, viewer: &Viewer, stream: Option<&StreamId>) -> Option<Chosen> {
        let (want, kind) = match pick {
            Pick::This { node, rule } => return Some(known(node, rule)),
            Pick::Ask { want, kind } => (want, kind),
        };
        // Who cannot be remembered is not counted either: he would be counted again with every request.
        let kind = kind.filter(|_| stream.is_some() && self.shared.viewers.has_room(viewer));
        let rule = "cookie";
        let request = Request { stream: key, want, rule, kind, exclude: self.ask.avoid, seed: fastrand::u64(..) };
        let placement = self.registry.place(&request).ok()?;
        let seat = LegSeat::new(self.registry.clone(), placement.node.clone(), kind);
        let viewer = kind.and(stream).map(|stream| (viewer.clone(), stream.clone(), seat));
        Some(Chosen { node: placement.node, rule: placement.rule, viewer })
    }
}

fn known(node: NodeId, rule: &'static str) -> Chosen {
    Chosen { node, rule, viewer: None }
}
