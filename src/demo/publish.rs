//! One publish at a node: from the client's word to the record, and what happens when the client vanishes.
//!
//! ```text
//! publish ─► claimed ─► start ─► offer ─► answer ─► first media ─► publish_started ─► record, ≤ 500 ms later
//!                                                                    │
//!                        `stop` ─► publish_finished, record ends  ◄──┤
//!                        socket closes ─► held for 10 s ─────────────┴─► the same stream publishes ─► session_restored
//! ```
//!
//! The record is kept by a task of its own: a store that does not answer holds up neither the client nor the media.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    http,
    ingest::{Ingest, codecs_of},
    node::{Node, Shared},
    peer::PeerEvent,
    records::{About, Unread},
    sdp::Kind,
    session::{LegInput, Outbox},
    source::Source,
    words::{self, Request},
};
use crate::{clock, domain::ids::StreamId};

/// Candidates that may come before the offer; more are dropped.
const EARLY_CANDIDATES: usize = 64;
/// Between two attempts to write what the store did not take. AMS's driver would still be waiting for it.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// What a client asked for.
pub(super) struct Wish {
    pub(super) stream: StreamId,
    subscriber: String,
    about: About,
}

impl Wish {
    pub(super) fn read(stream: StreamId, request: &Request) -> Self {
        let about = About {
            name: request.text("streamName").to_owned(),
            main_track: request.name("mainTrack").ok(),
            meta_data: request.text("metaData").to_owned(),
            role: request.text("role").to_owned(),
        };
        Self { stream, subscriber: request.text("subscriberId").to_owned(), about }
    }
}

/// Who publishes what at a node.
#[derive(Default)]
pub(super) struct Publishers(Shared<StreamId, Publisher>);

struct Publisher {
    /// Told when another leg takes the stream over from a client that is gone.
    replaced: CancellationToken,
    /// The client's socket is gone and the stream waits for it.
    held: bool,
    source: Option<Arc<Source>>,
}

/// One leg's hold on a stream's name; dropping it gives the name back, unless another leg has taken it over.
struct Claim {
    node: Arc<Node>,
    stream: StreamId,
    replaced: CancellationToken,
    /// The stream as the vanished publisher left it.
    inherited: Option<Arc<Source>>,
    restored: bool,
}

impl Publishers {
    pub(super) fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// The stream, if its publisher has media here.
    pub(super) fn source(&self, stream: &StreamId) -> Option<Arc<Source>> {
        self.0.lock().get(stream)?.source.clone()
    }

    /// Ends everything at once and says what it was.
    pub(super) fn end_all(&self) -> Vec<StreamId> {
        let ended: Vec<_> = self.0.lock().drain().collect();
        for (_, publisher) in &ended {
            if let Some(source) = &publisher.source {
                source.end();
            }
        }
        ended.into_iter().map(|(stream, _)| stream).collect()
    }

    fn change(&self, claim: &Claim, change: impl FnOnce(&mut Publisher)) {
        let mut publishers = self.0.lock();
        // Another leg may own the name by now; it has told this claim so.
        if let Some(publisher) = publishers.get_mut(&claim.stream)
            && !claim.replaced.is_cancelled()
        {
            change(publisher);
        }
    }
}

impl Claim {
    /// Takes the stream's name, from a vanished client if need be; `None` while a client publishes it.
    fn take(node: &Arc<Node>, stream: &StreamId) -> Option<Self> {
        let mut publishers = node.publishers.0.lock();
        let mut inherited = None;
        let mut restored = false;
        if let Some(publisher) = publishers.get_mut(stream) {
            if !publisher.held {
                return None;
            }
            publisher.replaced.cancel();
            inherited = publisher.source.take();
            restored = true;
        }
        let replaced = CancellationToken::new();
        let publisher = Publisher { replaced: replaced.clone(), held: false, source: inherited.clone() };
        publishers.insert(stream.clone(), publisher);
        drop(publishers);
        Some(Self { node: Arc::clone(node), stream: stream.clone(), replaced, inherited, restored })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut publishers = self.node.publishers.0.lock();
        if self.replaced.is_cancelled() {
            return;
        }
        let publisher = publishers.remove(&self.stream);
        drop(publishers);
        if let Some(source) = publisher.and_then(|publisher| publisher.source) {
            source.end();
        }
    }
}

/// Serves one publish to its end.
pub(super) async fn run(node: Arc<Node>, outbox: Outbox, inbox: mpsc::Receiver<LegInput>, wish: Wish) {
    tokio::time::sleep(node.options.traits.think).await;
    let stream = wish.stream.as_str();
    if node.is_overloaded() {
        return outbox.send(words::error(stream, "highResourceUsage"));
    }
    let Some(claim) = Claim::take(&node, &wish.stream) else {
        return outbox.send(words::error(stream, "streamIdInUse"));
    };
    if !claim.restored {
        match is_live_elsewhere(&node, &wish.stream).await {
            Ok(false) => {}
            Ok(true) => return outbox.send(words::error(stream, "streamIdInUse")),
            Err(Unread) => return outbox.send(words::error(stream, words::NO_STORE)),
        }
    }
    if claim.restored {
        outbox.send(words::notification("session_restored", stream, &wish.subscriber));
    }
    outbox.send(words::start(stream, &wish.subscriber));
    let mut leg = Leg {
        deadline: Some(clock::now() + node.options.traits.start_timeout),
        node,
        outbox,
        wish,
        claim,
        early: Vec::new(),
        started: false,
        record: None,
    };
    leg.serve(inbox).await;
    leg.end().await;
}

/// AMS's rule of taking over: not while another node's record is fresh and that node answers.
async fn is_live_elsewhere(node: &Node, stream: &StreamId) -> Result<bool, Unread> {
    if !node.options.traits.refuse_in_use {
        return Ok(false);
    }
    let Some(record) = node.records.find_now(stream).await? else { return Ok(false) };
    if !record.live || record.is_virtual || node.records.is_ours(&record) {
        return Ok(false);
    }
    Ok(match record.origin {
        Some(origin) => http::answers(&origin, node.address.port(), node.options.app.as_str()).await,
        None => true,
    })
}

/// Keeps one stream's record, from its first media to the end of the publish.
struct RecordKeeper {
    node: Arc<Node>,
    stream: StreamId,
    about: About,
    over: CancellationToken,
    bytes: u64,
}

/// The leg's side of its record.
struct KeptRecord {
    over: CancellationToken,
    /// Closed once nothing more is written.
    last_word: oneshot::Receiver<()>,
}

impl RecordKeeper {
    fn start(node: &Arc<Node>, stream: &StreamId, about: &About) -> KeptRecord {
        let over = CancellationToken::new();
        let keeper =
            Self { node: Arc::clone(node), stream: stream.clone(), about: about.clone(), over: over.clone(), bytes: 0 };
        let (writing, last_word) = oneshot::channel::<()>();
        node.spawn(async move {
            keeper.run().await;
            drop(writing);
        });
        KeptRecord { over, last_word }
    }

    async fn run(mut self) {
        let traits = self.node.options.traits.clone();
        let mut pause = traits.record_delay.mul_f64(fastrand::f64());
        let mut written = false;
        // Over only between two writings: what is on its way to the store would come after the record's end.
        while self.over.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            let done = if written { self.refresh().await } else { self.begin().await };
            written |= done;
            pause = if done { traits.record_heartbeat } else { WRITE_AGAIN };
        }
    }

    async fn begin(&self) -> bool {
        let begun = self.node.records.publish_started(&self.stream, &self.about).await;
        if let Some(room) = self.about.main_track.as_ref().filter(|_| begun) {
            self.node.records.room_joined(room).await;
        }
        begun
    }

    async fn refresh(&mut self) -> bool {
        let quiet = self.node.silent.load(Ordering::Relaxed) || self.node.freezer.is_frozen();
        let Some(source) = self.node.publishers.source(&self.stream).filter(|_| !quiet) else { return true };
        let bytes = source.bytes(Kind::Audio) + source.bytes(Kind::Video);
        let seconds = self.node.options.traits.record_heartbeat.as_secs().max(1);
        let bits_per_second = bytes.saturating_sub(self.bytes) * 8 / seconds;
        self.bytes = bytes;
        self.node.records.refresh(&self.stream, bits_per_second).await
    }
}

impl KeptRecord {
    /// Completes once nothing more is written.
    async fn end(self) {
        self.over.cancel();
        let _ = self.last_word.await; // an error is the end
    }
}

struct Leg {
    node: Arc<Node>,
    outbox: Outbox,
    wish: Wish,
    claim: Claim,
    /// When to give up waiting for media, or for the client to come back.
    deadline: Option<Instant>,
    early: Vec<LegInput>,
    started: bool,
    record: Option<KeptRecord>,
}

type Media = Option<(Ingest, mpsc::Receiver<PeerEvent>)>;

enum Heard {
    Client(Option<LegInput>),
    Peer(Option<PeerEvent>),
    Flows,
    Replaced,
    Deadline,
}

impl Leg {
    async fn serve(&mut self, mut inbox: mpsc::Receiver<LegInput>) {
        let mut media: Media = None;
        let mut here = true;
        loop {
            match self.hear(&mut inbox, here, &mut media).await {
                Heard::Client(Some(LegInput::Offer(sdp))) => self.take_offer(&sdp, &mut media).await,
                Heard::Client(Some(input @ LegInput::Candidate { .. })) => self.take_candidate(input, &media).await,
                Heard::Client(Some(LegInput::Answer(_))) => {}
                Heard::Client(Some(LegInput::Stop)) => {
                    return self.notify("publish_finished");
                }
                Heard::Client(None) => {
                    here = false;
                    if self.node.options.traits.hold.is_zero() || !self.started {
                        return;
                    }
                    self.node.publishers.change(&self.claim, |publisher| publisher.held = true);
                    self.deadline = Some(clock::now() + self.node.options.traits.hold);
                }
                Heard::Peer(Some(PeerEvent::Lost)) | Heard::Peer(None) if here => {
                    return self.notify("publish_finished");
                }
                Heard::Peer(None) => media = None,
                Heard::Peer(Some(event)) => self.take_event(event, &media),
                Heard::Flows => self.media_flows(),
                Heard::Replaced => return,
                Heard::Deadline => {
                    if here {
                        self.outbox.send(words::error(self.wish.stream.as_str(), "publishTimeoutError"));
                    }
                    return;
                }
            }
        }
    }

    async fn hear(&self, inbox: &mut mpsc::Receiver<LegInput>, here: bool, media: &mut Media) -> Heard {
        let flows = media.as_ref().map(|(ingest, _)| Arc::clone(&ingest.flows));
        let event = async {
            match media {
                Some((_, events)) => events.recv().await,
                None => std::future::pending().await,
            }
        };
        let flows = async {
            match flows {
                Some(flows) => flows.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.claim.replaced.cancelled() => Heard::Replaced,
            input = inbox.recv(), if here => Heard::Client(input),
            event = event => Heard::Peer(event),
            () = flows => Heard::Flows,
            () = clock::until(self.deadline) => Heard::Deadline,
        }
    }

    async fn take_offer(&mut self, sdp: &str, media: &mut Media) {
        let answer = match media {
            // The client renegotiates the connection that it has.
            Some((ingest, _)) => ingest.peer.answer(sdp).await,
            None => self.answer(sdp, media).await,
        };
        match answer {
            Ok(sdp) => {
                let answer = words::answer(self.wish.stream.as_str(), &self.wish.subscriber, &sdp);
                self.outbox.send(answer);
                if self.node.options.traits.decoy_candidates {
                    for decoy in words::decoys(self.node.place.ip) {
                        self.outbox.send(words::candidate(self.wish.stream.as_str(), 0, "0", &decoy));
                    }
                }
                for early in std::mem::take(&mut self.early) {
                    self.take_candidate(early, media).await;
                }
            }
            Err(error) => {
                tracing::debug!(%error, stream = %self.wish.stream, "an offer was refused");
                self.outbox.send(words::error(self.wish.stream.as_str(), "notSetRemoteDescription"));
            }
        }
    }

    async fn answer(&mut self, sdp: &str, media: &mut Media) -> Result<String, webrtc::error::Error> {
        let codecs = codecs_of(sdp);
        let inherited = self.claim.inherited.take();
        // Viewers go on only if what they decode stays what it was.
        let kept = inherited.filter(|source| {
            let fits = source.tracks.len() == codecs.len()
                && codecs.iter().all(|codec| source.track_for(codec).is_some())
                && !source.ended.is_cancelled();
            if !fits {
                source.end();
            }
            fits
        });
        let source = kept.unwrap_or_else(|| Source::new(self.wish.stream.clone(), codecs));
        let freezer = self.node.freezer.clone();
        let (ingest, answer, events) = Ingest::answer(&self.node.place, sdp, Arc::clone(&source), freezer).await?;
        self.node.publishers.change(&self.claim, |publisher| publisher.source = Some(source));
        *media = Some((ingest, events));
        Ok(answer)
    }

    async fn take_candidate(&mut self, input: LegInput, media: &Media) {
        match (media, input) {
            (Some((ingest, _)), LegInput::Candidate { candidate, mid, label }) => {
                ingest.peer.take_candidate(&candidate, mid.as_deref(), label).await;
            }
            (None, input) if self.early.len() < EARLY_CANDIDATES => self.early.push(input),
            _ => {}
        }
    }

    fn take_event(&mut self, event: PeerEvent, media: &Media) {
        let Some((ingest, _)) = media else { return };
        match event {
            PeerEvent::Candidate { label, mid, candidate } => {
                self.outbox.send(words::candidate(self.wish.stream.as_str(), label, &mid, &candidate));
            }
            PeerEvent::Connected if !ingest.expects_media() => self.media_flows(),
            PeerEvent::Track(track) => ingest.take_track(track),
            PeerEvent::Channel(channel) => ingest.take_channel(channel),
            PeerEvent::Connected | PeerEvent::Lost => {}
        }
    }

    fn media_flows(&mut self) {
        if self.started {
            return;
        }
        self.started = true;
        self.deadline = None;
        self.notify("publish_started");
        self.record = Some(RecordKeeper::start(&self.node, &self.wish.stream, &self.wish.about));
        self.node.rooms.joined(&self.node, self.wish.about.main_track.as_ref(), &self.wish.stream);
    }

    fn notify(&self, definition: &str) {
        self.outbox.send(words::notification(definition, self.wish.stream.as_str(), &self.wish.subscriber));
    }

    /// The leg is over: unless another one has taken the stream over, so is the stream.
    async fn end(self) {
        let Self { node, wish, claim, started, record, .. } = self;
        let has_record = started || claim.restored;
        let replaced = claim.replaced.is_cancelled();
        drop(claim);
        if let Some(record) = record {
            record.end().await;
        }
        if replaced {
            return;
        }
        let room = wish.about.main_track.as_ref();
        let empty = node.rooms.left(&node, room, &wish.stream);
        if has_record {
            node.records.publish_ended(&wish.stream).await;
        }
        if let Some(room) = room.filter(|_| empty) {
            node.records.room_left(room).await;
        }
    }
}
