//! What a session's facts become: metrics, log lines, and what the registry is told.

use super::{Shared, router::Seated};
use crate::{
    domain::{
        ids::{AppName, Kind, NodeId, StreamId, StreamKey},
        reject::Reject,
        relay,
        session::{Ask, Fact, LinkLoss},
    },
    registry::Hint,
};

impl Shared {
    pub(super) fn report(&self, app: &AppName, fact: Fact) {
        let (registry, metrics) = (self.router.registry(), &self.metrics);
        match fact {
            // Told in the session's story; their outcomes are counted.
            Fact::Commanded { .. } | Fact::Described { .. } => {}
            Fact::Answered { purpose, node, took } => {
                tracing::debug!(purpose = purpose.as_str(), %node, ?took, "node answered");
                if purpose.kind().is_some() {
                    metrics.placement_took(took);
                }
            }
            Fact::Started { kind, stream, node } => {
                tracing::info!(kind = kind.as_str(), %stream, %node, "started");
                if kind == Kind::Publish {
                    registry.hint(&StreamKey { app: app.clone(), stream }, Hint::Started { node });
                }
            }
            Fact::Ended { kind, stream, node, started } => {
                tracing::info!(kind = kind.as_str(), %stream, node = node.as_ref().map(tracing::field::display), started, "ended");
                if let (Kind::Publish, Some(node), true) = (kind, node, started) {
                    registry.hint(&StreamKey { app: app.clone(), stream }, Hint::Ended { node });
                }
            }
            Fact::LinkLost(node, loss) => self.link_lost(&node, loss),
            Fact::NodeFull(node) => {
                tracing::info!(%node, "node refused for want of resources");
                registry.refused(&node);
            }
            Fact::Retried(purpose, cause) => {
                tracing::info!(purpose = purpose.as_str(), cause = cause.as_str(), "asked elsewhere");
                metrics.retried(cause.as_str());
            }
            Fact::Moving { kind, stream, from, cause } => {
                tracing::info!(kind = kind.as_str(), %stream, %from, cause = cause.as_str(), "moving a live leg");
                if kind == Kind::Publish {
                    registry.publisher_moves(&StreamKey { app: app.clone(), stream }, true);
                }
            }
            Fact::Moved { kind, stream, from, node, cause, took } => {
                tracing::info!(kind = kind.as_str(), %stream, %from, %node, cause = cause.as_str(), ?took, "moved");
                metrics.migrated(kind, cause.as_str(), "moved");
                self.move_ended(app, kind, stream, &from, true);
            }
            Fact::Stayed { kind, node } => {
                tracing::info!(kind = kind.as_str(), %node, "no other node takes a leg of a draining one: it stays");
                metrics.migrated(kind, "drain", "stayed");
            }
            Fact::MoveFailed { kind, stream, from, cause } => {
                tracing::warn!(
                    kind = kind.as_str(), %stream, %from,
                    "a live leg could not be moved: its client is asked to come again"
                );
                metrics.migrated(kind, cause.as_str(), "failed");
                self.move_ended(app, kind, stream, &from, false);
            }
            Fact::Gap { kind, gap } => {
                tracing::info!(kind = kind.as_str(), ?gap, "a moved leg has media again");
                metrics.migration_gap(kind, gap);
            }
            Fact::BadDescription(error) => tracing::info!(%error, "a description that cannot be relayed"),
            Fact::Rejected(reject) => {
                tracing::debug!(reject = reject.as_str(), "rejected");
                metrics.rejected(reject.as_str());
            }
            Fact::Dropped(cause) => {
                tracing::debug!(cause = cause.as_str(), "message dropped");
                metrics.message_dropped(cause.as_str());
            }
        }
    }

    fn move_ended(&self, app: &AppName, kind: Kind, stream: StreamId, from: &NodeId, confirmed: bool) {
        let registry = self.router.registry();
        registry.count_move(from, confirmed);
        if kind == Kind::Publish {
            registry.publisher_moves(&StreamKey { app: app.clone(), stream }, false);
        }
    }

    /// A relay that takes no command has no room: that leg will have no media, and its client asks again.
    pub(super) fn relay(&self, command: relay::Command) {
        let Some(media) = &self.media else { return };
        if let Err(error) = media.command(command) {
            tracing::warn!(%error, "the media relay did not take a command");
        }
    }

    pub(super) fn link_lost(&self, node: &NodeId, loss: LinkLoss) {
        tracing::info!(%node, cause = loss.as_str(), "link lost");
        if loss.is_failure() {
            self.metrics.link_failed(node, loss.as_str());
            self.router.registry().link_failed(node, loss.as_str());
        }
    }

    pub(super) fn placed(&self, ask: &Ask, result: &Result<Seated, Reject>) {
        let purpose = ask.purpose.as_str();
        let stream = ask.stream.as_ref().map(tracing::field::display);
        match result {
            Ok(Seated { placement, blind, .. }) => {
                tracing::info!(
                    purpose,
                    stream,
                    node = %placement.node,
                    rule = placement.rule,
                    blind,
                    candidates = ?placement.candidates,
                    tally = ?placement.tally,
                    "placed"
                );
                if *blind {
                    self.metrics.placed_blind();
                }
            }
            Err(reject) => tracing::info!(purpose, stream, reject = reject.as_str(), "not placed"),
        }
        if let Some(kind) = ask.purpose.kind() {
            let (rule, outcome) = match result {
                Ok(seated) => (seated.placement.rule, "placed"),
                Err(reject) => ("none", reject.as_str()),
            };
            self.metrics.placed(kind, rule, outcome);
        }
    }
}
