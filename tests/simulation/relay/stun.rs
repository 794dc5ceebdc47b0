//! Binding messages as ICE agents write them, without any code of the product.

use aws_lc_rs::hmac;

pub(crate) const REQUEST: u16 = 0x0001;
pub(crate) const SUCCESS: u16 = 0x0101;

pub(crate) type TransactionId = [u8; 12];

/// The key of a password.
pub(crate) fn key(pwd: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, pwd.as_bytes())
}

/// A Binding message: USERNAME and PRIORITY where there is a name, USE-CANDIDATE where wanted, MESSAGE-INTEGRITY,
/// FINGERPRINT.
pub(crate) fn message(kind: u16, id: TransactionId, username: &str, nominate: bool, key: &hmac::Key) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 0, 0x21, 0x12, 0xa4, 0x42]);
    bytes.extend(id);
    if !username.is_empty() {
        attribute(&mut bytes, 0x0006, username.as_bytes());
        attribute(&mut bytes, 0x0024, &[0x6e, 0, 1, 0xff]);
    }
    if nominate {
        attribute(&mut bytes, 0x0025, &[]);
    }
    set_length(&mut bytes, 24);
    let tag = hmac::sign(key, &bytes);
    attribute(&mut bytes, 0x0008, tag.as_ref());
    set_length(&mut bytes, 8);
    let crc = crc32fast::hash(&bytes) ^ 0x5354_554e;
    attribute(&mut bytes, 0x8028, &crc.to_be_bytes());
    bytes
}

/// What the sender of a request calls itself; its USERNAME comes first.
pub(crate) fn sender(bytes: &[u8]) -> Option<&str> {
    let length = usize::from(u16::from_be_bytes([*bytes.get(22)?, *bytes.get(23)?]));
    std::str::from_utf8(bytes.get(24..24 + length)?).ok()?.split(':').nth(1)
}

fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend(kind.to_be_bytes());
    bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    set_length(bytes, 0);
}

fn set_length(bytes: &mut [u8], more: usize) {
    let length = u16::try_from(bytes.len() - 20 + more).unwrap();
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
}
