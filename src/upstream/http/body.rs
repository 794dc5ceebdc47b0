//! The body of a node's response, which gives its connection back when it has ended.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::{Connection, Lane};

/// A node's body, streamed. Dropped before its end, it ends the connection.
pub struct NodeBody {
    body: Incoming,
    /// Until the end.
    lease: Option<(Connection, Arc<Lane>)>,
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The node sent nothing for `http.idle`.
    #[error("the node stopped sending")]
    NodeIdle,
    /// The client took nothing for `http.client_idle`.
    #[error("the client stopped reading")]
    ClientIdle,
    /// The connection was lost, or its framing broken.
    #[error("the node's body was cut off")]
    Lost(#[source] hyper::Error),
}

impl BodyError {
    /// The word for metrics and logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NodeIdle => "body_idle",
            Self::ClientIdle => "client_idle",
            Self::Lost(_) => "body_lost",
        }
    }
}

impl NodeBody {
    pub(super) fn new(body: Incoming, connection: Connection, lane: Arc<Lane>) -> Self {
        let mut body = Self { body, lease: Some((connection, lane)) };
        if body.body.is_end_stream() {
            body.release();
        }
        body
    }

    fn release(&mut self) {
        if let Some((connection, lane)) = self.lease.take() {
            lane.keep(connection);
        }
    }

    fn failure(&mut self, error: hyper::Error) -> BodyError {
        match self.lease.take() {
            Some((connection, _)) if connection.watch.node_was_overdue() => BodyError::NodeIdle,
            Some((connection, _)) if connection.watch.client_was_overdue() => BodyError::ClientIdle,
            Some(_) | None => BodyError::Lost(error),
        }
    }
}

impl Body for NodeBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        match polled {
            Poll::Pending => {
                if let Some((connection, _)) = &this.lease {
                    connection.watch.await_node();
                }
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => {
                if this.body.is_end_stream() {
                    this.release();
                } else if let Some((connection, _)) = &this.lease {
                    connection.watch.await_client();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(this.failure(error)))),
            Poll::Ready(None) => {
                this.release();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for NodeBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBody").field("open", &self.lease.is_some()).finish_non_exhaustive()
    }
}
