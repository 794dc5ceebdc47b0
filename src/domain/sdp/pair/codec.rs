//! Codecs of an m-section, and whether what one side sends can be decoded by the other.

use super::offer::Section;

/// One payload type of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Codec<'a> {
    pub(super) payload_type: u8,
    /// `VP8/90000`, `opus/48000/2`
    pub(super) map: &'a str,
    /// Its `a=fmtp` parameters as they stand; empty if there are none.
    pub(super) fmtp: &'a str,
    /// Its `a=rtcp-fb` values, those for every payload type (`*`) included.
    pub(super) feedback: Vec<&'a str>,
}

impl<'a> Codec<'a> {
    /// The codecs of a section, in its order of preference. Formats without an `a=rtpmap` count only where their number
    /// is a static one that is still in use (PCMU, PCMA, G722).
    pub(super) fn all(section: &Section<'a>) -> Vec<Self> {
        section.formats.iter().filter_map(|format| Self::read(section, format.parse().ok()?)).collect()
    }

    fn read(section: &Section<'a>, payload_type: u8) -> Option<Self> {
        let fixed = match payload_type {
            0 => Some("PCMU/8000"),
            8 => Some("PCMA/8000"),
            9 => Some("G722/8000"),
            _ => None,
        };
        let map = section.of_format("rtpmap", payload_type).next().or(fixed)?;
        let fmtp = section.of_format("fmtp", payload_type).next().unwrap_or_default();
        let feedback = section.of_format("rtcp-fb", payload_type).collect();
        Some(Self { payload_type, map, fmtp, feedback })
    }

    fn name(&self) -> &'a str {
        self.map.split('/').next().unwrap_or_default()
    }

    fn is_named(&self, name: &str) -> bool {
        self.name().eq_ignore_ascii_case(name)
    }

    /// What it repairs, if it is a retransmission format.
    pub(super) fn repairs(&self) -> Option<u8> {
        if self.is_named("rtx") { self.parameter("apt")?.parse().ok() } else { None }
    }

    /// Whether it carries media by itself: not redundancy, tones or comfort noise, which the door does not match.
    pub(super) fn is_media(&self) -> bool {
        !["rtx", "red", "ulpfec", "flexfec-03", "flexfec", "telephone-event", "CN"]
            .iter()
            .any(|name| self.is_named(name))
    }

    fn parameter(&self, key: &str) -> Option<&'a str> {
        self.parameters().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
    }

    pub(super) fn parameters(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.fmtp.split(';').filter_map(|one| one.trim().split_once('='))
    }

    /// Name, clock rate and channels.
    fn is_alike(&self, other: &Self) -> bool {
        let parts = |map: &'a str| {
            let mut parts = map.split('/').map(str::trim);
            (parts.next(), parts.next(), parts.next().unwrap_or("1"))
        };
        let (own, others) = (parts(self.map), parts(other.map));
        let same = |a: Option<&str>, b: Option<&str>| a.zip(b).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b));
        same(own.0, others.0) && own.1 == others.1 && own.2 == others.2
    }

    fn is_same(&self, other: &Self, key: &str, default: &str) -> bool {
        self.parameter(key).unwrap_or(default) == other.parameter(key).unwrap_or(default)
    }

    /// How well a receiver of `self` takes what a sender of `sent` sends.
    pub(super) fn takes(&self, sent: &Self) -> Option<Fit> {
        if !self.is_alike(sent) {
            return None;
        }
        let exact = |fits: bool| fits.then_some(Fit::Exact);
        match () {
            () if self.is_named("H264") => {
                if !self.is_same(sent, "packetization-mode", "0") {
                    return None;
                }
                self.profile().takes(sent.profile())
            }
            () if self.is_named("VP9") => exact(self.is_same(sent, "profile-id", "0")),
            () if self.is_named("AV1") => exact(self.is_same(sent, "profile", "0")),
            () if self.is_named("H265") => {
                exact(self.is_same(sent, "profile-id", "1") && self.is_same(sent, "tier-flag", "0"))
            }
            () => Some(Fit::Exact),
        }
    }

    fn profile(&self) -> Profile {
        self.parameter("profile-level-id").map_or(Profile::ConstrainedBaseline, Profile::read)
    }
}

/// How well a codec fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// The same.
    Exact,
    /// Another profile of H.264, of which the one that is sent is a subset.
    Subset,
}

/// H.264 profiles that WebRTC stacks name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Profile {
    ConstrainedBaseline,
    Baseline,
    Main,
    ConstrainedHigh,
    High,
    Other(u8),
}

impl Profile {
    /// Reads the `profile_idc` and `profile-iop` of a `profile-level-id` (RFC 6184 §8.1, table 5).
    fn read(id: &str) -> Self {
        let Some(bits) = id.get(..4).and_then(|start| u16::from_str_radix(start, 16).ok()) else {
            return Self::Other(0);
        };
        let [idc, iop] = bits.to_be_bytes();
        match idc {
            0x42 if iop & 0x40 != 0 => Self::ConstrainedBaseline,
            0x4d if iop & 0x80 != 0 => Self::ConstrainedBaseline,
            0x58 if iop & 0xc0 == 0xc0 => Self::ConstrainedBaseline,
            0x42 => Self::Baseline,
            0x4d => Self::Main,
            0x64 if iop & 0x0c == 0x0c => Self::ConstrainedHigh,
            0x64 => Self::High,
            other => Self::Other(other),
        }
    }

    fn takes(self, sent: Self) -> Option<Fit> {
        match (self, sent) {
            (own, sent) if own == sent => Some(Fit::Exact),
            (_, Self::ConstrainedBaseline) | (Self::High, Self::Main | Self::ConstrainedHigh) => Some(Fit::Subset),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codec<'a>(map: &'a str, fmtp: &'a str) -> Codec<'a> {
        Codec { payload_type: 100, map, fmtp, feedback: Vec::new() }
    }

    #[test]
    fn a_decoder_takes_its_own_profile_and_those_inside_it() {
        for (own, sent, fit) in [
            ("42e01f", "42e01f", Some(Fit::Exact)),
            ("42e01f", "42e034", Some(Fit::Exact)),
            ("42001f", "42001f", Some(Fit::Exact)),
            ("64001f", "42e01f", Some(Fit::Subset)),
            ("64001f", "4d0032", Some(Fit::Subset)),
            ("640c1f", "42e01f", Some(Fit::Subset)),
            ("64001f", "640c1f", Some(Fit::Subset)),
            ("42e01f", "64001f", None),
            ("42e01f", "42001f", None),
            ("4d001f", "64001f", None),
            ("f4001f", "64001f", None),
            ("junk", "64001f", None),
        ] {
            let h264 = |id: &str| format!("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={id}");
            let (own_fmtp, sent_fmtp) = (h264(own), h264(sent));
            let own_codec = codec("H264/90000", &own_fmtp);
            assert_eq!(own_codec.takes(&codec("h264/90000", &sent_fmtp)), fit, "{own} takes {sent}");
        }
    }

    #[test]
    fn what_differs_in_name_rate_channels_or_packetization_does_not_fit() {
        let opus = codec("opus/48000/2", "");
        assert_eq!(opus.takes(&codec("OPUS/48000/2", "sprop-stereo=0")), Some(Fit::Exact));
        for other in ["opus/48000", "opus/16000/2", "PCMU/8000", "VP8/90000", ""] {
            assert_eq!(opus.takes(&codec(other, "")), None, "{other}");
        }
        let mode_1 = codec("H264/90000", "packetization-mode=1");
        assert_eq!(mode_1.takes(&codec("H264/90000", "")), None);
        assert_eq!(codec("VP9/90000", "").takes(&codec("VP9/90000", "profile-id=0")), Some(Fit::Exact));
        assert_eq!(codec("VP9/90000", "").takes(&codec("VP9/90000", "profile-id=2")), None);
    }
}
