//! One node: what it serves at this moment, who may have it, and how it starts, stops and dies.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    http,
    options::{NodeOptions, NodeStats},
    peer::Place,
    publish::Publishers,
    pull::Pulls,
    records::Records,
    room::Rooms,
};
use crate::registry::cluster_db::ClusterDb;

/// How long a stopping node waits for its clients to leave after `server_will_stop`.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long a stopping node waits for its tasks after that.
const LAST_WAIT: Duration = Duration::from_millis(400);

/// One node.
pub(super) struct Node {
    pub(super) options: NodeOptions,
    /// Where it really listens.
    pub(super) address: SocketAddr,
    pub(super) place: Place,
    pub(super) records: Records,
    pub(super) publishers: Publishers,
    pub(super) pulls: Pulls,
    pub(super) rooms: Rooms,
    pub(super) freezer: Freezer,
    pub(super) plays: Counter,
    pub(super) pulled: Counter,
    pub(super) sockets: Counter,
    pub(super) missed: Arc<AtomicU64>,
    /// Refuses everything new, whatever its load.
    pub(super) refusing: AtomicBool,
    /// Writes no heartbeats, neither of records nor of itself.
    pub(super) silent: AtomicBool,
    base_load: Mutex<f64>,
    /// Cancelled when the node is to stop as AMS does.
    pub(super) stopping: CancellationToken,
    /// Cancelled when the node dies at once.
    pub(super) dead: CancellationToken,
    tasks: TaskTracker,
}

impl Node {
    pub(super) fn new(options: NodeOptions, address: SocketAddr, db: ClusterDb) -> Arc<Self> {
        let ip = address.ip();
        let believed = options.traits.record_cache;
        Arc::new(Self {
            place: Place { ip, ports: options.node_ports.clone() },
            records: Records::new(db, options.app.clone(), ip.to_string(), believed),
            publishers: Publishers::default(),
            pulls: Pulls::default(),
            rooms: Rooms::default(),
            freezer: Freezer::default(),
            plays: Counter::default(),
            pulled: Counter::default(),
            sockets: Counter::default(),
            missed: Arc::default(),
            refusing: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            base_load: Mutex::new(1.0),
            stopping: CancellationToken::new(),
            dead: CancellationToken::new(),
            tasks: TaskTracker::new(),
            address,
            options,
        })
    }

    /// Runs a task that dies with the node.
    pub(super) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let dead = self.dead.clone();
        self.tasks.spawn(async move { dead.run_until_cancelled(task).await });
    }

    /// Runs a task that hears of the node's death by itself, because it has something to do then.
    pub(super) fn spawn_survivor(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Serves until it is stopped or dead.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener) {
        self.spawn(heartbeats(Arc::clone(&self)));
        tokio::select! {
            () = self.dead.cancelled() => {}
            () = self.stopping.cancelled() => {}
            () = http::accept(&self, &listener) => {}
        }
        // Nobody may connect to a node that is going or gone.
        drop(listener);
        if !self.dead.is_cancelled() {
            self.farewell().await;
        }
        self.dead.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(LAST_WAIT, self.tasks.wait()).await;
        tracing::debug!(node = %self.options.id, "demo node ended");
    }

    /// Every session has said `server_will_stop` by itself; those that stay are cut off, and their records end.
    async fn farewell(&self) {
        let _ = tokio::time::timeout(FAREWELL, self.sockets.zero()).await;
        let ended = self.publishers.end_all();
        join_all(ended.iter().map(|stream| self.records.publish_ended(stream))).await;
    }

    /// Whether something new has to be refused with `highResourceUsage`.
    pub(super) fn is_overloaded(&self) -> bool {
        self.refusing.load(Ordering::Relaxed) || self.cpu() >= self.options.traits.cpu_limit
    }

    /// The CPU that the node reports: what a test set, and what its streams would cost.
    pub(super) fn cpu(&self) -> f64 {
        let traits = &self.options.traits;
        let base = *self.base_load.lock().unwrap_or_else(PoisonError::into_inner);
        let publishes = self.publishers.count() as f64 * traits.cpu_per_publish;
        let plays = (self.plays.get() + self.pulled.get()) as f64 * traits.cpu_per_play;
        (base + publishes + plays).min(100.0)
    }

    /// Sets what the node's CPU would be without streams.
    pub(super) fn set_load(&self, percent: f64) {
        *self.base_load.lock().unwrap_or_else(PoisonError::into_inner) = percent.clamp(0.0, 100.0);
    }

    pub(super) fn stats(&self) -> NodeStats {
        NodeStats {
            publishes: self.publishers.count(),
            plays: self.plays.get(),
            pulled: self.pulled.get(),
            pulls: self.pulls.count(),
            sockets: self.sockets.get(),
            missed_packets: self.missed.load(Ordering::Relaxed),
            cpu: self.cpu(),
        }
    }
}

async fn heartbeats(node: Arc<Node>) {
    loop {
        node.freezer.thawed().await;
        if !node.silent.load(Ordering::Relaxed) {
            node.records.node_alive(node.options.id.as_str(), node.cpu()).await;
        }
        tokio::time::sleep(node.options.traits.node_heartbeat).await;
    }
}

/// A node that is frozen answers nothing and forwards nothing, as if it were stopped by a signal. (Its WebRTC transports
/// still answer ICE: only a process of its own can be frozen as a whole.)
#[derive(Debug, Clone)]
pub(super) struct Freezer(Arc<watch::Sender<bool>>);

impl Default for Freezer {
    fn default() -> Self {
        Self(Arc::new(watch::channel(false).0))
    }
}

impl Freezer {
    pub(super) fn set(&self, frozen: bool) {
        self.0.send_replace(frozen);
    }

    pub(super) fn is_frozen(&self) -> bool {
        *self.0.borrow()
    }

    /// Completes at once, or when the node is thawed.
    pub(super) async fn thawed(&self) {
        let _ = self.0.subscribe().wait_for(|frozen| !frozen).await;
    }
}

/// How many of something there are; someone may wait for none.
#[derive(Debug, Clone)]
pub(super) struct Counter {
    count: Arc<AtomicUsize>,
    changed: Arc<watch::Sender<()>>,
}

impl Default for Counter {
    fn default() -> Self {
        Self { count: Arc::default(), changed: Arc::new(watch::channel(()).0) }
    }
}

/// One of them; dropping it is one less.
pub(super) struct Counted(Counter);

impl Counter {
    pub(super) fn one(&self) -> Counted {
        self.count.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    pub(super) fn get(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Completes once there are none.
    pub(super) async fn zero(&self) {
        let _ = self.changed.subscribe().wait_for(|()| self.get() == 0).await;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.send_replace(());
    }
}

/// A map that several tasks look into for a moment.
#[derive(Debug)]
pub(super) struct Shared<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K, V> Shared<K, V> {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<K, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
