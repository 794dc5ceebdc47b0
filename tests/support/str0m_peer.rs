//! A test client's media over str0m: a second WebRTC implementation, which neither the nodes nor the other client are
//! written with.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use str0m::{
    Candidate, Event, IceConnectionState, Input, Output, Rtc, RtcConfig, RtcError,
    change::{SdpAnswer, SdpOffer, SdpPendingOffer},
    channel::ChannelId,
    format::Codec,
    media::{Direction, KeyframeRequestKind, MediaKind, MediaTime, Mid},
    net::{Protocol, Receive},
};
use tokio::net::UdpSocket;

use super::ams_client::{Kind, MediaEvent, MediaOrder, MediaPorts, Plan, marked_payload};

/// Between two frames of one track.
const PACE: Duration = Duration::from_millis(20);
/// Largest datagram that is read.
const DATAGRAM: usize = 2000;

/// The stack, for [`super::ams_client::Socket::begin`].
pub fn stack(plan: Plan, ports: MediaPorts) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let report = ports.report.clone();
        if let Err(error) = run(plan, ports).await {
            report.trouble("str0m", error);
        }
    })
}

struct Peer {
    rtc: Rtc,
    plan: Plan,
    ports: MediaPorts,
    address: SocketAddr,
    pending: Option<SdpPendingOffer>,
    channel: Option<ChannelId>,
    media: Vec<(Mid, MediaKind)>,
    connected: bool,
    frames: u64,
}

async fn run(plan: Plan, ports: MediaPorts) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let socket = UdpSocket::bind((plan.ip, 0)).await?;
    let address = socket.local_addr()?;
    let mut config = RtcConfig::new().clear_codecs().enable_opus(true, false).enable_vp8(true);
    if plan.fields["h264"] == true {
        config = config.clear_codecs().enable_opus(true, false).enable_h264(true);
    }
    config = config.set_crypto_provider(Arc::new(str0m::crypto::from_feature_flags()));
    let mut rtc = config.build(Instant::now());
    rtc.add_local_candidate(Candidate::host(address, "udp")?);
    let mut peer = Peer {
        rtc,
        plan,
        ports,
        address,
        pending: None,
        channel: None,
        media: Vec::new(),
        connected: false,
        frames: 0,
    };
    let mut pace = tokio::time::interval(PACE);
    let mut datagram = vec![0; DATAGRAM];
    loop {
        let due = peer.drain(&socket).await?;
        tokio::select! {
            order = peer.ports.orders.recv() => match order {
                Some(order) => {
                    if let Err(error) = peer.obey(order) {
                        peer.ports.report.trouble("order", error);
                    }
                }
                None => {
                    peer.rtc.disconnect();
                    return Ok(());
                }
            },
            received = socket.recv_from(&mut datagram) => {
                let (length, source) = received?;
                peer.receive(source, &datagram[..length])?;
            }
            _ = pace.tick() => {
                peer.send_media()?;
                peer.rtc.handle_input(Input::Timeout(Instant::now()))?;
            }
            () = tokio::time::sleep_until(due.into()) => peer.rtc.handle_input(Input::Timeout(Instant::now()))?,
        }
    }
}

impl Peer {
    /// Sends what is due and takes in what happened; returns when to come back at the latest.
    async fn drain(&mut self, socket: &UdpSocket) -> Result<Instant, RtcError> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(due) => return Ok(due),
                Output::Transmit(transmit) => {
                    // Candidates that nobody can reach are part of the test.
                    let _ = socket.send_to(&transmit.contents, transmit.destination).await;
                }
                Output::Event(event) => self.take(event),
            }
        }
    }

    fn receive(&mut self, source: SocketAddr, datagram: &[u8]) -> Result<(), RtcError> {
        let Ok(contents) = datagram.try_into() else { return Ok(()) };
        let receive = Receive { proto: Protocol::Udp, source, destination: self.address, contents };
        self.rtc.handle_input(Input::Receive(Instant::now(), receive))
    }

    fn obey(&mut self, order: MediaOrder) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match order {
            MediaOrder::MakeOffer => {
                let mut changes = self.rtc.sdp_api();
                let stream = Some(self.plan.stream.clone());
                let direction = if self.plan.kind == Kind::Publish { Direction::SendOnly } else { Direction::RecvOnly };
                let kinds = [(self.plan.audio, MediaKind::Audio), (self.plan.video, MediaKind::Video)];
                for (_, kind) in kinds.into_iter().filter(|(wanted, _)| *wanted) {
                    let mid = changes.add_media(kind, direction, stream.clone(), None, None);
                    self.media.push((mid, kind));
                }
                changes.add_channel(self.plan.stream.clone());
                if let Some((offer, pending)) = changes.apply() {
                    self.pending = Some(pending);
                    let _ = self.ports.events.send(MediaEvent::Offer(offer.to_sdp_string()));
                }
            }
            MediaOrder::RestartIce => {
                let mut changes = self.rtc.sdp_api();
                changes.ice_restart(true);
                if let Some((offer, pending)) = changes.apply() {
                    self.pending = Some(pending);
                    let _ = self.ports.events.send(MediaEvent::Offer(offer.to_sdp_string()));
                }
            }
            MediaOrder::TakeOffer(sdp) => {
                let answer = self.rtc.sdp_api().accept_offer(SdpOffer::from_sdp_string(&sdp)?)?;
                let _ = self.ports.events.send(MediaEvent::Answer(answer.to_sdp_string()));
            }
            MediaOrder::TakeAnswer(sdp) => {
                if let Some(pending) = self.pending.take() {
                    self.rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&sdp)?)?;
                }
            }
            MediaOrder::TakeCandidate { candidate, .. } => {
                self.rtc.add_remote_candidate(Candidate::from_sdp_string(&candidate)?);
            }
            MediaOrder::SendData(text) => {
                if let Some(mut channel) = self.channel.and_then(|id| self.rtc.channel(id)) {
                    channel.write(false, text.as_bytes())?;
                }
            }
            MediaOrder::AskForKeyFrame => {
                for (mid, kind) in self.media.clone() {
                    if let Some(mut writer) = self.rtc.writer(mid).filter(|_| kind == MediaKind::Video) {
                        writer.request_keyframe(None, KeyframeRequestKind::Pli)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event) {
        let report = self.ports.report.clone();
        match event {
            Event::Connected => {
                self.connected = true;
                report.note(|report| report.connected = true);
            }
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                report.note(|report| report.connected = false);
            }
            Event::MediaAdded(added) if self.plan.kind == Kind::Play => self.media.push((added.mid, added.kind)),
            Event::MediaData(data) => report.media(data.params.spec().codec.is_video(), &data.data),
            Event::ChannelOpen(id, _) => {
                self.channel = Some(id);
                report.note(|report| report.data_open = true);
            }
            Event::ChannelData(data) => {
                let text = String::from_utf8_lossy(&data.data).into_owned();
                report.note(|report| report.data.push(text));
            }
            Event::KeyframeRequest(_) => report.note(|report| report.key_frame_requests += 1),
            _ => {}
        }
    }

    fn send_media(&mut self) -> Result<(), RtcError> {
        if !self.connected || self.plan.kind == Kind::Play {
            return Ok(());
        }
        self.frames += 1;
        for (mid, kind) in self.media.clone() {
            let Some(writer) = self.rtc.writer(mid) else { continue };
            let fits = |codec: Codec| if kind == MediaKind::Video { codec.is_video() } else { codec == Codec::Opus };
            let Some(pt) = writer.payload_params().find(|params| fits(params.spec().codec)).map(|params| params.pt())
            else {
                continue;
            };
            let time = MediaTime::from_90khz(self.frames * 1_800);
            let payload = marked_payload(&self.plan.stream);
            // An H.264 frame is an Annex B byte stream; this one is a key frame.
            let h264 = kind == MediaKind::Video && self.plan.fields["h264"] == true;
            let frame = if h264 { [vec![0, 0, 0, 1, 0x65], payload[3..].to_vec()].concat() } else { payload };
            writer.write(pt, Instant::now(), time, frame)?;
        }
        Ok(())
    }
}
