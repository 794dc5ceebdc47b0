//! What is noted of one request until it is over: then it is counted and becomes a line of the access log.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{
    Method, Request,
    body::{Body as _, Frame, Incoming, SizeHint},
    http::uri::PathAndQuery,
};

use super::{Front, body::Body, http::Answer, visitor::Visitor};
use crate::{
    clock,
    domain::ids::NodeId,
    telemetry::{
        access::{AccessLog, RequestLine},
        metrics::Metrics,
    },
    upstream::{BodyError, Uploaded},
};

/// One request's notes.
#[derive(Debug)]
pub(super) struct Entry {
    access: AccessLog,
    metrics: Metrics,
    begun: Instant,
    first_byte: Duration,
    visitor: Visitor,
    method: Method,
    target: Option<PathAndQuery>,
    route: &'static str,
    status: u16,
    node: Option<(NodeId, &'static str)>,
    uploaded: Option<Uploaded>,
    bytes_in: u64,
    bytes_out: u64,
    end: &'static str,
}

impl Entry {
    /// A request that has just come.
    pub(super) fn new(front: &Front, visitor: Visitor, request: &Request<Incoming>) -> Self {
        Self {
            access: front.access,
            metrics: front.metrics.clone(),
            begun: clock::now(),
            first_byte: Duration::ZERO,
            visitor,
            method: request.method().clone(),
            target: request.uri().path_and_query().filter(|_| front.access.is_on()).cloned(),
            route: "none",
            status: 0,
            node: None,
            uploaded: None,
            bytes_in: 0,
            bytes_out: 0,
            end: "client_gone",
        }
    }

    /// Notes the route's pattern.
    pub(super) fn route(&mut self, pattern: &'static str) {
        self.route = pattern;
    }

    /// Hides the path from `keep` segments on: what follows is a secret.
    pub(super) fn hide_after(&mut self, keep: usize) {
        let Some(target) = &self.target else { return };
        let kept: Vec<&str> = target.path().split('/').take(keep + 1).collect();
        self.target = format!("{}/…", kept.join("/")).parse().ok();
    }

    /// Notes which node is asked, and why it.
    pub(super) fn node(&mut self, node: &NodeId, rule: &'static str) {
        self.node = Some((node.clone(), rule));
    }

    /// Notes the request's body.
    pub(super) fn uploads(&mut self, uploaded: Option<Uploaded>) {
        self.uploaded = uploaded;
    }

    /// Notes that bytes have passed, and how it ended.
    pub(super) fn tunnelled(&mut self, bytes_in: u64, bytes_out: u64, end: &'static str) {
        (self.bytes_in, self.bytes_out, self.end) = (bytes_in, bytes_out, end);
    }

    /// The answer of a request that has become a session, which has a line of its own.
    pub(super) fn became_session(mut self, answer: Answer) -> Answer {
        self.target = None;
        self.told(answer)
    }

    /// The answer, whose end is this request's.
    pub(super) fn told(mut self, answer: Answer) -> Answer {
        self.head(answer.status().as_u16());
        if answer.body().is_end_stream() || self.method == Method::HEAD {
            self.end = "done";
            return answer;
        }
        answer.map(|body| Told { body, entry: self }.boxed_unsync())
    }

    /// Notes the answer's head.
    pub(super) fn head(&mut self, status: u16) {
        self.status = status;
        self.first_byte = self.begun.elapsed_until_now();
        match self.node {
            Some(_) => self.metrics.http_forwarded(self.route, status, self.first_byte),
            None => self.metrics.http_answered(self.route, status),
        }
    }
}

trait Elapsed {
    fn elapsed_until_now(&self) -> Duration;
}

impl Elapsed for Instant {
    fn elapsed_until_now(&self) -> Duration {
        clock::now().saturating_duration_since(*self)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let took = self.begun.elapsed_until_now();
        let bytes_in = self.uploaded.as_ref().map_or(self.bytes_in, Uploaded::bytes);
        if self.node.is_some() {
            self.metrics.http_finished(bytes_in, self.bytes_out, took);
        }
        let Some(target) = &self.target else { return };
        self.access.request(&RequestLine {
            route: self.route,
            method: self.method.as_str(),
            target: target.as_str(),
            status: self.status,
            client: self.visitor.client.0.ip(),
            tls: self.visitor.secure,
            node: self.node.as_ref().map(|(node, rule)| (node, *rule)),
            bytes_in,
            bytes_out: self.bytes_out,
            first_byte: self.first_byte,
            took,
            end: self.end,
        });
    }
}

/// A body that counts itself.
struct Told {
    body: Body,
    entry: Entry,
}

impl hyper::body::Body for Told {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                this.entry.bytes_out += bytes as u64;
                // Nobody asks on after trailers.
                if this.body.is_end_stream() || frame.is_trailers() {
                    this.entry.end = "done";
                }
            }
            Some(Err(error)) => {
                this.entry.end = error.downcast_ref::<BodyError>().map_or("body_lost", BodyError::as_str);
                this.entry.metrics.http_failed(this.entry.end);
            }
            None => this.entry.end = "done",
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
