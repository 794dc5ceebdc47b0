//! Reads from an SDP offer what a node must know to forward its media: which sections send, and in which codec.
//!
//! One codec per kind is chosen here and nothing else is accepted, so viewers can be offered exactly what the publisher
//! sends before its first packet has arrived.

use rtc::rtp_transceiver::{
    PayloadType,
    rtp_sender::{RTCRtpCodec, RTCRtpCodecParameters, RtpCodecKind},
};

/// Sections of one description that are looked at; more are ignored.
const MAX_SECTIONS: usize = 64;

/// A codec as an SDP names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Codec {
    pub(super) kind: Kind,
    /// `video/VP8`, `audio/opus` …
    pub(super) mime: String,
    pub(super) clock_rate: u32,
    pub(super) channels: u16,
    pub(super) fmtp: String,
    pub(super) payload_type: PayloadType,
}

/// Audio or video; data has no codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Audio,
    Video,
}

/// One audio or video section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) kind: Kind,
    pub(super) mid: String,
    /// Whether the side that wrote the description sends here.
    pub(super) sends: bool,
    /// The first codec that nodes forward; `None` if there is none.
    pub(super) codec: Option<Codec>,
}

impl Kind {
    pub(super) fn to_rtc(self) -> RtpCodecKind {
        match self {
            Self::Audio => RtpCodecKind::Audio,
            Self::Video => RtpCodecKind::Video,
        }
    }

    /// AMS's prefix of a track's id.
    pub(super) fn track_prefix(self) -> &'static str {
        match self {
            Self::Audio => "ARDAMSa",
            Self::Video => "ARDAMSv",
        }
    }
}

impl Codec {
    /// Whether a decoder of one can decode the other.
    pub(super) fn same_media(&self, other: &Self) -> bool {
        self.mime.eq_ignore_ascii_case(&other.mime) && self.fmtp == other.fmtp && self.clock_rate == other.clock_rate
    }

    pub(super) fn to_rtc(&self) -> RTCRtpCodec {
        RTCRtpCodec {
            mime_type: self.mime.clone(),
            clock_rate: self.clock_rate,
            channels: self.channels,
            sdp_fmtp_line: self.fmtp.clone(),
            rtcp_feedback: Vec::new(),
        }
    }

    pub(super) fn to_parameters(&self) -> RTCRtpCodecParameters {
        RTCRtpCodecParameters { rtp_codec: self.to_rtc(), payload_type: self.payload_type }
    }
}

/// The audio and video sections of a description, in order; those that were rejected (port 0) are left out.
pub(super) fn sections(sdp: &str) -> Vec<Section> {
    let mut found = Vec::new();
    let mut raw: Option<RawSection<'_>> = None;
    for line in sdp.lines().map(str::trim_end) {
        if let Some(media) = line.strip_prefix("m=") {
            found.extend(raw.take().and_then(RawSection::read));
            if found.len() >= MAX_SECTIONS {
                return found;
            }
            raw = Some(RawSection { media, lines: Vec::new() });
        } else if let Some(raw) = &mut raw {
            raw.lines.push(line);
        }
    }
    found.extend(raw.and_then(RawSection::read));
    found
}

struct RawSection<'a> {
    media: &'a str,
    lines: Vec<&'a str>,
}

impl<'a> RawSection<'a> {
    fn read(self) -> Option<Section> {
        let mut words = self.media.split_ascii_whitespace();
        let kind = match words.next()? {
            "audio" => Kind::Audio,
            "video" => Kind::Video,
            _ => return None,
        };
        if words.next()? == "0" {
            return None;
        }
        let payload_types = words.skip(1).filter_map(|word| word.parse().ok());
        let codec = payload_types.filter_map(|pt| self.codec(kind, pt)).find(is_forwarded);
        let sends = !self.lines.iter().any(|line| matches!(*line, "a=recvonly" | "a=inactive"));
        Some(Section { kind, mid: self.attribute("mid:").unwrap_or_default().to_owned(), sends, codec })
    }

    fn attribute(&self, name: &str) -> Option<&'a str> {
        self.lines.iter().find_map(|line| line.strip_prefix("a=")?.strip_prefix(name))
    }

    fn codec(&self, kind: Kind, payload_type: PayloadType) -> Option<Codec> {
        let map = self.attribute(&format!("rtpmap:{payload_type} "))?;
        let mut parts = map.split('/');
        let name = parts.next()?;
        let clock_rate = parts.next()?.trim().parse().ok()?;
        let channels = parts.next().and_then(|count| count.trim().parse().ok()).unwrap_or(0);
        let family = match kind {
            Kind::Audio => "audio",
            Kind::Video => "video",
        };
        let fmtp = self.attribute(&format!("fmtp:{payload_type} ")).unwrap_or_default().trim().to_owned();
        Some(Codec { kind, mime: format!("{family}/{name}"), clock_rate, channels, fmtp, payload_type })
    }
}

fn is_forwarded(codec: &Codec) -> bool {
    ["video/VP8", "video/H264", "video/VP9", "audio/opus", "audio/PCMU", "audio/PCMA"]
        .iter()
        .any(|mime| codec.mime.eq_ignore_ascii_case(mime))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 63 111\r\na=mid:0\r\na=sendonly\r\na=rtpmap:63 red/48000/2\r\n\
        a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 97 103\r\na=mid:1\r\na=recvonly\r\na=rtpmap:97 rtx/90000\r\n\
        a=rtpmap:103 H264/90000\r\na=fmtp:103 packetization-mode=1;profile-level-id=42e01f\r\n\
        m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:2\r\na=rtpmap:96 VP8/90000\r\n\
        m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:3\r\n";

    #[test]
    fn the_first_codec_that_nodes_forward_is_taken_with_its_own_number_and_parameters() {
        let sections = sections(OFFER);

        assert_eq!(sections.len(), 2, "rejected and data sections carry no media");
        let audio = sections[0].codec.as_ref().unwrap();
        assert_eq!((audio.mime.as_str(), audio.payload_type, audio.channels), ("audio/opus", 111, 2));
        assert_eq!(audio.fmtp, "minptime=10;useinbandfec=1");
        assert!(sections[0].sends && !sections[1].sends);
        let video = sections[1].codec.as_ref().unwrap();
        assert_eq!((video.mime.as_str(), video.payload_type, video.clock_rate), ("video/H264", 103, 90_000));
        assert_eq!(sections[1].mid, "1");
    }

    #[test]
    fn text_that_is_no_sdp_has_no_sections() {
        for junk in
            ["", "m=", "m=video", "m=video x", "hello\nm=audio 9\na=rtpmap", "m=video 9 X 96\r\na=rtpmap:96 VP8"]
        {
            assert!(sections(junk).iter().all(|section| section.codec.is_none()), "{junk}");
        }
    }
}
