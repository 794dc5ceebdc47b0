//! The last minutes: each node's load and legs, and how fast legs come, sampled every few seconds.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::{
    balance::{Legs, Snapshot},
    ids::NodeId,
};

/// Time between two samples.
pub(super) const STEP: Duration = Duration::from_secs(5);
/// Samples kept: five minutes.
const SAMPLES: usize = 60;
/// A rate is told once it stands on so many samples.
const LEAST_SAMPLES: usize = 7;

/// The last minutes of one node, the oldest sample first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub(super) struct History {
    /// From one sample to the next.
    step_ms: u64,
    /// Predicted load.
    predicted: Vec<f32>,
    publish: Vec<u32>,
    play: Vec<u32>,
}

/// The samples of all nodes. Bounded by the nodes of the cluster.
#[derive(Debug, Default)]
pub(super) struct Recorder(Mutex<Samples>);

#[derive(Debug, Default)]
struct Samples {
    nodes: BTreeMap<NodeId, VecDeque<(f32, Legs)>>,
    /// Legs of all nodes together.
    all: VecDeque<(u32, u32)>,
}

impl Recorder {
    /// Takes a sample. A node that is gone is forgotten.
    pub(super) fn sample(&self, snapshot: &Snapshot) {
        let mut samples = self.lock();
        samples.nodes.retain(|id, _| snapshot.get(id).is_some());
        let mut all = (0u32, 0u32);
        for node in &snapshot.nodes {
            let ring = samples.nodes.entry(node.spec.id.clone()).or_default();
            push(ring, (node.load.predicted, node.legs));
            all = (all.0.saturating_add(node.legs.publish), all.1.saturating_add(node.legs.play));
        }
        push(&mut samples.all, all);
    }

    /// The last minutes of a node.
    pub(super) fn of(&self, node: &NodeId) -> History {
        let samples = self.lock();
        let ring = samples.nodes.get(node).into_iter().flatten();
        let mut history = History { step_ms: 5000, ..History::default() };
        for (predicted, legs) in ring {
            history.predicted.push(*predicted);
            history.publish.push(legs.publish);
            history.play.push(legs.play);
        }
        history
    }

    /// How many more publishes and plays there are each minute; `None` until it can be told.
    pub(super) fn legs_per_minute(&self) -> Option<(f64, f64)> {
        let samples = self.lock();
        let (first, last) = (samples.all.front()?, samples.all.back()?);
        let steps =
            u32::try_from(samples.all.len()).ok()?.checked_sub(1).filter(|_| samples.all.len() >= LEAST_SAMPLES)?;
        let minutes = (STEP * steps).as_secs_f64() / 60.0;
        let rate = |then: u32, now: u32| (f64::from(now) - f64::from(then)) / minutes;
        Some((rate(first.0, last.0), rate(first.1, last.1)))
    }

    fn lock(&self) -> MutexGuard<'_, Samples> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push<T>(ring: &mut VecDeque<T>, sample: T) {
    if ring.len() >= SAMPLES {
        ring.pop_front();
    }
    ring.push_back(sample);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_told_after_half_a_minute_and_over_five() {
        let recorder = Recorder::default();
        for n in 0..200u32 {
            push(&mut recorder.lock().all, (n, 1000 - n));
            let expected = (n + 1 >= LEAST_SAMPLES as u32).then_some((12.0, -12.0));
            assert_eq!(recorder.legs_per_minute(), expected, "{n}");
        }
        assert_eq!(recorder.lock().all.len(), SAMPLES);
    }
}
