//! The body of a request on its way from a client to a node: bounded, and watched.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::clock;

/// A request's body.
#[derive(Debug)]
pub enum Upload {
    /// There is none.
    Empty,
    /// A client's, as it comes.
    Streamed(Streamed),
}

/// A client's body with its bound.
#[derive(Debug)]
pub struct Streamed {
    body: Incoming,
    left: u64,
    progress: Arc<Progress>,
}

/// Why a body was not sent whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// It is larger than `http.max_request_body`.
    #[error("the body is too large")]
    TooLarge,
    /// The client ended it early, or broke its framing.
    #[error("the client did not send the whole body")]
    Broken,
}

/// How far a body is. Who sends it writes, who waits for the answer reads.
#[derive(Debug)]
pub(super) struct Progress {
    begun: Instant,
    /// When it last moved, ms after `begun`.
    moved: AtomicU64,
    done: AtomicBool,
    fault: AtomicU8,
    bytes: AtomicU64,
}

/// Counts what a client has sent of a body.
#[derive(Debug, Clone)]
pub struct Uploaded(Arc<Progress>);

impl Uploaded {
    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }
}

const TOO_LARGE: u8 = 1;
const BROKEN: u8 = 2;

impl Upload {
    /// A client's body of at most `max` bytes.
    ///
    /// # Errors
    /// [`UploadError::TooLarge`] where it says so itself.
    pub fn new(body: Incoming, max: u64) -> Result<Self, UploadError> {
        if body.is_end_stream() {
            return Ok(Self::Empty);
        }
        if body.size_hint().lower() > max {
            return Err(UploadError::TooLarge);
        }
        let progress = Arc::new(Progress {
            begun: clock::now(),
            moved: AtomicU64::new(0),
            done: AtomicBool::new(false),
            fault: AtomicU8::new(0),
            bytes: AtomicU64::new(0),
        });
        Ok(Self::Streamed(Streamed { body, left: max, progress }))
    }

    /// Whether there is no body at all.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// What counts its bytes; `None`: there will be none.
    pub fn uploaded(&self) -> Option<Uploaded> {
        self.progress().map(Uploaded)
    }

    pub(super) fn progress(&self) -> Option<Arc<Progress>> {
        match self {
            Self::Empty => None,
            Self::Streamed(streamed) => Some(Arc::clone(&streamed.progress)),
        }
    }
}

impl Progress {
    fn note(&self) {
        let since = clock::now().saturating_duration_since(self.begun).as_millis();
        self.moved.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When it last moved.
    pub(super) fn moved(&self) -> Instant {
        self.begun + Duration::from_millis(self.moved.load(Ordering::Relaxed))
    }

    /// When it last moved, while it is under way.
    pub(super) fn under_way(&self) -> Option<Instant> {
        (!self.done.load(Ordering::Acquire)).then(|| self.moved())
    }

    /// Why it stopped, if it did.
    pub(super) fn fault(&self) -> Option<UploadError> {
        match self.fault.load(Ordering::Acquire) {
            TOO_LARGE => Some(UploadError::TooLarge),
            BROKEN => Some(UploadError::Broken),
            _ => None,
        }
    }

    fn fail(&self, fault: UploadError) -> UploadError {
        let code = match fault {
            UploadError::TooLarge => TOO_LARGE,
            UploadError::Broken => BROKEN,
        };
        self.fault.store(code, Ordering::Release);
        fault
    }
}

impl Streamed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.progress.note();
        let Some(frame) = frame else {
            self.progress.done.store(true, Ordering::Release);
            return Poll::Ready(None);
        };
        let Ok(frame) = frame else { return Poll::Ready(Some(Err(self.progress.fail(UploadError::Broken)))) };
        if let Some(data) = frame.data_ref() {
            let Some(left) = self.left.checked_sub(data.len() as u64) else {
                return Poll::Ready(Some(Err(self.progress.fail(UploadError::TooLarge))));
            };
            self.left = left;
            self.progress.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        if self.body.is_end_stream() {
            self.progress.done.store(true, Ordering::Release);
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streamed(streamed) => streamed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(streamed) => streamed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(streamed) => streamed.body.size_hint(),
        }
    }
}
