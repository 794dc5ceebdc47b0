//! What a node says, and which leg it says it to.

use std::time::Instant;

use super::{DropCause, Fact, LinkLoss, Output, Purpose, RetryCause, Session, Stage, media::Rewritten};
use crate::domain::{
    ids::{Kind, NodeId},
    signaling::{self, NodeCommand, NodeMessage, Notice, Refusal, SdpType, Text},
};

impl Session {
    pub(super) fn on_node(&mut self, node: &NodeId, text: Text, now: Instant) {
        let Some(link) = self.link(node) else {
            return self.drop_message(DropCause::OldNode);
        };
        link.hear(now);
        let message = signaling::decode_node(&text);
        match message.command {
            NodeCommand::Pong => return, // ours: the client's pings are answered by the door
            NodeCommand::Notification(Notice::ServerWillStop) => return self.on_node_stopping(node, now),
            _ => {}
        }
        match self.leg_of(node, &message) {
            Some(at) => self.on_leg_message(at, message.command, text, now),
            None if let Some(at) = self.leaving_leg(node, &message) => {
                self.on_old_node(at, node, message.command, text, now);
            }
            None if self.comes_too_late(node, &message) => self.drop_message(DropCause::OldNode),
            None => self.out(Output::ToClient(text)),
        }
    }

    /// The node is about to go: its legs leave, publishes by a `stop` first, so that no other node refuses them as
    /// still in use (facts/ams.md, trap 16).
    fn on_node_stopping(&mut self, node: &NodeId, now: Instant) {
        let published: Vec<_> = self
            .legs
            .iter()
            .filter(|leg| leg.purpose == Purpose::Publish && leg.is_on(node) && leg.stage.is_known_to_node())
            .filter_map(|leg| leg.stream.clone())
            .collect();
        for stream in published {
            self.out(Output::ToNode(node.clone(), signaling::stop(&stream)));
        }
        self.give_up_link(node, LinkLoss::Stopping, now);
    }

    /// The leg of this node that a message speaks to. One stream published and played on one node is told apart by
    /// what only one of the two can be told.
    fn leg_of(&self, node: &NodeId, message: &NodeMessage) -> Option<usize> {
        let stream = message.stream.as_ref()?;
        let mut same = (0..self.legs.len())
            .filter(|&at| self.legs[at].is_on(node) && self.legs[at].stream.as_ref() == Some(stream));
        let first = same.next()?;
        let Some(second) = same.next() else { return Some(first) };
        let wanted = match message.command {
            NodeCommand::Start | NodeCommand::TakeConfiguration(SdpType::Answer) => Some(Purpose::Publish),
            NodeCommand::Notification(Notice::PublishStarted | Notice::PublishFinished | Notice::SessionRestored) => {
                Some(Purpose::Publish)
            }
            NodeCommand::TakeConfiguration(SdpType::Offer) => Some(Purpose::Play),
            NodeCommand::Notification(Notice::PlayStarted | Notice::PlayFinished) => Some(Purpose::Play),
            _ => None,
        };
        let is_asked = |at: usize| matches!(self.legs[at].stage, Stage::Asked { .. });
        Some(match wanted {
            Some(purpose) if self.legs[second].purpose == purpose => second,
            None if is_asked(second) && !is_asked(first) => second,
            _ => first,
        })
    }

    /// Whether a message that no leg of this node waits for is the tail of one that has left it.
    fn comes_too_late(&self, node: &NodeId, message: &NodeMessage) -> bool {
        let Some(stream) = &message.stream else { return false };
        let elsewhere =
            self.legs.iter().filter(|leg| leg.stream.as_ref() == Some(stream) && leg.purpose.kind().is_some());
        let is_session_talk = match message.command {
            NodeCommand::Start | NodeCommand::TakeConfiguration(_) | NodeCommand::TakeCandidate | NodeCommand::Stop => {
                true
            }
            NodeCommand::Notification(notice) => notice != Notice::Other,
            NodeCommand::Error(_) => return elsewhere.into_iter().any(|leg| leg.avoid.contains(node)),
            NodeCommand::Pong | NodeCommand::Other => false,
        };
        is_session_talk && elsewhere.into_iter().next().is_some()
    }

    fn on_leg_message(&mut self, at: usize, command: NodeCommand, text: Text, now: Instant) {
        let is_asked = matches!(self.legs[at].stage, Stage::Asked { .. });
        if let NodeCommand::Error(refusal) = command
            && is_asked
        {
            return self.on_refusal(at, refusal, text, now);
        }
        if is_asked {
            self.answered(at, now);
        }
        match command {
            NodeCommand::Start if self.legs[at].start_pending => return self.drop_message(DropCause::LateStart),
            NodeCommand::Start => self.legs[at].start_pending = self.legs[at].purpose == Purpose::Publish,
            NodeCommand::TakeConfiguration(SdpType::Offer) if self.legs[at].purpose == Purpose::Play => {
                let sections = signaling::media_kinds(&text);
                let leg = &mut self.legs[at];
                if leg.moving.is_some() && !leg.sections.is_empty() && leg.sections != sections {
                    // The SDK cannot take an offer of another shape on the same peer connection.
                    return self.fall_back(at, now);
                }
                leg.sections = sections;
            }
            NodeCommand::Notification(Notice::PlayFinished) if self.follow(at, &text, now) => return,
            NodeCommand::Notification(notice) => {
                self.on_notice(at, notice, now);
                return self.out(Output::ToClient(text));
            }
            _ => {}
        }
        if let NodeCommand::TakeConfiguration(sdp) = command {
            self.described(at, sdp, false);
        }
        let rewritten = match command {
            NodeCommand::TakeConfiguration(_) => self.node_description(at, &text),
            NodeCommand::TakeCandidate => self.node_candidate(at, &text),
            _ => Rewritten::Same,
        };
        match rewritten {
            Rewritten::Same => self.out(Output::ToClient(text)),
            Rewritten::Instead(texts) => texts.into_iter().for_each(|text| self.out(Output::ToClient(text))),
            Rewritten::Bad(error) => self.end_unusable(at, error),
        }
    }

    fn on_notice(&mut self, at: usize, notice: Notice, now: Instant) {
        let kind = self.legs[at].purpose.kind();
        match (notice, kind) {
            (Notice::PublishStarted | Notice::SessionRestored, Some(Kind::Publish))
            | (Notice::PlayStarted, Some(Kind::Play)) => self.on_started(at, now),
            (Notice::PublishFinished, Some(Kind::Publish)) | (Notice::PlayFinished, Some(Kind::Play)) => {
                self.remove_leg(at);
            }
            _ => {}
        }
    }

    fn on_started(&mut self, at: usize, now: Instant) {
        let leg = &mut self.legs[at];
        let (Some(kind), Some(stream)) = (leg.purpose.kind(), leg.stream.clone()) else { return };
        let (Stage::Answered(node, ticket) | Stage::Live(node, ticket)) = leg.stage.clone() else { return };
        leg.avoid = Vec::new();
        self.set_stage(at, Stage::Live(node.clone(), ticket), now);
        self.confirm_move(at, now);
        self.fact(Fact::Started { kind, stream, node });
    }

    /// The node's first answer is a refusal: another node may do better, within the same deadline.
    fn on_refusal(&mut self, at: usize, refusal: Refusal, text: Text, now: Instant) {
        let leg = &mut self.legs[at];
        let Some(node) = leg.stage.node().cloned() else { return };
        if refusal == Refusal::Full {
            self.fact(Fact::NodeFull(node));
        }
        let leg = &mut self.legs[at];
        let cause = match refusal {
            Refusal::Full | Refusal::NodeLocal => RetryCause::Refused,
            Refusal::Doubtful if !leg.doubted => {
                leg.doubted = true;
                RetryCause::Refused
            }
            // The record said that it is live, so the node is behind; but a token may be consumed by the attempt.
            Refusal::NotYet if leg.purpose == Purpose::Play && !leg.has_token => RetryCause::NotYet,
            // The old node has not let go of it yet; one that said of itself that a play has ended may not have either.
            Refusal::InUse if leg.moving.is_some() => RetryCause::NotYet,
            Refusal::Doubtful | Refusal::NotYet | Refusal::InUse | Refusal::Permanent => {
                if leg.moving.is_some() {
                    return self.refuse_move(at, now);
                }
                self.remove_leg(at);
                return self.out(Output::ToClient(text));
            }
        };
        leg.refusal = Some(text);
        self.retry(at, cause, now);
    }
}
