//! Finds addresses that are about to leave the house.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::lines::lines;

/// The address literals in `text` that are neither in `allowed` nor 0.0.0.0 or 127.0.0.1, each once, in order. Free text
/// (`s=` and `i=` lines) is left alone: no one dials it. Works on descriptions, fragments, candidates and JSON.
pub fn leaks(text: &str, allowed: &[IpAddr]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let legal = |address: &IpAddr| {
        *address == Ipv4Addr::UNSPECIFIED
            || *address == Ipv4Addr::LOCALHOST
            || allowed.iter().any(|one| one.to_canonical() == *address)
    };
    for line in lines(text).filter(|line| !matches!(line.letter(), Some(b's' | b'i'))) {
        for address in literals(line.body).filter(|address| !legal(address)) {
            if !found.contains(&address) {
                found.push(address);
            }
        }
    }
    found
}

/// Every address in a line, an IPv4-mapped one as the IPv4 address that it is.
fn literals(line: &str) -> impl Iterator<Item = IpAddr> {
    let is_v6 = |byte: u8| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.';
    let v6 = runs(line, is_v6).filter_map(|(before, run)| v6(before, run)).map(|one| IpAddr::V6(one).to_canonical());
    // What is part of an IPv6 literal (`::ffff:10.0.0.1`) may be found again as IPv4: as well as not.
    let v4 = runs(line, |byte| byte.is_ascii_digit() || byte == b'.').filter_map(|(_, run)| v4(run)).map(IpAddr::V4);
    v6.chain(v4)
}

/// Maximal runs of bytes that may belong to an address, each with the byte before it.
fn runs(line: &str, may: impl Fn(u8) -> bool + Copy) -> impl Iterator<Item = (Option<u8>, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let bytes = line.as_bytes();
        let start = at + bytes[at..].iter().position(|byte| may(*byte))?;
        at = bytes[start..].iter().position(|byte| !may(*byte)).map_or(bytes.len(), |length| start + length);
        Some((start.checked_sub(1).map(|before| bytes[before]), &line[start..at]))
    })
}

fn v4(run: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut words = run.trim_matches('.').split('.');
    for octet in &mut octets {
        // Leading zeros are an address for some readers, so they are one here.
        *octet = words.next()?.parse().ok()?;
    }
    words.next().is_none().then(|| octets.into())
}

fn v6(before: Option<u8>, run: &str) -> Option<Ipv6Addr> {
    // `candidate:fe80::1`: the hexadecimal tail of a word is not the address's first group.
    let is_tail = before.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let run = if is_tail { run.split_once(':')?.1 } else { run };
    let run = run.trim_end_matches('.');
    let ended = run.strip_suffix(':').filter(|rest| !rest.ends_with(':')).unwrap_or(run);
    let begun = ended.strip_prefix(':').filter(|rest| !rest.starts_with(':')).unwrap_or(ended);
    begun.parse().ok()
}
