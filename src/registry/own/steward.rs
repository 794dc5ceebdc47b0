//! Once a second: this door's heartbeat, the others', and every node's order, to and from the store; then what follows
//! from them for placement.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;

use super::{DoorDoc, NodeDoc, StateFile};
use crate::{
    clock,
    domain::{
        balance::{Legs, Snapshot},
        ids::{AppName, NodeId},
    },
    registry::{cache::WritersClock, facade::Inner, nodes::ams_names, skew::Skews, source::Source, store::StoreError},
};

/// From one round to the next: an order is seen by every door within 2 s, with change streams or without.
const ROUND: Duration = Duration::from_secs(1);
/// A drained origin's streams are counted every so many rounds while it still has publishes of ours.
const COUNT_EVERY: u32 = 5;

/// The one who does it.
#[derive(Debug)]
pub(in crate::registry) struct Steward {
    inner: Arc<Inner>,
    state_file: Option<StateFile>,
    /// What is on disk.
    on_disk: Vec<super::state_file::Kept>,
    prepared: bool,
    beat: i64,
    rounds: u32,
    said: bool,
}

impl Steward {
    pub(in crate::registry) fn new(inner: Arc<Inner>, state_file: Option<StateFile>) -> Self {
        Self { inner, state_file, on_disk: Vec::new(), prepared: false, beat: 0, rounds: 0, said: false }
    }

    /// Before the first placement: what this machine's disk says, then what the store says within `limit`.
    pub(in crate::registry) async fn begin(&mut self, limit: Duration) {
        if let Some(file) = &self.state_file {
            self.on_disk = file.load();
            self.inner.drains.restore(self.on_disk.clone());
        }
        self.apply();
        if self.inner.link.is_up() || self.inner.source.is_none() {
            let _ = tokio::time::timeout(limit, self.round()).await;
        }
    }

    /// Until the door ends; its heartbeat is then taken back, so that nobody waits for its legs.
    pub(in crate::registry) async fn run(mut self) {
        let stop = self.inner.shutdown.child();
        let poked = Arc::clone(&self.inner.poked);
        while stop.run_until_cancelled(pause(&poked)).await.is_some() {
            self.round().await;
        }
        if let Some(source) = &self.inner.source {
            let _ = source.leave(&self.inner.door.id).await;
        }
    }

    async fn round(&mut self) {
        self.rounds = self.rounds.wrapping_add(1);
        let exchanged = match self.inner.source.clone() {
            None => true,
            Some(source) if self.inner.link.is_up() => self.exchange(&source).await,
            Some(_) => false,
        };
        self.look(exchanged).await;
        self.apply();
        self.keep().await;
    }

    /// Both ways with the store; says whether all of it worked.
    async fn exchange(&mut self, source: &Source) -> bool {
        match self.try_exchange(source).await {
            Ok(()) => {
                self.said = false;
                true
            }
            Err(error) => {
                self.inner.facts.store_errors.add();
                self.inner.link.failed(&error);
                if !matches!(error, StoreError::Away(_)) && !std::mem::replace(&mut self.said, true) {
                    tracing::warn!(%error, "the database forebay cannot be used; this door goes on alone");
                }
                false
            }
        }
    }

    async fn try_exchange(&mut self, source: &Source) -> Result<(), StoreError> {
        if !self.prepared {
            self.prepared = true;
            if let Err(error) = source.prepare_own().await {
                tracing::warn!(%error, "the database forebay has no TTL indexes: leftovers stay until they are removed");
            }
        }
        self.beat += 1;
        source.beat(&self.heartbeat()).await?;
        let now_ms = now_ms(&self.inner.skews);
        let mark = self.inner.drains.mark();
        for (doc, replaces) in self.inner.drains.merge(source.node_docs().await?, mark) {
            if source.put_order(&doc, replaces).await? {
                tracing::info!(node = %doc.node, drains = doc.order.is_some(), "a drain changed without the store is in it now");
                self.inner.drains.put(doc, false);
            }
        }
        let (docs, table) = (source.door_docs().await?, table(&self.inner.book().snapshot()));
        self.inner.peers.take(docs, &self.inner.door.id, &table, clock::now());
        for (node, since_ms, counts) in self.inner.drains.take_counts() {
            let kept = source.add_counts(&node, since_ms, counts.moved, counts.failed).await;
            self.inner.drains.counts_kept(&node, since_ms, counts, kept.is_ok());
            kept?;
        }
        let pins = self.inner.pins.take_kept();
        if !pins.is_empty() {
            source.keep_pins(pins, now_ms.saturating_add(crate::registry::pins::HOLD_MS)).await?;
        }
        Ok(())
    }

    fn heartbeat(&self) -> DoorDoc {
        let orders = self.inner.drains.orders();
        let mut book = self.inner.book();
        // What it says to obey, it obeys: no leg is placed there between this and the count of its legs.
        book.set_drains(&self.inner.drains.wishes(), clock::now());
        DoorDoc {
            id: self.inner.door.id.clone(),
            name: self.inner.door.name.clone(),
            public_url: self.inner.door.public_url.clone(),
            draining: self.inner.door.is_draining(),
            table: table(book.view()),
            beat: self.beat,
            legs: book.own_legs().into_iter().collect(),
            drains: Some(orders.into_iter().map(|(node, order, _)| (node, order.since_ms)).collect()),
        }
    }

    /// How each draining node stands, and which of them are empty now.
    async fn look(&mut self, exchanged: bool) {
        let inner = &self.inner;
        let now = clock::now();
        let (snapshot, own) = {
            let mut book = inner.book();
            // While the store is away the others' legs are where they were, as far as anybody knows.
            if exchanged {
                book.set_others(&inner.peers.legs(now), now);
            }
            (book.snapshot(), book.own_legs())
        };
        let orders = inner.drains.orders();
        if orders.is_empty() {
            return;
        }
        let mut standing = Vec::new();
        for (node, order, _) in &orders {
            let view = snapshot.get(node);
            let own = own.get(node).copied().unwrap_or_default();
            let legs = view.map_or(own, |view| view.legs);
            let doors = inner.peers.with_legs_on(node, inner.heard_until()) + usize::from(own != Legs::default());
            let publishes = view.is_some_and(|view| view.spec.role.takes_publish());
            let due = legs.publish == 0 || self.rounds.is_multiple_of(COUNT_EVERY);
            let streams = match (publishes, exchanged && due && order.drained_ms.is_none()) {
                (true, true) => self.live_streams(&snapshot, node).await,
                _ => inner.drains.view(node, crate::registry::Kept::Memory).and_then(|view| view.streams),
            };
            let known = inner.peers.all_obey(node, order.since_ms, inner.heard_until());
            standing.push((node.clone(), legs, doors, streams, publishes, known));
        }
        inner.drains.note(|node| {
            let stands = standing.iter().find(|(of, ..)| of == node);
            stands.map_or((Legs::default(), 0, None), |(_, legs, doors, streams, ..)| (*legs, *doors, *streams))
        });
        for (node, legs, _, streams, publishes, known) in standing {
            // A door that does not know of the drain yet may be placing a leg there now.
            let is_empty =
                known && legs == Legs::default() && (!publishes || streams == Some(0) || inner.source.is_none());
            if is_empty && exchanged {
                self.drained(&node).await;
            }
        }
    }

    /// Live records that name this node, by any of its names that is nobody else's.
    async fn live_streams(&self, snapshot: &Snapshot, node: &NodeId) -> Option<u32> {
        let (source, spec) = (self.inner.source.as_ref()?, &snapshot.get(node)?.spec);
        let is_its = |name: &String| snapshot.by_ams_name(name).is_some_and(|named| named.spec.id == *node);
        let names: Vec<String> = ams_names(spec).into_iter().filter(is_its).collect();
        let apps: Vec<AppName> = self.inner.apps();
        let since_ms = self.inner.skews.judged_ms(None).saturating_sub(self.inner.cache.policy.live_window_ms);
        source.live_streams(&apps, &names, since_ms).await.ok()
    }

    /// The node is empty: it is drained from now on.
    async fn drained(&self, node: &NodeId) {
        let _one = self.inner.drains.operating.lock().await;
        let (Some(mut order), revision) = self.inner.drains.order(node) else { return };
        if order.drained_ms.is_some() {
            return;
        }
        let now_ms = now_ms(&self.inner.skews);
        order.drained_ms = Some(now_ms);
        let doc = NodeDoc {
            node: node.clone(),
            revision: revision + 1,
            changed_ms: now_ms,
            order: Some(order),
            moved: 0,
            failed: 0,
        };
        let stored = match &self.inner.source {
            None => true,
            // Whoever changed it meanwhile knows better: the next round looks again.
            Some(source) => matches!(source.put_order(&doc, revision).await, Ok(true)),
        };
        if stored {
            tracing::info!(%node, "drained");
            self.inner.drains.put(doc, self.inner.source.is_none());
        }
    }

    fn apply(&self) {
        let wishes = self.inner.drains.wishes();
        self.inner.book().set_drains(&wishes, clock::now());
    }

    /// Writes to disk what has changed since.
    async fn keep(&mut self) {
        let Some(file) = self.state_file.clone() else { return };
        let kept = self.inner.drains.to_keep();
        if kept == self.on_disk {
            return;
        }
        let written = kept.clone();
        match tokio::task::spawn_blocking(move || file.store(&written)).await {
            Ok(Ok(())) => self.on_disk = kept,
            Ok(Err(error)) => {
                // Said every round: a drain that a restart forgets is worth it.
                tracing::warn!(%error, "drains cannot be kept in door.state_dir");
            }
            Err(_) => {}
        }
    }
}

/// Until the next round is due, or somebody cannot wait for it.
async fn pause(poked: &Notify) {
    tokio::select! {
        () = tokio::time::sleep(ROUND) => {}
        () = poked.notified() => {}
    }
}

/// The cluster's wall clock: the store's, as far as it was measured.
pub(in crate::registry) fn now_ms(skews: &Skews) -> i64 {
    skews.now_ms(None)
}

/// The hash of the table of nodes, as it is stored.
pub(in crate::registry) fn table(snapshot: &Snapshot) -> String {
    format!("{:016x}", snapshot.table_hash())
}
