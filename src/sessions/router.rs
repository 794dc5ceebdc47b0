//! Answers a session's question to placement: looks up, routes, reserves. The decisions are `domain::routing`'s and
//! `domain::balance`'s; here they are fed.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    clock,
    domain::{
        balance::{Placement, Request, Snapshot, Want},
        ids::{AppName, Kind, NodeId, StreamId, StreamKey},
        reject::Reject,
        routing::{self, PlayRoute},
        session::{Ask, Purpose},
    },
    registry::{CLAIM_LIMIT, Registry},
};

/// Rooms and peers keep their pin by saying so this often; it lasts 30 s.
const PIN_REFRESH: Duration = Duration::from_secs(10);
/// A placement follows others' pins so often; more changes than that are no race any more.
const CLAIM_TURNS: usize = 4;
/// Live plays that lose their node are placed so fast, after so many at once; nobody waits longer than that.
const TURN: Duration = Duration::from_millis(5);
const TURNS_AT_ONCE: u32 = 100;
const LONGEST_TURN: Duration = Duration::from_secs(3);
/// The rule of a publish whose record names a node that takes it.
const LIVE_ON_ORIGIN: &str = "live_on_origin";

/// Answers sessions' questions to placement. The decisions are `domain`'s; here they are fed, and doors agree on them.
#[derive(Debug)]
pub struct Router {
    registry: Registry,
    /// When the next play that lost its node may be placed: a node's viewers do not come to the others all at once.
    rush: Mutex<Instant>,
}

/// What a placement has to claim, and how.
struct Race {
    /// Its room, if it has one, then its stream.
    keys: Vec<StreamKey>,
    unfit: Vec<NodeId>,
    until: Instant,
    /// Rather nowhere than at a place that the store has not taken. A publisher that is to leave its node for another is
    /// served where it is; without the store those who play it would not find it again, nor would its new node take it.
    must_be_shared: bool,
}

/// A placement, and what it reserved.
#[derive(Debug)]
pub struct Seated {
    pub(super) placement: Placement,
    pub(super) address: IpAddr,
    pub(super) blind: bool,
    /// Where the stream of a play is published, if that is known.
    pub(super) origin: Option<NodeId>,
    pub(super) seat: LegSeat,
}

/// The place of one leg on a node. Dropping it gives the reservation back.
#[derive(Debug)]
pub(super) struct LegSeat {
    registry: Registry,
    pub(super) node: NodeId,
    pub(super) kind: Option<Kind>,
    /// A pin that lives as long as the leg.
    pin: Option<(StreamKey, Instant)>,
}

impl LegSeat {
    /// What a placement of this kind has reserved on a node.
    pub(super) fn new(registry: Registry, node: NodeId, kind: Option<Kind>) -> Self {
        Self { registry, node, kind, pin: None }
    }

    /// Keeps the leg's pin alive; cheap when it is not due.
    pub(super) fn refresh(&mut self, now: Instant) {
        if let Some((key, at)) = &mut self.pin
            && *at + PIN_REFRESH <= now
        {
            *at = now;
            self.registry.keep_pin(key, &self.node);
        }
    }
}

impl Drop for LegSeat {
    fn drop(&mut self) {
        if let Some(kind) = self.kind {
            self.registry.leg_ended(&self.node, kind);
        }
    }
}

impl Seated {
    /// The node that was chosen.
    pub fn node(&self) -> &NodeId {
        &self.seat.node
    }
}

impl Router {
    /// A router over what `registry` knows.
    pub fn new(registry: Registry) -> Self {
        Self { registry, rush: Mutex::new(clock::now()) }
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Places one leg; a play waits at most `play_wait` for its stream, and `seed` breaks ties and names
    /// the stream of an errand that names none. What is reserved is given
    /// back when the answer, or what became of it, drops.
    ///
    /// # Errors
    /// What the client is told: no node takes it, or there is no such stream.
    pub async fn place(&self, app: &AppName, ask: &Ask, seed: u64, play_wait: Duration) -> Result<Seated, Reject> {
        let key = |stream: &StreamId| StreamKey { app: app.clone(), stream: stream.clone() };
        match (&ask.stream, ask.purpose) {
            (Some(stream), Purpose::Publish) => self.publish(key(stream), ask.room.as_ref().map(key), ask, seed).await,
            (Some(stream), Purpose::Play) => self.play(key(stream), ask, seed, play_wait).await,
            (Some(stream), Purpose::Peer | Purpose::Room) => self.home(key(stream), ask, seed).await,
            (Some(stream), Purpose::Errand) => self.errand(&key(stream), ask, seed),
            (None, _) => {
                let anywhere = format!("{seed:x}").parse().map_err(|_| Reject::NoStreamId)?;
                self.errand(&key(&anywhere), ask, seed)
            }
        }
    }

    async fn publish(&self, key: StreamKey, room: Option<StreamKey>, ask: &Ask, seed: u64) -> Result<Seated, Reject> {
        let lookup = self.registry.look_up(&key).await;
        let until = clock::now() + CLAIM_LIMIT;
        let _turn = self.registry.turn(Some(&key), room.as_ref(), until).await;
        let pin = self.registry.pin(&key);
        let home = room.as_ref().and_then(|room| self.registry.pin(room));
        let snapshot = self.registry.snapshot();
        let route = routing::publish(&lookup, pin.as_ref(), home.as_ref(), &ask.avoid, &snapshot);
        let unfit = unfit(&snapshot, &ask.avoid);
        drop(snapshot);
        let mut request = Request {
            stream: &key,
            want: route.want,
            rule: route.rule,
            kind: Some(Kind::Publish),
            exclude: &ask.avoid,
            seed,
        };
        let placed = self.registry.place(&request).or_else(|refused| match request.want {
            // Where it is live already, any other origin would only answer `streamIdInUse`.
            Want::Only(_) if request.rule != LIVE_ON_ORIGIN => {
                (request.want, request.rule) = (Want::Publish, "policy");
                self.registry.place(&request)
            }
            _ => Err(refused),
        });
        let seated = self.seated(placed.map_err(|_| Reject::Busy)?, Some(Kind::Publish), room.clone(), false)?;
        if seated.placement.rule == LIVE_ON_ORIGIN {
            // The record says more than any pin; a room without a home finds one here.
            if let Some(room) = room.as_ref().filter(|_| home.is_none()) {
                self.registry.claim(room, &seated.seat.node, &unfit, until).await;
            }
            return Ok(seated);
        }
        let keys = room.iter().chain([&key]).cloned().collect();
        self.settle(seated, Race { keys, unfit, until, must_be_shared: ask.is_served }, &request).await
    }

    /// Claims what a placement decides for all doors; goes where another door, or another placement, was faster.
    async fn settle(&self, first: Seated, race: Race, request: &Request<'_>) -> Result<Seated, Reject> {
        let Race { keys, mut unfit, until, must_be_shared } = race;
        let mut seated = first;
        let mut turns = 0;
        let mut next = 0;
        while next < keys.len() {
            let claimed = self.registry.claim(&keys[next], &seated.seat.node, &unfit, until).await;
            if must_be_shared && !claimed.is_shared {
                return Err(Reject::Busy);
            }
            let holder = claimed.node;
            if holder == seated.seat.node || turns == CLAIM_TURNS {
                next += 1;
                continue;
            }
            turns += 1;
            let there = Request { want: Want::Only(holder.clone()), rule: "pinned", ..request.clone() };
            match self.registry.place(&there) {
                // What was reserved before is given back.
                Ok(placement) => {
                    let pin = seated.seat.pin.take().map(|(key, _)| key);
                    seated = self.seated(placement, request.kind, pin, false)?;
                    next = 0;
                }
                // It takes no leg, whoever pinned it: the pin does not count.
                Err(_) => unfit.push(holder),
            }
        }
        Ok(seated)
    }

    async fn play(&self, key: StreamKey, ask: &Ask, seed: u64, play_wait: Duration) -> Result<Seated, Reject> {
        let with_publisher = ask.with_publisher.as_ref();
        if ask.is_move {
            self.take_turn().await;
        }
        let mut lookup = match &ask.after_end {
            Some(after) => self.registry.wait_return(&key, after.origin.as_ref(), ask.until).await,
            None => self.registry.look_up(&key).await,
        };
        let mut route = routing::play(&lookup, with_publisher, &ask.avoid, &self.registry.snapshot());
        if route == PlayRoute::Wait && ask.after_end.is_none() {
            let until = ask.until.min(clock::now() + play_wait);
            lookup = self.registry.wait_live(&key, until).await;
            route = routing::play(&lookup, with_publisher, &ask.avoid, &self.registry.snapshot());
        }
        let PlayRoute::Place { want, rule, blind } = route else {
            return Err(Reject::NoSuchStream);
        };
        if blind && ask.after_end.is_some() {
            return Err(Reject::NoSuchStream); // its node said that it has ended, and nobody says otherwise
        }
        let origin = match &want {
            Want::Play { origin, .. } => origin.clone(),
            _ => None,
        };
        let request = Request { stream: &key, want, rule, kind: Some(Kind::Play), exclude: &ask.avoid, seed };
        let placement = self.registry.place(&request).map_err(|_| Reject::Busy)?;
        let seated = self.seated(placement, Some(Kind::Play), None, blind)?;
        Ok(Seated { origin, ..seated })
    }

    /// Where the peers of `join`, or the members of a room, meet: the pin, else the rendezvous hash over origins.
    async fn home(&self, key: StreamKey, ask: &Ask, seed: u64) -> Result<Seated, Reject> {
        let until = clock::now() + CLAIM_LIMIT;
        let _turn = self.registry.turn(None, Some(&key), until).await;
        let unfit = unfit(&self.registry.snapshot(), &ask.avoid);
        let pin = self.registry.pin(&key).filter(|node| !ask.avoid.contains(node));
        let wants = pin.map(|node| (Want::Only(node), "pinned")).into_iter().chain([(Want::Home, "home")]);
        for (want, rule) in wants {
            let request = Request { stream: &key, want, rule, kind: None, exclude: &ask.avoid, seed };
            if let Ok(placement) = self.registry.place(&request) {
                let seated = self.seated(placement, None, Some(key.clone()), false)?;
                let race = Race { keys: vec![key.clone()], unfit, until, must_be_shared: false };
                return self.settle(seated, race, &request).await;
            }
        }
        Err(Reject::Busy)
    }

    fn errand(&self, key: &StreamKey, ask: &Ask, seed: u64) -> Result<Seated, Reject> {
        let request = Request { stream: key, want: Want::Read, rule: "read", kind: None, exclude: &ask.avoid, seed };
        let placement = self.registry.place(&request).map_err(|_| Reject::Busy)?;
        self.seated(placement, None, None, false)
    }

    /// A live play that has to go elsewhere waits for its turn among all of them: at first none, later a little, at most
    /// [`LONGEST_TURN`].
    async fn take_turn(&self) {
        let now = clock::now();
        let due = {
            let mut next = self.rush.lock().unwrap_or_else(PoisonError::into_inner);
            let burst = now.checked_sub(TURN * TURNS_AT_ONCE).unwrap_or(now);
            *next = (*next).max(burst) + TURN;
            *next
        };
        let wait = due.saturating_duration_since(now);
        if !wait.is_zero() {
            tokio::time::sleep(wait.min(LONGEST_TURN).mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
    }

    /// From here on, giving up gives the reservation back.
    fn seated(
        &self,
        placement: Placement,
        kind: Option<Kind>,
        pin: Option<StreamKey>,
        blind: bool,
    ) -> Result<Seated, Reject> {
        let pin = pin.map(|key| (key, clock::now()));
        let seat = LegSeat { registry: self.registry.clone(), node: placement.node.clone(), kind, pin };
        // A node may be gone from the configuration since it was chosen.
        let address = self.registry.snapshot().get(&seat.node).map(|node| node.spec.address.0.ip());
        Ok(Seated { placement, address: address.ok_or(Reject::Busy)?, blind, origin: None, seat })
    }
}

/// Nodes whose pins do not count for this leg: those that have failed it, and those that take no legs now.
fn unfit(snapshot: &Snapshot, avoid: &[NodeId]) -> Vec<NodeId> {
    let takes_none = snapshot.nodes.iter().filter(|node| !node.state.takes_legs()).map(|node| node.spec.id.clone());
    avoid.iter().cloned().chain(takes_none).collect()
}
