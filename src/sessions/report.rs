//! What a session's facts become: metrics, log lines, and what the registry is told.

use super::Shared;
use crate::{
    domain::{
        balance::Placement,
        ids::{AppName, Kind, NodeId, StreamKey},
        session::{Ask, Fact, LinkLoss},
    },
    registry::Hint,
};

impl Shared {
    pub(super) fn report(&self, app: &AppName, fact: Fact) {
        let registry = self.router.registry();
        match fact {
            Fact::Answered { purpose, node, took } => {
                tracing::debug!(purpose = purpose.as_str(), %node, ?took, "node answered");
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
            }
            Fact::Moving(kind) => tracing::info!(kind = kind.as_str(), "moving a live leg"),
            Fact::Moved { kind, node, took } => {
                tracing::info!(kind = kind.as_str(), %node, ?took, "moved");
            }
            Fact::MoveFailed(kind) => {
                tracing::warn!(kind = kind.as_str(), "a live leg could not be moved: its client is asked to come again");
            }
            Fact::Rejected(reject) => tracing::debug!(reject = reject.as_str(), "rejected"),
            Fact::Dropped(cause) => tracing::debug!(cause = cause.as_str(), "message dropped"),
        }
    }

    pub(super) fn link_lost(&self, node: &NodeId, loss: LinkLoss) {
        tracing::info!(%node, cause = loss.as_str(), "link lost");
        if loss.is_failure() {
            self.router.registry().link_failed(node, loss.as_str());
        }
    }

    pub(super) fn placed(&self, ask: &Ask, placement: &Placement, blind: bool) {
        tracing::info!(
            purpose = ask.purpose.as_str(),
            stream = ask.stream.as_ref().map(tracing::field::display),
            node = %placement.node,
            rule = placement.rule,
            blind,
            candidates = ?placement.candidates,
            tally = ?placement.tally,
            "placed"
        );
    }
}
