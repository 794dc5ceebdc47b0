//! The one owner of what placement knows: applies events, answers requests, reserves.
//!
//! What a placement reads lies in the [`Snapshot`], which the book changes in place while no reader holds it; what only
//! events need (probe counts, breakers, reports) lies beside it, by the same positions.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use super::{
    BalanceSettings, Candidate, Capacity, Drain, Legs, LoadView, NodeSpec, NodeState, NodeView, PlaceError, Placement,
    ProbeOutcome, Report, Request, Snapshot, Verdict, Want,
    capacity::{self, Site},
    decide,
    liveness::{Liveness, LivenessSettings},
    load::{Cost, Learner, Meter, WHOLE, fraction},
    node::with_error,
    settings::Knobs,
    slow_start::Shares,
    snapshot::{Fact, Plan, Side, UNFIT},
};
use crate::domain::ids::{Kind, NodeId};

/// The one owner of what placement knows.
#[derive(Debug)]
pub struct Book {
    snapshot: Arc<Snapshot>,
    tracks: Vec<Track>,
    knobs: Knobs,
    liveness: LivenessSettings,
    learner: Learner,
    cost: Cost,
    shares: Shares,
    /// The position that had the last turn of round robin.
    turn: Option<usize>,
    /// Where [`Book::recheck_joining`] goes on.
    recheck: usize,
    /// Positions of nodes in slow start.
    joining: Vec<usize>,
    /// Legs still open on nodes that have left the set; bounded by the legs that are open.
    gone: BTreeMap<NodeId, Legs>,
    /// Operators' wishes, also for nodes that are not in the set now; bounded by who keeps them.
    drains: BTreeMap<NodeId, Drain>,
    /// Whether any node was ever known.
    is_new: bool,
}

/// What events need to know of one node.
#[derive(Debug)]
struct Track {
    liveness: Liveness,
    /// Legs of all doors.
    meter: Meter,
    /// Those of them that other doors have placed.
    others: Legs,
}

impl Track {
    /// The legs that this door has placed.
    fn own(&self) -> Legs {
        let (all, others) = (self.meter.legs(), self.others);
        Legs { publish: all.publish.saturating_sub(others.publish), play: all.play.saturating_sub(others.play) }
    }
}

impl Book {
    /// An empty book. The first nodes it is given serve at once: the door is new, they are not.
    pub fn new(settings: BalanceSettings) -> Self {
        let knobs = Knobs::new(&settings);
        Self {
            snapshot: Arc::default(),
            tracks: Vec::new(),
            liveness: LivenessSettings::new(&settings),
            learner: Learner::new(knobs.floor),
            cost: knobs.floor,
            shares: Shares::default(),
            turn: None,
            recheck: 0,
            joining: Vec::new(),
            gone: BTreeMap::new(),
            drains: BTreeMap::new(),
            is_new: true,
            knobs,
        }
    }

    /// Replaces the set of nodes; what is known of those that stay is kept. Of two with one id the first counts. A node
    /// whose address changed is another node, though its open legs still count. An unchanged set costs next to nothing.
    pub fn set_nodes(&mut self, mut specs: Vec<NodeSpec>, now: Instant) {
        specs.sort_by(|a, b| a.id.cmp(&b.id));
        specs.dedup_by(|later, first| later.id == first.id);
        if self.snapshot.nodes.iter().map(|node| &*node.spec).eq(&specs) {
            return;
        }
        let before = std::mem::take(&mut self.snapshot);
        let mut tracks: BTreeMap<NodeId, (Track, &NodeView)> = std::mem::take(&mut self.tracks)
            .into_iter()
            .zip(&before.nodes)
            .map(|(track, node)| (node.spec.id.clone(), (track, node)))
            .collect();

        let mut nodes = Vec::with_capacity(specs.len());
        for spec in specs {
            let known = tracks.remove(&spec.id);
            let (track, view) = self.carry_over(Arc::new(spec), known, now);
            self.tracks.push(track);
            nodes.push(view);
        }
        for (id, (track, _)) in tracks {
            let legs = track.own();
            if legs != Legs::default() {
                self.gone.insert(id, legs);
            }
        }
        let specs: Vec<Arc<NodeSpec>> = nodes.iter().map(|node| Arc::clone(&node.spec)).collect();
        self.is_new &= nodes.is_empty();
        self.turn = None;
        self.snapshot = Arc::new(Snapshot {
            publish: Side::new(nodes.len(), self.cost.publish),
            play: Side::new(nodes.len(), self.cost.play),
            plan: Arc::new(Plan::new(&specs)),
            nodes,
        });
        self.refresh_all(now);
    }

    /// What is known of a node of the new set.
    fn carry_over(
        &mut self,
        spec: Arc<NodeSpec>,
        known: Option<(Track, &NodeView)>,
        now: Instant,
    ) -> (Track, NodeView) {
        let open = match known {
            Some((track, view)) if view.spec.address == spec.address => {
                return (track, NodeView { spec, ..view.clone() });
            }
            Some((track, _)) => track.own(),
            None => self.gone.remove(&spec.id).unwrap_or_default(),
        };
        let mut liveness = if self.is_new { Liveness::serving() } else { Liveness::joining("new", self.shares, now) };
        liveness.set_drain(self.drains.get(&spec.id).copied(), self.shares, now);
        let (state, reason) = liveness.state();
        let view =
            NodeView { spec, state, reason, since: now, load: LoadView::default(), legs: open, errors: Arc::default() };
        (Track { liveness, meter: Meter::resume(open), others: Legs::default() }, view)
    }

    /// Takes a node's own report of its load, with the time when it was measured. It says nothing of liveness.
    pub fn report(&mut self, node: &NodeId, report: Report) {
        let Some(at) = self.snapshot.position(node) else { return };
        self.tracks[at].meter.report(report, &mut self.learner);
        // Only the age of the report depends on the moment, and a fresh one has none yet.
        self.refresh_load(at, report.at);
    }

    /// Takes a probe's outcome. Only a door's own probe or link decides liveness.
    pub fn probe(&mut self, node: &NodeId, outcome: ProbeOutcome, now: Instant) {
        let Some(at) = self.snapshot.position(node) else { return };
        self.tracks[at].liveness.probe(&outcome, &self.liveness, self.shares, now);
        if let ProbeOutcome::Failed(cause) = outcome {
            self.note_error(at, &cause, now);
        }
        self.refresh(at, now);
    }

    /// A link to the node failed (dial, handshake, silence, loss), with the cause for people.
    pub fn link_failed(&mut self, node: &NodeId, cause: &str, now: Instant) {
        let Some(at) = self.snapshot.position(node) else { return };
        self.tracks[at].liveness.link_failed(cause, &self.liveness, now);
        self.note_error(at, cause, now);
        self.refresh(at, now);
    }

    /// A link to the node came up.
    pub fn link_ok(&mut self, node: &NodeId, now: Instant) {
        let Some(at) = self.snapshot.position(node) else { return };
        self.tracks[at].liveness.link_ok(self.shares, now);
        self.refresh(at, now);
    }

    /// The node refused a leg for want of resources (`highResourceUsage`): counts as full until its next report.
    pub fn refused(&mut self, node: &NodeId, now: Instant) {
        let Some(at) = self.snapshot.position(node) else { return };
        self.tracks[at].meter.refused(now);
        self.refresh_load(at, now);
    }

    /// A leg that [`Book::place`] reserved has ended.
    pub fn leg_ended(&mut self, node: &NodeId, kind: Kind, now: Instant) {
        if let Some(at) = self.snapshot.position(node) {
            if self.tracks[at].own().of(kind) > 0 {
                self.tracks[at].meter.leg_ended(kind, now);
            }
            self.refresh_load(at, now);
        } else if let Some(legs) = self.gone.get_mut(node) {
            let open = legs.of_mut(kind);
            *open = open.saturating_sub(1);
            if *legs == Legs::default() {
                self.gone.remove(node);
            }
        }
    }

    /// Sets or withdraws an operator's wish to empty a node, which need not be in the set yet. A node whose wish was
    /// withdrawn joins like a new one.
    pub fn set_drain(&mut self, node: &NodeId, drain: Option<Drain>, now: Instant) {
        let before = match drain {
            Some(drain) => self.drains.insert(node.clone(), drain),
            None => self.drains.remove(node),
        };
        if before == drain {
            return;
        }
        let Some(at) = self.snapshot.position(node) else { return };
        self.tracks[at].liveness.set_drain(drain, self.shares, now);
        self.refresh(at, now);
    }

    /// All wishes at once: those that are not named are withdrawn.
    pub fn set_drains(&mut self, drains: &BTreeMap<NodeId, Drain>, now: Instant) {
        let withdrawn: Vec<NodeId> = self.drains.keys().filter(|node| !drains.contains_key(node)).cloned().collect();
        for node in withdrawn {
            self.set_drain(&node, None, now);
        }
        for (node, drain) in drains {
            self.set_drain(node, Some(*drain), now);
        }
    }

    /// Takes how many legs other doors have on each node, by id; a node that is not named has none. What has come since the
    /// last time counts as placed now.
    pub fn set_others(&mut self, others: &BTreeMap<NodeId, Legs>, now: Instant) {
        for at in 0..self.tracks.len() {
            let legs = others.get(&self.snapshot.nodes[at].spec.id).copied().unwrap_or_default();
            let track = &mut self.tracks[at];
            let before = std::mem::replace(&mut track.others, legs);
            if before == legs {
                continue;
            }
            for kind in [Kind::Publish, Kind::Play] {
                track.meter.legs_changed(kind, before.of(kind), legs.of(kind), now);
            }
            self.refresh_load(at, now);
        }
    }

    /// The legs that this door itself has placed, on nodes that have any; also on nodes that have left the set.
    pub fn own_legs(&self) -> BTreeMap<NodeId, Legs> {
        let here =
            self.snapshot.nodes.iter().zip(&self.tracks).map(|(node, track)| (node.spec.id.clone(), track.own()));
        let gone = self.gone.iter().map(|(id, legs)| (id.clone(), *legs));
        here.chain(gone).filter(|(_, legs)| *legs != Legs::default()).collect()
    }

    /// Takes other settings; what was learned and what is placed stays.
    pub fn reconfigure(&mut self, settings: &BalanceSettings, now: Instant) {
        self.knobs = Knobs::new(settings);
        self.liveness = LivenessSettings::new(settings);
        self.learner.set_floor(self.knobs.floor);
        self.tick(now);
    }

    /// Lets time pass: slow start ends, breakers go to probation, learned costs fade. Call about once a second.
    pub fn tick(&mut self, now: Instant) {
        self.learner.fade(now);
        self.cost = self.learner.cost();
        for track in &mut self.tracks {
            track.liveness.tick(&self.liveness, now);
        }
        if (self.snapshot.publish.leg_cost, self.snapshot.play.leg_cost) != (self.cost.publish, self.cost.play) {
            let snapshot = Arc::make_mut(&mut self.snapshot);
            (snapshot.publish.leg_cost, snapshot.play.leg_cost) = (self.cost.publish, self.cost.play);
        }
        self.refresh_all(now);
    }

    /// Chooses a node and, if the request has a kind, reserves the leg on it until [`Book::leg_ended`].
    pub fn place(&mut self, request: &Request<'_>, now: Instant) -> Result<Placement, PlaceError> {
        self.recheck_joining(now);
        let (at, placement) = decide::place(&self.snapshot, request, &self.knobs, self.turn)?;
        if let Some(kind) = request.kind {
            self.reserve(at, kind, now);
        }
        if request.want == Want::Publish {
            self.turn = Some(at);
        }
        Ok(placement)
    }

    /// The placement that [`Book::place`] would make, without reserving.
    pub fn explain(&self, request: &Request<'_>, _now: Instant) -> Result<Placement, PlaceError> {
        decide::place(&self.snapshot, request, &self.knobs, self.turn).map(|(_, placement)| placement)
    }

    /// Every node with its score and verdict for this request, the best first: what [`Book::explain`] leaves out, also
    /// where no node takes the leg.
    pub fn candidates(&self, request: &Request<'_>) -> Vec<Candidate> {
        decide::candidates(&self.snapshot, request, &self.knobs, self.turn)
    }

    /// How many more legs the cluster takes, and which nodes are cheapest to remove.
    pub fn capacity(&self, now: Instant) -> Capacity {
        let plan = &self.snapshot.plan;
        let sites = self.snapshot.nodes.iter().zip(&self.tracks).map(|(view, track)| Site {
            id: &view.spec.id,
            role: view.spec.role,
            state: view.state,
            legs: track.meter.legs(),
            predicted: track.meter.predicted(self.cost, now),
            is_full: track.meter.is_full(now),
            limits: [Kind::Publish, Kind::Play].map(|kind| limit(&view.spec, kind)),
            takes: [Kind::Publish, Kind::Play].map(|kind| plan.takes(view.spec.role, kind)),
        });
        let max_load = [Kind::Publish, Kind::Play].map(|kind| self.knobs.max_load(kind));
        capacity::capacity(&sites.collect::<Vec<_>>(), max_load, self.cost)
    }

    /// All nodes at this moment, to keep. The first change after that copies them: who only looks uses [`Book::view`].
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    /// All nodes at this moment, to look at.
    pub fn view(&self) -> &Snapshot {
        &self.snapshot
    }

    fn reserve(&mut self, at: usize, kind: Kind, now: Instant) {
        let side = self.snapshot.side(kind);
        self.shares.leg_placed(kind, side.fit + side.tally[Verdict::JoiningTooFast as usize]);
        let track = &mut self.tracks[at];
        track.meter.leg_placed(kind, now);
        track.liveness.leg_placed(kind);
        self.refresh_load(at, now);
    }

    /// Looks whether one of the joining nodes may take legs again, another one each time: each placement lets the share
    /// of all of them grow, and looking at all would make a placement as dear as there are joining nodes.
    fn recheck_joining(&mut self, now: Instant) {
        if self.joining.is_empty() {
            return;
        }
        self.recheck = (self.recheck + 1) % self.joining.len();
        self.refresh_load(self.joining[self.recheck], now);
    }

    fn note_error(&mut self, at: usize, cause: &str, now: Instant) {
        let view = &mut Arc::make_mut(&mut self.snapshot).nodes[at];
        view.errors = with_error(&view.errors, cause, now);
    }

    fn refresh_all(&mut self, now: Instant) {
        for at in 0..self.tracks.len() {
            self.refresh(at, now);
        }
        let joining = self.tracks.iter().enumerate().filter(|(_, track)| track.liveness.is_joining());
        self.joining = joining.map(|(at, _)| at).collect();
    }

    /// Brings state, load and facts of one node into the snapshot.
    fn refresh(&mut self, at: usize, now: Instant) {
        let (state, reason) = self.tracks[at].liveness.state();
        let view = &self.snapshot.nodes[at];
        if view.state != state || view.reason != reason {
            let view = &mut Arc::make_mut(&mut self.snapshot).nodes[at];
            if view.state != state {
                view.since = now;
            }
            (view.state, view.reason) = (state, reason);
        }
        self.refresh_load(at, now);
    }

    /// Brings load and facts of one node into the snapshot.
    fn refresh_load(&mut self, at: usize, now: Instant) {
        let (load, facts) = self.assess(at, now);
        let legs = self.tracks[at].meter.legs();
        let view = &self.snapshot.nodes[at];
        let known = [self.snapshot.publish.facts[at], self.snapshot.play.facts[at]];
        if view.load == load && view.legs == legs && known == facts {
            return;
        }
        let snapshot = Arc::make_mut(&mut self.snapshot);
        (snapshot.nodes[at].load, snapshot.nodes[at].legs) = (load, legs);
        for (kind, fact) in [Kind::Publish, Kind::Play].into_iter().zip(facts) {
            snapshot.side_mut(kind).set(at, fact);
        }
    }

    /// What one node is for each kind of leg, and what people see of its load.
    fn assess(&self, at: usize, now: Instant) -> (LoadView, [Fact; 2]) {
        let (view, track) = (&self.snapshot.nodes[at], &self.tracks[at]);
        let (legs, is_full) = (track.meter.legs(), track.meter.is_full(now));
        let predicted = track.meter.predicted(self.cost, now);
        let fill = |kind| share_of_limit(legs.of(kind), limit(&view.spec, kind));
        let facts = [Kind::Publish, Kind::Play].map(|kind| {
            let with_leg = predicted.saturating_add(self.cost.of(kind));
            let next = legs.of(kind).saturating_add(1);
            let has_room = !is_full
                && limit(&view.spec, kind).is_none_or(|limit| next <= limit)
                && with_leg <= self.knobs.max_load(kind);
            Fact {
                predicted: predicted.max(fill(kind).unwrap_or(0)).min(UNFIT - 1),
                with_leg: with_leg.max(share_of_limit(next, limit(&view.spec, kind)).unwrap_or(0)).min(UNFIT - 1),
                unfit: self.unfit(at, kind, has_room, now),
                has_room,
            }
        });
        let (cpu, memory) = track.meter.parts();
        let limits = fill(Kind::Publish).max(fill(Kind::Play));
        let most = facts[0].predicted.max(facts[1].predicted).max(if is_full { WHOLE } else { 0 });
        let load = LoadView {
            predicted: fraction(most),
            reported: fraction(track.meter.reported().max(limits.unwrap_or(0))),
            cpu: cpu.map(fraction),
            memory: memory.map(fraction),
            legs: limits.map(fraction),
        };
        (load, facts)
    }

    fn unfit(&self, at: usize, kind: Kind, has_room: bool, now: Instant) -> Option<Verdict> {
        let (view, track) = (&self.snapshot.nodes[at], &self.tracks[at]);
        if !view.state.takes_legs() {
            Some(Verdict::NotServing)
        } else if !self.snapshot.plan.takes(view.spec.role, kind) {
            Some(Verdict::WrongRole)
        } else if !has_room {
            Some(Verdict::AtLimit)
        } else if view.state == NodeState::Joining
            && track.liveness.joins_too_fast(kind, self.shares, &self.liveness, now)
        {
            Some(Verdict::JoiningTooFast)
        } else {
            None
        }
    }
}

/// The configured limit of one kind of leg.
fn limit(spec: &NodeSpec, kind: Kind) -> Option<u32> {
    match kind {
        Kind::Publish => spec.max_publishes,
        Kind::Play => spec.max_plays,
    }
}

/// Legs as a part of their limit, millionths. A limit of none forbids the kind; it is no measure of load.
fn share_of_limit(legs: u32, limit: Option<u32>) -> Option<u32> {
    let limit = limit.filter(|&limit| limit > 0)?;
    let share = u64::from(legs) * u64::from(WHOLE) / u64::from(limit);
    Some(u32::try_from(share).unwrap_or(UNFIT - 1))
}
