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
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    AppError, QUICK_END,
    predecessor::{self, Predecessor},
    signals::{Asked, End, Signals},
    sockets::Sockets,
    systemd, unavailable,
    upgrade::{self, Program, Successor},
};
use crate::{
    admin::{self, AdminState},
    config::{self, Config},
    front::{self, Front, Listening, Locate, Pages, Peers, Sink, Tls},
    health::{Prober, Readiness, listener},
    media::Media,
    registry::{Backing, Registry},
    sessions::Sessions,
    shutdown::Shutdown,
    telemetry::{logs::LogHandle, metrics::Metrics},
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
}

/// A door that serves.
pub(super) struct Door {
    config: Config,
    at: Addresses,
    sockets: Sockets,
    listening: Vec<Listening>,
    readiness: Readiness,
    sessions: Sessions,
    metrics: Metrics,
    /// Where ICE-TCP connections go; absent: nothing is relayed.
    sink: Option<Sink>,
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
        let Made { backing, pages, mut sockets, predecessor } = made;
        let mut bound = Bound::new(&config, &mut sockets)?;
        let (readiness, metrics, accepting) = (Readiness::new(), Metrics::new(), shutdown.child());
        let tls = open_tls(&config, &metrics)?;
        let mut health = None;
        if let (None, Some(listener)) = (&predecessor, bound.health.take()) {
            health = Some(listener::start(listener, readiness.clone(), accepting.clone())?);
        }
        let registry = Registry::start(&config, backing, shutdown).await.map_err(unavailable)?;
        Prober::start(&config.health, registry.clone(), metrics.clone(), shutdown);
        let full = readiness.clone();
        let over_limit = Arc::new(move |over| full.set_over_limit(over));
        let media = match config.media.mode {
            config::MediaMode::Relay => {
                let ice_tcp = bound.ice_tcp(&config)?;
                Some(Media::start_with(&config.media, &ice_tcp, metrics.clone(), shutdown).map_err(unavailable)?)
            }
            config::MediaMode::Direct => None,
        };
        let relayed = media.as_ref().map(Media::address);
        let sink = media.clone().map(|media| predecessor::sink(media, predecessor.clone(), shutdown));
        let sessions = Sessions::new(&config, registry.clone(), metrics.clone(), media, over_limit, shutdown.clone());
        let apps = Arc::new(config.apps.clone());
        let front = Arc::new(Front {
            apps: ArcSwap::new(Arc::clone(&apps)),
            sessions: sessions.clone(),
            readiness: readiness.clone(),
            metrics: metrics.clone(),
            locate: Locate { public_url: config.door.public_url.clone(), peers: Peers::none() },
            pages,
        });
        if let Some(predecessor) = &predecessor {
            predecessor.may_serve().await?;
        }
        readiness.started();
        if let Some(listener) = bound.health.take() {
            health = Some(listener::start(listener, readiness.clone(), accepting.clone())?);
        }
        let state = AdminState { registry, metrics: metrics.clone(), apps, play_wait: config.play.wait };
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
        Ok(Self { config, at, sockets, listening, readiness, sessions, metrics, sink, accepting, is_first })
    }

    /// Prints the one line of stdout, and tells systemd.
    pub(super) fn announce(&self) -> Result<(), AppError> {
        let at = &self.at;
        let http = self.listening.first().map_or_else(String::new, |first| format!("http://{}", first.address()));
        let media = at.media.map_or_else(|| "direct".to_owned(), |address| format!("udp://{address}"));
        let health = at.health.map_or_else(String::new, |address| format!(" health=http://{address}"));
        let (admin, pid) = (at.admin, std::process::id());
        let mut stdout = std::io::stdout().lock();
        let line = format!("ready http={http} admin=http://{admin}{health} media={media} pid={pid}\n");
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
        file: &Path,
        program: Program,
        logs: LogHandle,
        mut signals: Signals,
        shutdown: &Shutdown,
    ) -> Result<(), AppError> {
        systemd::keep_alive(self.accepting.clone().cancelled_owned(), shutdown);
        let _ = (file, &logs);
        let mut limit = QUICK_END;
        match self.serve(&program, &mut signals).await {
            Way::End(End::Now) => systemd::stopping(QUICK_END),
            Way::End(End::Gently) => {
                tokio::select! {
                    _ = signals.end() => tracing::info!("asked again: ending now"),
                    () = self.drain(self.config.shutdown.lame_duck) => {}
                }
            }
            Way::HandedOver(successor) => {
                if self.retire(&successor, &mut signals).await == End::Gently {
                    // Answers that are still under way are finished.
                    limit = self.config.shutdown.deadline.max(QUICK_END);
                }
            }
        }
        shutdown.finish(limit).await;
        Ok(())
    }

    /// Until an end is asked for, or another generation serves.
    async fn serve(&mut self, program: &Program, signals: &mut Signals) -> Way {
        loop {
            match signals.next().await {
                Asked::End(end) => return Way::End(end),
                Asked::Reload => {}
                Asked::Upgrade => {
                    tracing::info!(?program, "starting the next generation");
                    let handed_over = tokio::select! {
                        end = signals.end() => return Way::End(end),
                        handed_over = upgrade::hand_over(program, &self.sockets) => handed_over,
                    };
                    match handed_over {
                        Ok(successor) => {
                            self.metrics.upgraded("handed_over");
                            return Way::HandedOver(successor);
                        }
                        Err(error) => {
                            self.metrics.upgraded("failed");
                            let source = std::error::Error::source(&error).map(tracing::field::display);
                            tracing::error!(%error, source, "the upgrade failed; this process goes on as before");
                        }
                    }
                }
            }
        }
    }

    /// SIGTERM: `/healthz` to 503 while all is served, then sessions end, spread over the deadline.
    async fn drain(&self, lame_duck: Duration) {
        let deadline = self.config.shutdown.deadline;
        tracing::info!(?lame_duck, ?deadline, "draining");
        systemd::stopping(lame_duck + deadline);
        self.readiness.drain();
        tokio::time::sleep(lame_duck).await;
        self.sessions.drain(deadline).await;
    }

    /// The next generation serves: nothing more is accepted here, and what is here may finish.
    async fn retire(&mut self, successor: &Successor, signals: &mut Signals) -> End {
        let limit = self.config.shutdown.upgrade_deadline;
        let open = self.sessions.open();
        tracing::info!(successor = successor.pid, open, ?limit, "handed over; finishing what is here");
        self.accepting.cancel();
        self.listening.iter().for_each(Listening::retire);
        self.sockets.let_go();
        let connections = async {
            successor.take_connections(self.sink.as_ref()).await;
            std::future::pending().await
        };
        let finished = tokio::select! {
            end = signals.end() => Some(end),
            () = connections => None,
            finished = tokio::time::timeout(limit, self.finish_sessions()) => finished.ok().map(|()| End::Gently),
        };
        match finished {
            Some(End::Now) => return End::Now,
            Some(End::Gently) if self.sessions.open() == 0 => {}
            _ => tokio::select! {
                end = signals.end() => return end,
                // No load balancer looks at this process any more: there is no lame duck.
                () = self.sessions.drain(self.config.shutdown.deadline) => {}
            },
        }
        tracing::info!("all sessions are finished");
        End::Gently
    }

    /// Until no session is left, nor a connection that might still become one: who was accepted last has its time to
    /// send a request.
    async fn finish_sessions(&self) {
        tokio::time::sleep(self.config.limits.header_timeout).await;
        while self.sessions.open() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// How a door stops serving.
enum Way {
    End(End),
    HandedOver(Successor),
}

/// What listeners with TLS share, if there is one.
fn open_tls(config: &Config, metrics: &Metrics) -> Result<Option<Tls>, AppError> {
    if !config.listen.iter().any(|listen| listen.tls) {
        return Ok(None);
    }
    Tls::open(&config.tls, metrics).map(Some).map_err(|error| AppError::Config(format!("tls.certificates: {error}")))
}

fn bind(what: &'static str, address: SocketAddr) -> impl FnOnce(std::io::Error) -> AppError {
    move |source| AppError::Bind { what, address, source }
}
