//! Where a play's media comes from: a publisher here, or another node, of which each stream is pulled once.
//!
//! A pull is a play session with the origin over the origin's own WebSocket. It ends when the stream ends there, when the
//! record names another origin, when the link is silent, or a while after the last viewer left.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::{mpsc, watch},
};
use tokio_tungstenite::{WebSocketStream, client_async_with_config, tungstenite::Message};
use tokio_util::sync::CancellationToken;

use super::{
    http,
    ingest::{Ingest, codecs_of},
    node::{Node, Shared},
    peer::PeerEvent,
    records::Unread,
    source::{Seat, Source},
    words::{self, Request},
};
use crate::{clock, domain::ids::StreamId};

/// From dialling an origin to its offer.
const OFFER_LIMIT: Duration = Duration::from_secs(2);
/// Between two pings to an origin.
const PING_EVERY: Duration = Duration::from_secs(2);
/// An origin that says nothing for so long is gone.
const SILENCE_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at the record.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// What a play may be served from.
pub(super) enum Playable {
    /// One stream.
    Stream(Seat),
    /// A room, whoever is in it.
    Room,
}

/// What a node pulls.
#[derive(Default)]
pub(super) struct Pulls(Shared<StreamId, Pull>);

#[derive(Clone)]
struct Pull {
    origin: String,
    state: watch::Receiver<State>,
    end: CancellationToken,
}

#[derive(Clone)]
enum State {
    Dialling,
    Live(Arc<Source>),
    Over,
}

impl Pulls {
    pub(super) fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// A seat at a stream that is being pulled.
    fn seat(&self, stream: &StreamId) -> Option<Seat> {
        match &*self.0.lock().get(stream)?.state.borrow() {
            State::Live(source) => source.sit(),
            State::Dialling | State::Over => None,
        }
    }
}

/// Why there is nothing to play.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nothing {
    /// There is no such stream, as far as this node knows.
    NoStream,
    /// The store does not say, and the node itself does not have it.
    NoStore,
}

/// Finds what `stream` is played from. Without its store a node still plays what it has.
pub(super) async fn find(node: &Arc<Node>, stream: &StreamId, puller: bool) -> Result<Playable, Nothing> {
    if let Some(source) = node.publishers.source(stream) {
        return source.sit().map(Playable::Stream).ok_or(Nothing::NoStream);
    }
    if puller {
        return Err(Nothing::NoStream);
    }
    let record = match node.records.find(stream).await {
        Ok(record) => record.filter(|record| record.live).ok_or(Nothing::NoStream)?,
        Err(Unread) => return node.pulls.seat(stream).map(Playable::Stream).ok_or(Nothing::NoStore),
    };
    if record.is_virtual {
        return Ok(Playable::Room);
    }
    if node.records.is_ours(&record) {
        return Err(Nothing::NoStream);
    }
    let origin = record.origin.ok_or(Nothing::NoStream)?;
    pulled(node, stream, &origin).await.map(Playable::Stream).ok_or(Nothing::NoStream)
}

/// A seat at one stream, wherever it is published.
pub(super) async fn seat(node: &Arc<Node>, stream: &StreamId) -> Option<Seat> {
    match find(node, stream, false).await {
        Ok(Playable::Stream(seat)) => Some(seat),
        Ok(Playable::Room) | Err(_) => None,
    }
}

async fn pulled(node: &Arc<Node>, stream: &StreamId, origin: &str) -> Option<Seat> {
    let mut state = start(node, stream, origin);
    let settled = async {
        let settled = state.wait_for(|state| !matches!(state, State::Dialling)).await;
        match settled.as_deref() {
            Ok(State::Live(source)) => source.sit(),
            _ => None,
        }
    };
    tokio::time::timeout(OFFER_LIMIT, settled).await.ok().flatten()
}

/// The pull of a stream from this origin, begun if need be. One from another origin is ended: its viewers hear
/// `play_finished`.
fn start(node: &Arc<Node>, stream: &StreamId, origin: &str) -> watch::Receiver<State> {
    let mut pulls = node.pulls.0.lock();
    if let Some(pull) = pulls.get(stream) {
        let over = matches!(*pull.state.borrow(), State::Over);
        if pull.origin == origin && !over && !pull.end.is_cancelled() {
            return pull.state.clone();
        }
        pull.end.cancel();
    }
    let (told, state) = watch::channel(State::Dialling);
    let pull = Pull { origin: origin.to_owned(), state: state.clone(), end: CancellationToken::new() };
    pulls.insert(stream.clone(), pull.clone());
    drop(pulls);
    let (owner, stream) = (Arc::clone(node), stream.clone());
    node.spawn(async move {
        let pulling = Pulling { node: &owner, stream: &stream, pull: &pull, told: &told };
        let why = tokio::select! {
            why = pulling.run() => why,
            () = pulling.moved() => "the stream has another origin now",
        };
        tracing::debug!(node = %owner.options.id, %stream, origin = %pull.origin, why, "a pull ended");
        if let State::Live(source) = told.send_replace(State::Over) {
            source.end();
        }
        let mut pulls = owner.pulls.0.lock();
        if pulls.get(&stream).is_some_and(|current| current.state.same_channel(&pull.state)) {
            pulls.remove(&stream);
        }
    });
    state
}

struct Pulling<'a> {
    node: &'a Arc<Node>,
    stream: &'a StreamId,
    pull: &'a Pull,
    told: &'a watch::Sender<State>,
}

type Link = WebSocketStream<TcpStream>;
type Media = Option<(Ingest, mpsc::Receiver<PeerEvent>, Arc<Source>)>;

enum Heard {
    Text(String),
    Gone(&'static str),
    Peer(Option<PeerEvent>),
    Viewers,
    Due,
}

impl Pulling<'_> {
    /// Pulls until there is a reason not to.
    async fn run(&self) -> &'static str {
        let dialled = tokio::time::timeout(OFFER_LIMIT, self.dial());
        let Ok(Some(mut link)) = dialled.await else { return "the origin did not answer" };
        let mut media: Media = None;
        let begun = clock::now();
        let mut heard_at = begun;
        let mut idle_since = Some(begun);
        let mut ping_at = begun + PING_EVERY;
        loop {
            let idle_at = idle_since.map(|since| since + self.node.options.traits.pull_idle);
            let due = [Some(ping_at), idle_at].into_iter().flatten().min();
            match self.hear(&mut link, &mut media, due).await {
                Heard::Gone(why) => return why,
                Heard::Text(text) => {
                    heard_at = clock::now();
                    if let Err(why) = self.take(&text, &mut link, &mut media).await {
                        return why;
                    }
                }
                Heard::Peer(None | Some(PeerEvent::Lost)) => return "the connection to the origin was lost",
                Heard::Peer(Some(event)) => self.take_event(event, &mut link, &media).await,
                Heard::Viewers => {}
                Heard::Due => {
                    let now = clock::now();
                    if now.duration_since(heard_at) >= SILENCE_LIMIT || (media.is_none() && now >= begun + OFFER_LIMIT)
                    {
                        return "the origin is silent";
                    }
                    if now >= ping_at {
                        ping_at = now + PING_EVERY;
                        tell(&mut link, &json!({ "command": "ping" })).await;
                    }
                }
            }
            idle_since = self.idle_since(&media, idle_since);
            if self.is_unwatched(&media, idle_since) {
                tell(&mut link, &json!({ "command": "stop", "streamId": self.stream })).await;
                return "nobody watches";
            }
        }
    }

    async fn dial(&self) -> Option<Link> {
        let ip: IpAddr = self.pull.origin.parse().ok()?;
        let socket = if ip.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.ok()?;
        socket.bind(SocketAddr::new(self.node.place.ip, 0)).ok()?;
        let to = SocketAddr::new(ip, self.node.address.port());
        let stream = socket.connect(to).await.ok()?;
        let _ = stream.set_nodelay(true);
        let url = format!("ws://{to}/{}/websocket?pull={}", self.node.options.app, self.node.options.id);
        let (mut link, _) = client_async_with_config(url, stream, Some(http::limits())).await.ok()?;
        tell(&mut link, &json!({ "command": "play", "streamId": self.stream, "trackList": [] })).await;
        Some(link)
    }

    async fn hear(&self, link: &mut Link, media: &mut Media, due: Option<Instant>) -> Heard {
        let (event, viewers) = match media {
            Some((_, events, source)) => (Some(events), Some(source)),
            None => (None, None),
        };
        let event = async {
            match event {
                Some(events) => events.recv().await,
                None => std::future::pending().await,
            }
        };
        let viewers = async {
            match viewers {
                Some(source) => source.viewers_changed().await,
                None => std::future::pending().await,
            }
        };
        let heard = tokio::select! {
            () = self.pull.end.cancelled() => Heard::Gone("the stream is pulled from elsewhere"),
            message = link.next() => match message {
                Some(Ok(Message::Text(text))) => Heard::Text(text.to_string()),
                Some(Ok(Message::Close(_))) | None => Heard::Gone("the origin closed"),
                Some(Err(_)) => Heard::Gone("the link broke"),
                Some(Ok(_)) => Heard::Viewers,
            },
            event = event => Heard::Peer(event),
            () = viewers => Heard::Viewers,
            () = clock::until(due) => Heard::Due,
        };
        self.node.freezer.thawed().await;
        heard
    }

    async fn take(&self, text: &str, link: &mut Link, media: &mut Media) -> Result<(), &'static str> {
        let Some(message) = Request::read(text) else { return Ok(()) };
        match (message.command.as_str(), message.text("definition")) {
            ("takeConfiguration", _) if message.text("type") == "offer" => {
                self.take_offer(message.text("sdp"), link, media).await
            }
            ("takeCandidate", _) => {
                if let Some((ingest, ..)) = media {
                    let mid = Some(message.text("id")).filter(|mid| !mid.is_empty());
                    let label = message.number("label").and_then(|label| u16::try_from(label).ok());
                    ingest.peer.take_candidate(message.text("candidate"), mid, label).await;
                }
                Ok(())
            }
            ("error", _) => Err("the origin refused"),
            ("notification", "play_finished" | "server_will_stop") => Err("the stream ended at the origin"),
            _ => Ok(()),
        }
    }

    async fn take_offer(&self, sdp: &str, link: &mut Link, media: &mut Media) -> Result<(), &'static str> {
        let answer = match media {
            Some((ingest, ..)) => ingest.peer.answer(sdp).await.map_err(|_| "the origin's offer is unusable")?,
            None => {
                let source = Source::new(self.stream.clone(), codecs_of(sdp));
                let freezer = self.node.freezer.clone();
                let ingest = Ingest::answer(&self.node.place, sdp, Arc::clone(&source), freezer).await;
                let (ingest, answer, events) = ingest.map_err(|_| "the origin's offer is unusable")?;
                *media = Some((ingest, events, Arc::clone(&source)));
                self.told.send_replace(State::Live(source));
                answer
            }
        };
        tell(link, &words::answer(self.stream.as_str(), "", &answer)).await;
        Ok(())
    }

    async fn take_event(&self, event: PeerEvent, link: &mut Link, media: &Media) {
        let Some((ingest, ..)) = media else { return };
        match event {
            PeerEvent::Candidate { label, mid, candidate } => {
                tell(link, &words::candidate(self.stream.as_str(), label, &mid, &candidate)).await;
            }
            PeerEvent::Track(track) => ingest.take_track(track),
            PeerEvent::Channel(channel) => ingest.take_channel(channel),
            PeerEvent::Connected | PeerEvent::Lost => {}
        }
    }

    /// Since when nobody watches.
    fn idle_since(&self, media: &Media, before: Option<Instant>) -> Option<Instant> {
        let watched = media.as_ref().is_some_and(|(_, _, source)| source.viewers() > 0);
        if watched { None } else { Some(before.unwrap_or_else(clock::now)) }
    }

    fn is_unwatched(&self, media: &Media, idle_since: Option<Instant>) -> bool {
        let Some((_, _, source)) = media else { return false };
        let idle = idle_since.is_some_and(|since| clock::now() >= since + self.node.options.traits.pull_idle);
        idle && source.end_if_unwatched()
    }

    /// Completes once the record names another origin. One that is gone, ended or cannot be read says nothing: the origin
    /// itself will. Apart from the rest, which a store that is slow to answer shall not hold up.
    async fn moved(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let record = self.node.records.find(self.stream).await.ok().flatten();
            let origin = record.filter(|record| record.live).and_then(|record| record.origin);
            if origin.is_some_and(|origin| origin != self.pull.origin) {
                return;
            }
        }
    }
}

/// Says something to the origin; a broken link shows when it is read.
async fn tell(link: &mut Link, message: &Value) {
    let sent = link.send(Message::text(message.to_string()));
    if !matches!(tokio::time::timeout(SILENCE_LIMIT, sent).await, Ok(Ok(()))) {
        tracing::debug!("an origin takes no messages");
    }
}
