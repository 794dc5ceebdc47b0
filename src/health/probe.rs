//! Asks every node whether it is there, again and again, and reports what it saw.
//!
//! One task per node; tasks come and go with the nodes of the snapshot. What an outcome means (how many make a node
//! down) is decided where outcomes are reported to. A node in trouble is asked as often as any other, and a fresh
//! connection per probe sees what a client would see.

use std::{
    collections::BTreeMap,
    fmt::Display,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    clock, config,
    domain::{
        balance::{ProbeOutcome, Snapshot},
        ids::{NodeAddr, NodeId},
    },
    registry::Registry,
    shutdown::Shutdown,
    telemetry::metrics::Metrics,
};

/// Probes at a time; one more waits for a seat, at most the timeout of one that has it.
const PROBES_AT_ONCE: usize = 256;
/// How often the set of nodes is compared with the snapshot, at most; short probe intervals shorten it.
const FOLLOW: Duration = Duration::from_secs(1);

/// What each node's last probe saw. Clones share it; a node's entry ends with its probing.
#[derive(Debug, Clone, Default)]
pub struct Probes(Arc<Mutex<BTreeMap<NodeId, Probed>>>);

/// The last probe of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// When it ended.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
    /// Whether the node answered.
    pub outcome: ProbeOutcome,
}

impl Probes {
    /// The last probe of a node, if there was one yet.
    pub fn of(&self, node: &NodeId) -> Option<Probed> {
        self.lock().get(node).cloned()
    }

    fn note(&self, node: &NodeId, probed: Probed) {
        self.lock().insert(node.clone(), probed);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Probed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Knows the nodes, and takes what probes see of them.
pub trait ReportsNodes: Clone + Send + Sync + 'static {
    /// All nodes at this moment.
    fn snapshot(&self) -> Arc<Snapshot>;
    /// Takes an outcome; a node that is gone meanwhile is no error.
    fn probe(&self, node: &NodeId, outcome: ProbeOutcome);
}

impl ReportsNodes for Registry {
    fn snapshot(&self) -> Arc<Snapshot> {
        Self::snapshot(self)
    }

    fn probe(&self, node: &NodeId, outcome: ProbeOutcome) {
        Self::probe(self, node, outcome);
    }
}

/// Probes nodes until the process ends.
#[derive(Debug, Clone)]
pub struct Prober<R> {
    nodes: R,
    ask: Arc<ArcSwap<Ask>>,
    metrics: Metrics,
    probes: Probes,
}

/// How nodes are asked.
#[derive(Debug)]
struct Ask {
    interval: Duration,
    limit: Duration,
    path: Option<String>,
    seats: Arc<Semaphore>,
}

impl Ask {
    fn new(settings: &config::Health, seats: Arc<Semaphore>) -> Self {
        let (interval, limit) = (settings.probe_interval, settings.probe_timeout);
        Self { interval, limit, path: settings.probe_path.clone(), seats }
    }
}

impl<R: ReportsNodes> Prober<R> {
    /// Starts probing the nodes that `nodes` knows, as `settings` say. What is returned may be dropped.
    pub fn start(settings: &config::Health, nodes: R, metrics: Metrics, shutdown: &Shutdown) -> Self {
        let ask = Ask::new(settings, Arc::new(Semaphore::new(PROBES_AT_ONCE)));
        let prober = Self { nodes, ask: Arc::new(ArcSwap::from_pointee(ask)), metrics, probes: Probes::default() };
        let (stop, following) = (shutdown.child(), prober.clone());
        shutdown.spawn(async move { stop.run_until_cancelled(following.follow()).await });
        prober
    }

    /// Where the last outcomes can be read.
    pub fn probes(&self) -> Probes {
        self.probes.clone()
    }

    /// Asks otherwise from each node's next probe on.
    pub fn reconfigure(&self, settings: &config::Health) {
        let seats = Arc::clone(&self.ask.load().seats);
        self.ask.store(Arc::new(Ask::new(settings, seats)));
    }

    /// Keeps one task per node of the snapshot.
    async fn follow(self) {
        let mut tasks = JoinSet::new();
        let mut running: BTreeMap<(NodeId, NodeAddr), tokio::task::AbortHandle> = BTreeMap::new();
        let mut again = interval(FOLLOW.min(self.ask.load().interval));
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            again.tick().await;
            let snapshot = self.nodes.snapshot();
            let wanted = |id: &NodeId, at: NodeAddr| snapshot.get(id).is_some_and(|node| node.spec.address == at);
            running.retain(|(id, at), task| {
                let keep = wanted(id, *at);
                if !keep {
                    task.abort();
                }
                keep
            });
            for node in &snapshot.nodes {
                let key = (node.spec.id.clone(), node.spec.address);
                running.entry(key).or_insert_with_key(|(id, at)| tasks.spawn(self.clone().watch(id.clone(), *at)));
            }
            self.probes.lock().retain(|id, _| snapshot.get(id).is_some());
            while tasks.try_join_next().is_some() {}
        }
    }

    /// Probes one node for as long as it is one.
    async fn watch(self, node: NodeId, at: NodeAddr) {
        // Many nodes that come at once are not asked at once.
        let begin = self.ask.load().interval.mul_f64(fastrand::f64() / 5.0);
        sleep(begin).await;
        loop {
            let begun = clock::now();
            let ask = self.ask.load_full();
            let outcome = ask.once(at).await;
            let now = clock::now();
            let probed = Probed { at: now, took: now - begun, outcome: outcome.clone() };
            self.probes.note(&node, probed);
            self.metrics.probed(&node, outcome == ProbeOutcome::Answered);
            self.nodes.probe(&node, outcome);
            sleep(ask.interval.mul_f64(jitter())).await;
        }
    }
}

/// 0.8 to 1.2.
fn jitter() -> f64 {
    fastrand::f64().mul_add(0.4, 0.8)
}

impl Ask {
    async fn once(&self, at: NodeAddr) -> ProbeOutcome {
        let _seat = self.seats.acquire().await.expect("the semaphore is never closed");
        match timeout(self.limit, self.attempt(at)).await {
            Ok(Ok(())) => ProbeOutcome::Answered,
            Ok(Err(why)) => failed(why),
            Err(_) => failed(format_args!("no answer within {:?}", self.limit)),
        }
    }

    async fn attempt(&self, at: NodeAddr) -> Result<(), ProbeError> {
        let stream = TcpStream::connect(at.0).await.map_err(ProbeError::Connect)?;
        match &self.path {
            None => Ok(()),
            Some(path) => get(stream, at, path).await,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("could not connect: {0}")]
    Connect(io::Error),
    #[error("did not answer in HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("health.probe_path cannot be asked for: {0}")]
    Path(#[from] hyper::http::Error),
}

fn failed(why: impl Display) -> ProbeOutcome {
    ProbeOutcome::Failed(why.to_string().into())
}

/// Any status counts: a node that refuses politely is there (its address filter may forbid the path).
async fn get(stream: TcpStream, at: NodeAddr, path: &str) -> Result<(), ProbeError> {
    let request = Request::get(path)
        .header(header::HOST, at.to_string())
        .header(header::USER_AGENT, "forebay-probe")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = std::pin::pin!(sender.send_request(request));
    // An answer that came just before the end of the connection counts; the end alone does not.
    let driven = async {
        // Why the connection ended is what the answer says.
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        () = driven => {}
        answer = answer => drop(answer?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use socket2::{Domain, Socket, Type};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        sync::mpsc,
    };

    use super::*;
    use crate::domain::{
        balance::{BalanceSettings, Book, NodeSpec},
        ids::Role,
    };

    /// Nodes of a test, and what was seen of them.
    #[derive(Debug, Clone)]
    struct Fake {
        nodes: Arc<Mutex<Arc<Snapshot>>>,
        seen: mpsc::UnboundedSender<(NodeId, ProbeOutcome)>,
    }

    impl Fake {
        fn new(nodes: &[(&str, SocketAddr)]) -> (Self, mpsc::UnboundedReceiver<(NodeId, ProbeOutcome)>) {
            let (seen, outcomes) = mpsc::unbounded_channel();
            let fake = Self { nodes: Arc::default(), seen };
            fake.set(nodes);
            (fake, outcomes)
        }

        fn set(&self, nodes: &[(&str, SocketAddr)]) {
            let mut book = Book::new(BalanceSettings::default());
            book.set_nodes(nodes.iter().map(|(id, at)| spec(id, *at)).collect(), Instant::now());
            *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) = book.snapshot();
        }
    }

    impl ReportsNodes for Fake {
        fn snapshot(&self) -> Arc<Snapshot> {
            Arc::clone(&self.nodes.lock().unwrap_or_else(PoisonError::into_inner))
        }

        fn probe(&self, node: &NodeId, outcome: ProbeOutcome) {
            // The test may have seen enough and gone.
            let _ = self.seen.send((node.clone(), outcome));
        }
    }

    fn spec(id: &str, at: SocketAddr) -> NodeSpec {
        NodeSpec {
            id: id.parse().unwrap(),
            address: NodeAddr(at),
            role: Role::Both,
            zone: None,
            aliases: Vec::new(),
            max_publishes: None,
            max_plays: None,
        }
    }

    fn settings(path: Option<&str>) -> config::Health {
        config::Health {
            bind: None,
            probe_interval: Duration::from_millis(100),
            probe_timeout: Duration::from_millis(500),
            probe_path: path.map(str::to_owned),
        }
    }

    /// Answers every connection with `answer` once something was asked.
    async fn node_that_says(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut asked = [0; 1024];
                    let _ = stream.read(&mut asked).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        at
    }

    /// The first outcome of a lone node.
    async fn outcome(at: SocketAddr, path: Option<&str>) -> ProbeOutcome {
        let (fake, mut outcomes) = Fake::new(&[("n", at)]);
        let shutdown = Shutdown::new();
        Prober::start(&settings(path), fake, Metrics::new(), &shutdown);
        let first = timeout(Duration::from_secs(10), outcomes.recv()).await.unwrap().unwrap().1;
        assert!(shutdown.finish(Duration::from_secs(5)).await, "probing ends when it is told to");
        first
    }

    #[tokio::test]
    async fn any_http_answer_is_a_sign_of_life() {
        for answer in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 403 Forbidden\r\n\r\n", "HTTP/1.0 503 Busy\r\n\r\n"] {
            assert_eq!(outcome(node_that_says(answer).await, Some("/")).await, ProbeOutcome::Answered, "{answer}");
        }
    }

    #[tokio::test]
    async fn what_answers_but_not_in_http_is_no_node() {
        for answer in ["SSH-2.0-x\r\n\r\n", ""] {
            let ProbeOutcome::Failed(why) = outcome(node_that_says(answer).await, Some("/")).await else {
                panic!("{answer:?} counted as an answer");
            };
            assert!(why.contains("HTTP"), "{why}");
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_a_failure_that_says_so() {
        // Bound but not listening: nobody else can take the port, and connections are refused.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let at = socket.local_addr().unwrap().as_socket().unwrap();
        for path in [None, Some("/")] {
            let ProbeOutcome::Failed(why) = outcome(at, path).await else { panic!("a closed port answered") };
            assert!(why.contains("refused"), "{why}");
        }
    }

    #[tokio::test]
    async fn a_frozen_node_connects_but_does_not_answer_http() {
        // The kernel accepts for a process that never does.
        let frozen = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = frozen.local_addr().unwrap();
        assert_eq!(outcome(at, None).await, ProbeOutcome::Answered, "a mere connect is fooled");
        assert_eq!(outcome(at, Some("/")).await, ProbeOutcome::Failed("no answer within 500ms".into()));
    }

    #[tokio::test]
    async fn probes_follow_the_nodes_as_they_come_and_go() {
        let at = node_that_says("HTTP/1.1 200 OK\r\n\r\n").await;
        let (fake, mut outcomes) = Fake::new(&[("a", at)]);
        let shutdown = Shutdown::new();
        Prober::start(&settings(Some("/")), fake.clone(), Metrics::new(), &shutdown);
        let mut next = async |wanted: &str| {
            let seen = async { while outcomes.recv().await.is_none_or(|(id, _)| id.as_str() != wanted) {} };
            timeout(Duration::from_secs(10), seen).await.unwrap_or_else(|_| panic!("{wanted} was not probed"));
        };
        next("a").await;
        next("a").await;
        fake.set(&[("b", at)]);
        next("b").await;
        next("b").await;
        next("b").await;
        // By now `a` is forgotten: of what is still to come, nothing is about it.
        fake.set(&[("c", at)]);
        next("c").await;
        next("c").await;
        while let Ok((id, _)) = outcomes.try_recv() {
            assert_ne!(id.as_str(), "a");
        }
        shutdown.stop();
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        assert!((0..1000).map(|_| jitter()).all(|factor| (0.8..=1.2).contains(&factor)));
    }
}
