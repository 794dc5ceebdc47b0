//! One WebRTC connection of a node: built on the node's own address, its events as one bounded stream, closed when dropped.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};

use rtc::{
    ice::mdns::MulticastDnsMode,
    interceptor::{Attribute, Interceptor, Packet, Slot, StreamInfo, TaggedPacket},
    rtcp::{
        self,
        payload_feedbacks::{full_intra_request::FullIntraRequest, picture_loss_indication::PictureLossIndication},
    },
    rtp_transceiver::rtp_sender::RTCPFeedback,
    sansio::Protocol,
};
use tokio::sync::mpsc;
use webrtc::{
    data_channel::DataChannel,
    error::Error,
    media_stream::track_remote::TrackRemote,
    peer_connection::{
        MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceCandidateInit,
        RTCPeerConnectionIceEvent, RTCPeerConnectionState, RTCSessionDescription, Registry, SettingEngineBuilder,
        register_default_interceptors,
    },
};

use super::sdp::Codec;

/// Events of one connection that may wait; a connection that overruns it loses the newest (it has a handful in its life).
const EVENTS: usize = 256;
/// Ports that are tried before a connection is given up.
const PORT_TRIES: usize = 64;
/// Between two checks of a path that is up: as often as libwebrtc checks one whose other end went silent.
const CHECK_EVERY: Duration = Duration::from_millis(480);
/// Bytes that one data channel may hold unsent; what exceeds it is dropped and counted.
const CHANNEL_BUFFER: usize = 1024 * 1024;

/// Where a node's connections stand.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) ip: IpAddr,
    pub(super) ports: RangeInclusive<u16>,
}

/// What happens on a connection.
pub(super) enum PeerEvent {
    /// A candidate of ours, for the other side.
    Candidate { label: u16, mid: String, candidate: String },
    /// Media and data can flow.
    Connected,
    /// The connection is gone for good.
    Lost,
    /// The other side's media arrives.
    Track(Arc<dyn TrackRemote>),
    /// The other side opened a data channel.
    Channel(Arc<dyn DataChannel>),
}

/// One connection. Dropping it closes it.
pub(super) struct Peer {
    pub(super) pc: Arc<dyn PeerConnection>,
}

impl Peer {
    /// A connection that speaks exactly `codecs`, on a free port of `place`.
    pub(super) async fn build(place: &Place, codecs: &[Codec]) -> Result<(Self, mpsc::Receiver<PeerEvent>), Error> {
        let (events, received) = mpsc::channel(EVENTS);
        let span = u32::from(*place.ports.end()) - u32::from(*place.ports.start()) + 1;
        let first = fastrand::u32(..span);
        let mut failure = Error::Other("no port was tried".to_owned());
        for step in 0..span.min(PORT_TRIES as u32) {
            let offset = u16::try_from((first + step) % span).unwrap_or(0);
            let address = SocketAddr::new(place.ip, place.ports.start() + offset);
            match build_on(address, codecs, events.clone()).await {
                Ok(pc) => return Ok((Self { pc }, received)),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Makes an offer, applies it here, and returns its SDP.
    pub(super) async fn offer(&self) -> Result<String, Error> {
        let offer = self.pc.create_offer(None).await?;
        let sdp = offer.sdp.clone();
        self.pc.set_local_description(offer).await?;
        Ok(sdp)
    }

    /// Takes the other side's answer.
    pub(super) async fn take_answer(&self, sdp: &str) -> Result<(), Error> {
        self.pc.set_remote_description(RTCSessionDescription::answer(sdp.to_owned())?).await
    }

    /// Takes the other side's offer and returns the answer's SDP.
    pub(super) async fn answer(&self, offer: &str) -> Result<String, Error> {
        self.pc.set_remote_description(RTCSessionDescription::offer(offer.to_owned())?).await?;
        let answer = self.pc.create_answer(None).await?;
        let sdp = answer.sdp.clone();
        self.pc.set_local_description(answer).await?;
        Ok(sdp)
    }

    /// Takes a candidate of the other side; an unusable one (empty, TCP, mDNS) is passed over, as browsers send those too.
    pub(super) async fn take_candidate(&self, candidate: &str, mid: Option<&str>, label: Option<u16>) {
        if candidate.trim().is_empty() {
            return;
        }
        let init = RTCIceCandidateInit {
            candidate: candidate.to_owned(),
            sdp_mid: mid.map(str::to_owned),
            sdp_mline_index: label,
            ..Default::default()
        };
        if let Err(error) = self.pc.add_ice_candidate(init).await {
            tracing::debug!(%error, "passed over a candidate");
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let pc = Arc::clone(&self.pc);
        // The library's own driver task runs on until it is told to close; without a runtime it is gone already.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { pc.close().await });
        }
    }
}

async fn build_on(
    address: SocketAddr,
    codecs: &[Codec],
    events: mpsc::Sender<PeerEvent>,
) -> Result<Arc<dyn PeerConnection>, Error> {
    let mut engine = MediaEngine::default();
    for codec in codecs {
        engine.register_codec(codec.to_parameters(), codec.kind.to_rtc())?;
        if codec.kind == super::sdp::Kind::Video {
            let fir = RTCPFeedback { typ: "ccm".to_owned(), parameter: "fir".to_owned() };
            engine.register_feedback(fir, codec.kind.to_rtc());
        }
    }
    let registry = register_default_interceptors(Registry::new(), &mut engine)?
        .with(Slot::from(KEY_FRAME_SLOT), KeyFrameRequests::default());
    let settings = SettingEngineBuilder::new()
        .with_include_loopback_candidate(true)
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_ice_timeouts(Some(Duration::from_secs(4)), Some(Duration::from_secs(6)), Some(CHECK_EVERY))
        .build();
    let pc = PeerConnectionBuilder::new()
        .with_media_engine(engine)
        .with_interceptor_registry(registry)
        .with_setting_engine(settings)
        .with_handler(Arc::new(Handler { events }))
        .with_data_channel_send_buffer_limit(CHANNEL_BUFFER)
        .with_udp_addrs(vec![address])
        .build()
        .await?;
    Ok(Arc::new(pc))
}

struct Handler {
    events: mpsc::Sender<PeerEvent>,
}

impl Handler {
    // The library calls from its driver, which must not wait for us.
    fn tell(&self, event: PeerEvent) {
        if self.events.try_send(event).is_err() {
            tracing::debug!("an event of a finished or overrun connection was dropped");
        }
    }
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        if let Ok(init) = event.candidate.to_json() {
            self.tell(PeerEvent::Candidate {
                label: init.sdp_mline_index.unwrap_or(0),
                mid: init.sdp_mid.filter(|mid| !mid.is_empty()).unwrap_or_else(|| "0".to_owned()),
                candidate: init.candidate,
            });
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        match state {
            RTCPeerConnectionState::Connected => self.tell(PeerEvent::Connected),
            RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed => self.tell(PeerEvent::Lost),
            _ => {}
        }
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        self.tell(PeerEvent::Track(track));
    }

    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        self.tell(PeerEvent::Channel(channel));
    }
}

/// Application-ward of the library's own interceptors.
const KEY_FRAME_SLOT: usize = 14_000;

/// Lets a viewer's requests for a key frame through to us; the library keeps all other RTCP to itself.
#[derive(Default)]
struct KeyFrameRequests {
    inbound: VecDeque<TaggedPacket>,
    outbound: VecDeque<TaggedPacket>,
}

/// Whether an RTCP packet asks for a key frame.
fn asks_for_key_frame(packet: &dyn rtcp::Packet) -> bool {
    packet.as_any().is::<PictureLossIndication>() || packet.as_any().is::<FullIntraRequest>()
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for KeyFrameRequests {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, mut packet: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtcp(reports) = &packet.message.packet
            && reports.iter().any(|report| asks_for_key_frame(report.as_ref()))
        {
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

impl Interceptor for KeyFrameRequests {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}
