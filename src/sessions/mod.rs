//! Runs sessions: one task per client, which moves bytes and starts timers while `domain::session` decides.
//!
//! ```text
//!  front ── Client ──► Sessions::run ──► actor: select over shutdown, timer, placements, dials, links, client
//!                                          │ Output                     ▲ Input
//!                                          ▼                            │
//!                       execute: sockets (upstream) · router (registry) · report (metrics, log, hints)
//! ```
//!
//! A WHIP or WHEP resource is a session too (`whip.rs`): its client is a task of the door.

mod actor;
mod directory;
mod execute;
mod http;
mod index;
mod mover;
mod report;
mod router;
pub mod story;
mod trace;
mod whip;

use std::{
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::broadcast::{self, error::RecvError},
};
use tokio_util::sync::CancellationToken;

pub use directory::{Card, Directory, News, Page};
pub use http::{HttpAsk, HttpNode, NoNode};
pub use index::{Full, Occupancy, SessionSeat};
pub use router::{Router, Seated};
pub use whip::{Post, Resource, ResourceId, Resources};

use crate::{
    config::Config,
    domain::{
        ids::{AppName, ClientAddr, SessionId},
        relay,
        session::{Input, MediaSeen, RelaySide, SessionSettings},
        signaling,
    },
    media::{Media, MediaEvent},
    registry::Registry,
    shutdown::Shutdown,
    telemetry::{access::AccessLog, metrics::Metrics, otlp::Exporter},
    upstream::{Socket, SocketLimits},
};

/// A client whose WebSocket is up.
pub struct Client<C> {
    /// The app that it asked for.
    pub app: AppName,
    /// Its address.
    pub address: ClientAddr,
    /// The path with its query, which its links repeat.
    pub path: String,
    /// The `Host` that it asked for.
    pub host: Option<String>,
    /// Whether it came over TLS.
    pub tls: bool,
    /// Its socket.
    pub socket: Socket<C>,
    /// Its seat, taken before the upgrade.
    pub seat: SessionSeat,
}

/// Everything that sessions share.
#[derive(Debug, Clone)]
pub struct Sessions {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// A session keeps what it began with.
    rules: ArcSwap<Rules>,
    router: router::Router,
    http: Arc<http::HttpShared>,
    occupancy: Occupancy,
    directory: Directory,
    metrics: Metrics,
    access: AccessLog,
    /// Absent: media goes directly between clients and nodes.
    media: Option<Media>,
    shutdown: Shutdown,
    /// Cancelled when the door empties itself, `empty_within` being set before that, and when it stops.
    emptying: CancellationToken,
    empty_within: OnceLock<Duration>,
    /// An operator empties the door.
    refusing: AtomicBool,
}

/// What a reload may change.
#[derive(Debug)]
struct Rules {
    settings: Arc<SessionSettings>,
    link_limits: SocketLimits,
    client_limits: SocketLimits,
    dial: Duration,
    play_wait: Duration,
}

impl Rules {
    fn new(config: &Config, media: Option<&Media>) -> Self {
        let signaling = &config.signaling;
        let settings = SessionSettings {
            give_up: signaling.give_up,
            attempt: signaling.attempt,
            confirm: MOVE_CONFIRM,
            max_to_node: signaling.max_to_node,
            max_legs: config.limits.legs_per_session,
            messages_per_second: config.limits.messages_per_second,
            with_publisher: signaling.conference_with_publisher,
            relay: media.map(|media| relay_side(media, config)),
            ice_servers: signaling::ice_server_config(
                &signaling.stun_uri,
                &signaling.turn_username,
                &signaling.turn_credential.0,
            ),
        };
        let limits = |max_message| SocketLimits { max_message, write_timeout: config.limits.write_timeout };
        Self {
            settings: Arc::new(settings),
            link_limits: limits(MAX_FROM_NODE),
            client_limits: limits(signaling.max_message),
            dial: signaling.dial,
            play_wait: config.play.wait,
        }
    }
}

impl Sessions {
    /// Sessions that are placed by `registry`; `over_limit` hears when the last seat is taken, and when one is free again.
    pub fn new(
        config: &Config,
        registry: Registry,
        metrics: Metrics,
        media: Option<Media>,
        over_limit: Arc<dyn Fn(bool) + Send + Sync>,
        shutdown: Shutdown,
    ) -> Self {
        let (traces, door) = (&config.telemetry, &config.door.name);
        let exporter = traces.otlp_endpoint.clone().map(|endpoint| {
            Exporter::start(endpoint, traces.otlp_ca.clone(), door.clone(), metrics.clone(), &shutdown)
        });
        let directory = Directory::telling(exporter);
        if let Some(media) = &media {
            shutdown.spawn(tell_media(media.events(), directory.clone(), shutdown.child()));
        }
        let http = Arc::new(http::HttpShared::default());
        let (swept, stop) = (Arc::clone(&http), shutdown.child());
        shutdown.spawn(async move { stop.run_until_cancelled(swept.viewers.keep_sweeping()).await });
        let shared = Arc::new(Shared {
            rules: ArcSwap::from_pointee(Rules::new(config, media.as_ref())),
            router: router::Router::new(registry),
            http,
            occupancy: Occupancy::new(config.limits.sessions, config.limits.sessions_per_client, over_limit),
            directory,
            metrics,
            access: AccessLog::new(config.telemetry.access_log),
            media,
            emptying: shutdown.child(),
            shutdown,
            empty_within: OnceLock::new(),
            refusing: AtomicBool::new(false),
        });
        shared.shutdown.spawn(mover::run(Arc::clone(&shared)));
        Self { shared }
    }

    /// Takes another configuration: its limits at once, the rest for sessions that begin from now on.
    pub fn reconfigure(&self, config: &Config) {
        let shared = &self.shared;
        shared.rules.store(Arc::new(Rules::new(config, shared.media.as_ref())));
        shared.occupancy.set_limits(config.limits.sessions, config.limits.sessions_per_client);
    }

    /// Takes a seat for a client that wants to connect, or says which limit is reached.
    pub fn seat(&self, client: IpAddr) -> Result<SessionSeat, Full> {
        self.shared.occupancy.seat(client)
    }

    /// Who is connected.
    pub fn directory(&self) -> &Directory {
        &self.shared.directory
    }

    /// Sessions that are open now.
    pub fn open(&self) -> usize {
        self.shared.occupancy.open()
    }

    /// Ends all sessions, spread over `limit`, and waits for it.
    pub async fn drain(&self, limit: Duration) {
        self.shared.empty_within.get_or_init(|| limit);
        self.shared.emptying.cancel();
        let all_gone = async {
            while self.open() > 0 {
                tokio::time::sleep(EMPTY_LOOK).await;
            }
        };
        // Who has not gone by then is closed by the shutdown that follows.
        let _ = tokio::time::timeout(limit + EMPTY_LOOK, all_gone).await;
    }

    /// Whether [`Sessions::drain`] has begun, or an operator empties the door: a new session would be ended at once.
    pub fn is_ending(&self) -> bool {
        self.shared.emptying.is_cancelled() || self.shared.refusing.load(Ordering::Acquire)
    }

    /// An operator empties the door, or does no more.
    pub fn refuse_new(&self, refuse: bool) {
        self.shared.refusing.store(refuse, Ordering::Release);
    }

    /// Bounds of a client's socket.
    pub fn client_limits(&self) -> SocketLimits {
        self.shared.rules.load().client_limits
    }

    /// Runs one client until its socket ends.
    pub fn run<C>(&self, client: Client<C>) -> impl Future<Output = ()> + Send + use<C>
    where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.run_as(client, SessionId(fastrand::u64(..)))
    }

    /// The same for a client whose session's id is known before.
    fn run_as<C>(&self, client: Client<C>, id: SessionId) -> impl Future<Output = ()> + Send + use<C>
    where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        actor::run(Arc::clone(&self.shared), client, id)
    }
}

/// What relay threads see of a session's media becomes part of its story.
async fn tell_media(mut events: broadcast::Receiver<MediaEvent>, directory: Directory, stop: CancellationToken) {
    while let Some(event) = stop.run_until_cancelled(events.recv()).await {
        match event {
            Ok(MediaEvent::Relay(event)) => {
                if let Some(what) = story::What::of_media(&event.kind) {
                    directory.tell(event.session, what);
                }
                tell_move(&directory, &event);
            }
            Ok(MediaEvent::Refused { .. }) => {}
            Err(RecvError::Lagged(missed)) => tracing::debug!(missed, "media events that no story tells"),
            Err(RecvError::Closed) => return,
        }
    }
}

/// What relay threads see of a leg that is on the move confirms it, and measures how long its client had no media.
fn tell_move(directory: &Directory, event: &relay::Event) {
    let seen = match event.kind {
        relay::EventKind::FirstMedia { .. } => MediaSeen::First,
        relay::EventKind::Closed { silent, .. } => MediaSeen::Closed { silent },
        _ => return,
    };
    let Some(card) = directory.get(event.session) else { return };
    if card.look(|page| page.legs.iter().any(|leg| leg.moving)) {
        // A full letter box loses a measurement; the node's own word still confirms the move.
        card.post(Input::Media { transport: event.transport, seen });
    }
}

/// How the relay is reached, as sessions tell clients and nodes.
fn relay_side(media: &Media, config: &Config) -> Arc<RelaySide> {
    Arc::new(RelaySide {
        public: media.public().as_ref().clone(),
        private: media.private(),
        node_ports: config.media.node_ports.clone(),
    })
}

/// A moved leg is confirmed within this, or its client is asked to come again (design.md §5).
const MOVE_CONFIRM: Duration = Duration::from_secs(8);
/// How often a door that empties itself looks whether it is empty.
const EMPTY_LOOK: Duration = Duration::from_millis(100);
/// The largest message that a node may send: AMS states no cap for its own offers (facts/ams.md, trap 29).
const MAX_FROM_NODE: usize = 1024 * 1024;
