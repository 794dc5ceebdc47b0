//! The relay's STUN against two other implementations: what they write it accepts, and where it refuses they do.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use aws_lc_rs::hmac;
use forebay::domain::relay::stun::{Key, Message};
use proptest::prelude::*;
use rtc::stun::{
    attributes::ATTR_USERNAME,
    fingerprint::FINGERPRINT,
    integrity::MessageIntegrity,
    message::{BINDING_REQUEST, Message as RtcMessage, Setter, TransactionId},
    textattrs::TextAttribute,
};
use str0m::ice::{StunMessage, TransId};

use super::relay::stun;

fn ours_accepts(bytes: &[u8], pwd: &str) -> bool {
    Message::parse(bytes).is_ok_and(|message| message.has_fingerprint() && message.is_authentic(&Key::new(pwd)))
}

fn rtc_writes(username: &str, pwd: &str, id: [u8; 12]) -> Vec<u8> {
    let provider = rtc::crypto::default_provider().unwrap();
    let setters: Vec<Box<dyn Setter + '_>> = vec![
        Box::new(BINDING_REQUEST),
        Box::new(TransactionId(id)),
        Box::new(TextAttribute::new(ATTR_USERNAME, username.to_owned())),
        Box::new(MessageIntegrity::new_short_term_integrity_with_provider(pwd.to_owned(), provider.crypto())),
        Box::new(FINGERPRINT),
    ];
    let mut message = RtcMessage::new();
    message.build(&setters).unwrap();
    message.raw
}

fn rtc_accepts(bytes: &[u8], pwd: &str) -> bool {
    let provider = rtc::crypto::default_provider().unwrap();
    let mut message = RtcMessage::new();
    message.unmarshal_binary(bytes).is_ok()
        && FINGERPRINT.check(&message).is_ok()
        && MessageIntegrity::check(&mut message, pwd.as_bytes(), provider.crypto()).is_ok()
}

fn sha1_hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    let mut hmac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key));
    parts.iter().for_each(|part| hmac.update(part));
    hmac.sign().as_ref().try_into().unwrap()
}

fn str0m_writes(username: &str, pwd: &str, nominate: bool) -> Vec<u8> {
    let mut bytes = vec![0; 1500];
    let message = StunMessage::binding_request(username, TransId::new(), true, 7, 100, nominate);
    let length = message.to_bytes(Some(pwd.as_bytes()), &mut bytes, sha1_hmac).unwrap();
    bytes.truncate(length);
    bytes
}

fn str0m_accepts(bytes: &[u8], pwd: &str) -> bool {
    StunMessage::parse(bytes).is_ok_and(|message| message.verify(pwd.as_bytes(), sha1_hmac))
}

proptest! {
    #[test]
    fn what_others_write_is_accepted_with_the_right_password_only(
        username in "[a-zA-Z0-9+/]{4,32}:[a-zA-Z0-9+/]{4,32}", pwd in "[a-zA-Z0-9+/]{22,64}", id: [u8; 12], nominate: bool,
    ) {
        for bytes in [rtc_writes(&username, &pwd, id), str0m_writes(&username, &pwd, nominate)] {
            prop_assert!(ours_accepts(&bytes, &pwd));
            prop_assert!(!ours_accepts(&bytes, "another-password-of-22"));
            let (server, client) = Message::parse(&bytes).unwrap().ufrags().unwrap();
            prop_assert_eq!([server, b":", client].concat(), username.as_bytes());
        }
        let written = str0m_writes(&username, &pwd, nominate);
        prop_assert_eq!(Message::parse(&written).unwrap().use_candidate(), nominate);
    }

    #[test]
    fn what_the_simulations_agents_write_is_what_others_accept(
        username in "[a-zA-Z0-9+/]{4,32}:[a-zA-Z0-9+/]{4,32}", pwd in "[a-zA-Z0-9+/]{22,64}", id: [u8; 12], nominate: bool,
    ) {
        let bytes = stun::message(stun::REQUEST, id, &username, nominate, &stun::key(&pwd));
        prop_assert!(ours_accepts(&bytes, &pwd));
        prop_assert!(rtc_accepts(&bytes, &pwd));
        prop_assert!(str0m_accepts(&bytes, &pwd));
    }

    #[test]
    fn damage_that_is_accepted_by_nobody_else_is_not_accepted(
        username in "[a-z]{4}:[a-z]{4}", pwd in "[a-zA-Z0-9]{22}", id: [u8; 12], at in any::<prop::sample::Index>(), bit in 0u32..8,
    ) {
        let mut bytes = rtc_writes(&username, &pwd, id);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(!ours_accepts(&bytes, &pwd), "byte {} bit {}", at, bit);
        prop_assert!(!rtc_accepts(&bytes, &pwd) || !str0m_accepts(&bytes, &pwd));
    }
}
