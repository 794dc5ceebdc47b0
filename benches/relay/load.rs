//! One turn of load: packets that are numbered and stamped, sent at a pace, and counted where they arrive.
//!
//! ```text
//! this thread ─► batches of messages ─► relay, or a loop ─► socket ◄─ another thread, which looks every 200 µs
//!      ▲───────────── how many have arrived (only at full speed) ───────────────┘
//! ```
//!
//! The thread that counts never waits on its socket: nobody is charged for waking it. When a packet arrived is what the
//! kernel noted, not when the thread looked.

use std::{
    fmt,
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    allocations,
    batch::{Batch, MESSAGES, Out, Thread, set_joined, set_stamped},
    flows::{Lane, stranger},
};

/// How often the counting thread looks.
const LOOK: Duration = Duration::from_micros(200);
/// Packets on their way at full speed: enough that the relay never waits, few enough that no buffer overflows.
const WINDOW: u64 = 1024;
/// When nothing has arrived for this long, what is on its way is lost.
const LOST: Duration = Duration::from_millis(40);
/// A sender that was kept from its core for longer does not catch up on what it missed.
const LATE: Duration = Duration::from_millis(2);
/// Datagrams of one burst.
pub(crate) const BURST: usize = 8;
/// Room of one message: a burst of the largest packets.
const SLOT: usize = BURST * 1200;
/// Room for what the kernel may have joined.
const JOINED: usize = 65_536 + 2112;
/// Packets of one turn that can be told apart.
const MOST: usize = 1 << 23;

/// How packets follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Each of another flow than the one before.
    Interleaved,
    /// Eight of one flow in one message, as a network card joins them.
    Joined,
    /// Eight of one flow in eight messages.
    InARow,
}

/// How fast they are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// As fast as they arrive.
    Full,
    /// So many per second.
    Rate(u64),
}

/// Datagrams that nobody wants, from many sources.
#[derive(Clone, Copy)]
pub(crate) struct Junk<'a> {
    pub(crate) per_second: u64,
    pub(crate) kinds: &'a [Vec<u8>],
    pub(crate) to: SocketAddrV4,
}

/// What to send where, and where it should arrive.
pub(crate) struct Turn<'a> {
    /// Tells this turn's packets from any other's.
    pub(crate) number: u32,
    pub(crate) lanes: &'a [Lane],
    pub(crate) from: &'a UdpSocket,
    pub(crate) at: &'a UdpSocket,
    pub(crate) order: Order,
    pub(crate) size: usize,
    pub(crate) pace: Pace,
    pub(crate) lasts: Duration,
    pub(crate) junk: Option<Junk<'a>>,
    /// Whether the far end takes joined packets, as a network card that cuts them itself would.
    pub(crate) takes_joined: bool,
    /// Whether arrivals are stamped.
    pub(crate) stamped: bool,
    /// Whose CPU is counted.
    pub(crate) thread: Thread,
    /// Where the counting thread runs.
    pub(crate) core: usize,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) sent: u64,
    pub(crate) junk: u64,
    pub(crate) received: u64,
    pub(crate) duplicates: u64,
    /// From the first packet sent to the last one received.
    pub(crate) took: Duration,
    /// How long packets were sent.
    pub(crate) sending: Duration,
    pub(crate) cpu: Duration,
    /// Of the whole process.
    pub(crate) allocations: u64,
    pub(crate) delays: Delays,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, junk, received, duplicates, took, sending, cpu, allocations, delays } = self;
        write!(
            f,
            "{received} of {sent} packets in {took:.0?} (sent in {sending:.0?}, {cpu:.0?} of CPU), {junk} of junk, "
        )?;
        let (p50, p99) = (delays.quantile(0.5), delays.quantile(0.99));
        write!(f, "{duplicates} twice, {allocations} allocations, delays {p50} and {p99} µs")
    }
}

/// How long packets took, to the microsecond.
pub(crate) struct Delays {
    counts: Vec<u32>,
    total: u64,
}

impl Delays {
    /// Longer ones count as this.
    const LONGEST: usize = 50_000;

    fn new(stamped: bool) -> Self {
        Self { counts: vec![0; if stamped { Self::LONGEST + 1 } else { 1 }], total: 0 }
    }

    fn add(&mut self, delay: Duration) {
        let micros = usize::try_from(delay.as_micros()).unwrap_or(usize::MAX).min(self.counts.len() - 1);
        self.counts[micros] += 1;
        self.total += 1;
    }

    /// In microseconds.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        let wanted = (self.total as f64 * quantile).ceil() as u64;
        let mut below = 0;
        let found = self.counts.iter().position(|count| {
            below += u64::from(*count);
            below >= wanted
        });
        found.unwrap_or(0) as f64
    }
}

/// What both threads see.
#[derive(Default)]
struct Progress {
    ready: AtomicBool,
    stop: AtomicBool,
    received: AtomicU64,
    /// When the latest arrived, in nanoseconds of the turn.
    latest: AtomicU64,
}

/// What the counting thread found.
struct Counted {
    duplicates: u64,
    delays: Delays,
}

impl Turn<'_> {
    /// Runs it, and waits for what is on its way.
    pub(crate) fn run(&self) -> io::Result<Outcome> {
        set_joined(self.at, self.takes_joined)?;
        set_stamped(self.at, self.stamped)?;
        let progress = Progress::default();
        let began = Instant::now();
        let outcome = thread::scope(|scope| {
            let counting = scope.spawn(|| {
                Thread::this().pin(self.core);
                let counted = self.count(&progress, began);
                // A count that failed has nothing to wait for.
                progress.ready.store(true, Ordering::Release);
                counted
            });
            while !progress.ready.load(Ordering::Acquire) {
                thread::yield_now();
            }
            let sent = self.send(&progress, began);
            progress.stop.store(true, Ordering::Release);
            let counted = counting.join().expect("counting cannot panic")?;
            let mut outcome = sent?;
            outcome.duplicates = counted.duplicates;
            outcome.delays = counted.delays;
            Ok(outcome)
        });
        set_stamped(self.at, false)?;
        outcome
    }

    fn send(&self, progress: &Progress, began: Instant) -> io::Result<Outcome> {
        let mut sender = Sender::new(self);
        let (allocated, cpu, start) = (allocations::count(), self.thread.cpu(), Instant::now());
        let (sent, junk) = match self.pace {
            Pace::Full => (sender.at_full_speed(progress, start)?, 0),
            Pace::Rate(rate) => sender.at_rate(rate, start)?,
        };
        let sending = start.elapsed();
        settle(progress, sent);
        let latest = Duration::from_nanos(progress.latest.load(Ordering::Acquire));
        Ok(Outcome {
            sent,
            junk,
            received: progress.received.load(Ordering::Acquire),
            duplicates: 0,
            took: (began + latest).saturating_duration_since(start),
            sending,
            cpu: self.thread.cpu() - cpu,
            allocations: allocations::count() - allocated,
            delays: Delays::new(false),
        })
    }

    /// Counts until it is told to stop.
    fn count(&self, progress: &Progress, began: Instant) -> io::Result<Counted> {
        let mut batch = Batch::new(if self.takes_joined { JOINED } else { 2048 });
        let mut seen = vec![0u64; MOST / 64];
        let mut counted = Counted { duplicates: 0, delays: Delays::new(self.stamped) };
        // What is left of earlier turns is nobody's.
        while batch.receive(self.at, libc::MSG_DONTWAIT).is_ok() {}
        progress.ready.store(true, Ordering::Release);
        loop {
            let stop = progress.stop.load(Ordering::Acquire);
            let mut received = 0;
            loop {
                let count = match batch.receive(self.at, libc::MSG_DONTWAIT) {
                    Ok(count) => count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                };
                for nth in 0..count {
                    received += self.count_message(&batch, nth, &mut seen, &mut counted);
                }
            }
            if received > 0 {
                progress.received.fetch_add(received, Ordering::AcqRel);
                progress.latest.store(began.elapsed().as_nanos() as u64, Ordering::Release);
            } else if stop {
                return Ok(counted);
            }
            thread::sleep(LOOK);
        }
    }

    /// Counts the packets of one message that are this turn's.
    fn count_message(&self, batch: &Batch, nth: usize, seen: &mut [u64], counted: &mut Counted) -> u64 {
        let found = batch.received(nth);
        let size = found.segment.map_or(found.len, usize::from).max(1);
        let mut received = 0;
        for packet in batch.slot(nth)[..found.len].chunks(size) {
            let Some(mark) = Mark::read(packet).filter(|mark| mark.turn == self.number) else { continue };
            let (word, bit) = (mark.sequence as usize / 64 % seen.len(), 1 << (mark.sequence % 64));
            if seen[word] & bit != 0 {
                counted.duplicates += 1;
                continue;
            }
            seen[word] |= bit;
            received += 1;
            if let Some(at) = found.at {
                counted.delays.add(at.saturating_sub(mark.sent));
            }
        }
        received
    }
}

/// Waits until all has arrived, or nothing more does.
fn settle(progress: &Progress, sent: u64) {
    let mut before = progress.received.load(Ordering::Acquire);
    let mut since = Instant::now();
    while before < sent && since.elapsed() < LOST {
        thread::sleep(LOOK);
        let now = progress.received.load(Ordering::Acquire);
        if now != before {
            (before, since) = (now, Instant::now());
        }
    }
}

/// What a packet says of itself, behind an RTP header.
struct Mark {
    turn: u32,
    sequence: u32,
    /// Since 1970.
    sent: Duration,
}

impl Mark {
    fn write(&self, lane: u32, packet: &mut [u8]) {
        // RTP: version 2, payload type 96, sequence number, timestamp, source.
        packet[..2].copy_from_slice(&[0x80, 96]);
        packet[2..4].copy_from_slice(&(self.sequence as u16).to_be_bytes());
        packet[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        packet[8..12].copy_from_slice(&lane.to_be_bytes());
        packet[12..16].copy_from_slice(&self.turn.to_be_bytes());
        packet[16..20].copy_from_slice(&self.sequence.to_be_bytes());
        packet[20..28].copy_from_slice(&(self.sent.as_nanos() as u64).to_be_bytes());
    }

    fn read(packet: &[u8]) -> Option<Self> {
        if packet.first() != Some(&0x80) {
            return None;
        }
        let turn = u32::from_be_bytes(packet.get(12..16)?.try_into().ok()?);
        let sequence = u32::from_be_bytes(packet.get(16..20)?.try_into().ok()?);
        let sent = u64::from_be_bytes(packet.get(20..28)?.try_into().ok()?);
        Some(Self { turn, sequence, sent: Duration::from_nanos(sent) })
    }
}

/// Sends a turn's packets.
struct Sender<'a> {
    turn: &'a Turn<'a>,
    media: Batch,
    junk: Batch,
    outs: Vec<Out>,
    sequence: u32,
    /// Messages so far.
    messages: usize,
    strangers: u16,
}

impl<'a> Sender<'a> {
    fn new(turn: &'a Turn<'a>) -> Self {
        let mut junk = Batch::new(256);
        for (slot, kind) in turn.junk.iter().flat_map(|junk| junk.kinds).take(MESSAGES).enumerate() {
            junk.slot_mut(slot)[..kind.len()].copy_from_slice(kind);
        }
        let media = Batch::new(SLOT);
        Self { turn, media, junk, outs: Vec::with_capacity(MESSAGES), sequence: 0, messages: 0, strangers: 0 }
    }

    fn at_full_speed(&mut self, progress: &Progress, start: Instant) -> io::Result<u64> {
        let (mut sent, mut lost) = (0, 0);
        let (mut before, mut since) = (0, start);
        while start.elapsed() < self.turn.lasts {
            let received = progress.received.load(Ordering::Acquire);
            if received != before {
                (before, since) = (received, Instant::now());
            } else if since.elapsed() > LOST {
                (lost, since) = (sent - received, Instant::now());
            }
            if sent - received - lost.min(sent - received) < WINDOW {
                sent += self.send_media(MESSAGES)?;
            } else {
                thread::sleep(Duration::from_micros(20));
            }
        }
        Ok(sent)
    }

    fn at_rate(&mut self, rate: u64, start: Instant) -> io::Result<(u64, u64)> {
        let junk_rate = self.turn.junk.map_or(0, |junk| junk.per_second);
        let (mut media, mut junk, mut excused) = (0, 0, Duration::ZERO);
        loop {
            let elapsed = start.elapsed();
            if elapsed >= self.turn.lasts {
                return Ok((media, junk));
            }
            let asked = elapsed - excused;
            let due = |rate, so_far| due(rate, asked).saturating_sub(so_far);
            let (due, junk_due) = (due(rate, media), due(junk_rate, junk));
            let late = Duration::from_nanos(due * 1_000_000_000 / rate);
            if late > LATE {
                excused += late;
                continue;
            }
            if due == 0 && junk_due == 0 {
                thread::yield_now();
                continue;
            }
            media += self.send_media(usize::try_from(due).unwrap_or(MESSAGES).min(MESSAGES))?;
            junk += self.send_junk(usize::try_from(junk_due).unwrap_or(MESSAGES).min(MESSAGES))?;
        }
    }

    /// Sends so many messages; returns how many packets they were.
    fn send_media(&mut self, messages: usize) -> io::Result<u64> {
        let Turn { lanes, size, order, number, .. } = *self.turn;
        let packets = if order == Order::Joined { BURST } else { 1 };
        let sent = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.outs.clear();
        for slot in 0..messages {
            let flow = if order == Order::InARow { self.messages / BURST } else { self.messages };
            let flow = flow % lanes.len();
            for packet in self.media.slot_mut(slot).chunks_mut(size).take(packets) {
                Mark { turn: number, sequence: self.sequence, sent }.write(flow as u32, packet);
                self.sequence += 1;
            }
            let segment = (packets > 1).then_some(size as u16);
            let Lane { from, to } = lanes[flow];
            self.outs.push(Out { slot, len: size * packets, from: Some(from), to, segment });
            self.messages += 1;
        }
        self.media.send(self.turn.from, &self.outs)?;
        Ok((messages * packets) as u64)
    }

    fn send_junk(&mut self, messages: usize) -> io::Result<u64> {
        let Some(Junk { kinds, to, .. }) = self.turn.junk.filter(|_| messages > 0) else { return Ok(0) };
        self.outs.clear();
        for nth in 0..messages {
            let slot = nth % kinds.len().min(MESSAGES);
            self.strangers = self.strangers.wrapping_add(1);
            let from: Ipv4Addr = stranger(self.strangers);
            self.outs.push(Out { slot, len: kinds[slot].len(), from: Some(from), to, segment: None });
        }
        self.junk.send(self.turn.from, &self.outs)?;
        Ok(messages as u64)
    }
}

/// How many packets should have been sent by now.
fn due(rate: u64, elapsed: Duration) -> u64 {
    (u128::from(rate) * elapsed.as_nanos() / 1_000_000_000) as u64
}
