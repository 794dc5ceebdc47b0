//! The relay thread's side: the queue that its connections fill, and their table.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;

use super::link::Link;
use crate::{
    domain::relay::{ClientKey, Core, Verdict},
    media::mailbox::Mailbox,
    telemetry::metrics::{Metrics, TcpDrop},
};

/// Frames that wait for one relay thread; a further one is dropped.
const FRAMES: usize = 4096;
/// Frames that one turn moves; further ones wait for the next turn.
const BATCH: usize = 64;

/// How connections reach their relay thread.
pub(in crate::media) struct Inbox {
    pending: AtomicBool,
    state: Mutex<Waiting>,
    /// Wakes the thread.
    mailbox: Arc<Mailbox>,
}

#[derive(Default)]
struct Waiting {
    /// Connections that came, went or sent. Those that came or went are at most twice as many as there may be.
    happened: VecDeque<Happened>,
    frames: usize,
    ended: bool,
}

enum Happened {
    Opened(ClientKey, Arc<Link>),
    Frame(u64, Bytes),
    Gone(u64),
}

impl Inbox {
    pub(in crate::media) fn new(mailbox: Arc<Mailbox>) -> Self {
        Self { pending: AtomicBool::new(false), state: Mutex::default(), mailbox }
    }

    /// A connection begins; false if the thread has ended.
    pub(super) fn open(&self, client: ClientKey, link: &Arc<Link>) -> bool {
        self.post(|_| Some(Happened::Opened(client, Arc::clone(link))))
    }

    /// A connection's next frame; false if it was dropped.
    pub(super) fn deliver(&self, conn: u64, link: &Link, frame: Bytes) -> bool {
        self.post(|waiting| {
            let fits = waiting.frames < FRAMES && link.queue();
            waiting.frames += usize::from(fits);
            fits.then_some(Happened::Frame(conn, frame))
        })
    }

    /// A connection ended.
    pub(super) fn gone(&self, conn: u64) {
        self.post(|_| Some(Happened::Gone(conn)));
    }

    fn post(&self, what: impl FnOnce(&mut Waiting) -> Option<Happened>) -> bool {
        let mut waiting = self.waiting();
        if waiting.ended {
            return false;
        }
        let Some(what) = what(&mut waiting) else { return false };
        waiting.happened.push_back(what);
        drop(waiting);
        if !self.pending.swap(true, Ordering::Release) {
            self.mailbox.wake();
        }
        true
    }

    /// Takes up to [`BATCH`] into `into`, which is empty; says whether more wait.
    fn take(&self, into: &mut Vec<Happened>) -> bool {
        if !self.pending.swap(false, Ordering::Acquire) {
            return false;
        }
        let mut waiting = self.waiting();
        let taken = waiting.happened.len().min(BATCH);
        into.extend(waiting.happened.drain(..taken));
        waiting.frames -= into.iter().filter(|what| matches!(what, Happened::Frame(..))).count();
        let more = !waiting.happened.is_empty();
        if more {
            // No wake-up: the thread comes back by itself.
            self.pending.store(true, Ordering::Release);
        }
        more
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connections of one relay thread.
pub(in crate::media) struct Hub {
    inbox: Arc<Inbox>,
    open: HashMap<u64, (ClientKey, Arc<Link>)>,
    /// The thread's pool sockets once more: frames do not stand in the line of received datagrams.
    pool: Vec<UdpSocket>,
    taken: Vec<Happened>,
    metrics: Metrics,
}

impl Hub {
    pub(in crate::media) fn new(inbox: Arc<Inbox>, pool: Vec<UdpSocket>, metrics: Metrics) -> Self {
        Self { inbox, open: HashMap::new(), pool, taken: Vec::with_capacity(BATCH), metrics }
    }

    pub(in crate::media) fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }

    /// Moves what connections brought, a bounded part of it; says whether anything was, and whether more waits.
    pub(in crate::media) fn serve(&mut self, core: &mut Core) -> (bool, bool) {
        let more = self.inbox.take(&mut self.taken);
        if self.taken.is_empty() {
            return (false, false);
        }
        let now = Instant::now();
        let mut taken = std::mem::take(&mut self.taken);
        for what in taken.drain(..) {
            match what {
                Happened::Opened(client, link) => {
                    if let ClientKey::Tcp { conn, .. } = client {
                        self.open.insert(conn, (client, link));
                    }
                }
                Happened::Frame(conn, frame) => self.frame(core, conn, &frame, now),
                Happened::Gone(conn) => {
                    if let Some((client, _)) = self.open.remove(&conn) {
                        core.client_gone(client, now);
                    }
                }
            }
        }
        self.taken = taken;
        (true, more)
    }

    fn frame(&mut self, core: &mut Core, conn: u64, frame: &[u8], now: Instant) {
        let Some((client, link)) = self.open.get(&conn) else { return };
        link.unqueue();
        // Whatever else it says, a frame of a client is never for another client.
        let (pool, to, said) = match core.from_client(*client, frame, now) {
            Verdict::ToNode { pool, to } => (pool, to, frame),
            Verdict::TranslatedToNode { pool, to } => (pool, to, core.translated()),
            Verdict::ToClient(_) | Verdict::TranslatedToClient(_) | Verdict::Drop(_) => return,
        };
        link.prove();
        if send(&self.pool[usize::from(pool)], said, to).is_err() {
            self.metrics.media_tcp_dropped(TcpDrop::SendError);
        }
    }

    /// A node's datagram for a connection.
    pub(in crate::media) fn to_client(&self, conn: u64, datagram: &[u8]) {
        if let Some((_, link)) = self.open.get(&conn)
            && !link.push(datagram)
        {
            self.metrics.media_tcp_dropped(TcpDrop::ClientFull);
        }
    }

    /// A flow ended: its connection ends with it, unless another flow of the same connection has begun or may begin.
    pub(in crate::media) fn flow_closed(&self, core: &Core, client: ClientKey) {
        if let ClientKey::Tcp { conn, .. } = client
            && let Some((_, link)) = self.open.get(&conn)
            && !core.has_flow(client)
            && !core.awaits_heir(client)
        {
            link.end();
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let mut waiting = self.inbox.waiting();
        waiting.ended = true;
        for what in waiting.happened.drain(..) {
            if let Happened::Opened(_, link) = what {
                link.end();
            }
        }
        self.open.values().for_each(|(_, link)| link.end());
    }
}

fn send(pool: &UdpSocket, frame: &[u8], to: SocketAddr) -> io::Result<usize> {
    let to = match to.ip() {
        // As an IPv6 socket wants it.
        IpAddr::V4(ip) if pool.local_addr()?.is_ipv6() => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
        _ => to,
    };
    pool.send_to(frame, to)
}
