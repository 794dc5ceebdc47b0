//! The media relay's sockets and threads. Every decision is [`crate::domain::relay`]'s: a thread here moves datagrams.
//!
//! ```text
//!              ┌──────────────── one relay thread (of `media.threads`) ────────────────┐
//! client ─UDP─►│ its socket on the public port ─► Core::from_client ─► pool socket k ─►│─► node
//! client ◄─UDP─│ ◄─ public socket ◄─ Core::from_node ◄─ its 8 private pool sockets ◄───│◄─ node
//!              └─────▲ commands (mailbox, bounded)        events, counters ▼───────────┘
//!                 sessions                            subscribers, metrics
//! ```
//!
//! Clients without UDP bring the same datagrams over TCP (`tcp.rs`).
//!
//! The threads are plain threads: media does not wait for signalling, and signalling does not wait for media. They share
//! nothing. The kernel chooses a client's thread by its own hash, so a command goes to all.
//!
//! The room adds no packet of its own: what is not passed on is dropped in silence.

mod address;
mod bound;
mod desk;
mod discover;
mod known;
#[cfg(target_os = "linux")]
mod line;
mod mailbox;
#[cfg(target_os = "linux")]
mod socket;
mod tcp;
#[cfg(test)]
mod tests;
mod told;
mod wire;
mod worker;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{
    net::TcpStream,
    sync::{broadcast, watch},
};

pub use self::desk::Watch;
use self::{
    bound::Bound,
    desk::Desk,
    known::Known,
    mailbox::Mailbox,
    tcp::Acceptor,
    told::{LOOK_AGAIN, Told},
    worker::Worker,
};
use crate::{
    config,
    domain::{
        ids::{ClientAddr, SessionId},
        relay::{self, Command, Core, Refused, RelaySettings, SessionFacts, Stats, TransportId},
        sdp::PublicCandidate,
    },
    shutdown::Shutdown,
    telemetry::metrics::Metrics,
};

/// A relay thread that has not said what it knows of a session by then is not waited for.
const FACTS: Duration = Duration::from_millis(250);

/// Longer than any session.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Why the relay did not start.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// No port of `media.ports` is free at `media.bind`.
    #[error("media.ports: none of {ports:?} can be bound at {bind}")]
    Ports {
        /// `media.bind`
        bind: IpAddr,
        /// `media.ports`
        ports: Vec<u16>,
        /// What the system said of the last one.
        #[source]
        source: io::Error,
    },
    /// Clients cannot be told an address; the text says what to write.
    #[error("media.external_ips: {0}")]
    NoPublicAddress(String),
    /// A private socket, a thread or what wakes it could not be made.
    #[error("the media relay cannot start")]
    System(#[from] io::Error),
}

/// A relay thread cannot take the command: its mailbox is full, or it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the media relay is busy")]
pub struct MediaBusy;

/// What relay threads tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaEvent {
    /// Something happened to a transport. With several threads each tells its own part: a transport's end comes once
    /// from every thread, with the traffic that passed there.
    Relay(relay::Event),
    /// A command was not taken; it changed nothing in that thread.
    Refused {
        /// The command's transport.
        transport: TransportId,
        /// Why.
        why: Refused,
    },
}

/// The running relay. A clone is the same relay; the last one to drop ends it.
#[derive(Clone)]
pub struct Media(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    known: Known,
    tcp: Acceptor,
    told: Arc<Told>,
    private: Option<SocketAddr>,
    threads: Vec<Arc<Mailbox>>,
    stats: Vec<Arc<ArcSwap<Stats>>>,
    desk: Arc<Desk>,
}

impl Media {
    /// Binds the first free port of `media.ports` and starts the relay threads; they end with `shutdown`. To be called
    /// on a tokio runtime, at the start of the process: where the public address has to be found out, it blocks for up to
    /// two seconds.
    ///
    /// # Errors
    /// No port is free, there is no address that clients could be told, or the system refuses sockets or threads.
    pub fn start(config: &config::Media, metrics: Metrics, shutdown: &Shutdown) -> Result<Self, MediaError> {
        Self::start_with(config, &[], metrics, shutdown)
    }

    /// The same with listeners, as they are bound, on which clients may also bring their media ([`Media::take_tcp`]).
    ///
    /// # Errors
    /// As [`Media::start`]; also where clients cannot be told an address of a listener.
    pub fn start_with(
        config: &config::Media,
        ice_tcp: &[SocketAddr],
        metrics: Metrics,
        shutdown: &Shutdown,
    ) -> Result<Self, MediaError> {
        let bound = Bound::open(config)?;
        let mut found = None;
        let mut public = address::public(config, bound.address, || {
            let ip = discover::public_address(config, &bound.threads[0][0])?;
            found = Some(ip);
            Ok(ip)
        })?;
        for listener in ice_tcp {
            public.extend(address::ice_tcp(config, *listener, &public)?);
        }
        let private = address::private(config, bound.private);
        let desk = Arc::new(Desk::new(metrics.clone()));
        let mut media = Inner {
            address: bound.address,
            known: Known::default(),
            tcp: Acceptor::new(metrics.clone(), shutdown.clone()),
            told: Arc::new(Told::new(public)),
            private,
            threads: Vec::new(),
            stats: Vec::new(),
            desk,
        };
        let mut running = Vec::new();
        for (nth, sockets) in bound.threads.into_iter().enumerate() {
            let stats = Arc::new(ArcSwap::default());
            let core = Core::new(settings(config), seed(), Instant::now());
            let pool = sockets[1..].iter().map(UdpSocket::try_clone).collect::<io::Result<_>>()?;
            let wire = wire::wire(sockets);
            let worker = Worker::new(core, wire, pool, Arc::clone(&media.desk), metrics.clone(), Arc::clone(&stats))?;
            media.threads.push(worker.mailbox());
            media.tcp.add_thread(worker.inbox());
            media.stats.push(stats);
            running.push(thread::Builder::new().name(format!("media-{nth}")).spawn(move || worker.run())?);
        }
        tracing::info!(address = %media.address, threads = running.len(), "media relay");
        shutdown.spawn(end(media.threads.clone(), running, shutdown.clone()));
        if let Some(found) = found {
            let following = told::follow(Arc::downgrade(&media.told), config.clone(), found, LOOK_AGAIN);
            let stop = shutdown.child();
            shutdown.spawn(async move { stop.run_until_cancelled(following).await });
        }
        Ok(Self(Arc::new(media)))
    }

    /// The public UDP socket as it is bound, with its real port.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Takes over a client's connection that begins with a framed STUN request. `read` are the bytes that were taken
    /// from it already. It ends with its flow, after 5 s without an authenticated request, or at once where there are
    /// too many.
    pub fn take_tcp(&self, stream: TcpStream, client: ClientAddr, read: &[u8]) {
        self.0.tcp.take(stream, client.0, read);
    }

    /// What clients are told to send to. It changes where the address was found out, and is another one now: clients that
    /// come from then on are told that.
    pub fn public(&self) -> Arc<Vec<PublicCandidate>> {
        self.0.told.now()
    }

    /// Hears when [`Media::public`] has changed.
    pub fn moved(&self) -> watch::Receiver<()> {
        self.0.told.moved()
    }

    /// The private candidate that nodes are told; `None`: they learn it from the first packet.
    pub fn private(&self) -> Option<SocketAddr> {
        self.0.private
    }

    /// Hands a command to every relay thread, or to none. It is carried out within milliseconds; a refusal comes as
    /// [`MediaEvent::Refused`].
    ///
    /// # Errors
    /// A thread does not keep up. A command that ends something is taken even then.
    pub fn command(&self, command: Command) -> Result<(), MediaBusy> {
        self.0.known.note(&command);
        mailbox::post(&self.0.threads, &command)
    }

    /// Whether a transport that was opened and not closed answers to this ufrag of a node.
    pub fn knows(&self, ufrag: &str) -> bool {
        self.0.known.has(ufrag)
    }

    /// What happens from now on. A subscriber that falls behind loses the oldest events and is told how many.
    pub fn events(&self) -> broadcast::Receiver<MediaEvent> {
        self.0.desk.subscribe()
    }

    /// What happens to one session from now on: first STUN, first media, stalls, ends. Best asked for before its first
    /// command. Costs the packets nothing; with several threads each tells its own part.
    pub fn watch(&self, session: SessionId) -> Watch {
        self.0.desk.watch(session)
    }

    /// What all relay threads know of a session at this moment: transports, flows, packets and bytes, first media, stalls.
    /// Empty where they know none such. Answered within 250 ms.
    ///
    /// # Errors
    /// A thread does not keep up, has too many questions to answer, or has ended.
    pub async fn facts(&self, session: SessionId) -> Result<SessionFacts, MediaBusy> {
        let asked: Vec<_> = self.0.threads.iter().map(|thread| thread.ask(session)).collect::<Result<_, _>>()?;
        let all = async {
            let mut facts = SessionFacts::default();
            for answer in asked {
                facts.merge(answer.await.map_err(|_| MediaBusy)?);
            }
            Ok(facts)
        };
        tokio::time::timeout(FACTS, all).await.unwrap_or(Err(MediaBusy))
    }

    /// What each relay thread has counted, as of half a second ago at most.
    pub fn stats(&self) -> impl Iterator<Item = Arc<Stats>> + '_ {
        self.0.stats.iter().map(|stats| stats.load_full())
    }
}

impl fmt::Debug for Media {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Media").field("address", &self.0.address).field("threads", &self.0.threads.len()).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        mailbox::stop(&self.threads);
    }
}

fn settings(config: &config::Media) -> RelaySettings {
    let default = RelaySettings::default();
    // Of several threads only one hears a client: that the others never do is no reason to forget its transport, which
    // its next address may bring there.
    let half_open = if config.threads == 1 { default.half_open } else { NEVER };
    RelaySettings { node_ports: config.node_ports.clone(), half_open, ..default }
}

/// What makes the tables' order unpredictable from outside.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness, or TLS would have failed before");
    u64::from_le_bytes(bytes)
}

/// Ends the threads when the process is asked to end, and sees them out.
async fn end(threads: Vec<Arc<Mailbox>>, running: Vec<JoinHandle<()>>, shutdown: Shutdown) {
    shutdown.stopping().await;
    mailbox::stop(&threads);
    // One that panicked has said so itself.
    let join = move || running.into_iter().for_each(|thread| drop(thread.join()));
    let _ = tokio::task::spawn_blocking(join).await;
}
