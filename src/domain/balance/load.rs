//! What a node's load is and what a leg adds to it.
//!
//! Loads are fractions of a node, kept as whole millionths: sums are exact, so a running mean never drifts, no order
//! of events matters, and no NaN can enter.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::Legs;
use crate::domain::ids::Kind;

/// One whole node.
pub(super) const WHOLE: u32 = 1_000_000;
/// No load is above this many nodes' worth: whatever is said, sums stay far from overflowing.
const MOST: f32 = 100.0;
/// A leg is never believed to cost more than this; a report that jumps for another reason would close the cluster.
const MOST_COST: f64 = 250_000.0;
/// AMS reports every 5 s, averages over 5 s and is read late: over this long a report has seen most of what changed.
const SAMPLE_AFTER: Duration = Duration::from_secs(15);
/// What was learned weighs half after this long.
const HALF_LIFE: Duration = Duration::from_secs(300);
/// How strongly the floor pulls, in squared legs: a movement of ten legs weighs as much.
const PRIOR: f64 = 100.0;
/// Reports are due every 5 s; one as old as this begins to count for less.
const FADES_FROM: Duration = Duration::from_secs(30);
/// A report as old as this says nothing any more: the node's load is what its legs cost.
const GONE_AFTER: Duration = Duration::from_secs(300);
/// A node that refused a leg and reports nothing is asked again after this long: three of AMS's report periods.
const REFUSED_HOLD: Duration = Duration::from_secs(15);
/// How finely the past of a node's legs is kept, and for how long: a report is rarely older when it is read.
const MARK_EVERY: Duration = Duration::from_millis(500);
const MARKS: usize = 32;

/// A fraction as millionths; NaN and what is below zero count as zero.
pub(super) fn ppm(fraction: f32) -> u32 {
    // A NaN passes through `clamp`, and `as` makes it zero.
    (fraction.clamp(0.0, MOST) * WHOLE as f32).round() as u32
}

/// Millionths as a fraction.
pub(super) fn fraction(ppm: u32) -> f32 {
    ppm as f32 / WHOLE as f32
}

/// What a node (or AMS on its behalf) last said of itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// CPU, 0 to 1.
    pub cpu: Option<f32>,
    /// Memory, 0 to 1.
    pub memory: Option<f32>,
    /// When it was measured, on this process's clock.
    pub at: Instant,
}

/// What one leg adds to a node, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) publish: u32,
    pub(super) play: u32,
}

impl Cost {
    pub(super) fn of(self, kind: Kind) -> u32 {
        match kind {
            Kind::Publish => self.publish,
            Kind::Play => self.play,
        }
    }

    pub(super) fn all(self, legs: Legs) -> u32 {
        self.publish.saturating_mul(legs.publish).saturating_add(self.play.saturating_mul(legs.play))
    }
}

/// Learns what a leg costs from how reports moved with legs: least squares over all nodes, with what is old fading
/// and with the floor as the answer while little has been seen.
#[derive(Debug, Clone)]
pub(super) struct Learner {
    floor: Cost,
    /// Sums of products of the movements of publishes (p), plays (q) and load (y).
    pp: f64,
    pq: f64,
    qq: f64,
    py: f64,
    qy: f64,
    faded_at: Option<Instant>,
}

impl Learner {
    pub(super) fn new(floor: Cost) -> Self {
        Self { floor, pp: 0.0, pq: 0.0, qq: 0.0, py: 0.0, qy: 0.0, faded_at: None }
    }

    /// What is learned from now on is never below this.
    pub(super) fn set_floor(&mut self, floor: Cost) {
        self.floor = floor;
    }

    /// A node's load moved by `load` millionths while its legs moved by these.
    fn sample(&mut self, publishes: f64, plays: f64, load: f64) {
        self.pp += publishes * publishes;
        self.pq += publishes * plays;
        self.qq += plays * plays;
        self.py += publishes * load;
        self.qy += plays * load;
    }

    /// Lets what was learned fade.
    pub(super) fn fade(&mut self, now: Instant) {
        let passed = self.faded_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.faded_at = Some(now);
        let keep = 0.5f64.powf(passed.as_secs_f64() / HALF_LIFE.as_secs_f64());
        for sum in [&mut self.pp, &mut self.pq, &mut self.qq, &mut self.py, &mut self.qy] {
            *sum *= keep;
        }
    }

    /// What a leg costs as far as is known.
    pub(super) fn cost(&self) -> Cost {
        let (p, q) = (self.pp + PRIOR, self.qq + PRIOR);
        let py = self.py + PRIOR * f64::from(self.floor.publish);
        let qy = self.qy + PRIOR * f64::from(self.floor.play);
        // Never zero: pq² ≤ pp·qq (Cauchy and Schwarz), and the prior is added to both.
        let determinant = p * q - self.pq * self.pq;
        let bounded = |cost: f64, floor: u32| (cost.min(MOST_COST).round() as u32).max(floor);
        Cost {
            publish: bounded((py * q - qy * self.pq) / determinant, self.floor.publish),
            play: bounded((qy * p - py * self.pq) / determinant, self.floor.play),
        }
    }
}

/// One node's legs, what it reported, and what was placed since.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter {
    legs: Legs,
    report: Option<Held>,
    /// Where the next sample of the learner begins.
    anchor: Option<Held>,
    /// The legs just before each change, at most one entry per [`MARK_EVERY`], oldest first.
    marks: VecDeque<(Instant, Legs)>,
    refused_at: Option<Instant>,
}

/// A report with the legs that it has seen.
#[derive(Debug, Clone, Copy)]
struct Held {
    cpu: Option<u32>,
    memory: Option<u32>,
    /// The larger of the two.
    load: u32,
    legs: Legs,
    at: Instant,
}

impl Meter {
    /// The legs open now.
    pub(super) fn legs(&self) -> Legs {
        self.legs
    }

    /// CPU and memory as last reported, millionths.
    pub(super) fn parts(&self) -> (Option<u32>, Option<u32>) {
        self.report.map_or((None, None), |held| (held.cpu, held.memory))
    }

    /// The larger of CPU and memory as last reported, millionths; 0 where nothing was.
    pub(super) fn reported(&self) -> u32 {
        self.report.map_or(0, |held| held.load)
    }

    /// Starts from legs that were open before the node was forgotten for a while.
    pub(super) fn resume(legs: Legs) -> Self {
        Self { legs, ..Self::default() }
    }

    pub(super) fn leg_placed(&mut self, kind: Kind, now: Instant) {
        self.mark(now);
        let legs = self.legs.of_mut(kind);
        *legs = legs.saturating_add(1);
    }

    /// An end without a begin (of a leg that another life of this node had) changes nothing.
    pub(super) fn leg_ended(&mut self, kind: Kind, now: Instant) {
        self.mark(now);
        let legs = self.legs.of_mut(kind);
        *legs = legs.saturating_sub(1);
    }

    /// Others' legs of one kind were so many, and are so many now.
    pub(super) fn legs_changed(&mut self, kind: Kind, before: u32, after: u32, now: Instant) {
        self.mark(now);
        let legs = self.legs.of_mut(kind);
        *legs = legs.saturating_sub(before).saturating_add(after);
    }

    /// The node refused a leg: it is full, whatever it reported before.
    pub(super) fn refused(&mut self, now: Instant) {
        self.refused_at = Some(now);
    }

    /// Whether a refusal still stands.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.refused_at.is_some_and(|at| now.saturating_duration_since(at) < REFUSED_HOLD)
    }

    /// Takes a report; one that is older than the last, or says nothing, changes nothing.
    pub(super) fn report(&mut self, report: Report, learner: &mut Learner) {
        let sane = |part: Option<f32>| part.filter(|part| part.is_finite()).map(ppm);
        let (cpu, memory) = (sane(report.cpu), sane(report.memory));
        let Some(load) = cpu.max(memory) else { return };
        if self.report.is_some_and(|held| report.at <= held.at) {
            return;
        }
        let held = Held { cpu, memory, load, legs: self.legs_at(report.at), at: report.at };
        self.report = Some(held);
        self.refused_at = self.refused_at.filter(|&refused| report.at <= refused);
        self.learn(held, learner);
    }

    /// What a leg placed now would find, in millionths, without the configured limits.
    pub(super) fn predicted(&self, cost: Cost, now: Instant) -> u32 {
        let Some(held) = self.report else { return cost.all(self.legs) };
        let since = Legs {
            publish: self.legs.publish.saturating_sub(held.legs.publish),
            play: self.legs.play.saturating_sub(held.legs.play),
        };
        let age = now.saturating_duration_since(held.at);
        if age <= FADES_FROM {
            return held.load.saturating_add(cost.all(since));
        }
        // A heartbeat may stop for days while its node serves well: an old reading must not keep the node empty, nor
        // may its silence, which overload causes too, make it look empty at once.
        let left = GONE_AFTER.saturating_sub(age).as_secs_f32() / (GONE_AFTER - FADES_FROM).as_secs_f32();
        let faded = (held.load as f32 * left) as u32;
        faded.saturating_add(cost.all(since)).max(cost.all(self.legs))
    }

    fn learn(&mut self, held: Held, learner: &mut Learner) {
        let Some(anchor) = self.anchor else {
            self.anchor = Some(held);
            return;
        };
        if held.at.saturating_duration_since(anchor.at) < SAMPLE_AFTER {
            return;
        }
        let moved = |now: u32, then: u32| f64::from(now) - f64::from(then);
        learner.sample(
            moved(held.legs.publish, anchor.legs.publish),
            moved(held.legs.play, anchor.legs.play),
            moved(held.load, anchor.load),
        );
        self.anchor = Some(held);
    }

    fn mark(&mut self, now: Instant) {
        if self.marks.back().is_some_and(|(at, _)| now.saturating_duration_since(*at) < MARK_EVERY) {
            return;
        }
        if self.marks.len() == MARKS {
            self.marks.pop_front();
        }
        self.marks.push_back((now, self.legs));
    }

    /// The legs at a moment of the near past: what a report measured then has seen.
    fn legs_at(&self, at: Instant) -> Legs {
        self.marks.iter().find(|(changed, _)| *changed > at).map_or(self.legs, |(_, before)| *before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: Cost = Cost { publish: 5_000, play: 2_000 };

    #[expect(clippy::disallowed_methods, reason = "std has no other way to make an Instant")]
    fn any_moment() -> Instant {
        Instant::now()
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn report(cpu: f32, at: Instant) -> Report {
        Report { cpu: Some(cpu), memory: None, at }
    }

    #[test]
    fn nonsense_is_cut_to_sense() {
        for (raw, sense) in [(f32::NAN, 0), (-1.0, 0), (f32::NEG_INFINITY, 0), (0.5, 500_000), (1e30, 100_000_000)] {
            assert_eq!(ppm(raw), sense, "{raw}");
        }
        assert_eq!((ppm(0.005), ppm(0.002), ppm(0.75)), (5_000, 2_000, 750_000));
    }

    #[test]
    fn a_prediction_is_the_report_plus_what_was_placed_since_it_was_measured() {
        let (t0, mut learner) = (any_moment(), Learner::new(COST));
        let mut meter = Meter::default();
        for n in 0..10 {
            meter.leg_placed(Kind::Publish, t0 + secs(n));
        }
        assert_eq!(meter.predicted(COST, t0 + secs(9)), 50_000, "nothing reported: from legs alone");
        // Measured at 4.9 s, so the legs of 0, 1, 2, 3 and 4 s are in it; read only at 9 s.
        meter.report(report(0.3, t0 + Duration::from_millis(4_900)), &mut learner);
        assert_eq!(meter.predicted(COST, t0 + secs(9)), 300_000 + 5 * 5_000);
        meter.report(report(0.9, t0 + secs(4)), &mut learner);
        assert_eq!(meter.predicted(COST, t0 + secs(9)), 325_000, "an older report is no news");
        meter.report(Report { cpu: Some(f32::NAN), memory: None, at: t0 + secs(10) }, &mut learner);
        assert_eq!(meter.predicted(COST, t0 + secs(10)), 325_000, "a report of nothing is none");
        for _ in 0..7 {
            meter.leg_ended(Kind::Publish, t0 + secs(10));
        }
        assert_eq!(meter.predicted(COST, t0 + secs(10)), 300_000, "never below what was reported");
    }

    #[test]
    fn a_refusal_stands_until_a_later_report_or_for_its_time() {
        let (t0, mut learner) = (any_moment(), Learner::new(COST));
        let mut meter = Meter::default();
        meter.refused(t0 + secs(5));
        meter.report(report(0.1, t0 + secs(4)), &mut learner);
        assert!(meter.is_full(t0 + secs(6)), "measured before the refusal");
        meter.report(report(0.1, t0 + secs(6)), &mut learner);
        assert!(!meter.is_full(t0 + secs(6)));
        meter.refused(t0 + secs(7));
        assert!(meter.is_full(t0 + secs(21)));
        assert!(!meter.is_full(t0 + secs(22)), "a node that reports nothing is not full for ever");
    }

    #[test]
    fn a_report_that_stops_fades_into_what_the_legs_cost() {
        let (t0, mut learner) = (any_moment(), Learner::new(COST));
        let mut meter = Meter::default();
        meter.leg_placed(Kind::Play, t0);
        meter.report(report(0.6, t0 + secs(1)), &mut learner);
        assert_eq!(meter.predicted(COST, t0 + secs(31)), 600_000);
        let half = meter.predicted(COST, t0 + secs(1 + 165));
        assert!((299_000..=301_000).contains(&half), "{half}");
        assert_eq!(meter.predicted(COST, t0 + secs(600)), 2_000);
    }

    #[test]
    fn the_cost_of_each_kind_is_learned_from_how_reports_move_and_then_fades_to_the_floor() {
        let t0 = any_moment();
        let mut learner = Learner::new(COST);
        learner.fade(t0);
        let mut meters = [Meter::default(), Meter::default()];
        for round in 0u32..12 {
            for (n, meter) in meters.iter_mut().enumerate() {
                let at = t0 + secs(u64::from(round) * 16);
                let legs = meter.legs();
                let load = legs.publish as f32 * 0.02 + legs.play as f32 * 0.004;
                meter.report(report(load, at), &mut learner);
                let kind = if (round as usize + n).is_multiple_of(2) { Kind::Publish } else { Kind::Play };
                for _ in 0..10 {
                    meter.leg_placed(kind, at + secs(1));
                }
            }
        }
        let learned = learner.cost();
        assert!((16_000..=20_500).contains(&learned.publish), "{learned:?}");
        assert!((3_500..=4_500).contains(&learned.play), "{learned:?}");
        learner.fade(t0 + secs(200));
        learner.fade(t0 + secs(200 + 20 * 300));
        let faded = learner.cost();
        assert!(faded.publish < 5_200 && faded.play < 2_200, "{faded:?}");
    }

    #[test]
    fn a_load_that_falls_while_legs_come_never_makes_a_leg_cheaper_than_the_floor() {
        let mut learner = Learner::new(COST);
        for _ in 0..100 {
            learner.sample(50.0, -30.0, -500_000.0);
            learner.sample(1.0, 90.0, 90_000_000.0);
        }
        let cost = learner.cost();
        assert!(cost.publish >= 5_000 && cost.play >= 2_000, "{cost:?}");
        assert!(cost.publish <= 250_000 && cost.play <= 250_000, "{cost:?}");
    }

    #[test]
    fn the_past_is_kept_within_its_bound() {
        let t0 = any_moment();
        let mut meter = Meter::default();
        for n in 0..10_000 {
            meter.leg_placed(Kind::Play, t0 + Duration::from_millis(n * 100));
        }
        assert!(meter.marks.len() <= MARKS);
        assert_eq!(meter.legs_at(t0 + secs(1_000)).play, 10_000);
        assert!(meter.legs_at(t0).play > 9_000, "beyond what is kept, the oldest that is");
    }
}
