//! STUN as ICE peers write it, made by hand: what is measured must not make its own load.

use aws_lc_rs::hmac;

const REQUEST: u16 = 0x0001;
const SUCCESS: u16 = 0x0101;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;

/// A check; `chosen`: the controlling side takes this pair. `username` is the receiver's ufrag, a colon, the sender's;
/// `pwd` the receiver's password.
pub(crate) fn check(username: &str, chosen: bool, pwd: &str) -> Vec<u8> {
    let mut bytes = header(REQUEST);
    attribute(&mut bytes, USERNAME, username.as_bytes());
    if chosen {
        attribute(&mut bytes, USE_CANDIDATE, &[]);
    }
    signed(bytes, pwd)
}

/// The answer to any [`check`], by the one whose password this is.
pub(crate) fn answer(pwd: &str) -> Vec<u8> {
    signed(header(SUCCESS), pwd)
}

/// All of one transaction, since nobody here has two open at a time.
fn header(kind: u16) -> Vec<u8> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend([0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    bytes
}

fn signed(mut bytes: Vec<u8>, pwd: &str) -> Vec<u8> {
    set_length(&mut bytes, 24);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, pwd.as_bytes()), &bytes);
    attribute(&mut bytes, MESSAGE_INTEGRITY, tag.as_ref());
    set_length(&mut bytes, 8);
    let crc = crc32fast::hash(&bytes) ^ 0x5354_554e;
    attribute(&mut bytes, FINGERPRINT, &crc.to_be_bytes());
    bytes
}

fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend(kind.to_be_bytes());
    bytes.extend(u16::try_from(value.len()).expect("short").to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    set_length(bytes, 0);
}

fn set_length(bytes: &mut [u8], more: usize) {
    let length = u16::try_from(bytes.len() - 20 + more).expect("short");
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
}
