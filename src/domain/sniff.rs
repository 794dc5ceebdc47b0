//! What a client begins to speak on a TCP connection, told by its first bytes: one port serves HTTP, TLS and ICE-TCP.

/// Bytes that settle every case: the frame's length (RFC 4571), then STUN's type, length and magic cookie.
pub const ENOUGH: usize = 10;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniffed {
    /// An HTTP request, or what only an HTTP parser can judge.
    Http,
    /// A TLS handshake.
    Tls,
    /// A framed STUN Binding request, with which every ICE-TCP connection begins (RFC 6544 §7.2).
    IceTcp,
    /// The beginning of a framed STUN request, and of nothing else: more bytes will tell.
    NeedMore,
    /// None of these.
    Unknown,
}

/// STUN's header.
const STUN_HEADER: u16 = 20;
/// Largest frame that the relay takes: a datagram's worth.
const MAX_FRAME: u16 = 1500;
/// RFC 8489 §5.
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
/// RFC 8489 §5.
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// RFC 8446 §5.1: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// Tells by the first byte what is not ICE-TCP, and what is by [`ENOUGH`] bytes at most. No bytes at all are `NeedMore`.
pub fn sniff(first: &[u8]) -> Sniffed {
    match first {
        [] => Sniffed::NeedMore,
        [TLS_HANDSHAKE, ..] => Sniffed::Tls,
        // Empty lines before a request are to be skipped (RFC 9112 §2.2); what follows them is HTTP's to judge.
        [b'\r' | b'\n', ..] => Sniffed::Http,
        [byte, ..] if byte.is_ascii_graphic() => Sniffed::Http,
        [high, ..] if *high <= MAX_FRAME.to_be_bytes()[0] => stun_frame(first),
        _ => Sniffed::Unknown,
    }
}

fn stun_frame(first: &[u8]) -> Sniffed {
    let [high, low, message @ ..] = first else { return Sniffed::NeedMore };
    let length = u16::from_be_bytes([*high, *low]);
    if !(STUN_HEADER..=MAX_FRAME).contains(&length) || !length.is_multiple_of(4) {
        return Sniffed::Unknown;
    }
    let mut expected = [0; ENOUGH - 2];
    expected[..2].copy_from_slice(&BINDING_REQUEST);
    expected[2..4].copy_from_slice(&(length - STUN_HEADER).to_be_bytes());
    expected[4..].copy_from_slice(&MAGIC_COOKIE);
    let seen = message.len().min(expected.len());
    if message[..seen] != expected[..seen] {
        Sniffed::Unknown
    } else if seen == expected.len() {
        Sniffed::IceTcp
    } else {
        Sniffed::NeedMore
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A framed Binding request of `body` bytes after its header.
    fn framed(body: u16) -> Vec<u8> {
        let mut bytes = (body + STUN_HEADER).to_be_bytes().to_vec();
        bytes.extend(BINDING_REQUEST);
        bytes.extend(body.to_be_bytes());
        bytes.extend(MAGIC_COOKIE);
        bytes.resize(2 + usize::from(STUN_HEADER + body), 0xab);
        bytes
    }

    #[test]
    fn the_first_bytes_say_what_is_spoken() {
        for (first, expected) in [
            (&b""[..], Sniffed::NeedMore),
            (b"G", Sniffed::Http),
            (b"GET / HTTP/1.1\r\n", Sniffed::Http),
            (b"m-search * HTTP/1.1", Sniffed::Http),
            (b"\r\nGET / HTTP/1.1", Sniffed::Http),
            (b"\n", Sniffed::Http),
            (b"\x16", Sniffed::Tls),
            (b"\x16\x03\x01\x02\x00\x01", Sniffed::Tls),
            (b"\x80\x2e\x01", Sniffed::Unknown),
            (b"\x00", Sniffed::NeedMore),
            (b"\x05", Sniffed::NeedMore),
            (b"\x06", Sniffed::Unknown),
            (b"\x00\x13", Sniffed::Unknown),
            (b"\x05\xdc", Sniffed::NeedMore),
            (b"\x05\xe0", Sniffed::Unknown),
            (b"\x00\x15", Sniffed::Unknown),
            (b"\x00\x64\x00\x01\x00\x50\x21\x12\xa4", Sniffed::NeedMore),
            (b"\x00\x64\x00\x01\x00\x50\x21\x12\xa4\x42", Sniffed::IceTcp),
            (b"\x00\x64\x00\x01\x00\x51\x21\x12\xa4\x42", Sniffed::Unknown),
            (b"\x00\x64\x01\x01\x00\x50\x21\x12\xa4\x42", Sniffed::Unknown),
            (b"\x00\x64\x00\x01\x00\x50\x21\x12\xa4\x43", Sniffed::Unknown),
        ] {
            assert_eq!(sniff(first), expected, "{first:?}");
        }
    }

    proptest! {
        #[test]
        fn enough_bytes_always_settle_it(bytes in prop::collection::vec(any::<u8>(), ENOUGH..64)) {
            prop_assert_ne!(sniff(&bytes), Sniffed::NeedMore);
            prop_assert_eq!(sniff(&bytes), sniff(&bytes[..ENOUGH]), "and what follows them changes nothing");
        }

        #[test]
        fn a_verdict_stands_whatever_follows(bytes in prop::collection::vec(any::<u8>(), 0..24), seen in 0usize..24) {
            let before = sniff(&bytes[..seen.min(bytes.len())]);
            prop_assert!(before == Sniffed::NeedMore || before == sniff(&bytes));
        }

        #[test]
        fn what_needs_more_becomes_no_http_and_no_tls(
            bytes in prop::collection::vec(any::<u8>(), 1..24), seen in 1usize..24,
        ) {
            if sniff(&bytes[..seen.min(bytes.len())]) == Sniffed::NeedMore {
                prop_assert!(!matches!(sniff(&bytes), Sniffed::Http | Sniffed::Tls));
            }
        }

        #[test]
        fn every_framed_request_is_ice_tcp_however_it_is_split(words in 0u16..=370, cut in 0usize..ENOUGH) {
            let frame = framed(words * 4);
            prop_assert_eq!(sniff(&frame), Sniffed::IceTcp);
            prop_assert_eq!(sniff(&frame[..cut]), Sniffed::NeedMore);
        }
    }
}
