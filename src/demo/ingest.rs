//! The side of a node that takes media in: from a publisher, or, when pulling, from another node.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use tokio::sync::{Notify, broadcast::error::RecvError, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use webrtc::{
    data_channel::{DataChannel, DataChannelEvent},
    error::Error,
    media_stream::track_remote::{TrackRemote, TrackRemoteEvent},
};

use super::{
    node::Freezer,
    peer::{Peer, PeerEvent, Place},
    sdp::{Codec, Kind, sections},
    source::{Message, Source, SourceTrack},
};

/// Shortest time between two key-frame requests on one track.
const KEY_FRAME_PAUSE: Duration = Duration::from_millis(200);

/// One connection that feeds a source. Dropping it ends its tasks and closes the connection; the source lives on.
pub(super) struct Ingest {
    pub(super) peer: Peer,
    /// Notified when the first media packet is in.
    pub(super) flows: Arc<Notify>,
    source: Arc<Source>,
    freezer: Freezer,
    stop: CancellationToken,
    _guard: DropGuard,
}

/// The codecs that an offer will be answered with: the first one of each kind that is sent and that nodes forward.
pub(super) fn codecs_of(offer: &str) -> Vec<Codec> {
    let mut codecs: Vec<Codec> = Vec::new();
    for codec in sections(offer).into_iter().filter(|section| section.sends).filter_map(|section| section.codec) {
        if codecs.iter().all(|known| known.kind != codec.kind) {
            codecs.push(codec);
        }
    }
    codecs
}

impl Ingest {
    /// Answers an offer and feeds `source` with what then arrives. Returns the answer's SDP and the connection's events.
    pub(super) async fn answer(
        place: &Place,
        offer: &str,
        source: Arc<Source>,
        freezer: Freezer,
    ) -> Result<(Self, String, mpsc::Receiver<PeerEvent>), Error> {
        let (peer, events) = Peer::build(place, &codecs_of(offer)).await?;
        let answer = peer.answer(offer).await?;
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let ingest = Self { peer, flows: Arc::default(), source, freezer, stop, _guard: guard };
        Ok((ingest, answer, events))
    }

    /// Whether the offer that was answered promised media at all.
    pub(super) fn expects_media(&self) -> bool {
        !self.source.tracks.is_empty()
    }

    /// Feeds the source from one track.
    pub(super) fn take_track(&self, track: Arc<dyn TrackRemote>) {
        let feed =
            Feed { source: Arc::clone(&self.source), flows: Arc::clone(&self.flows), freezer: self.freezer.clone() };
        let stop = self.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(feed.run(track)).await });
    }

    /// Joins one data channel to the source, both ways.
    pub(super) fn take_channel(&self, channel: Arc<dyn DataChannel>) {
        let source = Arc::clone(&self.source);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let both = async { tokio::join!(receive(&channel, &source.down), send(&channel, source.up.subscribe())) };
            stop.run_until_cancelled(both).await
        });
    }
}

/// Hands every message of a channel on, until the channel closes.
pub(super) async fn receive(channel: &Arc<dyn DataChannel>, to: &tokio::sync::broadcast::Sender<Message>) {
    while let Some(event) = channel.poll().await {
        match event {
            DataChannelEvent::OnMessage(message) => {
                // Nobody listening is fine.
                let _ = to.send(Message { text: message.is_string, data: message.data.freeze() });
            }
            DataChannelEvent::OnClose => return,
            _ => {}
        }
    }
}

/// Sends everything to a channel, until it closes. What it cannot hold is dropped, and so is what came too fast.
pub(super) async fn send(channel: &Arc<dyn DataChannel>, mut from: tokio::sync::broadcast::Receiver<Message>) {
    loop {
        let message = match from.recv().await {
            Ok(message) => message,
            Err(RecvError::Lagged(missed)) => {
                tracing::debug!(missed, "data messages missed");
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        let sent = match std::str::from_utf8(&message.data) {
            Ok(text) if message.text => channel.try_send_text(text).await,
            _ => channel.try_send(BytesMut::from(&message.data[..])).await,
        };
        match sent {
            Ok(()) => {}
            Err(Error::ErrSendBufferFull) => tracing::debug!("a data message was dropped: the channel is full"),
            Err(error) => return tracing::debug!(%error, "a data channel closed"),
        }
    }
}

struct Feed {
    source: Arc<Source>,
    flows: Arc<Notify>,
    freezer: Freezer,
}

impl Feed {
    async fn run(self, track: Arc<dyn TrackRemote>) {
        let Some(target) = self.target(&track).await else {
            return tracing::debug!(stream = %self.source.stream, "a track in an unexpected codec is not forwarded");
        };
        let ssrc = AtomicU32::new(track.ssrcs().await.first().copied().unwrap_or(0));
        tokio::select! {
            () = self.forward(&track, &target, &ssrc) => {}
            () = ask_for_key_frames(&track, &target, &ssrc) => {}
        }
    }

    /// The source's track of this kind; there is one codec per kind.
    async fn target(&self, track: &Arc<dyn TrackRemote>) -> Option<Arc<SourceTrack>> {
        let kind = track.kind().await;
        self.source.tracks.iter().find(|target| target.codec.kind.to_rtc() == kind).cloned()
    }

    async fn forward(&self, track: &Arc<dyn TrackRemote>, target: &SourceTrack, ssrc: &AtomicU32) {
        let mut first = true;
        while let Some(event) = track.poll().await {
            match event {
                TrackRemoteEvent::OnRtpPacket(packet) if !self.freezer.is_frozen() => {
                    ssrc.store(packet.header.ssrc, Ordering::Relaxed);
                    target.push(packet);
                    if std::mem::take(&mut first) {
                        self.flows.notify_one();
                    }
                }
                TrackRemoteEvent::OnEnded => return,
                _ => {}
            }
        }
    }
}

/// Passes viewers' wishes for a key frame on; never returns for a track that has key frames.
async fn ask_for_key_frames(track: &Arc<dyn TrackRemote>, target: &SourceTrack, ssrc: &AtomicU32) {
    if target.codec.kind != Kind::Video {
        return std::future::pending().await;
    }
    loop {
        target.key_frame_wanted.notified().await;
        let media_ssrc = ssrc.load(Ordering::Relaxed);
        let request = PictureLossIndication { sender_ssrc: 0, media_ssrc };
        if track.write_rtcp(vec![Box::new(request)]).await.is_err() {
            return;
        }
        tokio::time::sleep(KEY_FRAME_PAUSE).await;
    }
}
