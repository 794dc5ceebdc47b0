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
        // `a=fa:fd00::3` is read both ways: with the attribute's name as the first group, and without.
        let value = line.attribute().filter(|(name, _)| !name.contains(' ')).map_or("", |(_, value)| value);
        for address in literals(line.body).chain(literals(value)).filter(|address| !legal(address)) {
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
    let is_tail = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let run = if is_tail { run.split_once(':')?.1 } else { run };
    let run = run.trim_end_matches('.');
    let ended = run.strip_suffix(':').filter(|rest| !rest.ends_with(':')).unwrap_or(run);
    let begun = ended.strip_prefix(':').filter(|rest| !rest.starts_with(':')).unwrap_or(ended);
    begun.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        leaks(text, &["198.51.100.10".parse().unwrap()]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_are_found_wherever_they_stand() {
        assert_eq!(found("c=IN IP4 10.0.0.1\r\na=rtcp:9 IN IP6 fe80::1"), ["10.0.0.1", "fe80::1"]);
        assert_eq!(found("a=x:10.0.0.1:500 [fd00::2]:9 10.0.0.1"), ["fd00::2", "10.0.0.1"]);
        assert_eq!(found("a=candidate:fe80::1"), ["fe80::1"]);
        assert_eq!(found("a=fa:fd00::3"), ["fa:fd00::3", "fd00::3"], "as one or the other");
        assert_eq!(found("a=x-a:fd00::4"), ["fd00::4"], "letters before it are no group");
        assert_eq!(found("a=x:::ffff:10.0.0.1"), ["10.0.0.1"]);
        assert_eq!(found("a=x 010.000.0.1."), ["10.0.0.1"]);
        assert_eq!(found(r#"{"sdp":"v=0\r\nc=IN IP4 10.0.0.1\r\n"}"#), ["10.0.0.1"]);
    }

    #[test]
    fn what_only_looks_like_an_address_is_none() {
        let fingerprint = "a=fingerprint:sha-256 8E:73:D2:A1:1D:AF:F0:8C:4D:E8:09:AD:70:F4:3A:8D";
        for text in [fingerprint, "a=x 1.2.3", "a=x 1.2.3.256", "a=x 1.2.3.4.5", "a=fmtp:96 apt=97", "a=extmap:1 a:b"] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
        assert_eq!(found("s=on 10.0.0.1\r\ni=and 10.0.0.2\r\n"), [""; 0], "free text");
        assert_eq!(found("c=IN IP4 0.0.0.0\r\no=- 1 1 IN IP4 127.0.0.1\r\na=x 198.51.100.10"), [""; 0]);
    }
}
