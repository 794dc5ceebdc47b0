//! Carries drains out at this door: tells sessions, a few per second, which of their legs shall leave a draining node, and
//! ends what is left at the deadline. What a leg then does is `domain::session`'s.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Card, Shared};
use crate::{
    clock,
    domain::{
        drain::{LegKey, LegThere, Pacer},
        ids::{NodeId, StreamKey},
        session::Input,
    },
    registry::{DrainTask, DrainWork},
};

/// Between two looks at who goes next.
const TICK: Duration = Duration::from_millis(100);
/// Between two looks at who is there at all: the directory is asked for every session.
const LIST: Duration = Duration::from_secs(1);
/// At the deadline, what is left ends within about this, but never faster than [`END_PER_SECOND`] asks for: SDKs come back
/// at once and without jitter of their own.
const END_WITHIN: f64 = 10.0;
const END_PER_SECOND: f64 = 20.0;

/// What this door knows of one drain.
struct Work {
    since_ms: i64,
    pacer: Pacer,
    cards: Vec<Arc<Card>>,
    listed: Option<Instant>,
    /// Legs there when the deadline passed.
    left: usize,
}

/// Works until the door ends.
pub(super) async fn run(shared: Arc<Shared>) {
    let stop = shared.shutdown.child();
    let mut works: BTreeMap<NodeId, Work> = BTreeMap::new();
    while stop.run_until_cancelled(tokio::time::sleep(TICK)).await.is_some() {
        let tasks = shared.router.registry().drain_tasks();
        works.retain(|node, work| tasks.iter().any(|task| task.node == *node && task.since_ms == work.since_ms));
        // A door that empties itself ends its sessions anyway.
        if shared.emptying.is_cancelled() {
            return;
        }
        for task in tasks {
            let now = clock::now();
            let fresh =
                || Work { since_ms: task.since_ms, pacer: Pacer::new(now), cards: Vec::new(), listed: None, left: 0 };
            works.entry(task.node.clone()).or_insert_with(fresh).turn(&shared, &task, now);
        }
    }
}

impl Work {
    fn turn(&mut self, shared: &Shared, task: &DrainTask, now: Instant) {
        if self.listed.is_none_or(|at| now.saturating_duration_since(at) >= LIST) {
            self.cards = shared.directory.on_node(&task.node);
            self.listed = Some(now);
        }
        let there: Vec<LegThere> = self.cards.iter().flat_map(|card| legs_on(card, &task.node)).collect();
        let (per_second, ends) = match task.work {
            DrainWork::Move { per_second } => (per_second, false),
            DrainWork::End => {
                self.left = self.left.max(there.len());
                (END_PER_SECOND.max(self.left as f64 / END_WITHIN), true)
            }
        };
        for key in self.pacer.due(&there, per_second, now, fastrand::f64) {
            let Some(card) = self.cards.iter().find(|card| card.id == key.session) else { continue };
            let LegKey { stream, kind, .. } = key;
            let node = task.node.clone();
            // A letter box that is full is tried again by the pacer, later.
            let _ =
                card.post(if ends { Input::EndOn(node) } else { Input::Move { node, stream: stream.stream, kind } });
        }
    }
}

fn legs_on(card: &Card, node: &NodeId) -> Vec<LegThere> {
    card.look(|page| {
        let on = page.legs.iter().filter(|leg| leg.node.as_ref() == Some(node));
        let there = on.map(|leg| LegThere {
            key: LegKey {
                session: card.id,
                stream: StreamKey { app: card.app.clone(), stream: leg.stream.clone() },
                kind: leg.kind,
            },
            settled: matches!(leg.state, "answered" | "live"),
            leaving: leg.moving,
        });
        there.collect()
    })
}
