//! Who watches which stream on which node over HTTP, which has no sessions of its own: a viewer is there while he asks.
//!
//! AMS counts viewers and checks one-time tokens per servlet session of one node (facts/ams.md, trap 26), and playlists
//! of two edges need not agree; so a viewer stays with his edge. Viewers that take no cookies are known by their address
//! and player; who shares both shares an edge.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    clock,
    domain::{
        http::media_name::belongs_to,
        ids::{AppName, NodeId, StreamId},
    },
    sessions::router::LegSeat,
};

/// A viewer who has asked for nothing for so long is gone: players ask for a playlist every few seconds.
const GONE_AFTER: Duration = Duration::from_secs(30);
/// How often viewers that are gone are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// Viewers that are remembered; the rest find their edge by hash each time, and are not counted.
const MAX_VIEWERS: usize = 100_000;
/// Of one client address.
const MAX_PER_CLIENT: usize = 1000;
/// Streams that one viewer watches at once; the one unasked for longest is forgotten.
const MAX_STREAMS: usize = 8;

/// A viewer, as far as he can be told from others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::sessions) struct Viewer {
    app: AppName,
    client: IpAddr,
    agent: u64,
}

impl Viewer {
    pub(super) fn new(app: &AppName, client: IpAddr, agent: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        agent.hash(&mut hasher);
        Self { app: app.clone(), client: client.to_canonical(), agent: hasher.finish() }
    }
}

/// What a viewer watches, and where.
#[derive(Debug, Clone)]
pub(super) struct Watching {
    pub(super) stream: StreamId,
    pub(super) node: NodeId,
}

/// All viewers of this door.
#[derive(Debug, Default)]
pub(in crate::sessions) struct Viewers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    viewers: HashMap<Viewer, Vec<Seat>>,
    by_client: HashMap<IpAddr, usize>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Seat {
    stream: StreamId,
    leg: LegSeat,
    asked: Instant,
}

impl Viewers {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this viewer watches that the file belongs to; it counts as asked for now.
    pub(super) fn find(&self, viewer: &Viewer, file: &str) -> Option<Watching> {
        let now = clock::now();
        let mut known = self.lock();
        let gone = known.sweep(now);
        let seats = known.viewers.get_mut(viewer)?;
        let matching = seats.iter_mut().filter(|seat| belongs_to(file, &seat.stream));
        let seat = matching.max_by_key(|seat| seat.stream.as_str().len())?;
        seat.asked = now;
        let watching = Watching { stream: seat.stream.clone(), node: seat.leg.node.clone() };
        // Seats that end tell the registry, which has a lock of its own.
        drop(known);
        drop(gone);
        Some(watching)
    }

    /// Whether one more can be remembered for this viewer.
    pub(super) fn has_room(&self, viewer: &Viewer) -> bool {
        let known = self.lock();
        known.viewers.contains_key(viewer)
            || known.viewers.len() < MAX_VIEWERS
                && known.by_client.get(&viewer.client).is_none_or(|own| *own < MAX_PER_CLIENT)
    }

    /// Remembers what a viewer watches; takes the place of what he watched of the same stream elsewhere.
    pub(super) fn enter(&self, viewer: Viewer, stream: StreamId, leg: LegSeat) {
        let now = clock::now();
        let mut known = self.lock();
        let mut gone = known.sweep(now);
        if !known.viewers.contains_key(&viewer) {
            *known.by_client.entry(viewer.client).or_default() += 1;
        }
        let seats = known.viewers.entry(viewer).or_default();
        if let Some(at) = seats.iter().position(|seat| seat.stream == stream) {
            gone.push(seats.swap_remove(at));
        } else if seats.len() >= MAX_STREAMS
            && let Some(oldest) = (0..seats.len()).min_by_key(|&at| seats[at].asked)
        {
            gone.push(seats.swap_remove(oldest));
        }
        seats.push(Seat { stream, leg, asked: now });
        drop(known);
    }

    /// Lets those go who have asked for nothing for a while.
    pub(in crate::sessions) async fn keep_sweeping(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let gone = self.lock().sweep(clock::now());
            drop(gone);
        }
    }
}

impl Known {
    /// Takes out who is gone, at most every [`SWEEP`]. Dropping them is the caller's, outside the lock.
    fn sweep(&mut self, now: Instant) -> Vec<Seat> {
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP) {
            return Vec::new();
        }
        self.swept = Some(now);
        let mut gone = Vec::new();
        let by_client = &mut self.by_client;
        self.viewers.retain(|viewer, seats| {
            gone.extend(seats.extract_if(.., |seat| now.saturating_duration_since(seat.asked) >= GONE_AFTER));
            if seats.is_empty()
                && let Some(own) = by_client.get_mut(&viewer.client)
            {
                *own -= 1;
                if *own == 0 {
                    by_client.remove(&viewer.client);
                }
            }
            !seats.is_empty()
        });
        gone
    }
}
