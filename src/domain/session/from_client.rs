//! What the client says, and where it goes.

use std::time::Instant;

use super::{
    CloseReason, DropCause, Fact, Output, Purpose, Session, Stage,
    leg::Leg,
    media::{LegMedia, Rewritten},
};
use crate::domain::{
    ids::StreamId,
    reject::Reject,
    sdp::SdpError,
    signaling::{self, BadMessage, ClientCommand, ClientMessage, SdpType, Text},
};

/// Messages that are none, before the session is closed: an SDK's bug repeats itself for ever.
const BAD_MESSAGES: u32 = 20;

impl Session {
    pub(super) fn on_client(&mut self, text: Text, now: Instant) {
        self.hear_client(now);
        if !self.bucket.take(now) {
            return self.close(CloseReason::TooEager);
        }
        let message = match signaling::decode_client(&text) {
            Ok(message) => message,
            Err(bad) => return self.on_bad_message(bad),
        };
        let stream = message.stream.clone();
        match message.command {
            ClientCommand::Ping => self.out(Output::ToClient(signaling::pong())),
            ClientCommand::GetIceServerConfig => {
                let answer = self.settings.ice_servers.clone();
                self.out(Output::ToClient(answer));
            }
            ClientCommand::NodeOnly => self.reject(Reject::Forbidden, stream.as_ref()),
            _ if text.len() > self.settings.max_to_node => self.reject(Reject::TooLarge, stream.as_ref()),
            ClientCommand::Publish => self.on_command(Purpose::Publish, stream, message, text, now),
            ClientCommand::Play => self.on_command(Purpose::Play, stream, message, text, now),
            ClientCommand::Join => self.on_command(Purpose::Peer, stream, message, text, now),
            ClientCommand::JoinRoom => {
                let room = message.room.clone().or(stream);
                self.on_command(Purpose::Room, room, message, text, now);
            }
            ClientCommand::Stop => self.on_stop(stream.as_ref(), text, now),
            ClientCommand::TakeConfiguration(sdp) => self.on_configuration(stream.as_ref(), sdp, text, now),
            ClientCommand::TakeCandidate => self.on_candidate(stream.as_ref(), text),
            ClientCommand::Session => self.on_session_command(&message, text),
            ClientCommand::PlaySide => {
                let play = self.find(stream.as_ref(), |purpose| purpose == Purpose::Play);
                self.deliver_or_errand(play, message, text, now);
            }
            ClientCommand::AnyNode | ClientCommand::Unknown => self.deliver_or_errand(None, message, text, now),
        }
    }

    fn on_bad_message(&mut self, bad: BadMessage) {
        self.bad_messages += 1;
        if self.bad_messages > BAD_MESSAGES {
            return self.close(CloseReason::BadMessages);
        }
        self.reject(
            match bad {
                BadMessage::Malformed => Reject::BadMessage,
                BadMessage::BadStreamId => Reject::BadStreamId,
            },
            None,
        );
    }

    /// `publish`, `play`, `join`, `joinRoom`: a new leg, or the same one again.
    fn on_command(
        &mut self,
        purpose: Purpose,
        stream: Option<StreamId>,
        message: ClientMessage,
        text: Text,
        now: Instant,
    ) {
        let Some(stream) = stream else {
            return self.reject(Reject::NoStreamId, None);
        };
        if let Some(at) = self.find(Some(&stream), |other| other == purpose) {
            return if self.legs[at].stage.has_answer() {
                self.deliver(at, text);
            } else {
                self.drop_message(DropCause::Repeated);
            };
        }
        if self.legs.len() >= self.settings.max_legs {
            return self.reject(Reject::Busy, Some(&stream));
        }
        self.add_leg(purpose, Some(stream), message, text, now);
    }

    pub(super) fn add_leg(
        &mut self,
        purpose: Purpose,
        stream: Option<StreamId>,
        message: ClientMessage,
        command: Text,
        now: Instant,
    ) {
        self.fact(Fact::Commanded { purpose, stream: stream.clone() });
        self.legs.reserve_exact(1); // most sessions have one, and idle ones are many
        self.legs.push(Leg {
            purpose,
            stream,
            room: message.room,
            user_publish: message.user_publish,
            command,
            has_token: message.has_token,
            stage: Stage::Behind,
            since: now,
            commanded: now,
            give_up: now + self.settings.give_up,
            avoid: Vec::new(),
            doubted: false,
            refusal: None,
            held: Vec::new(),
            ufrag: None,
            configured: None,
            start_pending: false,
            sections: Vec::new(),
            media: LegMedia::default(),
            moving: None,
            gap: None,
            origin: None,
        });
        self.place_unless_behind(self.legs.len() - 1, now);
    }

    /// `stop` ends every leg of the stream, also one that is still being placed.
    fn on_stop(&mut self, stream: Option<&StreamId>, text: Text, now: Instant) {
        let Some(stream) = stream else {
            return self.reject(Reject::NoStreamId, None);
        };
        let mut told = Vec::new();
        let mut found = false;
        while let Some(at) = self.find(Some(stream), Purpose::has_media) {
            found = true;
            let old = self.legs[at].old_node().cloned();
            let leg = self.remove_leg(at);
            if let Some(old) = old {
                self.out(Output::ToNode(old, text.clone()));
            }
            let Some(node) = leg.stage.node().filter(|_| leg.stage.is_known_to_node()) else { continue };
            if !told.contains(node) {
                self.out(Output::ToNode(node.clone(), text.clone()));
                told.push(node.clone());
            }
            // A node that has not answered yet would answer a leg that is gone, and perhaps its successor's client.
            if !leg.stage.has_answer() && !self.legs.iter().any(|other| other.is_on(node)) {
                let node = node.clone();
                self.hang_up(&node);
            }
        }
        if !found {
            self.drop_message(DropCause::NoLeg);
        }
        self.settle(now);
    }

    fn on_configuration(&mut self, stream: Option<&StreamId>, sdp: SdpType, text: Text, now: Instant) {
        let wanted = match sdp {
            SdpType::Offer => Some(Purpose::Publish),
            SdpType::Answer => Some(Purpose::Play),
            SdpType::Other => None,
        };
        let exact = self.find(stream, |purpose| Some(purpose) == wanted);
        let Some(at) = exact.or_else(|| self.find(stream, Purpose::has_media)) else {
            return self.drop_message(DropCause::NoLeg);
        };
        let leg = &mut self.legs[at];
        if leg.moving.is_some() && !leg.stage.has_answer() {
            return self.drop_message(DropCause::Moving);
        }
        leg.ufrag = signaling::first_ufrag(&text);
        leg.configured = Some(now);
        leg.start_pending = false;
        self.described(at, sdp, true);
        match self.client_description(at, &text) {
            Rewritten::Same => self.deliver(at, text),
            Rewritten::Instead(texts) => texts.into_iter().for_each(|text| self.deliver(at, text)),
            Rewritten::Bad(error) => self.end_unusable(at, error),
        }
    }

    fn on_candidate(&mut self, stream: Option<&StreamId>, text: Text) {
        let mut same: Vec<usize> =
            (0..self.legs.len()).filter(|&at| self.legs[at].is_candidate_target(stream)).collect();
        if same.len() > 1 {
            // Published and played under one id: the ufrag tells them apart, else the latest SDP does.
            let ufrag = signaling::first_ufrag(&text);
            same.sort_by_key(|&at| {
                let leg = &self.legs[at];
                (ufrag.is_some() && leg.ufrag == ufrag, leg.configured)
            });
        }
        match same.last() {
            Some(&at) if self.swallows_client_candidates(at) => {}
            Some(&at) => self.deliver(at, text),
            None => self.drop_message(DropCause::NoLeg),
        }
    }

    /// A description that cannot be relayed ends its leg: half of it would reach nobody.
    pub(super) fn end_unusable(&mut self, at: usize, error: SdpError) {
        let leg = self.remove_leg(at);
        self.fact(Fact::BadDescription(error));
        if let (Some(node), Some(stream), true) = (leg.stage.node(), &leg.stream, leg.stage.is_known_to_node()) {
            self.out(Output::ToNode(node.clone(), signaling::stop(stream)));
        }
        self.reject(Reject::BadSdp, leg.stream.as_ref());
    }

    /// `leave`, `leaveFromRoom`, peer messages: where the session or the room is.
    fn on_session_command(&mut self, message: &ClientMessage, text: Text) {
        let peer = self.find(message.stream.as_ref(), |purpose| purpose == Purpose::Peer);
        let room = self.find(message.room.as_ref(), |purpose| purpose == Purpose::Room);
        let any = self.find(message.stream.as_ref(), |_| true);
        match room.or(peer).or(any) {
            Some(at) => self.deliver(at, text),
            None => self.drop_message(DropCause::NoLeg),
        }
    }

    /// To `leg` if there is one, else to the node that has a leg of the stream or room, else to any node.
    fn deliver_or_errand(&mut self, leg: Option<usize>, message: ClientMessage, text: Text, now: Instant) {
        let at = leg
            .or_else(|| self.find(message.stream.as_ref(), |_| true))
            .or_else(|| self.find(message.room.as_ref(), |_| true));
        if let Some(at) = at {
            return self.deliver(at, text);
        }
        // A node that plays for this session is an edge, and its link is there.
        let edge = self.legs.iter().position(|leg| leg.purpose == Purpose::Play && leg.stage.has_answer());
        let errand = self.legs.iter().position(|leg| leg.purpose == Purpose::Errand);
        match (edge, errand) {
            (Some(at), _) => self.deliver(at, text),
            (None, Some(at)) => self.hold(at, text),
            (None, None) => {
                let stream = message.stream.clone().or_else(|| message.room.clone());
                self.add_leg(Purpose::Errand, stream, message, text, now);
            }
        }
    }

    fn find(&self, stream: Option<&StreamId>, purpose: impl Fn(Purpose) -> bool) -> Option<usize> {
        let stream = stream?;
        self.legs.iter().position(|leg| leg.stream.as_ref() == Some(stream) && purpose(leg.purpose))
    }

    /// Passes `text` on to the leg's node, or holds it until there is one.
    fn deliver(&mut self, at: usize, text: Text) {
        let leg = &self.legs[at];
        if leg.moving.is_some() && !leg.stage.has_answer() {
            // Words to a node that the leg is about to leave; one that was lost cannot be told anything.
            return match leg.old_node().cloned() {
                Some(old) => self.out(Output::ToNode(old, text)),
                None => self.drop_message(DropCause::Moving),
            };
        }
        match &leg.stage {
            Stage::Answered(node, _) | Stage::Live(node, _) => {
                let node = node.clone();
                self.out(Output::ToNode(node, text));
            }
            Stage::Asked { node, .. } => {
                let node = node.clone();
                self.out(Output::ToNode(node, text.clone()));
                self.hold(at, text);
            }
            Stage::Behind | Stage::Placing(_) | Stage::Resting(_) | Stage::Dialling(..) | Stage::Leaving { .. } => {
                self.hold(at, text)
            }
        }
    }

    fn hold(&mut self, at: usize, text: Text) {
        if !self.legs[at].hold(text) {
            self.close(CloseReason::TooEager);
        }
    }
}

impl Leg {
    fn is_candidate_target(&self, stream: Option<&StreamId>) -> bool {
        stream.is_some() && self.stream.as_ref() == stream && self.purpose.has_media()
    }
}
