//! A test client's media over the `webrtc` crate.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use rtc::{
    ice::{mdns::MulticastDnsMode, network_type::NetworkType},
    interceptor::{Attribute, Interceptor, Packet, Slot, StreamInfo, TaggedPacket},
    peer_connection::configuration::RTCOfferOptions,
    rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication,
    rtp,
    rtp_transceiver::rtp_sender::{RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind},
    sansio::Protocol,
};
use tokio::sync::mpsc;
use webrtc::{
    data_channel::{DataChannel, DataChannelEvent},
    error::Error,
    media_stream::{
        MediaStreamTrack,
        track_local::{TrackLocal, TrackLocalEvent, static_rtp::TrackLocalStaticRTP},
        track_remote::{TrackRemote, TrackRemoteEvent},
    },
    peer_connection::{
        MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceCandidateInit,
        RTCPeerConnectionIceEvent, RTCPeerConnectionState, RTCSessionDescription, Registry, SettingEngineBuilder,
        register_default_interceptors,
    },
    rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit},
};

use super::ams_client::{Kind, MediaEvent, MediaOrder, MediaPorts, Plan, Reporter, marked_payload};

/// Between two packets of one track.
const PACE: Duration = Duration::from_millis(20);

/// The stack, for [`super::ams_client::Socket::begin`].
pub fn stack(plan: Plan, ports: MediaPorts) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    run_as(Network::Udp, plan, ports)
}

/// The same where no UDP leaves the client's network: it has ICE-TCP, active, and nothing else.
pub fn tcp_stack(plan: Plan, ports: MediaPorts) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    run_as(Network::Tcp, plan, ports)
}

/// The same where it does not know what leaves the client's network, as browsers: it has both.
pub fn any_stack(plan: Plan, ports: MediaPorts) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    run_as(Network::Any, plan, ports)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    Udp,
    Tcp,
    Any,
}

fn run_as(network: Network, plan: Plan, ports: MediaPorts) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let report = ports.report.clone();
        if let Err(error) = run(network, plan, ports).await {
            report.trouble("webrtc", error);
        }
    })
}

async fn run(network: Network, plan: Plan, mut ports: MediaPorts) -> Result<(), Error> {
    let (happenings, mut happened) = mpsc::unbounded_channel();
    let pc = build(network, plan.ip, Handler { happenings }).await?;
    let mut peer = Peer {
        pc: Arc::clone(&pc),
        plan,
        report: ports.report.clone(),
        tracks: Vec::new(),
        remote: Vec::new(),
        channel: None,
        early: Vec::new(),
    };
    if peer.plan.kind == Kind::Publish {
        peer.prepare().await?;
    }
    loop {
        tokio::select! {
            order = ports.orders.recv() => match order {
                Some(order) => {
                    if let Err(error) = peer.obey(order, &ports.events).await {
                        peer.report.trouble("order", error);
                    }
                }
                None => break,
            },
            Some(happening) = happened.recv() => peer.take(happening, &ports.events),
        }
    }
    pc.close().await
}

struct Peer {
    pc: Arc<dyn PeerConnection>,
    plan: Plan,
    report: Reporter,
    tracks: Vec<Sent>,
    remote: Vec<Arc<dyn TrackRemote>>,
    channel: Option<Arc<dyn DataChannel>>,
    early: Vec<RTCIceCandidateInit>,
}

#[derive(Clone)]
struct Sent {
    track: Arc<TrackLocalStaticRTP>,
    ssrc: u32,
    kind: RtpCodecKind,
}

enum Happening {
    Candidate(RTCIceCandidateInit),
    State(RTCPeerConnectionState),
    Track(Arc<dyn TrackRemote>),
    Channel(Arc<dyn DataChannel>),
}

impl Peer {
    /// A publisher's tracks and data channel.
    async fn prepare(&mut self) -> Result<(), Error> {
        for kind in [RtpCodecKind::Audio, RtpCodecKind::Video] {
            let wanted = if kind == RtpCodecKind::Audio { self.plan.audio } else { self.plan.video };
            if !wanted {
                continue;
            }
            let ssrc = fastrand::u32(1..);
            let encoding = RTCRtpEncodingParameters {
                rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
                active: true,
                codec: codec(kind),
                ..Default::default()
            };
            let name = format!("{kind}");
            let media = MediaStreamTrack::new(self.plan.stream.clone(), name.clone(), name, kind, vec![encoding]);
            let track = Arc::new(TrackLocalStaticRTP::new(media));
            self.pc.add_track(Arc::clone(&track) as Arc<dyn TrackLocal>).await?;
            self.tracks.push(Sent { track, ssrc, kind });
        }
        let channel = self.pc.create_data_channel(&self.plan.stream, None).await?;
        self.take_channel(channel);
        Ok(())
    }

    /// A viewer's sections and data channel, where it is the viewer who offers.
    async fn prepare_to_receive(&mut self) -> Result<(), Error> {
        let kinds = [(self.plan.audio, RtpCodecKind::Audio), (self.plan.video, RtpCodecKind::Video)];
        for (_, kind) in kinds.into_iter().filter(|(wanted, _)| *wanted) {
            let receive = RTCRtpTransceiverInit {
                direction: RTCRtpTransceiverDirection::Recvonly,
                streams: Vec::new(),
                send_encodings: Vec::new(),
            };
            self.pc.add_transceiver_from_kind(kind, Some(receive)).await?;
        }
        let channel = self.pc.create_data_channel(&self.plan.stream, None).await?;
        self.take_channel(channel);
        Ok(())
    }

    async fn obey(&mut self, order: MediaOrder, events: &mpsc::UnboundedSender<MediaEvent>) -> Result<(), Error> {
        match order {
            MediaOrder::MakeOffer | MediaOrder::RestartIce => {
                let ice_restart = matches!(order, MediaOrder::RestartIce);
                if self.plan.kind == Kind::Play && !ice_restart {
                    self.prepare_to_receive().await?;
                }
                let offer = self.pc.create_offer(Some(RTCOfferOptions { ice_restart })).await?;
                let sdp = offer.sdp.clone();
                self.pc.set_local_description(offer).await?;
                let _ = events.send(MediaEvent::Offer(sdp));
            }
            MediaOrder::TakeOffer(sdp) => {
                self.pc.set_remote_description(RTCSessionDescription::offer(sdp)?).await?;
                let answer = self.pc.create_answer(None).await?;
                let sdp = answer.sdp.clone();
                self.pc.set_local_description(answer).await?;
                let _ = events.send(MediaEvent::Answer(sdp));
                self.take_early().await;
            }
            MediaOrder::TakeAnswer(sdp) => {
                self.pc.set_remote_description(RTCSessionDescription::answer(sdp)?).await?;
                self.take_early().await;
            }
            MediaOrder::TakeCandidate { candidate, mid } => {
                let init = RTCIceCandidateInit { candidate, sdp_mid: Some(mid), ..Default::default() };
                if self.pc.remote_description().await.is_some() {
                    self.pc.add_ice_candidate(init).await?;
                } else {
                    self.early.push(init);
                }
            }
            MediaOrder::SendData(text) => {
                if let Some(channel) = &self.channel {
                    channel.send_text(&text).await?;
                }
            }
            MediaOrder::AskForKeyFrame => {
                for track in &self.remote {
                    if track.kind().await == RtpCodecKind::Video {
                        let media_ssrc = track.ssrcs().await.first().copied().unwrap_or(0);
                        let request = PictureLossIndication { sender_ssrc: 0, media_ssrc };
                        track.write_rtcp(vec![Box::new(request)]).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn take_early(&mut self) {
        for init in std::mem::take(&mut self.early) {
            if let Err(error) = self.pc.add_ice_candidate(init).await {
                self.report.trouble("candidate", error);
            }
        }
    }

    fn take(&mut self, happening: Happening, events: &mpsc::UnboundedSender<MediaEvent>) {
        match happening {
            Happening::Candidate(init) => {
                let _ = events.send(MediaEvent::Candidate {
                    candidate: init.candidate,
                    mid: init.sdp_mid.unwrap_or_else(|| "0".to_owned()),
                    label: init.sdp_mline_index.unwrap_or(0),
                });
            }
            Happening::State(state) => {
                let up = state == RTCPeerConnectionState::Connected;
                if up && !self.report_connected() {
                    for sent in &self.tracks {
                        tokio::spawn(send_media(sent.clone(), self.plan.stream.clone()));
                        tokio::spawn(count_key_frame_requests(sent.clone(), self.report.clone()));
                    }
                }
                self.report.note(|report| report.connected = up);
            }
            Happening::Track(track) => {
                self.remote.push(Arc::clone(&track));
                tokio::spawn(count_media(track, self.report.clone()));
            }
            Happening::Channel(channel) => self.take_channel(channel),
        }
    }

    /// Whether media runs already.
    fn report_connected(&self) -> bool {
        let mut before = false;
        self.report.note(|report| before = report.connected);
        before
    }

    fn take_channel(&mut self, channel: Arc<dyn DataChannel>) {
        self.channel = Some(Arc::clone(&channel));
        let report = self.report.clone();
        tokio::spawn(async move {
            while let Some(event) = channel.poll().await {
                match event {
                    DataChannelEvent::OnOpen => report.note(|report| report.data_open = true),
                    DataChannelEvent::OnMessage(message) => {
                        let text = String::from_utf8_lossy(&message.data).into_owned();
                        report.note(|report| report.data.push(text));
                    }
                    DataChannelEvent::OnClose => break,
                    _ => {}
                }
            }
        });
    }
}

fn codec(kind: RtpCodecKind) -> RTCRtpCodec {
    let (mime_type, clock_rate, channels) =
        if kind == RtpCodecKind::Audio { ("audio/opus", 48_000, 2) } else { ("video/VP8", 90_000, 0) };
    let sdp_fmtp_line = if kind == RtpCodecKind::Audio { "minptime=10;useinbandfec=1" } else { "" };
    RTCRtpCodec {
        mime_type: mime_type.to_owned(),
        clock_rate,
        channels,
        sdp_fmtp_line: sdp_fmtp_line.to_owned(),
        rtcp_feedback: Vec::new(),
    }
}

async fn send_media(sent: Sent, stream: String) {
    let video = sent.kind == RtpCodecKind::Video;
    let step = if video { 1_800 } else { 960 };
    // 0x10: a VP8 payload descriptor that says "a frame begins".
    let payload = if video { [vec![0x10], marked_payload(&stream)].concat() } else { marked_payload(&stream) };
    let mut pace = tokio::time::interval(PACE);
    let (mut sequence_number, mut timestamp) = (fastrand::u16(..), fastrand::u32(..));
    loop {
        pace.tick().await;
        sequence_number = sequence_number.wrapping_add(1);
        timestamp = timestamp.wrapping_add(step);
        let header = rtp::Header {
            version: 2,
            marker: video,
            payload_type: if video { 96 } else { 111 },
            sequence_number,
            timestamp,
            ssrc: sent.ssrc,
            ..Default::default()
        };
        let packet = rtp::Packet { header, payload: payload.clone().into() };
        if sent.track.write_rtp(packet).await.is_err() {
            return;
        }
    }
}

async fn count_key_frame_requests(sent: Sent, report: Reporter) {
    while let Some(TrackLocalEvent::OnRtcpPacket(packets)) = sent.track.poll().await {
        let asked = packets.iter().filter(|packet| packet.as_any().is::<PictureLossIndication>()).count();
        report.note(|report| report.key_frame_requests += asked as u64);
    }
}

async fn count_media(track: Arc<dyn TrackRemote>, report: Reporter) {
    let video = track.kind().await == RtpCodecKind::Video;
    while let Some(event) = track.poll().await {
        if let TrackRemoteEvent::OnRtpPacket(packet) = event {
            report.media(video, &packet.payload);
        }
    }
}

async fn build(network: Network, ip: IpAddr, handler: Handler) -> Result<Arc<dyn PeerConnection>, Error> {
    let mut engine = MediaEngine::default();
    engine.register_default_codecs()?;
    let registry =
        register_default_interceptors(Registry::new(), &mut engine)?.with(Slot::from(14_000), Shown::default());
    let (has_udp, has_tcp) = (network != Network::Tcp, network != Network::Udp);
    let types = [(has_udp, NetworkType::Udp4), (has_tcp, NetworkType::Tcp4)];
    let types = types.into_iter().filter(|(has, _)| *has).map(|(_, of)| of).collect();
    let settings = SettingEngineBuilder::new()
        .with_include_loopback_candidate(true)
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_network_types(types)
        .build();
    let address = |has| if has { vec![SocketAddr::new(ip, 0)] } else { Vec::new() };
    let pc = PeerConnectionBuilder::new()
        .with_media_engine(engine)
        .with_interceptor_registry(registry)
        .with_setting_engine(settings)
        .with_handler(Arc::new(handler))
        .with_udp_addrs(address(has_udp))
        .with_tcp_addrs(address(has_tcp))
        .build()
        .await?;
    Ok(Arc::new(pc))
}

struct Handler {
    happenings: mpsc::UnboundedSender<Happening>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        if let Ok(init) = event.candidate.to_json() {
            let _ = self.happenings.send(Happening::Candidate(init));
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        let _ = self.happenings.send(Happening::State(state));
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let _ = self.happenings.send(Happening::Track(track));
    }

    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        let _ = self.happenings.send(Happening::Channel(channel));
    }
}

/// Shows the test all RTCP about what it sends.
#[derive(Default)]
struct Shown {
    inbound: VecDeque<TaggedPacket>,
    outbound: VecDeque<TaggedPacket>,
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Shown {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, mut packet: TaggedPacket) -> Result<(), Error> {
        if matches!(packet.message.packet, Packet::Rtcp(_)) {
            packet.message.add(Attribute::DeliverToApplication);
        }
        self.inbound.push_back(packet);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.inbound.pop_front()
    }

    fn handle_write(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        self.outbound.push_back(packet);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.outbound.pop_front()
    }
}

impl Interceptor for Shown {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}
