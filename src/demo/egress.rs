//! The side of a node that gives media out: to one viewer, or to another node that pulls.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use rtc::{
    rtcp::payload_feedbacks::{full_intra_request::FullIntraRequest, picture_loss_indication::PictureLossIndication},
    rtp_transceiver::rtp_sender::{RTCRtpCodingParameters, RTCRtpEncodingParameters},
};
use serde_json::{Map, Value};
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use webrtc::{
    data_channel::DataChannel,
    error::Error,
    media_stream::{
        MediaStreamTrack,
        track_local::{TrackLocal, TrackLocalEvent, static_rtp::TrackLocalStaticRTP},
    },
    rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit, RtpTransceiver},
};

use super::{
    ingest::{receive, send},
    peer::{Peer, PeerEvent, Place},
    sdp::{Codec, Kind, sections},
    source::{Rewriter, Seat, Source, SourceTrack},
};
use crate::domain::ids::StreamId;

/// One connection that carries one stream, or a room's streams, to a viewer. Dropping it ends everything.
pub(super) struct Egress {
    pub(super) peer: Peer,
    label: String,
    naming: Naming,
    /// What the connection speaks; fixed when it is built.
    codecs: Vec<Codec>,
    /// In the order of the offer's sections.
    tracks: Vec<Outgoing>,
    seats: Vec<Seat>,
    channel: Arc<dyn DataChannel>,
    /// What the channel is joined to, once it is.
    channel_runs: Option<(Arc<Source>, DropGuard)>,
    /// Packets that this node's viewers missed.
    missed: Arc<AtomicU64>,
    stop: CancellationToken,
    _guard: DropGuard,
}

struct Outgoing {
    track: Arc<TrackLocalStaticRTP>,
    transceiver: Arc<dyn RtpTransceiver>,
    source: Arc<Source>,
    from: Arc<SourceTrack>,
    /// The name that `idMapping` gives it; empty once its stream has left.
    name: String,
    ssrc: u32,
    payload_type: u8,
    /// Its tasks, once they run.
    running: Option<DropGuard>,
}

/// An offer and what its sections are.
pub(super) struct Offer {
    pub(super) sdp: String,
    /// AMS's `idMapping`: mid → track id.
    pub(super) id_mapping: Map<String, Value>,
}

impl Egress {
    /// A connection for `sources`, in their order; `label` names the data channel.
    pub(super) async fn new(
        place: &Place,
        label: &str,
        seats: Vec<Seat>,
        naming: Naming,
        missed: Arc<AtomicU64>,
    ) -> Result<(Self, mpsc::Receiver<PeerEvent>), Error> {
        let codecs = naming.codecs(&seats);
        let (peer, events) = Peer::build(place, &codecs).await?;
        let channel = peer.pc.create_data_channel(label, None).await?;
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let mut egress = Self {
            peer,
            label: label.to_owned(),
            naming,
            codecs,
            tracks: Vec::new(),
            seats: Vec::new(),
            channel,
            channel_runs: None,
            missed,
            stop,
            _guard: guard,
        };
        for seat in seats {
            egress.add(seat).await?;
        }
        Ok((egress, events))
    }

    /// Adds one stream's tracks; the next offer has them. A track in a codec that the connection lacks is left out.
    pub(super) async fn add(&mut self, seat: Seat) -> Result<(), Error> {
        let source = Arc::clone(&seat.0);
        for from in &source.tracks {
            let ssrc = fastrand::u32(1..);
            let same = |codec: &&Codec| codec.mime.eq_ignore_ascii_case(&from.codec.mime);
            let Some(codec) = self.codecs.iter().find(same).cloned() else { continue };
            let track_id = format!("{}{}", from.codec.kind.track_prefix(), source.stream);
            let encoding = RTCRtpEncodingParameters {
                rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
                active: true,
                codec: codec.to_rtc(),
                ..Default::default()
            };
            let stream_id = source.stream.to_string();
            let media = MediaStreamTrack::new(
                stream_id.clone(),
                track_id.clone(),
                track_id.clone(),
                from.codec.kind.to_rtc(),
                vec![encoding],
            );
            let track = Arc::new(TrackLocalStaticRTP::new(media));
            let init = RTCRtpTransceiverInit {
                direction: RTCRtpTransceiverDirection::Sendonly,
                streams: vec![stream_id],
                send_encodings: Vec::new(),
            };
            let local = Arc::clone(&track) as Arc<dyn TrackLocal>;
            let transceiver = self.peer.pc.add_transceiver_from_track(local, Some(init)).await?;
            self.tracks.push(Outgoing {
                track,
                transceiver,
                name: if self.naming == Naming::Room { track_id } else { self.label.clone() },
                source: Arc::clone(&source),
                from: Arc::clone(from),
                ssrc,
                payload_type: codec.payload_type,
                running: None,
            });
        }
        self.seats.push(seat);
        Ok(())
    }

    /// The end of the only stream.
    pub(super) fn ended(&self) -> Option<CancellationToken> {
        Some(self.seats.first()?.0.ended.clone())
    }

    /// Payload bytes so far that the streams had of one kind.
    pub(super) fn bytes(&self, kind: Kind) -> u64 {
        self.seats.iter().map(|seat| seat.0.bytes(kind)).sum()
    }

    /// Feeds the only stream's tracks from another source of it; says whether that fits.
    pub(super) fn replace(&mut self, seat: Seat) -> bool {
        let from = |outgoing: &Outgoing| seat.0.track_for(&outgoing.from.codec).cloned();
        let Some(sources) = self.tracks.iter().map(from).collect::<Option<Vec<_>>>() else { return false };
        for (outgoing, from) in self.tracks.iter_mut().zip(sources) {
            // What fed it has ended; its tasks end with their guard.
            outgoing.from = from;
            outgoing.source = Arc::clone(&seat.0);
            outgoing.running = None;
        }
        self.seats = vec![seat];
        self.run();
        true
    }

    /// A stream has left the room: its sections stay, without media.
    pub(super) async fn remove(&mut self, stream: &StreamId) {
        self.seats.retain(|seat| seat.0.stream != *stream);
        for outgoing in self.tracks.iter_mut().filter(|outgoing| outgoing.source.stream == *stream) {
            outgoing.name.clear();
            if let Err(error) = outgoing.transceiver.set_direction(RTCRtpTransceiverDirection::Inactive).await {
                tracing::debug!(%error, %stream, "a section could not be silenced");
            }
        }
    }

    /// Makes an offer for everything that was added.
    pub(super) async fn offer(&self) -> Result<Offer, Error> {
        let sdp = self.peer.offer().await?;
        let names = self.tracks.iter().map(|track| Value::from(track.name.clone()));
        let mapped = sections(&sdp).into_iter().map(|section| section.mid).zip(names);
        let id_mapping = mapped.filter(|(_, name)| *name != "").collect();
        Ok(Offer { sdp, id_mapping })
    }

    /// Sends from now on with the payload types of the viewer's answer, which are his own (RFC 3264 §6.1).
    pub(super) async fn obey(&mut self, answer: &str) {
        let answered = sections(answer);
        for outgoing in &mut self.tracks {
            let mid = outgoing.transceiver.mid().await.ok().flatten();
            let section = answered.iter().find(|section| Some(section.mid.as_str()) == mid.as_deref());
            if let Some(codec) = section.and_then(|section| section.codec.as_ref()) {
                outgoing.payload_type = codec.payload_type;
            }
        }
    }

    /// The connection is up, or has new tracks: starts what does not run yet.
    pub(super) fn run(&mut self) {
        for outgoing in self.tracks.iter_mut().filter(|outgoing| outgoing.running.is_none()) {
            let stop = self.stop.child_token();
            outgoing.running = Some(stop.clone().drop_guard());
            let rewriter = Rewriter::new(outgoing.ssrc, outgoing.payload_type, outgoing.from.codec.clock_rate);
            let (track, from) = (Arc::clone(&outgoing.track), Arc::clone(&outgoing.from));
            let forward = forward(Arc::clone(&track), Arc::clone(&from), rewriter, Arc::clone(&self.missed));
            let wishes = pass_wishes_on(track, from);
            tokio::spawn(async move { stop.run_until_cancelled(async { tokio::join!(forward, wishes) }).await });
            outgoing.source.want_key_frame();
        }
        if let Some(seat) = self.seats.first() {
            self.run_channel(Arc::clone(&seat.0));
        }
    }

    /// Joins the data channel to the stream, both ways.
    fn run_channel(&mut self, source: Arc<Source>) {
        if self.channel_runs.as_ref().is_some_and(|(joined, _)| Arc::ptr_eq(joined, &source)) {
            return;
        }
        let channel = Arc::clone(&self.channel);
        let stop = self.stop.child_token();
        self.channel_runs = Some((Arc::clone(&source), stop.clone().drop_guard()));
        tokio::spawn(async move {
            let both = async { tokio::join!(receive(&channel, &source.up), send(&channel, source.down.subscribe())) };
            stop.run_until_cancelled(both).await
        });
    }
}

/// How many streams a connection may come to carry, and so what it speaks and how its tracks are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// One stream, for ever: exactly its codecs.
    Single,
    /// A room: streams come and go, in any codec that publishers are likely to send.
    Room,
}

impl Naming {
    fn codecs(self, seats: &[Seat]) -> Vec<Codec> {
        let sent = seats.iter().flat_map(|seat| &seat.0.tracks).map(|track| track.codec.clone());
        let usual = [
            (Kind::Audio, "audio/opus", 48_000, 2, "minptime=10;useinbandfec=1"),
            (Kind::Video, "video/VP8", 90_000, 0, ""),
            (Kind::Video, "video/H264", 90_000, 0, USUAL_H264),
        ];
        let usual = usual.map(|(kind, mime, clock_rate, channels, fmtp)| Codec {
            kind,
            mime: mime.to_owned(),
            clock_rate,
            channels,
            fmtp: fmtp.to_owned(),
            payload_type: 0,
        });
        let usual = usual.into_iter().filter(|_| self == Self::Room);
        let mut codecs: Vec<Codec> = Vec::new();
        for codec in sent.chain(usual) {
            if codecs.iter().all(|known| !known.mime.eq_ignore_ascii_case(&codec.mime)) {
                codecs.push(Codec { payload_type: payload_type(&codec.mime), ..codec });
            }
        }
        codecs
    }
}

/// What every browser decodes.
const USUAL_H264: &str = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";

/// One number per kind of codec, the same in every connection.
fn payload_type(mime: &str) -> u8 {
    let families = [("audio/opus", 111), ("video/VP8", 96), ("video/H264", 102), ("video/VP9", 98), ("audio/PCMU", 0)];
    families.iter().find(|(name, _)| mime.eq_ignore_ascii_case(name)).map_or(8, |(_, number)| *number)
}

/// Carries packets of one track to the viewer until either is gone.
async fn forward(
    track: Arc<TrackLocalStaticRTP>,
    from: Arc<SourceTrack>,
    mut rewriter: Rewriter,
    missed: Arc<AtomicU64>,
) {
    let mut packets = from.packets.subscribe();
    loop {
        match packets.recv().await {
            Ok(packet) => {
                if let Err(error) = track.write_rtp(rewriter.rewrite(&packet)).await {
                    return tracing::debug!(%error, "a viewer's track closed");
                }
            }
            Err(RecvError::Lagged(count)) => {
                missed.fetch_add(count, Ordering::Relaxed);
                from.key_frame_wanted.notify_one();
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// Passes the viewer's wishes for a key frame on.
async fn pass_wishes_on(track: Arc<TrackLocalStaticRTP>, from: Arc<SourceTrack>) {
    while let Some(TrackLocalEvent::OnRtcpPacket(reports)) = track.poll().await {
        let asked = reports
            .iter()
            .any(|report| report.as_any().is::<PictureLossIndication>() || report.as_any().is::<FullIntraRequest>());
        if asked {
            from.key_frame_wanted.notify_one();
        }
    }
}
