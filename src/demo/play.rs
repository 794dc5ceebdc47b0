//! One play at a node: the node offers, the client answers, media flows until either side has enough.
//!
//! A room's play goes on while streams come and go: each change is a new offer on the same connection, one at a time.

use std::{collections::BTreeSet, sync::Arc, time::Duration, time::Instant};

use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::{
    egress::{Egress, Naming},
    node::Node,
    peer::PeerEvent,
    pull::{self, Nothing, Playable},
    records::Unread,
    room,
    sdp::Kind,
    session::{LegInput, Outbox},
    source::Seat,
    words::{self, Request},
};
use crate::{clock, domain::ids::StreamId};

/// Between two measurements that a viewer is told.
const MEASURE_EVERY: Duration = Duration::from_secs(3);
/// Between two looks for members of a room at other nodes.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often, and how far apart, a stream that ended is looked for again where nodes re-attach.
const REATTACH_TRIES: usize = 10;
const REATTACH_PAUSE: Duration = Duration::from_millis(500);

/// What a client asked for.
pub(super) struct Wish {
    stream: StreamId,
    subscriber: String,
    /// The client's own publish, which it does not want back from a room.
    own: Option<StreamId>,
    /// The client is another node.
    puller: bool,
}

impl Wish {
    pub(super) fn read(stream: StreamId, request: &Request, puller: bool) -> Self {
        let own = request.name("userPublishId").ok();
        Self { stream, subscriber: request.text("subscriberId").to_owned(), own, puller }
    }
}

/// Serves one play to its end.
pub(super) async fn run(node: Arc<Node>, outbox: Outbox, inbox: mpsc::Receiver<LegInput>, wish: Wish) {
    if !wish.puller {
        tokio::time::sleep(node.options.traits.think).await;
        if node.is_overloaded() {
            return outbox.send(words::error(wish.stream.as_str(), "highResourceUsage"));
        }
    }
    let playable = match pull::find(&node, &wish.stream, wish.puller).await {
        Ok(playable) => playable,
        Err(Nothing::NoStream) => return outbox.send(words::no_stream(wish.stream.as_str())),
        Err(Nothing::NoStore) => return outbox.send(words::error(wish.stream.as_str(), words::NO_STORE)),
    };
    let _counted = if wish.puller { node.pulled.one() } else { node.plays.one() };
    let (seats, naming) = match playable {
        Playable::Stream(seat) => (vec![seat], Naming::Single),
        Playable::Room => match room_seats(&node, &wish, &BTreeSet::new()).await {
            Ok((seats, _)) => (seats, Naming::Room),
            Err(Unread) => return outbox.send(words::error(wish.stream.as_str(), words::NO_STORE)),
        },
    };
    let streams = seats.iter().map(|seat| seat.0.stream.clone()).collect();
    let missed = Arc::clone(&node.missed);
    let built = Egress::new(&node.place, wish.stream.as_str(), seats, naming, missed).await;
    let (egress, events) = match built {
        Ok(built) => built,
        Err(error) => {
            tracing::debug!(%error, stream = %wish.stream, "a play could not be built");
            return outbox.send(words::error(wish.stream.as_str(), "server_error_check_logs"));
        }
    };
    let now = clock::now();
    let leg = Leg {
        deadline: Some(now + node.options.traits.start_timeout),
        room: (naming == Naming::Room).then(|| RoomView { changes: node.rooms.changes(), look_at: now + LOOK_EVERY }),
        streams,
        node,
        outbox,
        wish,
        egress,
        offered: false,
        offer_again: false,
        started: false,
        measure_at: None,
        bytes: (0, 0),
    };
    leg.serve(inbox, events).await;
}

/// Seats at the members of a room that are not in `known`, and all members there are.
async fn room_seats(
    node: &Arc<Node>,
    wish: &Wish,
    known: &BTreeSet<StreamId>,
) -> Result<(Vec<Seat>, BTreeSet<StreamId>), Unread> {
    let mut members = room::members_everywhere(node, &wish.stream).await?;
    if let Some(own) = &wish.own {
        members.remove(own);
    }
    let mut seats = Vec::new();
    for member in members.iter().filter(|member| !known.contains(*member)) {
        seats.extend(pull::seat(node, member).await);
    }
    Ok((seats, members))
}

struct RoomView {
    changes: watch::Receiver<u64>,
    look_at: Instant,
}

struct Leg {
    node: Arc<Node>,
    outbox: Outbox,
    wish: Wish,
    egress: Egress,
    /// What is played, for a room.
    streams: BTreeSet<StreamId>,
    room: Option<RoomView>,
    /// An offer waits for its answer.
    offered: bool,
    /// Something changed meanwhile.
    offer_again: bool,
    started: bool,
    deadline: Option<Instant>,
    measure_at: Option<Instant>,
    bytes: (u64, u64),
}

enum Heard {
    Client(Option<LegInput>),
    Peer(Option<PeerEvent>),
    Ended,
    Room,
    Measure,
    Deadline,
}

impl Leg {
    async fn serve(mut self, mut inbox: mpsc::Receiver<LegInput>, mut events: mpsc::Receiver<PeerEvent>) {
        self.offer().await;
        loop {
            match self.hear(&mut inbox, &mut events).await {
                Heard::Client(Some(LegInput::Answer(sdp))) => self.take_answer(&sdp).await,
                Heard::Client(Some(LegInput::Candidate { candidate, mid, label })) => {
                    self.egress.peer.take_candidate(&candidate, mid.as_deref(), label).await;
                }
                Heard::Client(Some(LegInput::Offer(_))) => {}
                Heard::Client(Some(LegInput::Stop)) => {
                    self.notify("play_finished");
                    break;
                }
                Heard::Client(None) | Heard::Peer(None | Some(PeerEvent::Lost)) => break,
                Heard::Peer(Some(event)) => self.take_event(event).await,
                Heard::Ended if self.node.options.traits.reattach && self.reattach().await => {}
                Heard::Ended => {
                    self.notify("play_finished");
                    break;
                }
                Heard::Room => self.look_at_room().await,
                Heard::Measure => self.measure(),
                Heard::Deadline => break,
            }
        }
        if self.started && !self.wish.puller {
            self.count(-1);
        }
    }

    /// Counts a viewer in the record. Nobody waits for it: the store may be slow.
    fn count(&self, by: i64) {
        let (node, stream) = (Arc::clone(&self.node), self.wish.stream.clone());
        self.node.spawn(async move { node.records.viewers(&stream, by).await });
    }

    async fn hear(&mut self, inbox: &mut mpsc::Receiver<LegInput>, events: &mut mpsc::Receiver<PeerEvent>) -> Heard {
        let ended = match &self.room {
            None => self.egress.ended(),
            Some(_) => None,
        };
        let ended = async {
            match ended {
                Some(ended) => ended.cancelled().await,
                None => std::future::pending().await,
            }
        };
        let room = async {
            match &mut self.room {
                Some(room) => tokio::select! {
                    _ = room.changes.changed() => {}
                    () = clock::until(Some(room.look_at)) => {}
                },
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            input = inbox.recv() => Heard::Client(input),
            event = events.recv() => Heard::Peer(event),
            () = ended => Heard::Ended,
            () = room => Heard::Room,
            () = clock::until(self.measure_at) => Heard::Measure,
            () = clock::until(self.deadline) => Heard::Deadline,
        }
    }

    /// Offers what there is now, once the last offer is answered.
    async fn offer(&mut self) {
        if self.offered {
            self.offer_again = true;
            return;
        }
        let stream = self.wish.stream.as_str();
        match self.egress.offer().await {
            Ok(offer) => {
                self.offered = true;
                self.outbox.send(words::offer(stream, &offer.sdp, offer.id_mapping));
                if !self.started && !self.wish.puller && self.node.options.traits.decoy_candidates {
                    for decoy in words::decoys(self.node.place.ip) {
                        self.outbox.send(words::candidate(stream, 0, "0", &decoy));
                    }
                }
            }
            Err(error) => {
                tracing::debug!(%error, stream, "no offer could be made");
                self.outbox.send(words::error(stream, "notSetLocalDescription"));
            }
        }
    }

    async fn take_answer(&mut self, sdp: &str) {
        if !std::mem::take(&mut self.offered) {
            return;
        }
        if let Err(error) = self.egress.peer.take_answer(sdp).await {
            tracing::debug!(%error, stream = %self.wish.stream, "an answer was refused");
            self.outbox.send(words::error(self.wish.stream.as_str(), "notSetRemoteDescription"));
            return;
        }
        self.egress.obey(sdp).await;
        if self.started {
            self.egress.run();
        }
        if std::mem::take(&mut self.offer_again) {
            self.offer().await;
        }
    }

    async fn take_event(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Candidate { label, mid, candidate } => {
                self.outbox.send(words::candidate(self.wish.stream.as_str(), label, &mid, &candidate));
            }
            PeerEvent::Connected => {
                self.egress.run();
                if !std::mem::replace(&mut self.started, true) {
                    self.deadline = None;
                    self.notify("play_started");
                    if !self.wish.puller {
                        self.measure_at = Some(clock::now() + MEASURE_EVERY);
                        self.count(1);
                    }
                }
            }
            PeerEvent::Track(_) | PeerEvent::Channel(_) | PeerEvent::Lost => {}
        }
    }

    /// Looks for the stream again, for a while.
    async fn reattach(&mut self) -> bool {
        for _ in 0..REATTACH_TRIES {
            tokio::time::sleep(REATTACH_PAUSE).await;
            if let Some(seat) = pull::seat(&self.node, &self.wish.stream).await {
                return self.egress.replace(seat);
            }
        }
        false
    }

    /// Takes in who joined a room and lets go of who left.
    async fn look_at_room(&mut self) {
        let looked = room_seats(&self.node, &self.wish, &self.streams).await;
        if let Some(room) = &mut self.room {
            room.look_at = clock::now() + LOOK_EVERY;
        }
        let Ok((seats, members)) = looked else { return };
        let mut changed = false;
        for seat in seats {
            let stream = seat.0.stream.clone();
            match self.egress.add(seat).await {
                Ok(()) => changed |= self.streams.insert(stream),
                Err(error) => tracing::debug!(%error, %stream, "a room's new stream could not be added"),
            }
        }
        let left: Vec<_> = self.streams.difference(&members).cloned().collect();
        for stream in left {
            self.streams.remove(&stream);
            self.egress.remove(&stream).await;
            changed = true;
        }
        if changed {
            self.offer().await;
        }
    }

    fn measure(&mut self) {
        self.measure_at = Some(clock::now() + MEASURE_EVERY);
        let (audio, video) = (self.egress.bytes(Kind::Audio), self.egress.bytes(Kind::Video));
        let rate = |now: u64, before: u64| now.saturating_sub(before) * 8 / MEASURE_EVERY.as_secs();
        let (audio_rate, video_rate) = (rate(audio, self.bytes.0), rate(video, self.bytes.1));
        self.bytes = (audio, video);
        self.outbox.send(json!({
            "command": "notification",
            "definition": "bitrateMeasurement",
            "streamId": self.wish.stream,
            "targetBitrate": audio_rate + video_rate,
            "videoBitrate": video_rate,
            "audioBitrate": audio_rate,
        }));
    }

    fn notify(&self, definition: &str) {
        self.outbox.send(words::notification(definition, self.wish.stream.as_str(), &self.wish.subscriber));
    }
}
