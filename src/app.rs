//! Builds every room, binds, supervises, and ends in order. The only file that knows all rooms.

use std::{io::Write, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    admin::{self, AdminState},
    cli::{self, Exit},
    config::{self, Config, StaticNode},
    demo,
    domain::ids::AppName,
    front::{self, Front, Pages, Sink},
    health::{Prober, Readiness, listener},
    media::Media,
    net,
    registry::{Backing, Registry, cluster_db::ClusterDb, memory::MemoryDb, mongo::MongoClusterDb},
    sessions::Sessions,
    shutdown::Shutdown,
    telemetry::{
        self,
        logs::{self, LogHandle},
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
    load(file).map(drop)
}

/// `forebay serve`
pub async fn serve(file: &Path) -> Result<(), AppError> {
    let config = load(file)?;
    let shutdown = Shutdown::new();
    let backing = if config.mongo.is_some() { Backing::Mongo } else { Backing::None };
    let logs = start_logs(&config)?;
    let door = Door::open(config, backing, None, logs, &shutdown).await?;
    // Before the ready line: whoever reads it may signal at once.
    let signals = Signals::new()?;
    door.announce()?;
    door.run_until_asked(signals, &shutdown).await
}

/// `forebay demo`
pub async fn run_demo(options: cli::Demo) -> Result<(), AppError> {
    let mut config = Config::demo();
    // Where both are at one address, what clients are told of the one holds for the other.
    let ice_tcp = options.listen.ip() == options.media.ip();
    config.listen = vec![config::Listen { bind: options.listen, ice_tcp }];
    config.admin.bind = options.admin;
    config.media.bind = options.media.ip();
    config.media.ports = ports(options.media.port());
    let logs = start_logs(&config)?;
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
    let door = Door::open(config, backing, Some(demo::page::asset), logs, &shutdown).await?;
    let mut signals = Signals::new()?;
    door.announce()?;
    signals.next().await;
    shutdown.finish(QUICK_END).await;
    Ok(())
}

/// `forebay demo-node`
pub async fn run_demo_node(options: cli::DemoNode) -> Result<(), AppError> {
    start_logs(&Config::demo())?;
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
        _ = signals.next() => {
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

fn start_logs(config: &Config) -> Result<LogHandle, AppError> {
    let logs = logs::start(&config.telemetry.log, config.telemetry.json).map_err(unavailable)?;
    tracing::info!(build = telemetry::BUILD, "forebay");
    Ok(logs)
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

/// A door whose listeners are up.
struct Door {
    http: Vec<SocketAddr>,
    admin: SocketAddr,
    /// Where media is relayed; absent: nowhere.
    media: Option<SocketAddr>,
    readiness: Readiness,
    sessions: Sessions,
    lame_duck: Duration,
    deadline: Duration,
}

impl Door {
    async fn open(
        config: Config,
        backing: Backing,
        pages: Option<Pages>,
        logs: LogHandle,
        shutdown: &Shutdown,
    ) -> Result<Self, AppError> {
        // Everything is bound before anything is served: a port that is taken is told at once, and nothing half starts.
        let mut listeners = Vec::new();
        for listen in &config.listen {
            let listener = net::listen(listen.bind).map_err(bind("listen.bind", listen.bind))?;
            listeners.push((listener, listen.ice_tcp));
        }
        let ice_tcp = listeners.iter().filter(|(_, ice_tcp)| *ice_tcp).map(|(listener, _)| listener.local_addr());
        let ice_tcp = ice_tcp.collect::<Result<Vec<_>, _>>()?;
        let readiness = Readiness::new();
        if let Some(address) = config.health.bind {
            listener::start(address, readiness.clone(), shutdown.child()).map_err(bind("health.bind", address))?;
        }
        let metrics = Metrics::new();
        let registry = Registry::start(&config, backing, shutdown).await.map_err(unavailable)?;
        let probes = Prober::start(&config.health, registry.clone(), metrics.clone(), shutdown);
        let full = readiness.clone();
        let over_limit = Arc::new(move |over| full.set_over_limit(over));
        let media = match config.media.mode {
            config::MediaMode::Relay => {
                Some(Media::start_with(&config.media, &ice_tcp, metrics.clone(), shutdown).map_err(unavailable)?)
            }
            config::MediaMode::Direct => None,
        };
        let relayed = media.as_ref().map(Media::address);
        let sink =
            media.clone().map(|media| Sink::new(move |stream, client, read| media.take_tcp(stream, client, read)));
        let sessions = Sessions::new(&config, registry.clone(), metrics.clone(), media, over_limit, shutdown.clone());
        let apps = Arc::new(config.apps.clone());
        let state = AdminState {
            registry,
            sessions: sessions.clone(),
            probes,
            readiness: readiness.clone(),
            metrics: metrics.clone(),
            logs: Some(logs),
            apps: Arc::clone(&apps),
            play_wait: config.play.wait,
            door_name: config.door.name.clone(),
            shutdown: config.shutdown.clone(),
        };
        let admin = admin::start(&config.admin, state, shutdown).map_err(unavailable)?;
        let front = Front {
            apps,
            sessions: sessions.clone(),
            readiness: readiness.clone(),
            metrics,
            header_timeout: config.limits.header_timeout,
            pages,
            ice_tcp: None,
        };
        let mut http = Vec::new();
        for (listener, ice_tcp) in listeners {
            let front = Front { ice_tcp: sink.clone().filter(|_| ice_tcp), ..front.clone() };
            http.push(listener.local_addr()?);
            shutdown.spawn(front::serve(listener, front, shutdown.clone()));
        }
        readiness.started();
        let config::ShutdownConfig { lame_duck, deadline } = config.shutdown;
        Ok(Self { http, admin, media: relayed, readiness, sessions, lame_duck, deadline })
    }

    /// Prints the one line of stdout.
    fn announce(&self) -> Result<(), AppError> {
        let http = self.http.first().map_or_else(String::new, |address| format!("http://{address}"));
        let (admin, pid) = (self.admin, std::process::id());
        let mut stdout = std::io::stdout().lock();
        let media = self.media.map_or_else(|| "direct".to_owned(), |address| format!("udp://{address}"));
        writeln!(stdout, "ready http={http} admin=http://{admin} media={media} pid={pid}")?;
        stdout.flush()?;
        Ok(())
    }

    /// SIGTERM: `/healthz` to 503 while all is served, then sessions end, spread over the deadline. SIGINT, or a second
    /// SIGTERM, ends at once.
    async fn run_until_asked(self, mut signals: Signals, shutdown: &Shutdown) -> Result<(), AppError> {
        if signals.next().await == Asked::Terminate {
            tracing::info!(lame_duck = ?self.lame_duck, deadline = ?self.deadline, "draining");
            tokio::select! {
                _ = signals.next() => tracing::info!("asked again: ending now"),
                () = self.drain() => {}
            }
        }
        shutdown.finish(QUICK_END).await;
        Ok(())
    }

    async fn drain(&self) {
        self.readiness.drain();
        tokio::time::sleep(self.lame_duck).await;
        self.sessions.drain(self.deadline).await;
    }
}

fn bind(what: &'static str, address: SocketAddr) -> impl FnOnce(std::io::Error) -> AppError {
    move |source| AppError::Bind { what, address, source }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, AppError> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Interrupt,
    Terminate,
}
