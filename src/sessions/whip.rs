//! WHIP and WHEP resources: each is the client of a session, inside the door.
//!
//! ```text
//!  front ─POST─► create ─┬─► session (actor) ◄── a WebSocket in memory ──► resource task: domain::whip::Resource
//!        ─PATCH, DELETE─► Resource ──────────── mailbox ────────────────────►│
//!  media relay ── events ──► watch ─────────────────────────────────────────►┘
//! ```
//!
//! So a resource costs a seat, is placed, relayed, drained and counted like any other session, and the actor does not
//! know it from a browser.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::DuplexStream,
    sync::{broadcast::error::RecvError, mpsc, oneshot},
};

use super::{Client, SessionSeat, Sessions};
use crate::{
    clock, config,
    domain::{
        ids::{AppName, ClientAddr, Kind, SessionId, StreamId},
        relay::{EventKind, FlowEnd},
        whip::{self, End, Input, MediaNews, Output, Patch, Refusal, Reply, Wish},
    },
    media::MediaEvent,
    shutdown::Shutdown,
    upstream::{Frame, Socket, SocketLimits},
};

/// Bytes of signalling between a session and its resource that may wait, in either direction.
const PIPE: usize = 64 * 1024;
/// Requests and media events of one resource that may wait; a further request is refused as busy, a further event lost.
const MAILBOX: usize = 32;
/// Ended resources whose DELETE is still answered as done (RFC 9725 asks clients to send one); beyond it the oldest go.
const ENDED: usize = 4096;
/// Longer than any answer takes that a resource has promised itself.
const ANSWER: Duration = Duration::from_secs(12);

/// All resources of this door.
#[derive(Debug, Clone)]
pub struct Resources {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sessions: Sessions,
    shutdown: Shutdown,
    ice_servers: Option<String>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// As bounded as seats: each resource has one.
    open: HashMap<ResourceId, Resource>,
    by_session: HashMap<SessionId, ResourceId>,
    ended: VecDeque<ResourceId>,
}

/// The unguessable part of a resource's URL: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResourceId(u128);

impl ResourceId {
    fn new() -> Self {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness, or TLS would have failed before");
        Self(u128::from_ne_bytes(bytes))
    }

    /// Reads what its `Display` writes; nothing else is one.
    pub fn parse(text: &str) -> Option<Self> {
        let is_own = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_own.then(|| u128::from_str_radix(text, 16).ok().map(Self))?
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever knows it may end the client's session.
        f.write_str("ResourceId(..)")
    }
}

/// What a client POSTs.
#[derive(Debug)]
pub struct Post {
    /// The app.
    pub app: AppName,
    /// Publish: WHIP; play: WHEP.
    pub kind: Kind,
    /// The stream.
    pub stream: StreamId,
    /// Token and parameters.
    pub wish: Wish,
    /// Its offer, of [`crate::domain::sdp::MAX_SDP`] bytes at most.
    pub offer: String,
    /// The client.
    pub client: ClientAddr,
    /// The `Host` that it asked for.
    pub host: Option<String>,
    /// Whether it came over TLS.
    pub tls: bool,
    /// Its seat.
    pub seat: SessionSeat,
}

/// A resource that is open.
#[derive(Debug, Clone)]
pub struct Resource {
    app: AppName,
    kind: Kind,
    stream: StreamId,
    mailbox: mpsc::Sender<Mail>,
}

#[derive(Debug)]
enum Mail {
    Patch(Patch, oneshot::Sender<Reply>),
    Delete(oneshot::Sender<()>),
    Media(MediaNews),
}

impl Resources {
    /// No resources yet. To be called on a tokio runtime.
    pub fn new(config: &config::Signaling, sessions: Sessions, shutdown: Shutdown) -> Self {
        let ice_servers = whip::ice_server_link(&config.stun_uri, &config.turn_username, &config.turn_credential.0);
        let inner = Arc::new(Inner { sessions, shutdown, ice_servers, table: Mutex::default() });
        if let Some(media) = &inner.sessions.shared.media {
            let events = media.events();
            inner.shutdown.spawn(watch(events, Arc::clone(&inner)));
        }
        Self { inner }
    }

    /// The value of `Link` that names the ICE servers, if there are any.
    pub fn ice_server_link(&self) -> Option<&str> {
        self.inner.ice_servers.as_deref()
    }

    /// Begins a resource. Its answer comes within seconds; dropping this future before that ends the resource.
    ///
    /// # Errors
    /// What the client is to be told.
    pub async fn create(&self, post: Post) -> Result<(ResourceId, String, String), Refusal> {
        let (answer, answered) = oneshot::channel();
        let id = ResourceId::new();
        let begin = Begun::new(&self.inner, id, post, answer);
        self.inner.shutdown.spawn(begin.run());
        match answered.await {
            Ok(Reply::Created { sdp, tag }) => Ok((id, sdp, tag)),
            Ok(Reply::Refused(refusal)) => Err(refusal),
            Ok(Reply::Taken | Reply::Restarted { .. }) | Err(_) => Err(Refusal::Busy),
        }
    }

    /// The resource of this URL.
    pub fn find(&self, app: &AppName, kind: Kind, stream: &StreamId, id: ResourceId) -> Option<Resource> {
        let table = self.inner.lock();
        let found = table.open.get(&id)?;
        (found.app == *app && found.kind == kind && found.stream == *stream).then(|| found.clone())
    }

    /// Whether a resource had this id, and ended not long ago.
    pub fn has_ended(&self, id: ResourceId) -> bool {
        self.inner.lock().ended.contains(&id)
    }
}

impl Resource {
    /// Hands a PATCH over and waits for its answer.
    pub async fn patch(&self, patch: Patch) -> Reply {
        let (answer, answered) = oneshot::channel();
        if let Err(refused) = self.mailbox.try_send(Mail::Patch(patch, answer)) {
            return Reply::Refused(match refused {
                mpsc::error::TrySendError::Full(_) => Refusal::Busy,
                mpsc::error::TrySendError::Closed(_) => Refusal::NotFound,
            });
        }
        let answered = tokio::time::timeout(ANSWER, answered).await;
        answered.map_or(Reply::Refused(Refusal::BadNode), |reply| reply.unwrap_or(Reply::Refused(Refusal::NotFound)))
    }

    /// Ends it, and waits until its session has been told.
    pub async fn delete(&self) {
        let (done, is_done) = oneshot::channel();
        // A resource that has ended meanwhile is as good as deleted.
        if self.mailbox.send(Mail::Delete(done)).await.is_ok() {
            let _ = is_done.await;
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In the table for as long as it lives.
struct Entry {
    inner: Arc<Inner>,
    id: ResourceId,
    session: SessionId,
}

impl Entry {
    fn new(inner: &Arc<Inner>, id: ResourceId, session: SessionId, resource: Resource) -> Self {
        let mut table = inner.lock();
        table.open.insert(id, resource);
        table.by_session.insert(session, id);
        drop(table);
        Self { inner: Arc::clone(inner), id, session }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut table = self.inner.lock();
        table.open.remove(&self.id);
        table.by_session.remove(&self.session);
        if table.ended.len() >= ENDED {
            table.ended.pop_front();
        }
        table.ended.push_back(self.id);
    }
}

/// A resource's task.
struct Begun {
    resource: whip::Resource,
    socket: Socket<DuplexStream>,
    mail: mpsc::Receiver<Mail>,
    /// Who waits for the POST's answer, or for a PATCH's.
    waiting: Option<oneshot::Sender<Reply>>,
    /// Where the POST's client is still waiting: its going away ends the resource.
    posting: bool,
    /// Who waits for its end; dropped then.
    deleting: Option<oneshot::Sender<()>>,
    dirty: bool,
    entry: Entry,
}

enum Event {
    Input(Input),
    Mail(Mail),
}

impl Begun {
    fn new(inner: &Arc<Inner>, id: ResourceId, post: Post, answer: oneshot::Sender<Reply>) -> Self {
        let (sessions_end, own_end) = tokio::io::duplex(PIPE);
        let limits = inner.sessions.client_limits();
        let own_limits = SocketLimits { max_message: super::MAX_FROM_NODE, ..limits };
        let session = SessionId(fastrand::u64(..));
        let target = if post.kind == Kind::Publish { "origin" } else { "edge" };
        let client = Client {
            path: format!("/{}/websocket?target={target}", post.app),
            app: post.app.clone(),
            address: post.client,
            host: post.host,
            tls: post.tls,
            socket: Socket::server(sessions_end, &[], limits),
            seat: post.seat,
        };
        inner.shutdown.spawn(inner.sessions.run_as(client, session));
        let (mailbox, mail) = mpsc::channel(MAILBOX);
        let handle = Resource { app: post.app, kind: post.kind, stream: post.stream.clone(), mailbox };
        let relayed = inner.sessions.shared.media.is_some();
        tracing::info!(%session, stream = %post.stream, kind = post.kind.as_str(), "resource");
        Self {
            resource: whip::Resource::new(post.kind, post.stream, &post.wish, post.offer, relayed, clock::now()),
            socket: Socket::client(own_end, &[], own_limits),
            mail,
            waiting: Some(answer),
            posting: true,
            deleting: None,
            dirty: false,
            entry: Entry::new(inner, id, session, handle),
        }
    }

    async fn run(mut self) {
        let end = loop {
            if let Some(end) = self.carry_out() {
                break end;
            }
            if std::mem::take(&mut self.dirty) && self.socket.flush().await.is_err() {
                self.resource.handle(Input::SessionEnded, clock::now());
                continue;
            }
            match self.next().await {
                Event::Input(input) => self.resource.handle(input, clock::now()),
                Event::Mail(mail) => self.take(mail),
            }
        };
        let Self { socket, deleting, entry, .. } = self;
        tracing::info!(session = %entry.session, end = end.as_str(), "resource ended");
        drop(entry);
        socket.close(1000, end.as_str()).await;
        drop(deleting);
    }

    /// Does what the resource wants; says so when it has ended.
    fn carry_out(&mut self) -> Option<End> {
        while let Some(output) = self.resource.poll_output() {
            match output {
                Output::ToSession(text) => {
                    self.dirty = true;
                    if self.socket.feed(&text).is_err() {
                        self.resource.handle(Input::SessionEnded, clock::now());
                    }
                }
                Output::Reply(reply) => {
                    let was_post = std::mem::take(&mut self.posting);
                    let sent = self.waiting.take().is_some_and(|waiting| waiting.send(reply).is_ok());
                    if was_post && !sent {
                        self.resource.handle(Input::Delete, clock::now());
                    }
                }
                Output::End(end) => return Some(end),
            }
        }
        None
    }

    async fn next(&mut self) -> Event {
        let due = self.resource.poll_timeout();
        let (socket, posting) = (&mut self.socket, self.posting);
        let waiting = &mut self.waiting;
        let left = async {
            match waiting {
                Some(waiting) if posting => waiting.closed().await,
                _ => std::future::pending().await,
            }
        };
        let said = async {
            loop {
                match poll_fn(|cx| socket.poll_frame(cx)).await {
                    Ok(Frame::Text(text)) => return Input::Session(text),
                    Ok(Frame::Binary | Frame::Alive) => {}
                    Err(_) => return Input::SessionEnded,
                }
            }
        };
        tokio::select! {
            biased;
            () = clock::until(due) => Event::Input(Input::Tick),
            () = left => Event::Input(Input::Delete),
            Some(mail) = self.mail.recv() => Event::Mail(mail),
            input = said => Event::Input(input),
        }
    }

    fn take(&mut self, mail: Mail) {
        let now = clock::now();
        match mail {
            // One at a time: answers come in the order of the questions. Its client knows that it must wait.
            Mail::Patch(_, answer) if self.waiting.is_some() => drop(answer.send(Reply::Refused(Refusal::Busy))),
            Mail::Patch(patch, answer) => {
                self.waiting = Some(answer);
                self.resource.handle(Input::Patch(patch), now);
            }
            Mail::Delete(done) => {
                self.deleting = Some(done);
                self.resource.handle(Input::Delete, now);
            }
            Mail::Media(news) => self.resource.handle(Input::Media(news), now),
        }
    }
}

/// Tells resources what the relay sees of their clients.
async fn watch(mut events: tokio::sync::broadcast::Receiver<MediaEvent>, inner: Arc<Inner>) {
    loop {
        let event = tokio::select! {
            () = inner.shutdown.stopping() => return,
            event = events.recv() => event,
        };
        let event = match event {
            Ok(MediaEvent::Relay(event)) => event,
            Ok(MediaEvent::Refused { .. }) => continue,
            Err(RecvError::Lagged(missed)) => {
                tracing::debug!(missed, "media events missed");
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        let news = match event.kind {
            EventKind::Validated { client } => MediaNews::Up(client),
            EventKind::FlowClosed { client, reason } => MediaNews::Down { client, consent: reason == FlowEnd::Consent },
            _ => continue,
        };
        let table = inner.lock();
        let resource = table.by_session.get(&event.session).and_then(|id| table.open.get(id));
        if let Some(resource) = resource {
            // A resource that does not keep up has more to do than to hear of one more tuple.
            let _ = resource.mailbox.try_send(Mail::Media(news));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_nothing_else_is_one() {
        let id = ResourceId::new();
        assert_eq!(ResourceId::parse(&id.to_string()), Some(id));
        assert_ne!(ResourceId::new(), id);
        assert!(!format!("{id:?}").contains(&id.to_string()), "logs do not hold it");
        let long = format!("{id}0");
        let upper = format!("{:032X}", u128::MAX);
        for other in ["", "0", "+123456789012345678901234567890", long.as_str(), upper.as_str()] {
            assert_eq!(ResourceId::parse(other), None, "{other}");
        }
    }
}
