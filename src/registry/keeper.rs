//! Asks the store whether it is there, reads its list of nodes, and lets time pass in the book.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    facade::Inner,
    nodes::Roster,
    skew::{LARGE_SKEW_MS, Measured},
    source::Source,
    store::{NodeStore, StoreError},
};
use crate::{
    clock,
    domain::{balance::NodeSpec, ids::NodeId},
};

/// How often a store that is away is asked: at first, and at most.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(1);
/// How often the book is told that time passes.
const TICK: Duration = Duration::from_secs(1);

/// Starts the room's regular work.
pub(super) fn start(inner: &Arc<Inner>, keeper: Option<Keeper>) {
    let (ticking, stop) = (Arc::clone(inner), inner.shutdown.child());
    inner.shutdown.spawn(async move {
        let mut ticks = tokio::time::interval(TICK);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            ticking.book().tick(clock::now());
        }
    });
    let Some(mut keeper) = keeper else { return };
    let stop = inner.shutdown.child();
    inner.shutdown.spawn(async move { stop.run_until_cancelled(keeper.run()).await });
}

/// The one who asks the store at regular intervals.
pub(super) struct Keeper {
    inner: Arc<Inner>,
    source: Source,
    roster: Roster,
    poll: Duration,
    /// The nodes that the book was given last; `None`: none yet.
    placed: Option<Vec<NodeSpec>>,
    said_skew: bool,
    said_nodes: bool,
}

impl Keeper {
    pub(super) fn new(inner: Arc<Inner>, source: Source, roster: Roster, poll: Duration) -> Self {
        Self { inner, source, roster, poll, placed: None, said_skew: false, said_nodes: false }
    }

    /// Before the first round of regular work: one round now, as far as `limit` reaches. The book's first nodes serve at
    /// once, so it is given all that can be known by then.
    pub(super) async fn begin(&mut self, limit: Duration) {
        let _ = timeout(limit, self.ask()).await;
        if self.placed.is_none() {
            self.place(self.roster.fixed());
        }
    }

    async fn run(&mut self) {
        let mut retry = RETRY_FIRST;
        loop {
            if self.inner.link.is_up() {
                retry = RETRY_FIRST;
                tokio::select! {
                    () = tokio::time::sleep(self.poll) => {}
                    () = self.inner.link.lost() => {}
                    () = self.inner.renewed.notified() => self.renew(),
                }
            } else {
                tokio::select! {
                    () = tokio::time::sleep(retry) => retry = (retry * 2).min(RETRY_LAST),
                    () = self.inner.renewed.notified() => self.renew(),
                }
            }
            self.ask().await;
        }
    }

    /// Takes the nodes of another configuration. Those that only the store lists stay until it is read again.
    fn renew(&mut self) {
        let nodes = self.inner.nodes.load_full();
        self.poll = nodes.poll;
        let before = self.roster.fixed();
        self.roster.reconfigure((*nodes).clone());
        let mut now = self.roster.fixed();
        let fixed = |id: &NodeId, nodes: &[NodeSpec]| nodes.iter().any(|node| node.id == *id);
        let listed = self.placed.iter().flatten().filter(|node| !fixed(&node.id, &before) && !fixed(&node.id, &now));
        let listed: Vec<NodeSpec> = listed.cloned().collect();
        now.extend(listed);
        self.place(now);
    }

    /// One round: is it there, what is its clock, which nodes does it list.
    pub(super) async fn ask(&mut self) {
        let asked_ms = clock::wall_ms();
        let answer = self.source.wall_ms().await;
        let store_skew_ms = match answer {
            Ok(theirs_ms) => {
                // The answer was given somewhere between question and arrival.
                let ours_ms = asked_ms.midpoint(clock::wall_ms());
                theirs_ms.saturating_sub(ours_ms)
            }
            Err(StoreError::Refused { .. } | StoreError::NoChanges(_) | StoreError::HistoryLost(_)) => 0,
            Err(error) => {
                self.inner.facts.store_errors.add();
                self.inner.link.failed(&error);
                if !self.inner.link.is_up() {
                    self.inner.link.still_away(&error);
                }
                return;
            }
        };
        self.inner.answered();
        self.take_skew(store_skew_ms);
        self.read_nodes(store_skew_ms).await;
    }

    fn take_skew(&mut self, skew_ms: i64) {
        let large = skew_ms.saturating_abs() > LARGE_SKEW_MS;
        if large && !self.said_skew {
            tracing::warn!(skew_ms, "the store's clock is more than 2 s off ours; one of them needs NTP");
        }
        self.said_skew = large;
    }

    async fn read_nodes(&mut self, store_skew_ms: i64) {
        let rows = match self.source.nodes().await {
            Ok(rows) => rows,
            Err(error) => {
                self.inner.facts.store_errors.add();
                if !std::mem::replace(&mut self.said_nodes, true) {
                    tracing::warn!(%error, "clusterdb.clusternode cannot be read; the nodes stay as they are known");
                }
                self.inner.skews.publish(Measured { store_ms: store_skew_ms, ..Measured::default() });
                return;
            }
        };
        self.said_nodes = false;
        let known = self.inner.book().snapshot();
        let now = clock::now();
        let poll = self.roster.take(rows, &known, now, clock::wall_ms());
        self.inner.skews.publish(Measured { store_ms: store_skew_ms, origins: poll.skews });
        self.place(poll.nodes);
        let mut book = self.inner.book();
        for (node, report) in poll.reports {
            book.report(&node, report);
        }
    }

    /// Gives the book its nodes, if they differ from the last ones.
    fn place(&mut self, nodes: Vec<NodeSpec>) {
        if self.placed.as_ref() == Some(&nodes) {
            return;
        }
        let before = self.placed.as_ref().map_or(0, Vec::len);
        tracing::info!(nodes = nodes.len(), before, "the cluster's nodes");
        self.inner.book().set_nodes(nodes.clone(), clock::now());
        self.placed = Some(nodes);
    }
}
