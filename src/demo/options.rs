//! What a demo node is told: where it stands, what it may use, and how unkind it is.

use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

use crate::domain::ids::{AppName, NodeId, Role};

/// A whole cluster in one process: origins first, on 127.0.1.1 and up, all on one HTTP port.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterOptions {
    /// How many origins: `origin-1` …
    pub origins: usize,
    /// How many edges: `edge-1` …
    pub edges: usize,
    /// The only app that the nodes serve.
    pub app: AppName,
    /// The HTTP and WebSocket port of every node; 0 picks one that is free on all addresses.
    pub http_port: u16,
    /// The UDP ports that media may bind.
    pub node_ports: RangeInclusive<u16>,
    /// How the nodes behave.
    pub traits: Traits,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            origins: 2,
            edges: 3,
            app: "LiveApp".parse().expect("a legal app name"),
            http_port: 0,
            node_ports: 50_000..=60_000,
            traits: Traits::default(),
        }
    }
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeOptions {
    /// Its name, also `clusternode._id`.
    pub id: NodeId,
    /// What the cluster uses it for; like AMS, the node itself does not mind.
    pub role: Role,
    /// Where it listens; its address also binds media and stands in records as `originAdress`.
    pub bind: SocketAddr,
    /// The only app that it serves.
    pub app: AppName,
    /// The UDP ports that media may bind.
    pub node_ports: RangeInclusive<u16>,
    /// How it behaves.
    pub traits: Traits,
}

/// How unkind a node is. The default is as unkind as AMS may be; [`Traits::kind`] turns everything off.
#[derive(Debug, Clone, PartialEq)]
pub struct Traits {
    /// The record is written at a random moment up to this long after `publish_started`.
    pub record_delay: Duration,
    /// A record that was found is believed for this long.
    pub record_cache: Duration,
    /// `publish` is refused with `streamIdInUse` while another origin's record is fresh and that origin answers.
    pub refuse_in_use: bool,
    /// A play whose origin ends or changes is attached again instead of finished.
    pub reattach: bool,
    /// A publisher whose socket closed without `stop` is held for this long.
    pub hold: Duration,
    /// Candidates that nobody can reach are trickled before the real one.
    pub decoy_candidates: bool,
    /// Pongs are this late while the reported CPU is above [`Traits::late_pong_above`].
    pub late_pong: Duration,
    /// In percent; 0 makes every pong late.
    pub late_pong_above: f64,
    /// How long the node thinks before its first answer to `publish` or `play`.
    pub think: Duration,
    /// How long a publish or play may take to have media before it is given up.
    pub start_timeout: Duration,
    /// A pull without viewers ends after this (AMS: `originEdgeConnectionIdleTimeout`).
    pub pull_idle: Duration,
    /// Between two refreshes of a live record's `updateTime`.
    pub record_heartbeat: Duration,
    /// Between two refreshes of the node's own `clusternode` document.
    pub node_heartbeat: Duration,
    /// Reported CPU above which everything new is refused with `highResourceUsage`, in percent.
    pub cpu_limit: f64,
    /// What one publish adds to the reported CPU, in percent.
    pub cpu_per_publish: f64,
    /// What one play or pull that is served adds to the reported CPU, in percent.
    pub cpu_per_play: f64,
}

impl Default for Traits {
    fn default() -> Self {
        Self {
            record_delay: Duration::from_millis(500),
            record_cache: Duration::from_secs(3),
            refuse_in_use: true,
            reattach: false,
            hold: Duration::from_secs(10),
            decoy_candidates: true,
            late_pong: Duration::from_millis(2500),
            late_pong_above: 60.0,
            think: Duration::ZERO,
            start_timeout: Duration::from_secs(10),
            pull_idle: Duration::from_secs(2),
            record_heartbeat: Duration::from_secs(10),
            node_heartbeat: Duration::from_secs(5),
            cpu_limit: 75.0,
            cpu_per_publish: 2.0,
            cpu_per_play: 0.5,
        }
    }
}

impl Traits {
    /// A node that does everything at once and forgets at once.
    pub fn kind() -> Self {
        Self {
            record_delay: Duration::ZERO,
            record_cache: Duration::ZERO,
            refuse_in_use: false,
            reattach: true,
            hold: Duration::ZERO,
            decoy_candidates: false,
            late_pong: Duration::ZERO,
            ..Self::default()
        }
    }
}

/// What a node has to do at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct NodeStats {
    /// Streams published here, held ones included.
    pub publishes: usize,
    /// Plays of clients served here.
    pub plays: usize,
    /// Plays of other nodes served here.
    pub pulled: usize,
    /// Streams that this node pulls from others.
    pub pulls: usize,
    /// Open WebSockets, those of other nodes included.
    pub sockets: usize,
    /// RTP packets that slow viewers missed since the node started.
    pub missed_packets: u64,
    /// The reported CPU, in percent.
    pub cpu: f64,
}

/// Why a demo node or cluster could not start.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The node's HTTP address is taken or not this machine's.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// No port is free on all node addresses.
    #[error("no HTTP port is free on all node addresses")]
    NoCommonPort,
    /// More nodes than addresses.
    #[error("a demo cluster has at most {0} nodes")]
    TooManyNodes(usize),
    /// No node has this name.
    #[error("there is no demo node {0}")]
    NoSuchNode(NodeId),
    /// The ready line could not be printed.
    #[error("cannot write the ready line")]
    Ready(#[source] std::io::Error),
}
