//! STUN as the relay needs it (RFC 8489): found and checked; nothing is allocated for that, and no bytes of any length make
//! it panic. Messages are changed and made only for legs that were moved (`mask`, `inheritance`).
//!
//! Only what authenticates a message is read: USERNAME, USE-CANDIDATE, MESSAGE-INTEGRITY, FINGERPRINT. Everything
//! else passes unread, whatever extension it belongs to.

use aws_lc_rs::{constant_time, hmac};

const HEADER: usize = 20;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// Attributes of one message; a message with more is malformed.
const MAX_ATTRIBUTES: usize = 32;
const FINGERPRINT_XOR: u32 = 0x5354_554e;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
/// Bytes that MESSAGE-INTEGRITY takes.
const INTEGRITY: usize = 24;

/// One transaction's id.
pub type TransactionId = [u8; 12];

/// What a Binding message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A connectivity check.
    Request,
    /// A keepalive, which nobody answers.
    Indication,
    /// A check succeeded.
    Success,
    /// A check failed.
    Error,
}

/// Why bytes are no STUN message of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than a header, or another length than the header says.
    #[error("the length is wrong")]
    Length,
    /// No magic cookie.
    #[error("the magic cookie is missing")]
    Cookie,
    /// An attribute reaches beyond the message, has a wrong length, or follows FINGERPRINT; or there are too many.
    #[error("the attributes are broken")]
    Attributes,
    /// Another method than Binding.
    #[error("the method is not Binding")]
    Method,
}

/// A Binding message whose framing is right; nothing is authenticated yet.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    kind: Kind,
    username: Option<&'a [u8]>,
    use_candidate: bool,
    /// Where MESSAGE-INTEGRITY's header begins.
    integrity: Option<usize>,
    /// Where FINGERPRINT's header begins: at the end, or nowhere.
    fingerprint: Option<usize>,
}

impl<'a> Message<'a> {
    /// Finds a message's parts. The datagram must hold exactly one message.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < HEADER || !bytes.len().is_multiple_of(4) || word(bytes, 2) != Some(body_length(bytes.len())) {
            return Err(Malformed::Length);
        }
        if bytes[4..8] != MAGIC_COOKIE {
            return Err(Malformed::Cookie);
        }
        let kind = match word(bytes, 0) {
            Some(0x0001) => Kind::Request,
            Some(0x0011) => Kind::Indication,
            Some(0x0101) => Kind::Success,
            Some(0x0111) => Kind::Error,
            _ => return Err(Malformed::Method),
        };
        let mut message =
            Self { bytes, kind, username: None, use_candidate: false, integrity: None, fingerprint: None };
        message.find_attributes()?;
        Ok(message)
    }

    /// What the message is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What ties a response to its request.
    pub fn transaction(&self) -> TransactionId {
        let mut id = [0; 12];
        id.copy_from_slice(&self.bytes[8..HEADER]);
        id
    }

    /// USERNAME as ICE writes it: the receiver's ufrag, then the sender's.
    pub fn ufrags(&self) -> Option<(&'a [u8], &'a [u8])> {
        let username = self.username?;
        let colon = username.iter().position(|byte| *byte == b':')?;
        Some((&username[..colon], &username[colon + 1..]))
    }

    /// Whether the controlling side chooses this pair.
    pub fn use_candidate(&self) -> bool {
        self.use_candidate
    }

    /// Whether FINGERPRINT is there and right.
    pub fn has_fingerprint(&self) -> bool {
        let Some(at) = self.fingerprint else { return false };
        let value = crc32fast::hash(&self.bytes[..at]) ^ FINGERPRINT_XOR;
        self.bytes.get(at + 4..at + 8) == Some(&value.to_be_bytes()[..])
    }

    /// Whether MESSAGE-INTEGRITY is there and was made with this password. Takes the same time wherever it differs.
    pub fn is_authentic(&self, key: &Key) -> bool {
        let Some(at) = self.integrity else { return false };
        let Some(tag) = self.bytes.get(at + 4..at + 24) else { return false };
        // RFC 8489 §14.5: the length counts up to the attribute itself, whatever follows it.
        let length = body_length(at + 24).to_be_bytes();
        let mut hmac = hmac::Context::with_key(&key.0);
        hmac.update(&self.bytes[..2]);
        hmac.update(&length);
        hmac.update(&self.bytes[4..at]);
        constant_time::verify_slices_are_equal(hmac.sign().as_ref(), tag).is_ok()
    }

    /// The same message with another USERNAME, where one is given, and another signature. What nothing authenticated,
    /// after MESSAGE-INTEGRITY, is left out.
    pub fn translated(&self, username: Option<&[u8]>, key: &Key) -> Vec<u8> {
        let end = self.integrity.or(self.fingerprint).unwrap_or(self.bytes.len());
        let mut said = self.bytes[..HEADER].to_vec();
        let (mut at, mut renamed) = (HEADER, username);
        while at < end {
            let (kind, length) =
                (word(self.bytes, at).unwrap_or(0), usize::from(word(self.bytes, at + 2).unwrap_or(0)));
            let next = at + 4 + length.next_multiple_of(4);
            match renamed.filter(|_| kind == USERNAME) {
                Some(name) => append(&mut said, USERNAME, name),
                None => said.extend_from_slice(&self.bytes[at..next]),
            }
            if kind == USERNAME {
                renamed = None;
            }
            at = next;
        }
        finish(&mut said, key);
        said
    }

    fn find_attributes(&mut self) -> Result<(), Malformed> {
        let mut at = HEADER;
        for _ in 0..MAX_ATTRIBUTES {
            if at == self.bytes.len() {
                return Ok(());
            }
            let (Some(kind), Some(length)) = (word(self.bytes, at), word(self.bytes, at + 2)) else {
                return Err(Malformed::Attributes);
            };
            let (value, length) = (at + 4, usize::from(length));
            let next = value + length.next_multiple_of(4);
            if next > self.bytes.len() {
                return Err(Malformed::Attributes);
            }
            match kind {
                FINGERPRINT if length == 4 && next == self.bytes.len() => self.fingerprint = Some(at),
                FINGERPRINT => return Err(Malformed::Attributes),
                // Nothing authenticates what follows MESSAGE-INTEGRITY, so nothing of it counts.
                _ if self.integrity.is_some() => {}
                MESSAGE_INTEGRITY if length == 20 => self.integrity = Some(at),
                MESSAGE_INTEGRITY => return Err(Malformed::Attributes),
                USERNAME if self.username.is_none() => self.username = Some(&self.bytes[value..value + length]),
                USE_CANDIDATE => self.use_candidate = true,
                _ => {}
            }
            at = next;
        }
        if at == self.bytes.len() { Ok(()) } else { Err(Malformed::Attributes) }
    }
}

/// A password, made ready for checking: the key schedule is half of the cost of a short HMAC. Wiped when dropped.
#[derive(Debug)]
pub struct Key(hmac::Key);

impl Key {
    /// The key of an ICE password.
    pub fn new(pwd: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, pwd.as_bytes()))
    }
}

/// The check by which a controlling agent chooses a pair. Its tie-breaker gives way: a node that controls as well keeps
/// its role.
pub fn nomination(username: &[u8], id: TransactionId, key: &Key) -> Vec<u8> {
    /// Of a peer-reflexive candidate (RFC 8445 §5.1.2), which nobody's choice hangs on.
    const PRIORITY: u32 = 110 << 24 | 0xffff << 8 | 255;
    let mut said = vec![0, 1, 0, 0];
    said.extend_from_slice(&MAGIC_COOKIE);
    said.extend_from_slice(&id);
    append(&mut said, USERNAME, username);
    append(&mut said, 0x0024, &PRIORITY.to_be_bytes());
    append(&mut said, 0x802a, &[0; 8]);
    append(&mut said, USE_CANDIDATE, &[]);
    finish(&mut said, key);
    said
}

/// Adds MESSAGE-INTEGRITY and FINGERPRINT.
fn finish(said: &mut Vec<u8>, key: &Key) {
    set_length(said, INTEGRITY);
    let tag = hmac::sign(&key.0, said);
    append(said, MESSAGE_INTEGRITY, tag.as_ref());
    set_length(said, 8);
    let value = crc32fast::hash(said) ^ FINGERPRINT_XOR;
    append(said, FINGERPRINT, &value.to_be_bytes());
}

fn append(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Writes the header's length as if `more` bytes followed.
fn set_length(bytes: &mut [u8], more: usize) {
    let length = body_length(bytes.len() + more).to_be_bytes();
    bytes[2..4].copy_from_slice(&length);
}

/// What the header must say about a message of `total` bytes; no legal message is longer than the type can say.
fn body_length(total: usize) -> u16 {
    u16::try_from(total - HEADER).unwrap_or(u16::MAX)
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Messages as clients and nodes write them, for the tests of this room.
#[cfg(test)]
pub(crate) mod written {
    use super::*;

    /// A Binding message of `kind` with its USERNAME (where it has one), signed with `pwd`, fingerprint last.
    pub(crate) fn message(kind: u16, id: TransactionId, username: &str, nominate: bool, pwd: &str) -> Vec<u8> {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend([0, 0]);
        bytes.extend(MAGIC_COOKIE);
        bytes.extend(id);
        if !username.is_empty() {
            attribute(&mut bytes, USERNAME, username.as_bytes());
        }
        if nominate {
            attribute(&mut bytes, USE_CANDIDATE, &[]);
        }
        sign(&mut bytes, pwd);
        fingerprint(&mut bytes);
        bytes
    }

    pub(crate) fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
        bytes.extend(kind.to_be_bytes());
        bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        set_length(bytes, 0);
    }

    pub(crate) fn sign(bytes: &mut Vec<u8>, pwd: &str) {
        set_length(bytes, 24);
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, pwd.as_bytes());
        let tag = hmac::sign(&key, bytes);
        attribute(bytes, MESSAGE_INTEGRITY, tag.as_ref());
    }

    pub(crate) fn fingerprint(bytes: &mut Vec<u8>) {
        set_length(bytes, 8);
        let value = crc32fast::hash(bytes) ^ FINGERPRINT_XOR;
        attribute(bytes, FINGERPRINT, &value.to_be_bytes());
    }

    fn set_length(bytes: &mut [u8], more: usize) {
        let length = body_length(bytes.len() + more).to_be_bytes();
        bytes[2..4].copy_from_slice(&length);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{written::*, *};

    const PWD: &str = "VOkJxbRl1RmTxUk/WvJxBt";
    const ID: TransactionId = [7; 12];

    /// RFC 5769 §2.1.
    const REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e00\
        01ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2\
        80280004e57a3bcf";
    /// RFC 5769 §2.2.
    const RESPONSE_V4: &str = "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147\
        e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";
    /// RFC 5769 §2.3.
    const RESPONSE_V6: &str = "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a147\
        0113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|d| u8::try_from(d).unwrap()).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    fn authenticates(datagram: &[u8], pwd: &str) -> bool {
        Message::parse(datagram).is_ok_and(|message| message.has_fingerprint() && message.is_authentic(&Key::new(pwd)))
    }

    #[test]
    fn the_vectors_of_rfc_5769_authenticate() {
        for (hex, kind) in [(REQUEST, Kind::Request), (RESPONSE_V4, Kind::Success), (RESPONSE_V6, Kind::Success)] {
            let datagram = bytes(hex);
            let message = Message::parse(&datagram).unwrap();

            assert_eq!(message.kind(), kind);
            assert_eq!(message.transaction(), *b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae");
            assert!(message.has_fingerprint());
            assert!(message.is_authentic(&Key::new(PWD)));
            assert!(!message.is_authentic(&Key::new("VOkJxbRl1RmTxUk/WvJxBu")));
        }
        let request = bytes(REQUEST);
        assert_eq!(Message::parse(&request).unwrap().ufrags(), Some((&b"evtj"[..], &b"h6vY"[..])));
    }

    #[test]
    fn the_length_must_be_the_datagrams() {
        let datagram = bytes(REQUEST);
        let mut longer = datagram.clone();
        longer.extend([0; 4]);

        assert_eq!(Message::parse(&longer).unwrap_err(), Malformed::Length);
        for end in 0..datagram.len() {
            assert_eq!(Message::parse(&datagram[..end]).unwrap_err(), Malformed::Length, "{end}");
        }
    }

    #[test]
    fn the_first_username_counts_and_nothing_after_the_integrity() {
        let mut datagram = message(1, ID, "evtj:h6vY", false, PWD);
        datagram.truncate(datagram.len() - 24 - 8);
        attribute(&mut datagram, USERNAME, b"other:name");
        sign(&mut datagram, PWD);
        attribute(&mut datagram, USE_CANDIDATE, &[]);
        fingerprint(&mut datagram);

        let message = Message::parse(&datagram).unwrap();
        assert_eq!(message.ufrags(), Some((&b"evtj"[..], &b"h6vY"[..])));
        assert!(!message.use_candidate());
        assert!(message.is_authentic(&Key::new(PWD)) && message.has_fingerprint());
    }

    #[test]
    fn thirty_two_attributes_pass_and_one_more_does_not() {
        let with = |unknown: usize| {
            let mut datagram = message(1, ID, "", false, PWD);
            datagram.truncate(20);
            for _ in 0..unknown {
                attribute(&mut datagram, 0xc057, &[1, 2, 3]);
            }
            sign(&mut datagram, PWD);
            fingerprint(&mut datagram);
            datagram
        };

        assert!(authenticates(&with(30), PWD));
        assert_eq!(Message::parse(&with(31)).unwrap_err(), Malformed::Attributes);
    }

    #[test]
    fn a_message_without_fingerprint_or_with_more_behind_it_is_not_ours() {
        let mut bare = message(1, ID, "evtj:h6vY", false, PWD);
        bare.truncate(bare.len() - 8);
        let length = body_length(bare.len()).to_be_bytes();
        bare[2..4].copy_from_slice(&length);
        assert!(!Message::parse(&bare).unwrap().has_fingerprint());

        let mut behind = message(1, ID, "evtj:h6vY", false, PWD);
        attribute(&mut behind, 0x8022, b"more");
        assert_eq!(Message::parse(&behind).unwrap_err(), Malformed::Attributes);
    }

    #[test]
    fn only_binding_is_ours() {
        for kind in [0x0003u16, 0x0200, 0x0300, 0x0004, 0x3fff] {
            assert_eq!(Message::parse(&message(kind, ID, "a:b", false, PWD)).unwrap_err(), Malformed::Method);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(datagram in prop::collection::vec(any::<u8>(), 0..1600)) {
            prop_assert!(!authenticates(&datagram, PWD));
        }

        #[test]
        fn no_attributes_make_the_parser_panic(
            kind in prop::sample::select(vec![0x0001u16, 0x0011, 0x0101, 0x0111]),
            attributes in prop::collection::vec(
                (prop::sample::select(vec![6u16, 8, 0x24, 0x25, 0x8028, 0xc057]), any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)),
                0..40,
            ),
        ) {
            let mut datagram = message(kind, ID, "", false, PWD);
            datagram.truncate(20);
            for (kind, lie, value) in &attributes {
                let at = datagram.len();
                attribute(&mut datagram, *kind, value);
                if *lie < 16 {
                    datagram[at + 3] = *lie;
                }
            }
            if let Ok(message) = Message::parse(&datagram) {
                let _ = (message.ufrags(), message.has_fingerprint());
                prop_assert!(!message.is_authentic(&Key::new(PWD)));
            }
        }

        #[test]
        fn a_damaged_message_never_authenticates(at in 0usize..108, bit in 0u32..8, keep in 0usize..108) {
            let mut datagram = bytes(REQUEST);
            prop_assert!(!authenticates(&datagram[..keep], PWD));

            datagram[at] ^= 1 << bit;
            prop_assert!(!authenticates(&datagram, PWD), "bit {} of byte {}", bit, at);
        }

        #[test]
        fn a_translation_changes_name_and_signature_and_nothing_else(
            name in "[a-z]{4,40}:[a-z]{4,40}", other in "[a-z]{4,40}:[a-z]{4,40}", nominate: bool,
            unknown in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let with = |name: &str, pwd: &str| {
                let mut datagram = message(1, ID, name, nominate, pwd);
                datagram.truncate(datagram.len() - 32);
                attribute(&mut datagram, 0xc057, &unknown);
                sign(&mut datagram, pwd);
                fingerprint(&mut datagram);
                datagram
            };
            let (datagram, expected) = (with(&name, PWD), with(&other, "another-password-of-22"));
            let read = Message::parse(&datagram).unwrap();
            let other_key = Key::new("another-password-of-22");
            prop_assert_eq!(read.translated(Some(other.as_bytes()), &other_key), expected);
            prop_assert_eq!(read.translated(None, &other_key), with(&name, "another-password-of-22"));
        }

        #[test]
        fn what_is_written_is_read_back(
            id: [u8; 12], own in "[a-zA-Z0-9+/]{4,256}", other in "[a-zA-Z0-9+/]{4,256}", nominate: bool,
            pwd in "[a-zA-Z0-9+/]{22,256}",
        ) {
            let datagram = message(1, id, &format!("{other}:{own}"), nominate, &pwd);
            let message = Message::parse(&datagram).unwrap();

            prop_assert_eq!(message.transaction(), id);
            prop_assert_eq!(message.ufrags(), Some((other.as_bytes(), own.as_bytes())));
            prop_assert_eq!(message.use_candidate(), nominate);
            prop_assert!(authenticates(&datagram, &pwd));
        }
    }
}
