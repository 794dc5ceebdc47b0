//! One client's task. It holds no policy: it feeds [`Session`] and carries out what that says.

use std::{
    fmt::Write as _,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Sleep,
};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tracing::Span;

use super::{
    Client, SessionSeat, Shared,
    directory::Desk,
    router::{LegSeat, Seated},
    story::{Chosen, What},
};
use crate::{
    clock,
    domain::{
        ids::{AppName, ClientAddr, NodeId, SessionId},
        reject::Reject,
        session::{Ask, CloseReason, Input, LinkLoss, Placed, Session, Ticket},
    },
    telemetry::{access::SessionLine, metrics::Held, spans},
    upstream::{DialError, Frame, Socket, SocketEnd},
};

/// Events that are handled before what they caused is flushed: a burst becomes one system call per socket.
const BATCH: usize = 16;

/// Bytes of its line in the access log that tell a session's legs; those placed later are left out.
const LEGS_TOLD: usize = 1024;

/// A session and everything that it holds on to.
pub(super) struct Actor<C> {
    pub(super) shared: Arc<Shared>,
    id: SessionId,
    pub(super) session: Session,
    pub(super) app: AppName,
    pub(super) address: ClientAddr,
    pub(super) path: String,
    pub(super) host: Option<String>,
    pub(super) tls: bool,
    /// `None` once it has ended.
    pub(super) client: Option<Socket<C>>,
    pub(super) client_dirty: bool,
    pub(super) links: Vec<Link>,
    pub(super) pending: Vec<Pending>,
    pub(super) seats: Vec<(Ticket, LegSeat, Option<Held>)>,
    /// Its placements so far, each as `kind:stream@node`, for the access log.
    legs: String,
    /// Why the session ended, once it has.
    pub(super) closed: Option<CloseReason>,
    /// Where its events are told. Entered when there is something to tell, not for every message that passes.
    pub(super) span: Span,
    /// What others may know of it.
    pub(super) desk: Desk,
    /// The session's legs as they were last shown there.
    pub(super) shown: u32,
    orders: Orders,
    timer: Pin<Box<Sleep>>,
    armed: Instant,
    /// Whom `orders` and `timer` will wake; to ask them at every message would cost more than the message.
    watched: Option<Waker>,
    /// Who is asked first for its next frame, so that neither side can starve the other.
    client_first: bool,
    _seat: SessionSeat,
    _held: Held,
}

pub(super) struct Link {
    pub(super) node: NodeId,
    pub(super) socket: Socket<TcpStream>,
    pub(super) dirty: bool,
    _held: Held,
}

/// Something under way for this session: dropping it cancels it.
pub(super) enum Pending {
    Placing(Ticket, Ask, Pin<Box<dyn Future<Output = Result<Seated, Reject>> + Send>>),
    Dialling(NodeId, Instant, Pin<Box<dyn Future<Output = Result<Socket<TcpStream>, DialError>> + Send>>),
}

/// What the door may ask of all its sessions: first to end within a time, then, or instead, to end now.
struct Orders {
    next: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Whether the first was heard.
    ending: bool,
}

/// What the loop wakes for.
enum Event {
    Input(Input),
    Placed(Ticket, Ask, Result<Seated, Reject>),
    Dialled(NodeId, Instant, Result<Socket<TcpStream>, DialError>),
    /// Nothing more is ready: time to flush.
    Idle,
}

/// Boxed before it runs: futures keep a copy of what they were given by value, one in each of them.
pub(super) fn run<C>(shared: Arc<Shared>, client: Client<C>, id: SessionId) -> impl Future<Output = ()> + Send
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Box::new(Actor::new(shared, client, id)).serve()
}

impl<C> Actor<C>
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    fn new(shared: Arc<Shared>, client: Client<C>, id: SessionId) -> Self {
        let now = clock::now();
        let session = Session::new(Arc::clone(&shared.rules.load().settings), id, now);
        let due = session.poll_timeout().unwrap_or(now);
        let held = shared.metrics.session_opened();
        Self {
            span: spans::session(id, &client.app, client.address),
            desk: shared.directory.open_desk(id, client.app.clone(), client.address, client.tls),
            shown: session.revision(),
            orders: Orders { next: Box::pin(shared.emptying.clone().cancelled_owned()), ending: false },
            watched: None,
            id,
            session,
            shared,
            app: client.app,
            address: client.address,
            path: client.path,
            host: client.host,
            tls: client.tls,
            client: Some(client.socket),
            client_dirty: false,
            links: Vec::new(),
            pending: Vec::new(),
            seats: Vec::new(),
            legs: String::new(),
            closed: None,
            timer: Box::pin(tokio::time::sleep_until(due.into())),
            armed: due,
            client_first: true,
            _seat: client.seat,
            _held: held,
        }
    }

    async fn serve(mut self: Box<Self>) {
        let opened = clock::now();
        let span = self.span.clone();
        span.in_scope(|| tracing::info!("session opened"));
        while self.closed.is_none() {
            self.turn().await;
        }
        let reason = self.closed.map_or("", CloseReason::as_str);
        self.shared.metrics.session_closed(reason);
        let open_for = clock::now().saturating_duration_since(opened);
        self.shared.access.session(&SessionLine {
            session: self.id,
            app: &self.app,
            target: &self.path,
            client: self.address.0.ip(),
            tls: self.tls,
            legs: &self.legs,
            took: open_for,
            end: reason,
        });
        Box::pin(self.close()).await;
        span.in_scope(|| tracing::info!(reason, ?open_for, "session closed"));
    }

    /// Handles what is ready, up to a batch, then flushes; waits if nothing is.
    async fn turn(&mut self) {
        for handled in 0..BATCH {
            let event = poll_fn(|cx| match self.poll_event(cx) {
                Poll::Pending if handled > 0 => Poll::Ready(Event::Idle),
                other => other,
            })
            .await;
            let Some(input) = self.digest(event) else { break };
            self.step(input);
            if self.closed.is_some() {
                return;
            }
            if self.is_full() {
                break;
            }
        }
        self.flush().await;
    }

    /// Whether more input would only lengthen what waits to be written.
    fn is_full(&self) -> bool {
        self.client.as_ref().is_some_and(Socket::is_full) || self.links.iter().any(|link| link.socket.is_full())
    }

    fn step(&mut self, input: Input) {
        let now = clock::now();
        self.session.handle(input, now);
        for (_, seat, _) in &mut self.seats {
            seat.refresh(now);
        }
        while let Some(output) = self.session.poll_output() {
            self.execute(output);
        }
        self.show_legs();
        // A timer that fires early costs a look; setting it anew for every message would cost more.
        if let Some(due) = self.session.poll_timeout()
            && (due < self.armed || self.armed <= now)
        {
            self.armed = due;
            self.timer.as_mut().reset(due.into());
            self.watched = None;
        }
    }

    /// Keeps what belongs to the shell, and turns the rest into the session's input.
    fn digest(&mut self, event: Event) -> Option<Input> {
        match event {
            Event::Idle => None,
            Event::Input(input) => Some(input),
            settled => {
                let _told = self.span.clone().entered();
                self.settle(settled)
            }
        }
    }

    /// Notes a leg for the access log.
    fn note_leg(&mut self, ask: &Ask, seated: &Seated) {
        let (Some(kind), Some(stream)) = (ask.purpose.kind(), &ask.stream) else { return };
        if self.shared.access.is_on() && self.legs.len() < LEGS_TOLD {
            let between = if self.legs.is_empty() { "" } else { " " };
            // Writing to a String cannot fail.
            let _ = write!(self.legs, "{between}{}:{stream}@{}", kind.as_str(), seated.seat.node);
        }
    }

    fn settle(&mut self, event: Event) -> Option<Input> {
        Some(match event {
            Event::Idle => return None,
            Event::Input(input) => input,
            Event::Placed(ticket, ask, result) => {
                self.shared.placed(&ask, &result);
                self.desk.tell(told(&ask, &result));
                let result = result.map(|seated| {
                    self.note_leg(&ask, &seated);
                    let (node, origin) = (seated.seat.node.clone(), seated.origin);
                    let held = seated.seat.kind.map(|kind| self.shared.metrics.leg_opened(kind, &node));
                    self.seats.reserve_exact(1); // one leg, one link is what most sessions have
                    self.seats.push((ticket, seated.seat, held));
                    Placed { node, address: seated.address, origin }
                });
                Input::Placed { ticket, result }
            }
            Event::Dialled(node, since, Ok(socket)) => {
                self.shared.router.registry().link_ok(&node);
                let took = clock::now().saturating_duration_since(since);
                self.shared.metrics.link_dialled(took);
                self.desk.tell(What::Linked { node: node.clone(), took });
                let held = self.shared.metrics.link_opened(&node);
                self.links.reserve_exact(1);
                self.links.push(Link { node: node.clone(), socket, dirty: false, _held: held });
                Input::LinkUp(node)
            }
            Event::Dialled(node, _, Err(error)) => {
                tracing::info!(%node, %error, source = std::error::Error::source(&error).map(tracing::field::display), "dial failed");
                Input::LinkDown(node, error.loss())
            }
        })
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        // Shutdown first, then deadlines, then bytes: a chatty client cannot postpone either.
        let is_watched = self.watched.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if (!is_watched || self.is_ordered()) && self.orders.next.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Event::Input(self.ordered()));
        }
        if (!is_watched || self.timer.is_elapsed()) && self.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Event::Input(Input::Tick));
        }
        if !is_watched {
            self.watched = Some(cx.waker().clone());
            self.desk.watch(cx.waker());
        }
        if let Some(letter) = self.desk.read() {
            return Poll::Ready(Event::Input(letter));
        }
        if let Poll::Ready(event) = self.poll_pending(cx) {
            return Poll::Ready(event);
        }
        self.client_first = !self.client_first;
        if self.client_first
            && let Poll::Ready(event) = self.poll_client(cx)
        {
            return Poll::Ready(event);
        }
        if let Poll::Ready(event) = self.poll_links(cx) {
            return Poll::Ready(event);
        }
        if self.client_first { Poll::Pending } else { self.poll_client(cx) }
    }

    /// Whether there is an order that was not heard.
    fn is_ordered(&self) -> bool {
        let shared = &self.shared;
        shared.shutdown.is_stopping() || (!self.orders.ending && shared.empty_within.get().is_some())
    }

    fn ordered(&mut self) -> Input {
        if self.shared.shutdown.is_stopping() {
            return Input::Close(CloseReason::Shutdown);
        }
        self.orders = Orders { next: Box::pin(self.shared.shutdown.child().cancelled_owned()), ending: true };
        self.watched = None;
        Input::EndWithin(self.shared.empty_within.get().copied().unwrap_or_default())
    }

    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.pending.is_empty() {
            return Poll::Pending;
        }
        let _told = self.span.clone().entered();
        for at in 0..self.pending.len() {
            match &mut self.pending[at] {
                Pending::Placing(_, _, future) => {
                    let Poll::Ready(result) = future.as_mut().poll(cx) else { continue };
                    if let Pending::Placing(ticket, ask, _) = self.take_pending(at) {
                        return Poll::Ready(Event::Placed(ticket, ask, result));
                    }
                }
                Pending::Dialling(.., future) => {
                    let Poll::Ready(result) = future.as_mut().poll(cx) else { continue };
                    if let Pending::Dialling(node, since, _) = self.take_pending(at) {
                        return Poll::Ready(Event::Dialled(node, since, result));
                    }
                }
            }
        }
        Poll::Pending
    }

    fn take_pending(&mut self, at: usize) -> Pending {
        let pending = self.pending.swap_remove(at);
        if self.pending.is_empty() {
            self.pending = Vec::new(); // most sessions never have another
        }
        pending
    }

    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let Some(client) = &mut self.client else { return Poll::Pending };
        client.poll_frame(cx).map(|frame| {
            Event::Input(match frame {
                Ok(Frame::Text(text)) => {
                    self.shared.metrics.message_in();
                    Input::Client(text)
                }
                Ok(Frame::Binary) => Input::ClientBinary,
                Ok(Frame::Alive) => Input::ClientAlive,
                Err(end) => Input::ClientGone(self.client_ended(end)),
            })
        })
    }

    fn poll_links(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        for at in 0..self.links.len() {
            // Nodes send no binary frames; their WebSocket pings are answered by the library: on to the next frame.
            while let Poll::Ready(frame) = self.links[at].socket.poll_frame(cx) {
                let node = self.links[at].node.clone();
                match frame {
                    Ok(Frame::Text(text)) => return Poll::Ready(Event::Input(Input::Node(node, text))),
                    Ok(Frame::Binary | Frame::Alive) => {}
                    Err(end) => {
                        self.links.swap_remove(at);
                        return Poll::Ready(Event::Input(Input::LinkDown(node, loss(end))));
                    }
                }
            }
        }
        Poll::Pending
    }

    /// The client's socket has failed: how the session shall read it, and whether a close frame still makes sense.
    pub(super) fn client_ended(&mut self, end: SocketEnd) -> CloseReason {
        if matches!(end, SocketEnd::Closed | SocketEnd::Io | SocketEnd::Slow) {
            self.client = None;
        }
        match end {
            SocketEnd::Closed => CloseReason::ClientClosed,
            SocketEnd::Io => CloseReason::ClientLost,
            SocketEnd::Slow => CloseReason::ClientSlow,
            SocketEnd::TooLarge => CloseReason::TooLarge,
            SocketEnd::Protocol => CloseReason::Protocol,
        }
    }
}

/// A placement as the session's story tells it.
fn told(ask: &Ask, result: &Result<Seated, Reject>) -> What {
    let (purpose, stream) = (ask.purpose, ask.stream.clone());
    match result {
        Ok(Seated { placement, blind, .. }) => What::Placed(Arc::new(Chosen {
            purpose,
            stream,
            node: placement.node.clone(),
            rule: placement.rule,
            blind: *blind,
            candidates: placement.candidates.clone().into(),
            tally: placement.tally.clone().into(),
        })),
        Err(reject) => What::NotPlaced { purpose, stream, reject: *reject },
    }
}

pub(super) fn loss(end: SocketEnd) -> LinkLoss {
    match end {
        SocketEnd::Closed => LinkLoss::Closed,
        SocketEnd::Io | SocketEnd::TooLarge | SocketEnd::Protocol => LinkLoss::Io,
        SocketEnd::Slow => LinkLoss::Slow,
    }
}
