//! What of a request may stand in a log: no secrets, and no more of an address than an operator needs.

use std::{borrow::Cow, net::IpAddr};

/// Parts of the names of query parameters whose values are secrets: AMS's `token`, `subscriberCode`, `jwt`,
/// `accessToken`, and what apps behind it may call theirs.
const SECRET: [&str; 10] = ["token", "jwt", "code", "pass", "secret", "key", "auth", "sig", "session", "credential"];
/// What stands in a secret's place.
const HIDDEN: &str = "…";

/// A target (path with query) with the values of secret parameters hidden. A name with an escape in it hides its value
/// too: what it says is not looked for.
pub fn target(target: &str) -> Cow<'_, str> {
    let Some((path, query)) = target.split_once('?') else { return Cow::Borrowed(target) };
    if !query.split('&').any(|pair| hides(pair).is_some()) {
        return Cow::Borrowed(target);
    }
    let mut shown = format!("{path}?");
    for (nth, pair) in query.split('&').enumerate() {
        if nth > 0 {
            shown.push('&');
        }
        match hides(pair) {
            Some(name) => {
                shown.push_str(name);
                shown.push('=');
                shown.push_str(HIDDEN);
            }
            None => shown.push_str(pair),
        }
    }
    Cow::Owned(shown)
}

/// The name of a parameter whose value is a secret.
fn hides(pair: &str) -> Option<&str> {
    let (name, _) = pair.split_once('=')?;
    let lower = name.to_ascii_lowercase();
    (name.contains('%') || SECRET.iter().any(|secret| lower.contains(secret))).then_some(name)
}

/// An address without its last part: `203.0.113.x`, or the first 48 bits of IPv6.
pub fn address(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            format!("{a}.{b}.{c}.x")
        }
        IpAddr::V6(ip) => {
            let [a, b, c, ..] = ip.segments();
            format!("{a:x}:{b:x}:{c:x}::x")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_a_query_are_hidden_and_the_rest_is_shown() {
        for (target_, shown) in [
            ("/a/s.m3u8", "/a/s.m3u8"),
            ("/a?x=1&y", "/a?x=1&y"),
            ("/a?token=abc&x=1", "/a?token=…&x=1"),
            ("/a?x=1&subscriberCode=123456&subscriberId=u", "/a?x=1&subscriberCode=…&subscriberId=u"),
            ("/a?accessToken=a=b", "/a?accessToken=…"),
            ("/a?JWT=e.y.j", "/a?JWT=…"),
            ("/a?t%6fken=abc", "/a?t%6fken=…"),
            ("/a?Signature=x&Policy=y", "/a?Signature=…&Policy=y"),
        ] {
            assert_eq!(target(target_), shown);
        }
    }

    #[test]
    fn an_address_loses_what_names_one_client() {
        assert_eq!(address("203.0.113.77".parse().unwrap()), "203.0.113.x");
        assert_eq!(address("::ffff:203.0.113.77".parse().unwrap()), "203.0.113.x");
        assert_eq!(address("2001:db8:1:2::3".parse().unwrap()), "2001:db8:1::x");
    }
}
