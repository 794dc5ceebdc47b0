//! What a datagram is, by its first bytes (RFC 7983, RFC 5761 §4): all that the relay ever reads of DTLS and RTP.

/// What a datagram claims to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// STUN: connectivity checks and consent.
    Stun,
    /// DTLS: the handshake, and data channels.
    Dtls,
    /// RTP.
    Rtp,
    /// RTCP, muxed with RTP.
    Rtcp,
}

/// The class of a datagram; `None` for TURN channels, ZRTP, QUIC, anything unassigned, and nothing at all.
#[inline]
pub fn class(datagram: &[u8]) -> Option<Class> {
    match *datagram.first()? {
        0..=3 => Some(Class::Stun),
        20..=63 => Some(Class::Dtls),
        // RFC 5761: payload types that collide with RTCP's, marker bit included, are not used by RTP.
        128..=191 if matches!(datagram.get(1), Some(192..=223)) => Some(Class::Rtcp),
        128..=191 => Some(Class::Rtp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_byte_has_the_class_of_rfc_7983() {
        for first in 0..=255u8 {
            let expected = match first {
                0..=3 => Some(Class::Stun),
                20..=63 => Some(Class::Dtls),
                128..=191 => Some(Class::Rtp),
                _ => None,
            };
            assert_eq!(class(&[first, 0x60]), expected, "{first}");
        }
        assert_eq!(class(&[]), None);
    }

    #[test]
    fn rtcp_is_told_from_rtp_by_its_packet_type() {
        assert_eq!(class(&[0x80, 200]), Some(Class::Rtcp));
        assert_eq!(class(&[0x80, 0x80 | 96]), Some(Class::Rtp));
        assert_eq!(class(&[0x80]), Some(Class::Rtp));
    }
}
