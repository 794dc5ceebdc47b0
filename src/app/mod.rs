//! Builds every room, binds, supervises, and ends in order. The only file that knows all rooms.

mod channel;
mod door;
mod predecessor;
mod reload;
mod signals;
mod sockets;
mod systemd;
mod upgrade;
mod watch;

use std::{net::SocketAddr, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

use self::{
    door::{Door, Made, Start},
    predecessor::Predecessor,
    signals::Signals,
    sockets::Sockets,
    upgrade::Program,
    watch::FileWatch,
};
use crate::{
    cli::{self, Exit},
    config::{self, Config, StaticNode},
    demo,
    domain::ids::AppName,
    front::Tls,
    registry::{Backing, cluster_db::ClusterDb, memory::MemoryDb, mongo::MongoClusterDb},
    shutdown::Shutdown,
    telemetry::{
        self,
        logs::{self, LogHandle, LogWriter},
        metrics::Metrics,
    },
};

/// SIGINT, a second SIGTERM, and the demo end within 2 s; what still runs then is dropped.
const QUICK_END: Duration = Duration::from_millis(1500);

/// Why the process ends without having served.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration has problems; the text holds all of them.
    #[error("{0}")]
    Config(String),
    /// A port is taken, or an address is not this machine's.
    #[error("{what} {address}: {source}; is another process using it?")]
    Bind {
        /// What was to be bound.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something that the process cannot start without.
    #[error("{0}")]
    Unavailable(String),
    /// The runtime or the signals could not be set up, or stdout is closed.
    #[error(transparent)]
    System(#[from] std::io::Error),
}

impl AppError {
    /// The exit code for it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) => Exit::Config,
            Self::Bind { .. } | Self::Unavailable(_) => Exit::Unavailable,
            Self::System(_) => Exit::Software,
        }
    }
}

/// `forebay check`
pub fn check(file: &Path) -> Result<(), AppError> {
    let config = load(file)?;
    open_tls(&config, &Metrics::new()).map(drop)
}

/// What this process was given when it was started, besides its command line.
#[derive(Debug, Default)]
pub struct Given {
    sockets: Sockets,
    channel: Option<OwnedFd>,
}

impl Given {
    /// Takes it: sockets from systemd, or the channel to the generation that started this one. Call it before there are
    /// threads: it changes the environment.
    ///
    /// # Errors
    /// What was given is not what it should be.
    pub fn take() -> Result<Self, AppError> {
        let sockets = Sockets::from_systemd().map_err(|why| AppError::Unavailable(format!("LISTEN_FDS: {why}")))?;
        Ok(Self { sockets, channel: predecessor::channel()? })
    }
}

/// `forebay serve`
pub async fn serve(file: &Path, given: Given) -> Result<(), AppError> {
    let program = Program::this()?;
    // Before it is read: a change after that is one.
    let watch = FileWatch::new(file);
    let config = load(file)?;
    let (logs, _writer) = start_logs(&config)?;
    watch.tell_trouble();
    let shutdown = Shutdown::new();
    let predecessor = given.channel.map(Predecessor::new).transpose()?.map(Arc::new);
    let sockets = match &predecessor {
        Some(predecessor) => predecessor.sockets().await?,
        None => given.sockets,
    };
    let backing = if config.mongo.is_some() { Backing::Mongo } else { Backing::None };
    let made = Made { backing, pages: None, sockets, predecessor, logs: Some(logs) };
    let door = Door::open(config, made, &shutdown).await?;
    // Before the ready line: whoever reads it may signal at once.
    let signals = Signals::new()?;
    door.announce()?;
    door.run(Start { file, watch, program }, signals, &shutdown).await
}

/// `forebay demo`
pub async fn run_demo(options: cli::Demo) -> Result<(), AppError> {
    let mut config = Config::demo();
    // Where both are at one address, what clients are told of the one holds for the other.
    let ice_tcp = options.listen.ip() == options.media.ip();
    config.listen = vec![config::Listen { ice_tcp, ..config::Listen::plain(options.listen) }];
    config.admin.bind = options.admin;
    config.media.bind = options.media.ip();
    config.media.ports = ports(options.media.port());
    let (logs, _writer) = start_logs(&config)?;
    let shutdown = Shutdown::new();
    let (db, backing) = match &options.mongo {
        Some(uri) => {
            config.mongo = Config::demo_on(uri).map_err(|problems| AppError::Config(problems.to_string()))?.mongo;
            (ClusterDb::Mongo(connect(uri).await?), Backing::Mongo)
        }
        None => {
            let memory = MemoryDb::default();
            (ClusterDb::Memory(memory.clone()), Backing::Memory(memory))
        }
    };
    let cluster = demo::ClusterOptions {
        origins: options.origins.into(),
        edges: options.edges.into(),
        node_ports: config.media.node_ports.clone(),
        ..demo::ClusterOptions::default()
    };
    let cluster = demo::Cluster::start(cluster, db, &shutdown).await.map_err(unavailable)?;
    config.nodes.discover = false;
    config.nodes.fixed = cluster.nodes().into_iter().map(fixed).collect();
    let made = Made {
        backing,
        pages: Some(demo::page::asset),
        sockets: Sockets::default(),
        predecessor: None,
        logs: Some(logs),
    };
    let door = Door::open(config, made, &shutdown).await?;
    let mut signals = Signals::new()?;
    door.announce()?;
    signals.end().await;
    shutdown.finish(QUICK_END).await;
    Ok(())
}

/// `forebay demo-node`
pub async fn run_demo_node(options: cli::DemoNode) -> Result<(), AppError> {
    let (_, _writer) = start_logs(&Config::demo())?;
    let shutdown = Shutdown::new();
    let db = ClusterDb::Mongo(connect(&options.mongo).await?);
    let defaults = demo::ClusterOptions::default();
    let address = options.bind.ip().to_string();
    let node = demo::NodeOptions {
        id: options.id.map_or_else(|| address.parse(), Ok).map_err(unavailable)?,
        role: options.role.into(),
        bind: options.bind,
        app: defaults.app,
        node_ports: defaults.node_ports,
        traits: defaults.traits,
    };
    let mut signals = Signals::new()?;
    let ending = shutdown.clone();
    // Asked to end, the node says so to its clients and ends its records before it is gone.
    let mut running = shutdown.spawn(async move { demo::run_node(node, db, &ending).await });
    tokio::select! {
        ran = &mut running => ran.map_err(unavailable)?.map_err(unavailable),
        _ = signals.end() => {
            shutdown.finish(QUICK_END).await;
            Ok(())
        }
    }
}

async fn connect(uri: &str) -> Result<MongoClusterDb, AppError> {
    let databases = |app: &AppName| app.as_str().to_ascii_lowercase();
    MongoClusterDb::connect(uri, databases).await.map_err(unavailable)
}

/// `--media` sets the first port of the pair; the second is the next one, for the next generation of the process.
fn ports(first: u16) -> Vec<u16> {
    if first == 0 { vec![0] } else { vec![first, first.saturating_add(1)] }
}

fn fixed(node: demo::DemoNode) -> StaticNode {
    StaticNode {
        id: node.id,
        address: node.address,
        role: node.role,
        zone: None,
        aliases: Vec::new(),
        max_publishes: None,
        max_plays: None,
    }
}

fn load(file: &Path) -> Result<Config, AppError> {
    Config::load(file, &config::process_environment()).map_err(|problems| AppError::Config(problems.to_string()))
}

fn start_logs(config: &Config) -> Result<(LogHandle, LogWriter), AppError> {
    let started = logs::start(&config.telemetry.log, config.telemetry.json).map_err(unavailable)?;
    tracing::info!(build = telemetry::BUILD, "forebay");
    Ok(started)
}

fn unavailable(error: impl std::error::Error) -> AppError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    AppError::Unavailable(text)
}

/// What listeners with TLS share, if there is one.
fn open_tls(config: &Config, metrics: &Metrics) -> Result<Option<Tls>, AppError> {
    if !config.listen.iter().any(|listen| listen.tls) {
        return Ok(None);
    }
    Tls::open(&config.tls, metrics).map(Some).map_err(|error| AppError::Config(format!("tls.certificates: {error}")))
}
