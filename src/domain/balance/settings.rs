//! The knobs of placement, as configuration gives them and as integers for the hot path.

use std::time::Duration;

use super::load::{Cost, ppm};
use crate::domain::ids::Kind;

/// How publishes are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PublishPolicy {
    /// The lowest predicted load.
    #[default]
    LeastLoaded,
    /// The better of two drawn at random.
    TwoChoices,
    /// One after the other.
    RoundRobin,
    /// The rendezvous hash of the stream.
    Hash,
}

/// The knobs of placement (`[publish]`, `[play]`, `[nodes]`).
#[derive(Debug, Clone, PartialEq)]
pub struct BalanceSettings {
    /// `publish.policy`.
    pub publish_policy: PublishPolicy,
    /// `publish.max_load`: predicted load above which an origin takes no publish (AMS's own limit is 75 % CPU).
    pub publish_max_load: f32,
    /// `play.max_load`: the same for edges.
    pub play_max_load: f32,
    /// `play.share_until`: below this predicted load an edge may collect all viewers of a stream.
    pub share_until: f32,
    /// `play.epsilon`: how far above the mean an edge may go.
    pub epsilon: f32,
    /// `publish.cost`: learned cost's first guess and floor, as a fraction of a node.
    pub publish_cost_floor: f32,
    /// `play.cost`: the same for plays.
    pub play_cost_floor: f32,
    /// `nodes.slow_start`: how long a new or recovered node joins.
    pub slow_start: Duration,
    /// `nodes.probe_fall`: consecutive failed probes before a node is down.
    pub probe_fall: u32,
    /// `nodes.probe_rise`: consecutive answered probes before a down node joins.
    pub probe_rise: u32,
    /// `nodes.breaker_failures`: consecutive link failures that open the breaker.
    pub breaker_failures: u32,
    /// `nodes.breaker_open`: how long an open breaker stays open before probation (doubles up to 8 times this).
    pub breaker_open: Duration,
}

impl Default for BalanceSettings {
    fn default() -> Self {
        Self {
            publish_policy: PublishPolicy::LeastLoaded,
            publish_max_load: 0.75,
            play_max_load: 0.75,
            share_until: 0.5,
            epsilon: 0.25,
            publish_cost_floor: 0.005,
            play_cost_floor: 0.002,
            slow_start: Duration::from_secs(60),
            probe_fall: 3,
            probe_rise: 2,
            breaker_failures: 3,
            breaker_open: Duration::from_secs(5),
        }
    }
}

/// The settings in millionths of a node, with nonsense (NaN, negative, absurd) cut to the nearest sense.
#[derive(Debug, Clone)]
pub(super) struct Knobs {
    pub(super) policy: PublishPolicy,
    pub(super) publish_max: u32,
    pub(super) play_max: u32,
    pub(super) share_until: u32,
    /// 1 + ε.
    pub(super) headroom: u32,
    /// What a leg costs until more is learned, and never less than that.
    pub(super) floor: Cost,
}

impl Knobs {
    pub(super) fn new(settings: &BalanceSettings) -> Self {
        Self {
            policy: settings.publish_policy,
            publish_max: ppm(settings.publish_max_load),
            play_max: ppm(settings.play_max_load),
            share_until: ppm(settings.share_until),
            headroom: ppm(1.0 + settings.epsilon.max(0.0)),
            // A leg that costs nothing would let one node collect everything between two reports.
            floor: Cost {
                publish: ppm(settings.publish_cost_floor).max(1),
                play: ppm(settings.play_cost_floor).max(1),
            },
        }
    }

    /// Load above which a node takes no leg of this kind.
    pub(super) fn max_load(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Publish => self.publish_max,
            Kind::Play => self.play_max,
        }
    }
}
