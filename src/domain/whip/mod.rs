//! One WHIP or WHEP resource (RFC 9725, draft-ietf-wish-whep): the client of a session that has no WebSocket.
//!
//! A resource speaks AMS's signalling to a session as an SDK would, so that placement, relay, drain and the rest need not
//! know it. Towards its client there is only one answer per request, so whatever trickles is gathered first.
//!
//! ```text
//!  WHIP  POST offer ─► publish ─► `start` ─► offer ────────► answer ─┬─► candidates ─► 201
//!  WHEP  POST offer ─► play ────► the node's offer ─► two answers ───┘
//!        PATCH ─► takeCandidate (204), or an ICE restart's offer ─► answer (200; WHIP only)
//!        DELETE ─► stop, end
//! ```
//!
//! A client cannot be told of another node: when its leg moves, the resource ends, and the client's ICE tells it so.

mod io;
#[cfg(test)]
mod tests;
mod words;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

pub use io::{Condition, End, Input, MediaNews, Output, Patch, Refusal, Reply, WISHES, Wish};
pub use words::ice_server_link;

use super::{
    ids::{Kind, StreamId},
    relay::ClientKey,
    sdp::{self, Unanswerable},
    signaling::{self, NodeCommand, Notice, SdpType, Text, first_ufrag, string_field},
};

/// From the POST to its answer; AMS gives up a client that has not answered its own side after 10 s.
const DESCRIBE: Duration = Duration::from_secs(8);
/// The same for a PATCH that restarts ICE.
const RESTART: Duration = Duration::from_secs(4);
/// A client whose media has not come up, or is down, for so long is gone (RFC 7675 §5.1).
const MEDIA: Duration = Duration::from_secs(30);
/// Candidates that come together come within this: the door's own, where media is relayed, at once.
const QUIET_RELAYED: Duration = Duration::from_millis(20);
/// The same for a node's own, where media is not relayed.
const QUIET_DIRECT: Duration = Duration::from_millis(200);
/// Candidates that are gathered for one answer; more are left out.
const CANDIDATES: usize = 16;
/// Tuples of one client that are told apart; a further one counts as none.
const TUPLES: usize = 64;

/// One resource.
#[derive(Debug)]
pub struct Resource {
    kind: Kind,
    stream: StreamId,
    has_token: bool,
    /// The client's offer, as of its present ICE generation.
    offer: String,
    relayed: bool,
    stage: Stage,
    /// The node's ufrag of the present generation.
    node_ufrag: Option<Box<str>>,
    /// Of the node's description that leads: for candidates of the client.
    place: (String, usize),
    generation: u32,
    /// Since when the client's media is not up; `None` while it is, and where nobody can say.
    media_due: Option<Instant>,
    tuples: Vec<ClientKey>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum Stage {
    /// Waits for `start` and the answer, or for the node's offer.
    Asked {
        due: Instant,
    },
    /// The answer is there; candidates are gathered.
    Gathering {
        answer: String,
        candidates: Vec<String>,
        quiet: Option<Instant>,
        due: Instant,
    },
    /// The client has its answer.
    Up,
    /// A restart's offer is with the node, whose answer may still lack candidates.
    Restarting {
        gathered: Option<String>,
        candidates: Vec<String>,
        quiet: Option<Instant>,
        due: Instant,
        before: String,
    },
    Over,
}

impl Resource {
    /// A resource whose POST has just come. `relayed` says whether the door relays media, and so hears of its end.
    pub fn new(kind: Kind, stream: StreamId, wish: &Wish, offer: String, relayed: bool, now: Instant) -> Self {
        let mut resource = Self {
            kind,
            has_token: wish.token.is_some(),
            relayed,
            stage: Stage::Asked { due: now + DESCRIBE },
            node_ufrag: None,
            place: (String::new(), 0),
            generation: 1,
            media_due: relayed.then(|| now + MEDIA),
            tuples: Vec::new(),
            outputs: VecDeque::new(),
            stream,
            offer,
        };
        let is_usable = sdp::leading(&resource.offer).is_some();
        if is_usable {
            let command = words::command(kind, &resource.stream, wish, &resource.offer);
            resource.say(command);
        } else {
            resource.refuse(Refusal::BadSdp);
        }
        resource
    }

    /// Applies one event.
    pub fn handle(&mut self, input: Input, now: Instant) {
        if matches!(self.stage, Stage::Over) {
            return;
        }
        match input {
            Input::Session(text) => self.on_session(&text, now),
            Input::SessionEnded => self.fail(Refusal::Busy, End::SessionEnded),
            Input::Patch(patch) => self.on_patch(&patch, now),
            Input::Delete => {
                self.say(signaling::stop(&self.stream));
                self.end(End::Deleted);
            }
            Input::Media(news) => self.on_media(news, now),
            Input::Tick => self.on_tick(now),
        }
    }

    /// The next effect, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Tick`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let stage = match &self.stage {
            Stage::Asked { due } => Some(*due),
            Stage::Gathering { quiet, due, .. } | Stage::Restarting { quiet, due, .. } => {
                Some(quiet.map_or(*due, |quiet| quiet.min(*due)))
            }
            Stage::Up => None,
            Stage::Over => return None,
        };
        stage.into_iter().chain(self.media_due).min()
    }

    fn on_session(&mut self, text: &Text, now: Instant) {
        let command = signaling::decode_node(text).command;
        match command {
            NodeCommand::Start if self.kind == Kind::Publish => self.on_start(),
            NodeCommand::TakeConfiguration(SdpType::Answer) if self.kind == Kind::Publish => self.on_answer(text, now),
            NodeCommand::TakeConfiguration(SdpType::Offer) if self.kind == Kind::Play => self.on_offer(text, now),
            NodeCommand::TakeCandidate => self.on_candidate(text, now),
            NodeCommand::Error(_) => self.on_error(text),
            NodeCommand::Stop | NodeCommand::Notification(Notice::PublishFinished | Notice::PlayFinished) => {
                self.fail(Refusal::NotFound, End::Finished)
            }
            NodeCommand::Notification(Notice::ServerWillStop) => self.fail(Refusal::Busy, End::Moved),
            _ => {}
        }
    }

    fn on_start(&mut self) {
        match self.stage {
            Stage::Asked { .. } => self.say(words::description(&self.stream, "offer", &self.offer)),
            // Another node asks for an offer that would have to be a new one.
            _ => self.fail(Refusal::Busy, End::Moved),
        }
    }

    /// The answer to this client's offer, or to its restart.
    fn on_answer(&mut self, text: &Text, now: Instant) {
        let Some(sdp) = string_field(text.as_bytes(), "sdp") else { return };
        let ufrag = first_ufrag(text);
        match &mut self.stage {
            Stage::Asked { .. } => self.gather(sdp.into_owned(), ufrag, now),
            Stage::Restarting { gathered, quiet, .. } if self.node_ufrag != ufrag => {
                if sdp::has_candidates(&sdp) {
                    *quiet = Some(now);
                }
                *gathered = Some(sdp.into_owned());
                self.node_ufrag = ufrag;
                self.on_tick(now);
            }
            // The node has taken the offer, but as no restart: what was stays.
            Stage::Restarting { .. } => self.restart_failed(Refusal::BadNode),
            Stage::Gathering { .. } | Stage::Up | Stage::Over => {}
        }
    }

    /// The node's offer: the first, a repeated one before the client has its answer, or one more of the same connection.
    fn on_offer(&mut self, text: &Text, now: Instant) {
        let Some(sdp) = string_field(text.as_bytes(), "sdp") else { return };
        let ufrag = first_ufrag(text);
        if matches!(self.stage, Stage::Up) && ufrag != self.node_ufrag {
            return self.fail(Refusal::Busy, End::Moved);
        }
        let answers = match sdp::answer_both(&self.offer, &sdp) {
            Ok(answers) => answers,
            Err(why) => {
                self.say(signaling::stop(&self.stream));
                let refusal = match why {
                    Unanswerable::Client(_) => Refusal::BadSdp,
                    Unanswerable::Node(_) => Refusal::BadNode,
                    Unanswerable::NothingInCommon => Refusal::NotAcceptable,
                };
                return self.fail(refusal, End::Finished);
            }
        };
        if let Some((mid, section)) = sdp::leading(&answers.to_node) {
            self.place = (mid.unwrap_or_else(|| section.to_string()), section);
        }
        self.say(words::description(&self.stream, "answer", &answers.to_node));
        if !matches!(self.stage, Stage::Up) {
            self.gather(answers.to_client, ufrag, now);
        }
    }

    /// Keeps an answer until it has candidates.
    fn gather(&mut self, answer: String, ufrag: Option<Box<str>>, now: Instant) {
        let due = match &self.stage {
            Stage::Asked { due } | Stage::Gathering { due, .. } => *due,
            _ => return,
        };
        let Some((mid, section)) = sdp::leading(&answer) else { return self.refuse(Refusal::BadNode) };
        if self.kind == Kind::Publish {
            self.place = (mid.unwrap_or_else(|| section.to_string()), section);
        }
        self.node_ufrag = ufrag;
        let has_all = sdp::has_candidates(&answer);
        // What the door adds itself is complete; what a node wrote may not be.
        let quiet = has_all.then(|| if self.relayed { now } else { now + QUIET_DIRECT });
        self.stage = Stage::Gathering { answer, candidates: Vec::new(), quiet, due };
        self.on_tick(now);
    }

    fn on_candidate(&mut self, text: &Text, now: Instant) {
        let (Stage::Gathering { candidates, quiet, .. } | Stage::Restarting { candidates, quiet, .. }) =
            &mut self.stage
        else {
            return;
        };
        let Some(candidate) = string_field(text.as_bytes(), "candidate") else { return };
        let candidate = candidate.trim().trim_start_matches("a=");
        let is_one = candidate.starts_with("candidate:") && !candidate.contains(['\r', '\n', '\0']);
        if is_one && candidates.len() < CANDIDATES {
            candidates.push(candidate.to_owned());
            *quiet = Some(now + if self.relayed { QUIET_RELAYED } else { QUIET_DIRECT });
        }
    }

    fn on_error(&mut self, text: &Text) {
        let definition = string_field(text.as_bytes(), "definition").unwrap_or_default();
        match self.stage {
            Stage::Asked { .. } | Stage::Gathering { .. } => {
                let refusal = words::refusal(&definition, self.has_token);
                self.fail(refusal, End::Finished);
            }
            Stage::Restarting { .. } => self.restart_failed(Refusal::BadNode),
            Stage::Up if definition == "publishTimeoutError" => self.end(End::MediaDied),
            // What else goes wrong at the node shows itself as the end of the leg.
            Stage::Up | Stage::Over => {}
        }
    }

    fn on_patch(&mut self, patch: &Patch, now: Instant) {
        match &self.stage {
            Stage::Up => {}
            Stage::Restarting { .. } => return self.reply(Reply::Refused(Refusal::Busy)),
            Stage::Asked { .. } | Stage::Gathering { .. } | Stage::Over => {
                return self.reply(Reply::Refused(Refusal::NotFound));
            }
        }
        let refused = match &patch.condition {
            Condition::Absent => Some(Refusal::NoCondition),
            Condition::Tags(tags) if !tags.contains(&self.tag()) => Some(Refusal::Stale),
            Condition::Tags(_) | Condition::Any => None,
        };
        let frag = match (refused, sdp::read_frag(&patch.frag)) {
            (Some(refusal), _) => return self.reply(Reply::Refused(refusal)),
            (None, Err(_)) => return self.reply(Reply::Refused(Refusal::BadSdp)),
            (None, Ok(frag)) => frag,
        };
        let own = sdp::read_frag(&self.offer).ok().and_then(|own| own.credentials);
        match frag.credentials {
            Some(new) if own.as_ref().is_some_and(|own| own.ufrag != new.ufrag) => self.restart(&new, now),
            _ => {
                for (mid, candidate) in frag.candidates {
                    let (leading, section) = &self.place;
                    // A WHEP client's mids are not the node's; everything is in one bundle.
                    let mid = mid.filter(|_| self.kind == Kind::Publish).unwrap_or_else(|| leading.clone());
                    let said = words::candidate(&self.stream, *section, &mid, &candidate);
                    self.say(said);
                }
                self.reply(Reply::Taken);
            }
        }
    }

    fn restart(&mut self, credentials: &sdp::Credentials, now: Instant) {
        if self.kind == Kind::Play {
            return self.reply(Reply::Refused(Refusal::NoRestart));
        }
        let Ok(offer) = sdp::restarted(&self.offer, credentials) else {
            return self.reply(Reply::Refused(Refusal::BadSdp));
        };
        self.say(words::description(&self.stream, "offer", &offer));
        let before = std::mem::replace(&mut self.offer, offer);
        self.stage =
            Stage::Restarting { gathered: None, candidates: Vec::new(), quiet: None, due: now + RESTART, before };
    }

    /// RFC 9725 §4.3.3: the session goes on as it was.
    fn restart_failed(&mut self, refusal: Refusal) {
        if let Stage::Restarting { before, .. } = std::mem::replace(&mut self.stage, Stage::Up) {
            self.offer = before;
            self.reply(Reply::Refused(refusal));
        }
    }

    fn on_media(&mut self, news: MediaNews, now: Instant) {
        match news {
            MediaNews::Up(client) => {
                if !self.tuples.contains(&client) && self.tuples.len() < TUPLES {
                    self.tuples.push(client);
                }
                self.media_due = None;
            }
            MediaNews::Down { client, consent } => {
                let before = self.tuples.len();
                self.tuples.retain(|tuple| *tuple != client);
                if self.tuples.is_empty() && before > 0 {
                    // Consent has waited long enough already.
                    self.media_due = Some(if consent { now } else { now + MEDIA });
                    self.on_tick(now);
                }
            }
        }
    }

    fn on_tick(&mut self, now: Instant) {
        if self.media_due.is_some_and(|due| due <= now) {
            self.say(signaling::stop(&self.stream));
            return self.fail(Refusal::Busy, End::MediaDied);
        }
        match &mut self.stage {
            Stage::Asked { due } if *due <= now => self.refuse(Refusal::BadNode),
            Stage::Gathering { answer, candidates, quiet: Some(quiet), .. } if *quiet <= now => {
                let (answer, candidates) = (std::mem::take(answer), std::mem::take(candidates));
                self.created(&answer, &candidates);
            }
            Stage::Gathering { due, .. } if *due <= now => self.refuse(Refusal::BadNode),
            Stage::Restarting { gathered: Some(answer), candidates, quiet: Some(quiet), .. } if *quiet <= now => {
                let (answer, candidates) = (std::mem::take(answer), std::mem::take(candidates));
                self.restarted(&answer, &candidates);
            }
            Stage::Restarting { due, .. } if *due <= now => self.restart_failed(Refusal::BadNode),
            _ => {}
        }
    }

    fn created(&mut self, answer: &str, candidates: &[String]) {
        match sdp::with_candidates(answer, candidates) {
            Ok(sdp) => {
                self.stage = Stage::Up;
                let tag = self.tag();
                self.reply(Reply::Created { sdp, tag });
            }
            Err(_) => self.refuse(Refusal::BadNode),
        }
    }

    fn restarted(&mut self, answer: &str, candidates: &[String]) {
        let frag = sdp::with_candidates(answer, candidates).and_then(|sdp| sdp::answered_frag(&sdp));
        let Ok(frag) = frag else { return self.restart_failed(Refusal::BadNode) };
        self.stage = Stage::Up;
        self.generation += 1;
        let tag = self.tag();
        self.reply(Reply::Restarted { frag, tag });
    }

    fn tag(&self) -> String {
        format!("\"ice-{}\"", self.generation)
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.fail(refusal, End::Refused);
    }

    /// Ends, with an answer for whoever waits for one.
    fn fail(&mut self, refusal: Refusal, end: End) {
        match self.stage {
            Stage::Asked { .. } | Stage::Gathering { .. } => {
                self.reply(Reply::Refused(refusal));
                self.end(End::Refused);
            }
            Stage::Restarting { .. } => {
                self.reply(Reply::Refused(Refusal::NotFound));
                self.end(end);
            }
            Stage::Up | Stage::Over => self.end(end),
        }
    }

    fn end(&mut self, end: End) {
        self.stage = Stage::Over;
        self.outputs.push_back(Output::End(end));
    }

    fn reply(&mut self, reply: Reply) {
        self.outputs.push_back(Output::Reply(reply));
    }

    fn say(&mut self, text: Text) {
        self.outputs.push_back(Output::ToSession(text));
    }
}
