//! Where a node's `Location` leads a client: never to a node's own address, never back from TLS to plain HTTP.

/// A node's `Location` as the client may follow it; `None`: as it is.
///
/// AMS makes absolute addresses of the `Host` that it was asked for, with the scheme that its address filter believes
/// (facts/ams.md, traps 22 and 25), or of its own address. Both become a path on this door, which is right whatever name
/// and scheme the client used. An address of somebody else is left alone.
pub fn for_client<'l>(location: &'l str, host: Option<&str>, node: &str) -> Option<&'l str> {
    let after_scheme = ["http://", "https://"].iter().find_map(|scheme| {
        let head = location.get(..scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then(|| &location[scheme.len()..])
    })?;
    let end = after_scheme.find(['/', '?', '#']).unwrap_or(after_scheme.len());
    let (authority, path) = after_scheme.split_at(end);
    let same = |name: &str| {
        let bare = |name: &'_ str| {
            let name = name.strip_suffix(":80").or_else(|| name.strip_suffix(":443")).unwrap_or(name);
            name.to_ascii_lowercase()
        };
        bare(name) == bare(authority)
    };
    let node_ip = node.rsplit_once(':').map_or(node, |(ip, _)| ip);
    let is_ours = host.is_some_and(same) || same(node) || same(node_ip) || host_of(authority) == node_ip;
    if !is_ours {
        return None;
    }
    // Two slashes would name a host again.
    let first = path.bytes().take_while(|byte| *byte == b'/').count();
    Some(if first == 0 { "/" } else { &path[first - 1..] })
}

/// An authority without its port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_keeps_the_client_at_the_door() {
        let node = "10.0.2.1:5080";
        for (location, expected) in [
            ("http://tv.example/LiveApp/", Some("/LiveApp/")),
            ("https://TV.example:443/LiveApp/?a=b", Some("/LiveApp/?a=b")),
            ("HTTP://10.0.2.1:5080/LiveApp/whip/s/1", Some("/LiveApp/whip/s/1")),
            ("http://10.0.2.1/LiveApp/", Some("/LiveApp/")),
            ("https://10.0.2.1:5443/LiveApp/", Some("/LiveApp/")),
            ("http://tv.example", Some("/")),
            ("http://tv.example?x", Some("/")),
            ("http://tv.example//evil.example/", Some("/evil.example/")),
            ("/LiveApp/", None),
            ("play.html", None),
            ("https://cdn.example/LiveApp/", None),
            ("http://tv.example.evil/", None),
            ("//tv.example/", None),
            ("", None),
        ] {
            assert_eq!(for_client(location, Some("tv.example"), node), expected, "{location}");
        }
        assert_eq!(for_client("http://[fd00::1]:5080/a", None, "[fd00::1]:5080"), Some("/a"));
    }
}
