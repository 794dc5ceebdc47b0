//! A client of AMS signalling: one WebSocket, many legs, each with a WebRTC stack of the test's choice.
//!
//! It does what SDKs do and records everything it sees; tests wait for what they expect and assert on the record.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};

/// How long a test waits for what it expects.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// What one leg has seen so far.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Every signalling message with this leg's `streamId`, as it came.
    pub messages: Vec<Value>,
    /// The WebRTC connection is up.
    pub connected: bool,
    pub audio_packets: u64,
    pub video_packets: u64,
    /// When each video packet came.
    pub video_at: Vec<Instant>,
    /// From the command to the first media packet.
    pub first_media: Option<Duration>,
    /// The texts that media payloads carried (publishers put their stream's name in).
    pub marks: BTreeSet<String>,
    /// Texts that came over data channels.
    pub data: Vec<String>,
    /// A data channel is open.
    pub data_open: bool,
    /// Key frames that the other side asked this publisher for.
    pub key_frame_requests: u64,
    /// The addresses that the other side's candidates name.
    pub candidates: Vec<String>,
    /// Offers that were answered.
    pub offers: u64,
    /// The last `idMapping`.
    pub id_mapping: Value,
    /// What went wrong in the WebRTC stack.
    pub trouble: Vec<String>,
}

impl Report {
    /// Whether a notification or error with this definition has come.
    pub fn has(&self, definition: &str) -> bool {
        self.messages.iter().any(|message| message["definition"] == definition)
    }

    /// How often it has come.
    pub fn count(&self, definition: &str) -> usize {
        self.messages.iter().filter(|message| message["definition"] == definition).count()
    }

    /// The longest time between two video packets, or between one and the ends of the window, inside it.
    pub fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let inside = self.video_at.iter().copied().filter(|at| (from..to).contains(at));
        let mut before = from;
        let mut longest = Duration::ZERO;
        for at in inside.chain([to]) {
            longest = longest.max(at.saturating_duration_since(before));
            before = at;
        }
        longest
    }
}

/// What the whole socket has seen so far.
#[derive(Debug, Clone, Default)]
pub struct SocketReport {
    /// Every message, as it came.
    pub messages: Vec<Value>,
    /// The socket is gone, and why.
    pub closed: Option<String>,
}

/// Whether a leg sends or receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Publish,
    Play,
}

/// What a leg is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    pub kind: Kind,
    pub stream: String,
    pub audio: bool,
    pub video: bool,
    /// Further fields of the `publish` or `play` message.
    pub fields: Value,
    /// Where the client's media is bound.
    pub ip: IpAddr,
}

impl Plan {
    pub fn publish(stream: &str) -> Self {
        Self {
            kind: Kind::Publish,
            stream: stream.to_owned(),
            audio: true,
            video: true,
            fields: json!({}),
            ip: Ipv4Addr::LOCALHOST.into(),
        }
    }

    pub fn play(stream: &str) -> Self {
        Self { kind: Kind::Play, ..Self::publish(stream) }
    }

    pub fn at(mut self, ip: IpAddr) -> Self {
        self.ip = ip;
        self
    }

    pub fn with(mut self, fields: Value) -> Self {
        self.fields = fields;
        self
    }
}

/// What signalling asks of a WebRTC stack.
#[derive(Debug)]
pub enum MediaOrder {
    /// Make an offer (again).
    MakeOffer,
    /// Make an offer with new ICE credentials.
    RestartIce,
    TakeOffer(String),
    TakeAnswer(String),
    TakeCandidate {
        candidate: String,
        mid: String,
    },
    SendData(String),
    AskForKeyFrame,
}

/// What a WebRTC stack asks of signalling.
#[derive(Debug)]
pub enum MediaEvent {
    Offer(String),
    Answer(String),
    Candidate { candidate: String, mid: String, label: u16 },
}

/// A stack's side of its leg.
pub struct MediaPorts {
    pub orders: mpsc::UnboundedReceiver<MediaOrder>,
    pub events: mpsc::UnboundedSender<MediaEvent>,
    pub report: Reporter,
}

/// Runs a WebRTC stack for one leg; ends when its orders end.
pub type Stack = fn(Plan, MediaPorts) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// What is done to every text before the client reads it.
pub type Hook = Arc<dyn Fn(String) -> String + Send + Sync>;

/// Where a leg's record is written.
#[derive(Clone)]
pub struct Reporter {
    report: watch::Sender<Report>,
    begun: Instant,
}

impl Reporter {
    /// Writes into `report`; time counts from now.
    pub fn new(report: watch::Sender<Report>) -> Self {
        Self { report, begun: Instant::now() }
    }

    pub fn note(&self, note: impl FnOnce(&mut Report)) {
        self.report.send_modify(note);
    }

    pub fn trouble(&self, what: &str, error: impl std::fmt::Display) {
        self.note(|report| report.trouble.push(format!("{what}: {error}")));
    }

    /// One media packet, or frame, has come.
    pub fn media(&self, video: bool, payload: &[u8]) {
        let took = self.begun.elapsed();
        self.note(|report| {
            if video {
                report.video_packets += 1;
                report.video_at.push(Instant::now());
            } else {
                report.audio_packets += 1;
            }
            report.first_media.get_or_insert(took);
            if report.marks.len() < 16 {
                report.marks.extend(mark_in(payload));
            }
        });
    }
}

/// The payload that a publisher of `stream` sends: enough like VP8 for depacketizers, with the name inside.
pub fn marked_payload(stream: &str) -> Vec<u8> {
    format!("\0\0\0mark<{stream}>").into_bytes()
}

fn mark_in(payload: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(payload).into_owned();
    let (_, after) = text.split_once("mark<")?;
    Some(after.split_once('>')?.0.to_owned())
}

/// One leg.
pub struct Leg {
    pub stream: String,
    report: watch::Receiver<Report>,
    orders: mpsc::UnboundedSender<Order>,
    number: usize,
}

impl Leg {
    /// Waits until the record satisfies `what`, and returns it.
    ///
    /// # Panics
    ///
    /// When that takes too long: the test has failed, and the record says how far it came.
    pub async fn until(&self, what: &str, check: impl Fn(&Report) -> bool) -> Report {
        let mut report = self.report.clone();
        if let Ok(Ok(report)) = tokio::time::timeout(PATIENCE, report.wait_for(&check)).await {
            return report.clone();
        }
        let seen = self.report();
        assert!(check(&seen), "{}: never saw that {what}; saw {}", self.stream, brief(&seen));
        seen
    }

    /// Waits for a notification or error.
    pub async fn until_has(&self, definition: &str) -> Report {
        self.until(definition, |report| report.has(definition)).await
    }

    /// Waits for this many more video packets than there are now.
    pub async fn until_more_video(&self, more: u64) -> Report {
        let before = self.report().video_packets;
        self.until("more video came", |report| report.video_packets >= before + more).await
    }

    pub fn report(&self) -> Report {
        self.report.borrow().clone()
    }

    pub fn send_data(&self, text: &str) {
        self.order(Order::Media(self.number, MediaOrder::SendData(text.to_owned())));
    }

    /// Offers again, with new ICE credentials.
    pub fn restart_ice(&self) {
        self.order(Order::Media(self.number, MediaOrder::RestartIce));
    }

    pub fn ask_for_key_frame(&self) {
        self.order(Order::Media(self.number, MediaOrder::AskForKeyFrame));
    }

    /// Says `stop` and ends the WebRTC connection.
    pub fn stop(&self) {
        self.order(Order::Stop(self.number));
    }

    fn order(&self, order: Order) {
        // A socket that has ended takes no orders; the test sees that in its record.
        let _ = self.orders.send(order);
    }
}

/// A WebRTC stack without signalling: the test carries its descriptions.
pub struct Alone {
    pub orders: mpsc::UnboundedSender<MediaOrder>,
    pub events: mpsc::UnboundedReceiver<MediaEvent>,
    report: watch::Receiver<Report>,
}

impl Alone {
    pub fn start(plan: Plan, stack: Stack) -> Self {
        let (orders, to_stack) = mpsc::unbounded_channel();
        let (from_stack, events) = mpsc::unbounded_channel();
        let (reporter, report) = watch::channel(Report::default());
        let reporter = Reporter { report: reporter, begun: Instant::now() };
        tokio::spawn(stack(plan, MediaPorts { orders: to_stack, events: from_stack, report: reporter }));
        Self { orders, events, report }
    }

    /// Its next offer or answer.
    ///
    /// # Panics
    ///
    /// When that takes too long.
    pub async fn description(&mut self) -> String {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("it describes itself in time");
        match event.expect("the stack runs") {
            MediaEvent::Offer(sdp) | MediaEvent::Answer(sdp) => sdp,
            MediaEvent::Candidate { .. } => panic!("this stack does not trickle"),
        }
    }

    /// Waits until the record satisfies `check`, and returns it.
    ///
    /// # Panics
    ///
    /// When that takes too long.
    pub async fn until(&self, what: &str, check: impl Fn(&Report) -> bool) -> Report {
        let mut report = self.report.clone();
        let seen = tokio::time::timeout(PATIENCE, report.wait_for(&check)).await;
        let Ok(Ok(seen)) = seen else { panic!("never saw that {what}; saw {}", brief(&self.report.borrow())) };
        seen.clone()
    }
}

fn brief(report: &Report) -> String {
    let word = |message: &Value| {
        let definition = message["definition"].as_str().or(message["type"].as_str()).unwrap_or_default();
        format!("{}/{definition}", message["command"].as_str().unwrap_or_default())
    };
    let messages: Vec<_> = report.messages.iter().map(word).collect();
    let rest = Report { messages: Vec::new(), video_at: Vec::new(), ..report.clone() };
    format!("messages {messages:?}, and {rest:?}")
}

/// One WebSocket.
pub struct Socket {
    report: watch::Receiver<SocketReport>,
    orders: mpsc::UnboundedSender<Order>,
    next: std::sync::atomic::AtomicUsize,
}

enum Order {
    Begin(usize, Plan, Stack, watch::Sender<Report>),
    Media(usize, MediaOrder),
    Stop(usize),
    Say(String),
    Reset,
    Close,
}

impl Socket {
    /// Opens `ws://IP:PORT/app/websocket`.
    pub async fn open(url: &str) -> Result<Self, String> {
        Self::open_with(url, Arc::new(|text| text)).await
    }

    /// The same, for a client to whom every text comes changed: its record holds the changed ones.
    pub async fn open_with(url: &str, hook: Hook) -> Result<Self, String> {
        let authority = url.strip_prefix("ws://").ok_or("a ws:// URL")?;
        let address = authority.split('/').next().unwrap_or_default();
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let config = WebSocketConfig::default();
        let opened = client_async_with_config(url, stream, Some(config)).await;
        let (socket, _) = opened.map_err(|error| error.to_string())?;
        let (orders, received) = mpsc::unbounded_channel();
        let (reporter, report) = watch::channel(SocketReport::default());
        let (media, heard) = mpsc::unbounded_channel();
        let line = Line { socket, legs: Vec::new(), report: reporter, media, hook };
        tokio::spawn(line.run(received, heard));
        Ok(Self { report, orders, next: std::sync::atomic::AtomicUsize::new(0) })
    }

    /// Begins a leg.
    pub fn begin(&self, plan: Plan, stack: Stack) -> Leg {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let stream = plan.stream.clone();
        let (reporter, report) = watch::channel(Report::default());
        let _ = self.orders.send(Order::Begin(number, plan, stack, reporter));
        Leg { stream, report, orders: self.orders.clone(), number }
    }

    /// Says anything.
    pub fn say(&self, message: Value) {
        let _ = self.orders.send(Order::Say(message.to_string()));
    }

    /// Says anything at all.
    pub fn say_text(&self, text: &str) {
        let _ = self.orders.send(Order::Say(text.to_owned()));
    }

    /// Ends the TCP connection without a word (a reset), as a phone in a tunnel does.
    pub fn reset(&self) {
        let _ = self.orders.send(Order::Reset);
    }

    /// Closes politely, without `stop`.
    pub fn close(&self) {
        let _ = self.orders.send(Order::Close);
    }

    pub fn report(&self) -> SocketReport {
        self.report.borrow().clone()
    }

    /// Waits until the record satisfies `what`, and returns it.
    ///
    /// # Panics
    ///
    /// When that takes too long.
    pub async fn until(&self, what: &str, check: impl Fn(&SocketReport) -> bool) -> SocketReport {
        let mut report = self.report.clone();
        if let Ok(Ok(report)) = tokio::time::timeout(PATIENCE, report.wait_for(&check)).await {
            return report.clone();
        }
        let seen = self.report();
        assert!(check(&seen), "never saw that {what}; saw {seen:?}");
        seen
    }

    /// Waits for the first message that satisfies `check`.
    pub async fn until_message(&self, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        let report = self.until(what, |report| report.messages.iter().any(&check)).await;
        report.messages.into_iter().find(|message| check(message)).expect("it was just there")
    }
}

struct Line {
    socket: WebSocketStream<TcpStream>,
    legs: Vec<Running>,
    report: watch::Sender<SocketReport>,
    media: mpsc::UnboundedSender<(usize, MediaEvent)>,
    hook: Hook,
}

struct Running {
    number: usize,
    plan: Plan,
    orders: mpsc::UnboundedSender<MediaOrder>,
    report: Reporter,
}

impl Line {
    async fn run(
        mut self,
        mut orders: mpsc::UnboundedReceiver<Order>,
        mut heard: mpsc::UnboundedReceiver<(usize, MediaEvent)>,
    ) {
        let why = loop {
            let over = tokio::select! {
                order = orders.recv() => self.obey(order).await,
                Some((number, event)) = heard.recv() => self.pass_on(number, event).await,
                message = self.socket.next() => match message {
                    Some(Ok(Message::Text(text))) => self.take(&(self.hook)(text.as_str().to_owned())),
                    Some(Ok(Message::Close(frame))) => Some(format!("closed: {frame:?}")),
                    Some(Ok(_)) => None,
                    Some(Err(error)) => Some(format!("broke: {error}")),
                    None => Some("ended".to_owned()),
                },
            };
            if let Some(why) = over {
                break why;
            }
        };
        self.report.send_modify(|report| report.closed = Some(why));
        // The legs' media goes on as long as the test holds on to the socket: a closed socket does not stop a camera.
        while let Some(order) = orders.recv().await {
            match order {
                Order::Media(number, order) => self.tell(number, order),
                Order::Stop(number) => self.legs.retain(|leg| leg.number != number),
                _ => {}
            }
        }
    }

    async fn say(&mut self, text: String) -> Option<String> {
        self.socket.send(Message::text(text)).await.err().map(|error| format!("broke: {error}"))
    }

    async fn obey(&mut self, order: Option<Order>) -> Option<String> {
        match order {
            Some(Order::Begin(number, plan, stack, report)) => {
                let (to_stack, orders) = mpsc::unbounded_channel();
                let (events, mut from_stack) = mpsc::unbounded_channel();
                let report = Reporter::new(report);
                tokio::spawn(stack(plan.clone(), MediaPorts { orders, events, report: report.clone() }));
                let media = self.media.clone();
                tokio::spawn(async move {
                    while let Some(event) = from_stack.recv().await {
                        let _ = media.send((number, event));
                    }
                });
                let message = command(&plan);
                self.legs.push(Running { number, plan, orders: to_stack, report });
                self.say(message).await
            }
            Some(Order::Media(number, order)) => {
                self.tell(number, order);
                None
            }
            Some(Order::Stop(number)) => {
                let position = self.legs.iter().position(|leg| leg.number == number)?;
                let stream = self.legs[position].plan.stream.clone();
                // The leg's record goes on: the node still has to say `*_finished`.
                let (closed, _) = mpsc::unbounded_channel();
                self.legs[position].orders = closed;
                self.say(json!({ "command": "stop", "streamId": stream }).to_string()).await
            }
            Some(Order::Say(text)) => self.say(text).await,
            Some(Order::Reset) => {
                let socket = socket2::SockRef::from(self.socket.get_ref());
                socket.set_linger(Some(Duration::ZERO)).expect("a live socket");
                let gone = replace_by_nothing(&mut self.socket).await;
                drop(gone);
                Some("reset by the test".to_owned())
            }
            Some(Order::Close) => {
                let _ = self.socket.close(None).await;
                Some("closed by the test".to_owned())
            }
            None => Some("the test let go".to_owned()),
        }
    }

    fn tell(&self, number: usize, order: MediaOrder) {
        if let Some(leg) = self.legs.iter().find(|leg| leg.number == number) {
            let _ = leg.orders.send(order);
        }
    }

    async fn pass_on(&mut self, number: usize, event: MediaEvent) -> Option<String> {
        let leg = self.legs.iter().find(|leg| leg.number == number)?;
        let stream = &leg.plan.stream;
        let message = match event {
            MediaEvent::Offer(sdp) => {
                json!({ "command": "takeConfiguration", "streamId": stream, "type": "offer", "sdp": sdp })
            }
            MediaEvent::Answer(sdp) => {
                json!({ "command": "takeConfiguration", "streamId": stream, "type": "answer", "sdp": sdp })
            }
            MediaEvent::Candidate { candidate, mid, label } => json!({
                "command": "takeCandidate", "streamId": stream, "label": label, "id": mid, "candidate": candidate,
            }),
        };
        self.say(message.to_string()).await
    }

    fn take(&mut self, text: &str) -> Option<String> {
        let Ok(message) = serde_json::from_str::<Value>(text) else { return None };
        self.report.send_modify(|report| report.messages.push(message.clone()));
        let stream = message["streamId"].as_str()?;
        let word = |field: &str| message[field].as_str().unwrap_or_default().to_owned();
        for leg in self.legs.iter().filter(|leg| leg.plan.stream == stream) {
            let order = match (message["command"].as_str()?, message["type"].as_str(), leg.plan.kind) {
                ("start", _, Kind::Publish) => Some(MediaOrder::MakeOffer),
                ("takeConfiguration", Some("answer"), Kind::Publish) => Some(MediaOrder::TakeAnswer(word("sdp"))),
                ("takeConfiguration", Some("offer"), Kind::Play) => Some(MediaOrder::TakeOffer(word("sdp"))),
                ("takeCandidate", ..) => {
                    Some(MediaOrder::TakeCandidate { candidate: word("candidate"), mid: word("id") })
                }
                ("start", ..) | ("takeConfiguration", ..) => continue,
                _ => None,
            };
            leg.report.note(|report| {
                report.messages.push(message.clone());
                if let Some(MediaOrder::TakeCandidate { candidate, .. }) = &order {
                    report.candidates.push(candidate.clone());
                }
                if let Some(MediaOrder::TakeOffer(_)) = &order {
                    report.id_mapping = message["idMapping"].clone();
                    report.offers += 1;
                }
            });
            if let Some(order) = order {
                let _ = leg.orders.send(order);
            }
        }
        None
    }
}

/// Takes the TCP stream out of the WebSocket, so that dropping it is all that happens to it.
async fn replace_by_nothing(socket: &mut WebSocketStream<TcpStream>) -> Option<WebSocketStream<TcpStream>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.ok()?;
    let other = TcpStream::connect(listener.local_addr().ok()?).await.ok()?;
    let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
    let other = WebSocketStream::from_raw_socket(other, role, None).await;
    Some(std::mem::replace(socket, other))
}

fn command(plan: &Plan) -> String {
    let mut message = match plan.kind {
        Kind::Publish => json!({
            "command": "publish", "streamId": plan.stream, "token": "", "subscriberId": "", "subscriberCode": "",
            "streamName": "", "mainTrack": "", "video": plan.video, "audio": plan.audio, "metaData": "", "role": "",
        }),
        Kind::Play => json!({
            "command": "play", "streamId": plan.stream, "token": "", "room": "", "trackList": [], "subscriberId": "",
            "subscriberName": "", "subscriberCode": "", "viewerInfo": "", "role": "", "userPublishId": "",
        }),
    };
    if let (Value::Object(message), Value::Object(more)) = (&mut message, &plan.fields) {
        message.extend(more.clone());
    }
    message.to_string()
}
