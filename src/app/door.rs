//! One door: its rooms, built and bound before anything is served, and how it lives until it ends.
//!
//! ```text
//! open ─► serve ──SIGHUP, changed file──► reload ─┐
//!           ▲ └────────────────────────────────────┘
//!           ├─SIGUSR2─► upgrade ─ failed ─► as before
//!           │              └───── handed over ─► retire: sessions finish, nothing is accepted ─► end
//!           └─SIGTERM─► lame duck ─► sessions are ended, spread over the deadline ──────────────► end
//! ```

use std::{io::Write, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_util::sync::CancellationToken;

use super::{
    AppError, QUICK_END, open_tls,
    predecessor::{self, Predecessor},
    signals::{Asked, End, Signals},
    sockets::Sockets,
    systemd, unavailable,
    upgrade::{self, Program, Successor},
    watch::FileWatch,
};
use crate::{
    admin::{self, AdminState},
    config::{self, Config, Live},
    front::{self, Front, Listening, Locate, Pages, Peers, Sink, Tls},
    health::{Prober, Readiness, listener},
    media::Media,
    registry::{Backing, Registry},
    sessions::{Resources, Sessions},
    shutdown::Shutdown,
    telemetry::{access::AccessLog, logs::LogHandle, metrics::Metrics},
    upstream::HttpPool,
};

/// How often a door that finishes its sessions looks whether any is left.
const LOOK: Duration = Duration::from_millis(250);

/// What a door is made of besides its configuration.
pub(super) struct Made {
    pub(super) backing: Backing,
    /// The demo's page.
    pub(super) pages: Option<Pages>,
    /// Listening sockets that are there already.
    pub(super) sockets: Sockets,
    /// The generation that started this one.
    pub(super) predecessor: Option<Arc<Predecessor>>,
    /// Changes the filter of the logs.
    pub(super) logs: Option<LogHandle>,
}

/// How the process was started, for when it is to change.
pub(super) struct Start<'a> {
    pub(super) file: &'a Path,
    pub(super) watch: FileWatch,
    pub(super) program: Program,
}

/// What a reload reaches.
pub(super) struct Rooms {
    pub(super) config: Live,
    pub(super) listening: Vec<Listening>,
    pub(super) front: Arc<Front>,
    pub(super) sessions: Sessions,
    pub(super) registry: Registry,
    pub(super) prober: Prober<Registry>,
    /// Absent: no listener has TLS.
    pub(super) tls: Option<Tls>,
    /// Where ICE-TCP connections go; absent: nothing is relayed.
    pub(super) sink: Option<Sink>,
    /// Absent: the filter of the logs stays.
    pub(super) logs: Option<LogHandle>,
    pub(super) metrics: Metrics,
    pub(super) shutdown: Shutdown,
}

/// A door that serves.
pub(super) struct Door {
    rooms: Rooms,
    at: Addresses,
    sockets: Sockets,
    readiness: Readiness,
    /// Cancelled when nothing more is accepted by `health` and `admin`.
    accepting: CancellationToken,
    /// Stdout may be gone when a later generation is ready.
    is_first: bool,
}

/// The real addresses.
struct Addresses {
    admin: SocketAddr,
    health: Option<SocketAddr>,
    /// Absent: media goes directly.
    media: Option<SocketAddr>,
}

/// All listeners, bound.
struct Bound {
    public: Vec<std::net::TcpListener>,
    admin: std::net::TcpListener,
    health: Option<std::net::TcpListener>,
}

impl Bound {
    /// Everything is bound before anything is served: a port that is taken is told at once, and nothing half starts.
    fn new(config: &Config, sockets: &mut Sockets) -> Result<Self, AppError> {
        let mut public = Vec::new();
        for (nth, listen) in config.listen.iter().enumerate() {
            let listener = sockets.take(&format!("listen-{nth}"), listen.bind);
            public.push(listener.map_err(bind("listen.bind", listen.bind))?);
        }
        let admin = sockets.take("admin", config.admin.bind).map_err(bind("admin.bind", config.admin.bind))?;
        let health = config.health.bind.map(|at| sockets.take("health", at).map_err(bind("health.bind", at)));
        sockets.close_unused();
        Ok(Self { public, admin, health: health.transpose()? })
    }

    /// Where clients may bring their media over TCP.
    fn ice_tcp(&self, config: &Config) -> Result<Vec<SocketAddr>, std::io::Error> {
        let public = self.public.iter().zip(&config.listen).filter(|(_, listen)| listen.ice_tcp);
        public.map(|(listener, _)| listener.local_addr()).collect()
    }
}

impl Door {
    /// Builds every room, then serves: at once, or where another generation serves, when that one says so.
    pub(super) async fn open(config: Config, made: Made, shutdown: &Shutdown) -> Result<Self, AppError> {
        let Made { backing, pages, mut sockets, predecessor, logs } = made;
        let mut bound = Bound::new(&config, &mut sockets)?;
        let (readiness, metrics, accepting) = (Readiness::new(), Metrics::new(), shutdown.child());
        let tls = open_tls(&config, &metrics)?;
        if let Some(tls) = &tls {
            tls.watch(shutdown);
        }
        let mut health = None;
        if let (None, Some(listener)) = (&predecessor, bound.health.take()) {
            health = Some(listener::start(listener, readiness.clone(), accepting.clone())?);
        }
        let registry = Registry::start(&config, backing, shutdown).await.map_err(unavailable)?;
        let prober = Prober::start(&config.health, registry.clone(), metrics.clone(), shutdown);
        let full = readiness.clone();
        let over_limit = Arc::new(move |over| full.set_over_limit(over));
        let media = relay(&config, &bound, &metrics, shutdown)?;
        let relayed = media.as_ref().map(Media::address);
        let moved = media.as_ref().map(Media::moved);
        let sink = media.clone().map(|media| predecessor::sink(media, predecessor.clone(), shutdown));
        let sessions = Sessions::new(&config, registry.clone(), metrics.clone(), media, over_limit, shutdown.clone());
        let front = Arc::new(front_of(&config, &registry, &sessions, &readiness, &metrics, pages, shutdown));
        if let Some(predecessor) = &predecessor {
            predecessor.may_serve().await?;
        }
        readiness.started();
        if let Some(listener) = bound.health.take() {
            health = Some(listener::start(listener, readiness.clone(), accepting.clone())?);
        }
        let live = Live::new(config.clone());
        if let Some(moved) = moved {
            shutdown.spawn(tell_moved(moved, sessions.clone(), live.clone(), shutdown.child()));
        }
        let state = AdminState {
            registry: registry.clone(),
            sessions: sessions.clone(),
            probes: prober.probes(),
            readiness: readiness.clone(),
            metrics: metrics.clone(),
            logs: logs.clone(),
            config: live.clone(),
        };
        let admin = admin::start_on(bound.admin, &config.admin, state, accepting.clone()).map_err(unavailable)?;
        let mut listening = Vec::new();
        for (listener, listen) in bound.public.into_iter().zip(&config.listen) {
            let settings = front::Settings::new(listen, &config.limits, tls.as_ref(), sink.as_ref());
            listening.push(front::serve(TcpListener::from_std(listener)?, settings, Arc::clone(&front), shutdown)?);
        }
        if let Some(predecessor) = &predecessor {
            predecessor.serving().await?;
            predecessor.watch(&metrics, shutdown);
        }
        let at = Addresses { admin, health, media: relayed };
        let is_first = predecessor.is_none();
        let shutdown = shutdown.clone();
        let rooms =
            Rooms { config: live, listening, front, sessions, registry, prober, tls, sink, logs, metrics, shutdown };
        Ok(Self { rooms, at, sockets, readiness, accepting, is_first })
    }

    /// Prints the one line of stdout, and tells systemd.
    pub(super) fn announce(&self) -> Result<(), AppError> {
        let at = &self.at;
        let first =
            self.rooms.listening.iter().zip(&self.rooms.config.now().listen).next().map(|(listening, listen)| {
                format!("{}://{}", if listen.tls { "https" } else { "http" }, listening.address())
            });
        let http = first.unwrap_or_default();
        let media = at.media.map_or_else(|| "direct".to_owned(), |address| format!("udp://{address}"));
        // Behind what every reader of the line knows.
        let health = at.health.map_or_else(String::new, |address| format!(" health=http://{address}"));
        let (admin, pid) = (at.admin, std::process::id());
        let mut stdout = std::io::stdout().lock();
        let scheme = if self.rooms.config.now().admin.tls.is_some() { "https" } else { "http" };
        let line = format!("ready http={http} admin={scheme}://{admin} media={media} pid={pid}{health}\n");
        let said = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush());
        if self.is_first {
            said?;
        }
        systemd::ready();
        Ok(())
    }

    /// Serves until it is asked to end, and ends.
    pub(super) async fn run(
        mut self,
        mut start: Start<'_>,
        mut signals: Signals,
        shutdown: &Shutdown,
    ) -> Result<(), AppError> {
        systemd::keep_alive(self.accepting.clone().cancelled_owned(), shutdown);
        let mut limit = QUICK_END;
        match self.serve(&mut start, &mut signals).await {
            Way::End(End::Now) => systemd::stopping(QUICK_END),
            Way::End(End::Gently) => {
                tokio::select! {
                    _ = signals.end() => tracing::info!("asked again: ending now"),
                    () = self.drain(self.rooms.config.now().shutdown.lame_duck) => {}
                }
            }
            Way::HandedOver(successor) => {
                if self.retire(&successor, &mut signals).await == End::Gently {
                    // Answers that are still under way are finished.
                    limit = self.rooms.config.now().shutdown.deadline.max(QUICK_END);
                }
            }
        }
        shutdown.finish(limit).await;
        Ok(())
    }

    /// Until an end is asked for, or another generation serves.
    async fn serve(&mut self, start: &mut Start<'_>, signals: &mut Signals) -> Way {
        loop {
            let asked = tokio::select! {
                asked = signals.next() => asked,
                () = start.watch.changed() => Asked::Reload,
            };
            match asked {
                Asked::End(end) => return Way::End(end),
                Asked::Reload => {
                    start.watch.known();
                    self.reload(start.file);
                }
                Asked::Upgrade => {
                    if let Some(way) = self.upgrade(&start.program, signals).await {
                        return way;
                    }
                }
            }
        }
    }

    fn reload(&mut self, file: &Path) {
        systemd::reloading();
        let reloaded = self.rooms.reload(file);
        self.rooms.metrics.config_reloaded(if reloaded.is_ok() { "taken" } else { "refused" });
        match reloaded {
            Ok(()) => tracing::info!("the configuration was read anew and is in force"),
            Err(error) => {
                let source = std::error::Error::source(&error).map(tracing::field::display);
                tracing::error!(%error, source, "the new configuration was refused; the old one stays in force");
            }
        }
        systemd::ready();
    }

    /// Tries to hand over; `None`: it failed, and everything is as it was.
    async fn upgrade(&self, program: &Program, signals: &mut Signals) -> Option<Way> {
        tracing::info!(?program, "starting the next generation");
        let handed_over = tokio::select! {
            end = signals.end() => return Some(Way::End(end)),
            handed_over = upgrade::hand_over(program, &self.sockets) => handed_over,
        };
        self.rooms.metrics.upgraded(if handed_over.is_ok() { "handed_over" } else { "failed" });
        handed_over
            .inspect_err(|error| {
                let source = std::error::Error::source(error).map(tracing::field::display);
                tracing::error!(%error, source, "the upgrade failed; this process goes on as before");
            })
            .ok()
            .map(Way::HandedOver)
    }

    /// SIGTERM: `/healthz` to 503 while all is served, then sessions end, spread over the deadline.
    async fn drain(&self, lame_duck: Duration) {
        let deadline = self.rooms.config.now().shutdown.deadline;
        tracing::info!(?lame_duck, ?deadline, "draining");
        systemd::stopping(lame_duck + deadline);
        self.readiness.drain();
        self.rooms.registry.set_door_draining(true);
        if !lame_duck.is_zero() {
            tokio::time::sleep(lame_duck).await;
        }
        self.rooms.sessions.drain(deadline).await;
    }

    /// The next generation serves: nothing more is accepted here, and what is here may finish.
    async fn retire(&mut self, successor: &Successor, signals: &mut Signals) -> End {
        let limit = self.rooms.config.now().shutdown.upgrade_deadline;
        let open = self.rooms.sessions.open();
        tracing::info!(successor = successor.pid, open, ?limit, "handed over; finishing what is here");
        self.accepting.cancel();
        self.rooms.listening.iter().for_each(Listening::retire);
        self.sockets.let_go();
        // Other doors send nobody to this one; the next generation is a door of its own.
        self.rooms.registry.set_door_draining(true);
        let connections = async {
            successor.take_connections(self.rooms.sink.as_ref()).await;
            std::future::pending().await
        };
        let finished = tokio::select! {
            end = signals.end() => Some(end),
            () = connections => None,
            finished = tokio::time::timeout(limit, self.finish_sessions()) => finished.ok().map(|()| End::Gently),
        };
        match finished {
            Some(End::Now) => return End::Now,
            Some(End::Gently) if self.rooms.sessions.open() == 0 => {}
            _ => tokio::select! {
                end = signals.end() => return end,
                // No load balancer looks at this process any more: there is no lame duck.
                () = self.rooms.sessions.drain(self.rooms.config.now().shutdown.deadline) => {}
            },
        }
        tracing::info!("all sessions are finished");
        End::Gently
    }

    /// Until no session is left, nor a connection that might still become one: who was accepted last has its time to
    /// send a request.
    async fn finish_sessions(&self) {
        tokio::time::sleep(self.rooms.config.now().limits.header_timeout).await;
        while self.rooms.sessions.open() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// How a door stops serving.
enum Way {
    End(End),
    HandedOver(Successor),
}

/// Other doors that take new sessions and can be reached past a load balancer.
fn peers(registry: &Registry) -> Peers {
    let registry = registry.clone();
    Peers::new(move || {
        let others = registry.doors().into_iter().filter(|door| !door.is_self && !door.draining);
        others.filter_map(|door| door.public_url).collect()
    })
}

fn bind(what: &'static str, address: SocketAddr) -> impl FnOnce(std::io::Error) -> AppError {
    move |source| AppError::Bind { what, address, source }
}

/// What public listeners serve.
fn front_of(
    config: &Config,
    registry: &Registry,
    sessions: &Sessions,
    readiness: &Readiness,
    metrics: &Metrics,
    pages: Option<Pages>,
    shutdown: &Shutdown,
) -> Front {
    Front {
        apps: ArcSwap::from_pointee(config.apps.clone()),
        resources: Resources::new(&config.signaling, sessions.clone(), shutdown.clone()),
        sessions: sessions.clone(),
        readiness: readiness.clone(),
        nodes: HttpPool::new(front::http_limits(&config.http), metrics.clone()),
        metrics: metrics.clone(),
        access: AccessLog::new(config.telemetry.access_log),
        tunnels: Arc::new(Semaphore::new(config.http.tunnels)),
        http: ArcSwap::from_pointee(config.http.clone()),
        locate: Locate { public_url: config.door.public_url.clone(), peers: peers(registry) },
        pages,
    }
}

/// The media relay, unless media goes past this door.
fn relay(config: &Config, bound: &Bound, metrics: &Metrics, shutdown: &Shutdown) -> Result<Option<Media>, AppError> {
    match config.media.mode {
        config::MediaMode::Relay => {
            let ice_tcp = bound.ice_tcp(config)?;
            Media::start_with(&config.media, &ice_tcp, metrics.clone(), shutdown).map(Some).map_err(unavailable)
        }
        config::MediaMode::Direct => Ok(None),
    }
}

/// Sessions that begin after the public address has changed tell their clients the new one.
async fn tell_moved(mut moved: watch::Receiver<()>, sessions: Sessions, live: Live, stop: CancellationToken) {
    while let Some(Ok(())) = stop.run_until_cancelled(moved.changed()).await {
        sessions.reconfigure(&live.now());
    }
}
