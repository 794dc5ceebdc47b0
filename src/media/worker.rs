//! One relay thread: waits for its sockets, moves what they bring as its core says, and in between reads its mailbox.
//!
//! A turn is bounded: every ready socket is served by one batch at a time, in rotation, so neither a flooded public port
//! nor one busy pool socket keeps the others, the commands or the timers waiting.

use std::{
    io::{self, ErrorKind},
    mem,
    net::UdpSocket,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};

use super::{
    MediaEvent,
    desk::Desk,
    mailbox::{Mailbox, Question},
    tcp::{Hub, Inbox},
    wire::{SOCKETS, Wire},
};
use crate::{
    domain::relay::{ClientKey, Command, Core, EventKind, Nomination, Stats, Verdict},
    telemetry::metrics::{Metrics, WireFacts},
};

/// Names the mailbox among what the thread waits for.
const MAILBOX: Token = Token(SOCKETS);
/// Rounds over the ready sockets before the kernel is asked which others are ready.
const ROUNDS: usize = 4;
/// How often counters are published while they move.
const PUBLISH: Duration = Duration::from_millis(500);

/// All that one relay thread owns.
pub(super) struct Worker {
    core: Core,
    wire: Box<dyn Wire>,
    tcp: Hub,
    poll: Poll,
    mailbox: Arc<Mailbox>,
    /// Empty, but for its room.
    commands: Vec<Command>,
    /// The same.
    questions: Vec<Question>,
    stopping: bool,
    desk: Arc<Desk>,
    metrics: Metrics,
    published: Arc<ArcSwap<Stats>>,
    publish_at: Option<Instant>,
    wire_published: WireFacts,
    /// Sockets that have not said that they are empty since they last said that they were not.
    ready: [bool; SOCKETS],
    /// The socket that the next round begins with.
    first: usize,
    /// Frames of ICE-TCP connections wait for another turn.
    more_frames: bool,
}

impl Worker {
    pub(super) fn new(
        core: Core,
        wire: Box<dyn Wire>,
        pool: Vec<UdpSocket>,
        desk: Arc<Desk>,
        metrics: Metrics,
        published: Arc<ArcSwap<Stats>>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        for (nth, descriptor) in wire.descriptors().iter().enumerate() {
            poll.registry().register(&mut SourceFd(descriptor), Token(nth), Interest::READABLE)?;
        }
        let mailbox = Arc::new(Mailbox::new(Waker::new(poll.registry(), MAILBOX)?));
        let inbox = Arc::new(Inbox::new(Arc::clone(&mailbox)));
        let tcp = Hub::new(inbox, pool, metrics.clone());
        Ok(Self {
            core,
            wire,
            tcp,
            poll,
            mailbox,
            commands: Vec::new(),
            questions: Vec::new(),
            stopping: false,
            desk,
            metrics,
            published,
            publish_at: None,
            wire_published: WireFacts::default(),
            ready: [true; SOCKETS],
            first: 0,
            more_frames: false,
        })
    }

    pub(super) fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&self.mailbox)
    }

    /// How ICE-TCP connections reach this thread.
    pub(super) fn inbox(&self) -> Arc<Inbox> {
        self.tcp.inbox()
    }

    /// Runs until the mailbox says stop.
    pub(super) fn run(mut self) {
        // Drops on every way out, a panic included.
        let _end = Ended(self.mailbox());
        let mut happened = Events::with_capacity(SOCKETS + 1);
        while !self.stopping {
            match self.poll.poll(&mut happened, self.timeout(Instant::now())) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return tracing::error!(%error, "the media thread cannot wait for its sockets"),
            }
            for event in &happened {
                if let Some(ready) = self.ready.get_mut(event.token().0) {
                    *ready = true;
                }
            }
            self.read_mailbox();
            for _ in 0..ROUNDS {
                if !self.round() {
                    break;
                }
            }
            self.keep_time();
        }
        self.publish();
    }

    /// How long nothing is to be done unless somebody sends something.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        if self.more_frames || self.ready.contains(&true) {
            return Some(Duration::ZERO);
        }
        let due = [self.core.poll_timeout(), self.publish_at].into_iter().flatten().min()?;
        Some(due.saturating_duration_since(now))
    }

    fn read_mailbox(&mut self) {
        let mut commands = mem::take(&mut self.commands);
        self.stopping |= self.mailbox.take(&mut commands, &mut self.questions);
        for command in commands.drain(..) {
            self.obey(command);
        }
        self.commands = commands;
        for Question { session, answer } in self.questions.drain(..) {
            // Who asked may have gone meanwhile.
            let _ = answer.send(self.core.facts(session, Instant::now()).unwrap_or_default());
        }
    }

    fn obey(&mut self, command: Command) {
        let transport = match &command {
            Command::Open(spec) => Some((spec.id, Some(spec.session))),
            Command::SetClient { id, .. } | Command::SetBackend { id, .. } | Command::Close(id) => {
                Some((*id, self.core.session_of(*id)))
            }
            Command::CloseSession(_) => None,
        };
        let now = Instant::now();
        let taken = self.core.command(command, now);
        self.moved(now);
        if let (Err(why), Some((transport, session))) = (taken, transport) {
            self.metrics.media_command_refused(why);
            self.desk.tell(session, MediaEvent::Refused { transport, why });
        }
        self.tell_events();
    }

    /// Serves each ready socket once; says whether any still is ready.
    fn round(&mut self) -> bool {
        self.first = (self.first + 1) % SOCKETS;
        for nth in 0..SOCKETS {
            let socket = (self.first + nth) % SOCKETS;
            if self.ready[socket] {
                self.serve(socket);
            }
        }
        self.serve_tcp();
        self.more_frames || self.ready.contains(&true)
    }

    /// Moves one batch of ICE-TCP frames.
    fn serve_tcp(&mut self) {
        let (moved, more) = self.tcp.serve(&mut self.core);
        self.more_frames = more;
        if moved {
            self.nominate();
            self.moved(Instant::now());
            self.tell_events();
        }
    }

    /// Moves one batch of one socket.
    fn serve(&mut self, socket: usize) {
        let received = self.wire.receive(socket);
        self.ready[socket] = !received.drained;
        if received.datagrams == 0 {
            return;
        }
        // After the receive: whoever sent these may have been told of a transport that was posted just before.
        self.read_mailbox();
        let now = Instant::now();
        for nth in 0..received.datagrams {
            let (from, bytes) = self.wire.datagram(nth);
            let verdict = match socket.checked_sub(1) {
                None => self.core.from_client(ClientKey::Udp(from), bytes, now),
                Some(pool) => self.core.from_node(pool as u8, from, bytes, now),
            };
            match verdict {
                Verdict::ToNode { pool, to } => self.wire.forward(nth, 1 + usize::from(pool), to),
                Verdict::ToClient(ClientKey::Udp(to)) => self.wire.forward(nth, 0, to),
                Verdict::ToClient(ClientKey::Tcp { conn, .. }) => self.tcp.to_client(conn, bytes),
                Verdict::TranslatedToNode { pool, to } => {
                    self.wire.send_other(self.core.translated(), 1 + usize::from(pool), to);
                }
                Verdict::TranslatedToClient(ClientKey::Udp(to)) => {
                    self.wire.send_other(self.core.translated(), 0, to);
                }
                Verdict::TranslatedToClient(ClientKey::Tcp { conn, .. }) => {
                    self.tcp.to_client(conn, self.core.translated());
                }
                // Counted by the core.
                Verdict::Drop(_) => {}
            }
        }
        self.wire.flush();
        self.nominate();
        self.moved(now);
        self.tell_events();
    }

    fn nominate(&mut self) {
        while let Some(Nomination { pool, to, bytes }) = self.core.poll_nomination() {
            self.wire.send_other(&bytes, 1 + usize::from(pool), to);
        }
    }

    fn moved(&mut self, now: Instant) {
        self.publish_at.get_or_insert(now + PUBLISH);
    }

    /// Does what is due.
    fn keep_time(&mut self) {
        let now = Instant::now();
        if self.core.poll_timeout().is_some_and(|due| due <= now) {
            self.core.tick(now);
            while let Some(client) = self.core.poll_deserted() {
                self.tcp.flow_closed(&self.core, client);
            }
            self.tell_events();
            self.moved(now);
        }
        if self.publish_at.is_some_and(|due| due <= now) {
            self.publish();
        }
    }

    fn tell_events(&mut self) {
        while let Some(event) = self.core.poll_event() {
            match &event.kind {
                EventKind::FirstMedia { after } => self.metrics.media_started(*after),
                EventKind::FlowClosed { client, reason } => {
                    self.metrics.media_flow_closed(*reason);
                    self.tcp.flow_closed(&self.core, *client);
                }
                _ => {}
            }
            self.desk.tell(Some(event.session), MediaEvent::Relay(event));
        }
    }

    fn publish(&mut self) {
        self.publish_at = None;
        let (before, now) = (self.published.load(), self.core.stats());
        let wire = self.wire.facts();
        self.metrics.media_moved(&before, now, self.wire_published, wire);
        self.wire_published = wire;
        if **before != *now {
            self.published.store(Arc::new(now.clone()));
        }
    }
}

/// Tells sessions that nobody reads the mailbox any more.
struct Ended(Arc<Mailbox>);

impl Drop for Ended {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("a media thread panicked: its flows are gone, and no new ones are taken");
        }
        self.0.ended();
    }
}
