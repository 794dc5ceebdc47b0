//! One client's WebSocket at a node: routes its messages to its legs, answers what concerns none, and keeps it bounded.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    http::Line,
    node::Node,
    play, publish, reads,
    words::{self, Request},
};
use crate::{clock, domain::ids::StreamId};

/// Messages to one client that may wait; one that is further behind is closed.
const OUTBOX: usize = 512;
/// Messages to one leg that may wait; more are dropped.
const INBOX: usize = 128;
/// Legs of one socket; AMS names no limit.
const LEGS: usize = 128;
/// Late pongs that one socket may be owed; further pings are not answered.
const LATE_PONGS: usize = 32;
/// A client that takes no bytes for so long is closed.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Where legs put messages for their client.
#[derive(Clone)]
pub(super) struct Outbox {
    queue: mpsc::Sender<Value>,
    overrun: CancellationToken,
}

impl Outbox {
    /// Queues a message; a client that cannot keep up is closed instead.
    pub(super) fn send(&self, message: Value) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(message) {
            self.overrun.cancel();
        }
    }
}

/// What a leg hears from its client. A leg whose client is gone hears the end of the queue.
#[derive(Debug)]
pub(super) enum LegInput {
    Offer(String),
    Answer(String),
    Candidate { candidate: String, mid: Option<String>, label: Option<u16> },
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Publish,
    Play,
}

enum End {
    Gone,
    Closed(CloseCode, &'static str),
}

struct Session {
    node: Arc<Node>,
    outbox: Outbox,
    /// The client is another node that pulls.
    puller: bool,
    legs: HashMap<(Kind, StreamId), mpsc::Sender<LegInput>>,
    pongs: VecDeque<Instant>,
}

/// Serves one client until it, or the node, is gone.
pub(super) async fn run(node: Arc<Node>, mut socket: Socket, line: Line, puller: bool) {
    let _counted = node.sockets.one();
    let (queue, mut queued) = mpsc::channel(OUTBOX);
    let outbox = Outbox { queue, overrun: CancellationToken::new() };
    let mut session = Session { node: Arc::clone(&node), outbox, puller, legs: HashMap::new(), pongs: VecDeque::new() };
    let end = tokio::select! {
        () = node.dead.cancelled() => {
            if !node.stopping.is_cancelled() {
                return line.will_reset();
            }
            End::Closed(CloseCode::Away, "the server stops")
        }
        end = session.serve(&mut socket, &mut queued) => end,
    };
    drop(session);
    if let End::Closed(code, reason) = end {
        let frame = CloseFrame { code, reason: reason.into() };
        let close = async {
            let _ = socket.close(Some(frame)).await;
            // The other side's close frame, if it still has one, completes the handshake.
            while let Some(Ok(_)) = socket.next().await {}
        };
        let _ = tokio::time::timeout(Duration::from_millis(300), close).await;
    }
}

impl Session {
    async fn serve(&mut self, socket: &mut Socket, queued: &mut mpsc::Receiver<Value>) -> End {
        let node = Arc::clone(&self.node);
        let overrun = self.outbox.overrun.clone();
        let mut told = false;
        loop {
            tokio::select! {
                () = node.stopping.cancelled(), if !told => {
                    told = true;
                    self.outbox.send(words::server_will_stop());
                }
                () = overrun.cancelled() => return End::Closed(CloseCode::Policy, "too slow"),
                () = clock::until(self.pongs.front().copied()) => {
                    self.pongs.pop_front();
                    self.outbox.send(json!({ "command": "pong" }));
                }
                Some(message) = queued.recv() => {
                    node.freezer.thawed().await;
                    let written = socket.send(Message::text(message.to_string()));
                    match tokio::time::timeout(WRITE_LIMIT, written).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return End::Gone,
                        Err(_) => return End::Closed(CloseCode::Policy, "too slow"),
                    }
                }
                message = socket.next() => {
                    node.freezer.thawed().await;
                    match message {
                        Some(Ok(Message::Text(text))) => self.take(text.as_str()),
                        Some(Ok(Message::Binary(_))) => return End::Closed(CloseCode::Unsupported, "text only"),
                        Some(Ok(Message::Close(_))) | None => return End::Gone,
                        Some(Ok(_)) => {}
                        Some(Err(tungstenite::Error::Capacity(_))) => return End::Closed(CloseCode::Size, "too large"),
                        Some(Err(error)) => {
                            tracing::debug!(%error, "a client's socket broke");
                            return End::Gone;
                        }
                    }
                }
            }
        }
    }

    fn take(&mut self, text: &str) {
        // AMS answers nothing that it cannot read.
        let Some(request) = Request::read(text) else { return };
        tracing::debug!(node = %self.node.options.id, command = %request.command, stream = request.text("streamId"));
        match request.command.as_str() {
            "ping" => self.pong(),
            "getIceServerConfig" => self.outbox.send(json!({
                "command": "iceServerConfig",
                "stunServerUri": "",
                "turnServerUsername": "",
                "turnServerCredential": "",
            })),
            "publish" => self.start(Kind::Publish, &request),
            "play" => self.start(Kind::Play, &request),
            "takeConfiguration" => self.configuration(&request),
            "takeCandidate" => self.candidate(&request),
            "stop" => self.stop(&request),
            _ => reads::answer(&self.node, &self.outbox, request),
        }
    }

    fn pong(&mut self) {
        let traits = &self.node.options.traits;
        let late = !traits.late_pong.is_zero() && self.node.cpu() >= traits.late_pong_above && !self.puller;
        if !late {
            self.outbox.send(json!({ "command": "pong" }));
        } else if self.pongs.len() < LATE_PONGS {
            self.pongs.push_back(clock::now() + traits.late_pong);
        }
    }

    fn start(&mut self, kind: Kind, request: &Request) {
        let stream = match request.stream() {
            Ok(stream) => stream,
            Err(bad) => return self.outbox.send(words::error(request.text("streamId"), bad.definition())),
        };
        self.legs.retain(|_, inbox| !inbox.is_closed());
        let key = (kind, stream.clone());
        if self.legs.contains_key(&key) {
            let already = if kind == Kind::Publish { "already_publishing" } else { "already_playing" };
            return self.outbox.send(words::error(stream.as_str(), already));
        }
        if self.legs.len() >= LEGS {
            return self.outbox.send(words::error(stream.as_str(), "highResourceUsage"));
        }
        let (inbox, received) = mpsc::channel(INBOX);
        self.legs.insert(key, inbox);
        let (node, outbox) = (Arc::clone(&self.node), self.outbox.clone());
        match kind {
            Kind::Publish => {
                let wish = publish::Wish::read(stream, request);
                self.node.spawn(publish::run(node, outbox, received, wish));
            }
            Kind::Play => {
                let wish = play::Wish::read(stream, request, self.puller);
                self.node.spawn(play::run(node, outbox, received, wish));
            }
        }
    }

    fn configuration(&self, request: &Request) {
        let Ok(stream) = request.stream() else { return };
        let sdp = request.text("sdp").to_owned();
        // The side that offers tells the legs of one stream apart: publishers offer, players answer.
        match request.text("type") {
            "offer" => self.tell(Kind::Publish, &stream, LegInput::Offer(sdp)),
            "answer" => self.tell(Kind::Play, &stream, LegInput::Answer(sdp)),
            _ => {}
        }
    }

    fn candidate(&self, request: &Request) {
        let Ok(stream) = request.stream() else { return };
        for kind in [Kind::Publish, Kind::Play] {
            let mid = request.text("id");
            let input = LegInput::Candidate {
                candidate: request.text("candidate").to_owned(),
                mid: Some(mid.to_owned()).filter(|mid| !mid.is_empty()),
                label: request.number("label").and_then(|label| u16::try_from(label).ok()),
            };
            self.tell(kind, &stream, input);
        }
    }

    fn stop(&mut self, request: &Request) {
        let Ok(stream) = request.stream() else { return };
        for kind in [Kind::Publish, Kind::Play] {
            self.tell(kind, &stream, LegInput::Stop);
            self.legs.remove(&(kind, stream.clone()));
        }
    }

    fn tell(&self, kind: Kind, stream: &StreamId, input: LegInput) {
        if let Some(inbox) = self.legs.get(&(kind, stream.clone()))
            && inbox.try_send(input).is_err()
        {
            tracing::debug!(%stream, "a message for a finished or overrun leg was dropped");
        }
    }
}
