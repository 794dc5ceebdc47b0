//! One stream inside one node: what comes in once goes out to every viewer, and what viewers ask for goes back.
//!
//! Fan-out never waits for a viewer: a slow one misses packets, which is counted.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use rtc::rtp;
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use super::sdp::{Codec, Kind};
use crate::domain::ids::StreamId;

/// Packets that one viewer may be behind on one track before it misses the oldest.
const PACKETS_KEPT: usize = 512;
/// Data messages that one viewer, or the publisher, may be behind before it misses the oldest.
const MESSAGES_KEPT: usize = 256;

/// One data channel message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) text: bool,
    pub(super) data: Bytes,
}

/// One audio or video track of a stream.
#[derive(Debug)]
pub(super) struct SourceTrack {
    pub(super) codec: Codec,
    /// Every packet, as it came in.
    pub(super) packets: broadcast::Sender<Arc<rtp::Packet>>,
    /// A viewer wants a key frame; any number of wishes is one.
    pub(super) key_frame_wanted: Notify,
    /// Payload bytes so far.
    pub(super) bytes: AtomicU64,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) stream: StreamId,
    /// Fixed for the life of the source, so viewers' descriptions stay true when the publisher comes back.
    pub(super) tracks: Vec<Arc<SourceTrack>>,
    /// Publisher → viewers.
    pub(super) down: broadcast::Sender<Message>,
    /// Viewers → publisher.
    pub(super) up: broadcast::Sender<Message>,
    /// Cancelled when the stream is over here.
    pub(super) ended: CancellationToken,
    viewers: Mutex<Viewers>,
    viewers_changed: Notify,
}

#[derive(Debug, Default)]
struct Viewers {
    count: usize,
    closed: bool,
}

/// One viewer of a source; dropping it is leaving.
#[derive(Debug)]
pub(super) struct Seat(pub(super) Arc<Source>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.lock().count -= 1;
        self.0.viewers_changed.notify_one();
    }
}

impl Source {
    /// A stream with one track per codec, audio before video.
    pub(super) fn new(stream: StreamId, mut codecs: Vec<Codec>) -> Arc<Self> {
        codecs.sort_by_key(|codec| codec.kind);
        let track = |codec| {
            Arc::new(SourceTrack {
                codec,
                packets: broadcast::channel(PACKETS_KEPT).0,
                key_frame_wanted: Notify::new(),
                bytes: AtomicU64::new(0),
            })
        };
        Arc::new(Self {
            stream,
            tracks: codecs.into_iter().map(track).collect(),
            down: broadcast::channel(MESSAGES_KEPT).0,
            up: broadcast::channel(MESSAGES_KEPT).0,
            ended: CancellationToken::new(),
            viewers: Mutex::default(),
            viewers_changed: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Viewers> {
        self.viewers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a seat; `None` once the stream is over.
    pub(super) fn sit(self: &Arc<Self>) -> Option<Seat> {
        let mut viewers = self.lock();
        if viewers.closed {
            return None;
        }
        viewers.count += 1;
        drop(viewers);
        self.viewers_changed.notify_one();
        Some(Seat(Arc::clone(self)))
    }

    /// How many watch.
    pub(super) fn viewers(&self) -> usize {
        self.lock().count
    }

    /// Completes when the number of viewers may have changed.
    pub(super) async fn viewers_changed(&self) {
        self.viewers_changed.notified().await;
    }

    /// The stream is over: nobody may sit down any more, and everyone hears of it.
    pub(super) fn end(&self) {
        self.lock().closed = true;
        self.ended.cancel();
    }

    /// Ends the stream if nobody watches; says whether it did.
    pub(super) fn end_if_unwatched(&self) -> bool {
        let mut viewers = self.lock();
        if viewers.count > 0 {
            return false;
        }
        viewers.closed = true;
        drop(viewers);
        self.ended.cancel();
        true
    }

    /// The track that carries media in `codec`, if this stream has one.
    pub(super) fn track_for(&self, codec: &Codec) -> Option<&Arc<SourceTrack>> {
        self.tracks.iter().find(|track| track.codec.same_media(codec))
    }

    /// Asks for a key frame on every video track.
    pub(super) fn want_key_frame(&self) {
        for track in self.tracks.iter().filter(|track| track.codec.kind == Kind::Video) {
            track.key_frame_wanted.notify_one();
        }
    }

    /// Payload bytes so far of one kind of media.
    pub(super) fn bytes(&self, kind: Kind) -> u64 {
        let tracks = self.tracks.iter().filter(|track| track.codec.kind == kind);
        tracks.map(|track| track.bytes.load(Ordering::Relaxed)).sum()
    }
}

impl SourceTrack {
    /// Hands one packet to everyone who watches.
    pub(super) fn push(&self, packet: rtp::Packet) {
        self.bytes.fetch_add(packet.payload.len() as u64, Ordering::Relaxed);
        // Nobody watching is fine.
        let _ = self.packets.send(Arc::new(packet));
    }
}

/// Makes a source's packets fit one viewer: its SSRC and payload type, and numbers that go on when the publisher changes.
#[derive(Debug)]
pub(super) struct Rewriter {
    ssrc: u32,
    payload_type: u8,
    /// Timestamp units between the last packet of one publisher and the first of the next.
    step: u32,
    incoming: Option<Incoming>,
    last: Option<(u16, u32)>,
}

#[derive(Debug)]
struct Incoming {
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
}

impl Rewriter {
    pub(super) fn new(ssrc: u32, payload_type: u8, clock_rate: u32) -> Self {
        Self { ssrc, payload_type, step: clock_rate / 30, incoming: None, last: None }
    }

    /// The packet as this viewer gets it. Header extensions are the publisher's own affair and stay behind.
    pub(super) fn rewrite(&mut self, packet: &rtp::Packet) -> rtp::Packet {
        let header = &packet.header;
        let known = self.incoming.take().filter(|incoming| incoming.ssrc == header.ssrc);
        let incoming = known.unwrap_or_else(|| {
            let (sequence, timestamp) = match self.last {
                Some((sequence, timestamp)) => (sequence.wrapping_add(1), timestamp.wrapping_add(self.step)),
                None => (header.sequence_number, header.timestamp),
            };
            Incoming {
                ssrc: header.ssrc,
                sequence: sequence.wrapping_sub(header.sequence_number),
                timestamp: timestamp.wrapping_sub(header.timestamp),
            }
        });
        let sequence = header.sequence_number.wrapping_add(incoming.sequence);
        let timestamp = header.timestamp.wrapping_add(incoming.timestamp);
        self.incoming = Some(incoming);
        // A late packet must not set the numbers back that the next publisher goes on from.
        if self.last.is_none_or(|(last, _)| sequence.wrapping_sub(last) < u16::MAX / 2) {
            self.last = Some((sequence, timestamp));
        }
        rtp::Packet {
            header: rtp::Header {
                version: 2,
                marker: header.marker,
                padding: header.padding,
                payload_type: self.payload_type,
                sequence_number: sequence,
                timestamp,
                ssrc: self.ssrc,
                ..Default::default()
            },
            payload: packet.payload.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(ssrc: u32, sequence_number: u16, timestamp: u32) -> rtp::Packet {
        let header =
            rtp::Header { version: 2, ssrc, sequence_number, timestamp, payload_type: 7, ..Default::default() };
        rtp::Packet { header, payload: Bytes::from_static(b"media") }
    }

    fn numbers(packet: &rtp::Packet) -> (u32, u8, u16, u32) {
        let header = &packet.header;
        (header.ssrc, header.payload_type, header.sequence_number, header.timestamp)
    }

    #[test]
    fn a_viewer_sees_one_stream_of_numbers_when_the_publisher_comes_back() {
        let mut rewriter = Rewriter::new(9, 96, 90_000);

        assert_eq!(numbers(&rewriter.rewrite(&packet(1, 65_535, 500))), (9, 96, 65_535, 500));
        assert_eq!(numbers(&rewriter.rewrite(&packet(1, 0, 3_500))), (9, 96, 0, 3_500));
        assert_eq!(numbers(&rewriter.rewrite(&packet(2, 40_000, 77))), (9, 96, 1, 6_500), "goes on");
        assert_eq!(numbers(&rewriter.rewrite(&packet(2, 40_002, 3_077))), (9, 96, 3, 9_500), "gaps stay gaps");
    }

    #[test]
    fn a_source_that_ended_for_want_of_viewers_seats_nobody() {
        let source = Source::new("s".parse().unwrap(), Vec::new());
        let seat = source.sit().unwrap();
        assert!(!source.end_if_unwatched());
        drop(seat);

        assert!(source.end_if_unwatched());

        assert!(source.sit().is_none() && source.ended.is_cancelled());
    }
}
