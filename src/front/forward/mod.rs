//! Forwards requests to nodes and streams their answers back.
//!
//! ```text
//! request ─► head::for_node ─► sessions: which node? ─► upstream: send ─► head::for_client ─► answer, streamed
//!                                    ▲                       │ nothing of it was sent, or it only fetches
//!                                    └───────────────────────┘ another node, at most three
//! ```

mod head;
mod tunnel;

use std::error::Error;

use http_body_util::BodyExt as _;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONNECTION, HeaderValue, SET_COOKIE, USER_AGENT},
    http::request::Parts,
};

use self::head::{BadHead, COOKIE_NAME};
pub(super) use self::{
    head::has_token,
    tunnel::{is_tunnel, tunnel},
};
use super::{
    Front,
    http::{Answer, busy, plain},
    journal::Entry,
    visitor::Visitor,
};
use crate::{
    domain::{
        http::errand::{Errand, NotAllowed},
        ids::{AppName, NodeId},
    },
    sessions::{HttpAsk, HttpNode},
    upstream::{Failed, NodeBody, SendError, Upload, UploadError},
};

/// Nodes that one request is tried on.
const TRIES: usize = 3;

/// A request on its way to a node.
pub(super) struct Errands<'a> {
    pub(super) front: &'a Front,
    pub(super) app: AppName,
    pub(super) errand: Errand,
    /// What follows `streams/`, for [`Errand::Watch`].
    pub(super) file: &'a str,
    pub(super) visitor: Visitor,
}

/// What is known of a request beside its head.
struct Asked {
    host: Option<String>,
    agent: Option<HeaderValue>,
    cookie: Option<u64>,
}

/// Answers a request by a node's answer.
pub(super) async fn forward(errands: Errands<'_>, request: Request<Incoming>, entry: &mut Entry) -> Answer {
    let (mut parts, body) = request.into_parts();
    let max = errands.front.http.load().max_request_body as u64;
    let upload = match Upload::new(body, max) {
        Ok(upload) => upload,
        Err(_) => return closing(plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than this door takes\n")),
    };
    entry.uploads(upload.uploaded());
    let asked = Asked {
        host: head::host(&parts).ok().flatten().and_then(|host| host.to_str().ok().map(str::to_owned)),
        agent: parts.headers.get(USER_AGENT).cloned(),
        cookie: head::cookie(&parts.headers),
    };
    if let Err(bad) = head::for_node(&mut parts, errands.visitor) {
        return refuse(bad);
    }
    errands.send(parts, upload, &asked, entry).await
}

impl Errands<'_> {
    async fn send(&self, parts: Parts, upload: Upload, asked: &Asked, entry: &mut Entry) -> Answer {
        let fetches = upload.is_empty() && matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let mut avoid: Vec<NodeId> = Vec::new();
        let mut next = Some((parts, upload));
        let mut last = None;
        for _ in 0..TRIES {
            let Some((parts, upload)) = next.take() else { break };
            let Ok(mut node) = self.choose(asked, &avoid).await else {
                return last.unwrap_or_else(|| busy("no node can take this now\n"));
            };
            if last.is_some() {
                self.front.metrics.http_retried();
            }
            entry.node(&node.id, node.rule);
            let spare = fetches.then(|| parts.clone());
            let request = head::request(parts, upload, node.address);
            match self.front.nodes.send(node.address, request).await {
                Ok(response) if response.status() != StatusCode::SWITCHING_PROTOCOLS => {
                    return self.answer(response, &mut node, asked);
                }
                // Nobody asked for another protocol.
                Ok(_) => {
                    self.front.metrics.http_failed("unasked_upgrade");
                    return plain(StatusCode::BAD_GATEWAY, "the media server gave no usable answer\n");
                }
                Err(failed) => {
                    self.note(&failed, &node, fetches);
                    let may_repeat = matches!(failed.error, SendError::Lost(_));
                    last = Some(explain(&failed.error));
                    next = match failed.unsent {
                        Some(whole) => Some(whole.into_parts()),
                        // What only fetches may be asked twice.
                        None => spare.filter(|_| may_repeat).map(|parts| (parts, Upload::Empty)),
                    };
                    // A connection that the node had every right to end says nothing against it.
                    if !(failed.reused && may_repeat) {
                        avoid.push(node.id.clone());
                    }
                }
            }
        }
        last.unwrap_or_else(|| busy("no node can take this now\n"))
    }

    async fn choose(&self, asked: &Asked, avoid: &[NodeId]) -> Result<HttpNode, crate::sessions::NoNode> {
        let ask = HttpAsk {
            app: &self.app,
            errand: &self.errand,
            file: self.file,
            client: self.visitor.client.0.ip(),
            agent: asked.agent.as_ref().map_or(&[], HeaderValue::as_bytes),
            cookie: asked.cookie.filter(|_| self.front.http.load().cookie),
            avoid,
        };
        self.front.sessions.http_node(ask).await
    }

    fn note(&self, failed: &Failed, node: &HttpNode, fetches: bool) {
        let cause = failed.error.as_str();
        self.front.metrics.http_failed(cause);
        tracing::debug!(node = %node.id, error = %failed.error, reused = failed.reused, "a forwarded request failed");
        // A slow call may be slow by its nature; a slow file is not.
        let is_telling = fetches || !matches!(failed.error, SendError::FirstByte);
        if failed.is_nodes_fault() && is_telling {
            node.failed(cause);
        }
    }

    fn answer(&self, mut response: Response<NodeBody>, node: &mut HttpNode, asked: &Asked) -> Answer {
        node.answered();
        if response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED {
            node.served();
            self.give_cookie(&mut response, node, asked);
        }
        head::for_client(&mut response, asked.host.as_deref(), node.address);
        response.map(|body| body.map_err(|error| Box::new(error) as Box<dyn Error + Send + Sync>).boxed_unsync())
    }

    /// Lets a viewer come back to his edge, through whichever door. Playlists carry it; segments may be cached on the way.
    fn give_cookie(&self, response: &mut Response<NodeBody>, node: &HttpNode, asked: &Asked) {
        let is_playlist = matches!(self.errand, Errand::Watch(Some(_)))
            && [".m3u8", ".mpd"].iter().any(|end| self.file.to_ascii_lowercase().ends_with(end));
        let tag = node.tag();
        if !self.front.http.load().cookie || !is_playlist || asked.cookie == Some(tag) {
            return;
        }
        let rest = if self.visitor.secure { "; SameSite=None; Secure" } else { "; SameSite=Lax" };
        let cookie = format!("{COOKIE_NAME}={tag:016x}; Path=/{}; HttpOnly{rest}", self.app);
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
    }
}

/// The answer to a method that a route does not have.
pub(super) fn not_allowed(NotAllowed(allow): NotAllowed) -> Answer {
    let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "this path does not have that method\n");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

fn refuse(bad: BadHead) -> Answer {
    match bad {
        BadHead::Host => closing(plain(StatusCode::BAD_REQUEST, "the request needs exactly one Host\n")),
        BadHead::Coding => closing(plain(StatusCode::NOT_IMPLEMENTED, "this transfer coding is not known here\n")),
    }
}

/// What a client is told when no node has answered: never an address.
fn explain(error: &SendError) -> Answer {
    match error {
        SendError::Full => busy("all connections to the media server are in use\n"),
        SendError::Connect(_) => plain(StatusCode::BAD_GATEWAY, "the media server cannot be reached\n"),
        SendError::ConnectTimeout => plain(StatusCode::GATEWAY_TIMEOUT, "the media server cannot be reached in time\n"),
        SendError::FirstByte => plain(StatusCode::GATEWAY_TIMEOUT, "the media server did not answer in time\n"),
        SendError::Lost(_) => plain(StatusCode::BAD_GATEWAY, "the media server closed the connection\n"),
        SendError::Garbage(_) => plain(StatusCode::BAD_GATEWAY, "the media server gave no usable answer\n"),
        SendError::SlowUpload => closing(plain(StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n")),
        SendError::Upload(UploadError::TooLarge) => {
            closing(plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than this door takes\n"))
        }
        SendError::Upload(UploadError::Broken) => {
            closing(plain(StatusCode::BAD_REQUEST, "the body did not come whole\n"))
        }
    }
}

/// An answer after which nothing more is read from the connection.
fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}
