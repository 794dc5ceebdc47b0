//! The heads of forwarded requests and responses: what belongs to one connection stays there, what a client claims about
//! itself is replaced by what the door knows, and addresses of nodes do not reach clients.

use hyper::{
    HeaderMap, Method, Request, Response, Uri, Version,
    body::Body as _,
    header::{
        CONNECTION, CONTENT_LENGTH, CONTENT_LOCATION, COOKIE, EXPECT, FORWARDED, HOST, HeaderName, HeaderValue,
        LOCATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
    http::request::Parts,
};

use crate::{
    domain::{http::location, ids::NodeAddr},
    front::visitor::Visitor,
    upstream::Upload,
};

/// What a client may not say of itself, or not to a node (design.md §4).
const CLAIMS: [&str; 3] = ["x-real-ip", "clusterauthorization", "proxyauthorization"];
/// All headers that begin so are claims.
const CLAIM_PREFIX: &str = "x-forwarded-";
/// Headers that `Connection` may name; a client that names more is not helped further.
const MAX_NAMED: usize = 32;
/// The cookie that names a viewer's node.
pub(super) const COOKIE_NAME: &str = "forebay";

/// Why a head is refused (400, but 501 for an unknown coding).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadHead {
    /// Not exactly one usable `Host`.
    Host,
    /// A transfer coding other than `chunked` alone.
    Coding,
}

/// The `Host` that a request is for; `None` where HTTP/1.0 names none.
pub(super) fn host(request: &Parts) -> Result<Option<HeaderValue>, BadHead> {
    let mut hosts = request.headers.get_all(HOST).iter();
    let host = match (request.uri.authority(), hosts.next(), hosts.next()) {
        (_, _, Some(_)) => return Err(BadHead::Host),
        // An absolute target outranks the header (RFC 9112 §3.2.2).
        (Some(authority), ..) => HeaderValue::from_str(authority.as_str()).map_err(|_| BadHead::Host)?,
        (None, Some(host), None) => host.clone(),
        (None, None, None) if request.version == Version::HTTP_10 => return Ok(None),
        (None, None, None) => return Err(BadHead::Host),
    };
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(byte);
    if host.is_empty() || !host.as_bytes().iter().all(legal) { Err(BadHead::Host) } else { Ok(Some(host)) }
}

/// Makes a client's head into one for a node: HTTP/1.1, origin form, no `Host` yet unless the client gave one.
pub(super) fn for_node(parts: &mut Parts, visitor: Visitor) -> Result<(), BadHead> {
    let host = host(parts)?;
    let mut codings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    let plain = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if !plain || codings.next().is_some() {
        return Err(BadHead::Coding);
    }
    let headers = &mut parts.headers;
    let takes_trailers = has_token(headers, &TE, "trailers");
    strip_hop_by_hop(headers);
    strip_claims(headers);
    // The door answers it by reading the body. Trailers of requests are for nobody behind it.
    for name in [EXPECT, TRAILER, CONTENT_LENGTH] {
        headers.remove(name);
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let client = visitor.client.0.ip().to_canonical().to_string();
    if let Ok(client) = HeaderValue::from_str(&client) {
        headers.insert("x-forwarded-for", client.clone());
        headers.insert("x-real-ip", client);
    }
    let scheme = if visitor.secure { "https" } else { "http" };
    headers.insert("x-forwarded-proto", HeaderValue::from_static(scheme));
    if let Some(host) = host {
        headers.insert("x-forwarded-host", host.clone());
        headers.insert(HOST, host);
    }
    let target = parts.uri.path_and_query().cloned();
    parts.uri = target.map_or_else(Uri::default, Uri::from);
    parts.version = Version::HTTP_11;
    Ok(())
}

/// A request for one node, of a head that [`for_node`] has made.
pub(super) fn request(mut parts: Parts, upload: Upload, node: NodeAddr) -> Request<Upload> {
    if !parts.headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(&node.to_string())
    {
        parts.headers.insert(HOST, host);
    }
    parts.headers.remove(TRANSFER_ENCODING);
    // A body of unknown length is chunked, also where the method makes one unlikely; nothing is left to guess.
    if upload.size_hint().exact().is_none() {
        parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    } else if upload.is_empty() && matches!(parts.method, Method::POST | Method::PUT | Method::PATCH) {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    Request::from_parts(parts, upload)
}

/// Makes a node's head into one for the client.
pub(super) fn for_client<B>(response: &mut Response<B>, host: Option<&str>, node: NodeAddr) {
    *response.version_mut() = Version::HTTP_11;
    let headers = response.headers_mut();
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    strip_hop_by_hop(headers);
    for name in [LOCATION, CONTENT_LOCATION] {
        let value = headers.get(&name).and_then(|value| value.to_str().ok());
        let repaired = value.and_then(|value| location::for_client(value, host, &node.to_string()));
        if let Some(Ok(repaired)) = repaired.map(HeaderValue::from_str) {
            headers.insert(name, repaired);
        }
    }
}

/// Removes what belongs to one connection, and what `Connection` says does (RFC 9110 §7.6.1).
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        let named = values.flat_map(|value| value.split(',')).map(str::trim);
        let named: Vec<HeaderName> = named.filter_map(|name| name.parse().ok()).take(MAX_NAMED).collect();
        for name in named {
            // Its absence would mean another site.
            if name != HOST {
                headers.remove(name);
            }
        }
        headers.remove(CONNECTION);
    }
    for name in [TE, TRANSFER_ENCODING, UPGRADE, PROXY_AUTHORIZATION, PROXY_AUTHENTICATE] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection", "http2-settings"] {
        headers.remove(name);
    }
}

fn strip_claims(headers: &mut HeaderMap) {
    headers.remove(FORWARDED);
    for name in CLAIMS {
        headers.remove(name);
    }
    let claims: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(CLAIM_PREFIX)).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

pub(in crate::front) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let mut parts = values.flat_map(|value| value.split(','));
    parts.any(|part| part.split(';').next().is_some_and(|part| part.trim().eq_ignore_ascii_case(token)))
}

/// The tag of the node that the client's cookie names.
pub(super) fn cookie(headers: &HeaderMap) -> Option<u64> {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, tag) = pairs.find(|(name, _)| *name == COOKIE_NAME)?;
    let is_tag = tag.len() == 16 && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_tag.then(|| u64::from_str_radix(tag, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::ClientAddr;

    fn parts(lines: &[(&'static str, &'static str)]) -> Parts {
        let mut request = Request::builder().uri("/LiveApp/x?token=a");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn visitor() -> Visitor {
        Visitor { client: ClientAddr("[::ffff:203.0.113.7]:4000".parse().unwrap()), secure: true, endpoint: None }
    }

    #[test]
    fn what_a_client_claims_is_replaced_by_what_the_door_knows() {
        let mut head = parts(&[
            ("host", "tv.example"),
            ("x-real-ip", "127.0.0.1"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-anything", "1"),
            ("forwarded", "for=127.0.0.1"),
            ("clusterauthorization", "jwt"),
            ("proxyauthorization", "jwt"),
            ("authorization", "Bearer mine"),
            ("range", "bytes=0-1"),
        ]);
        for_node(&mut head, visitor()).unwrap();
        let mut seen: Vec<(&str, &str)> =
            head.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        seen.sort_unstable();
        assert_eq!(
            seen,
            [
                ("authorization", "Bearer mine"),
                ("host", "tv.example"),
                ("range", "bytes=0-1"),
                ("x-forwarded-for", "203.0.113.7"),
                ("x-forwarded-host", "tv.example"),
                ("x-forwarded-proto", "https"),
                ("x-real-ip", "203.0.113.7"),
            ]
        );
    }

    #[test]
    fn what_belongs_to_one_connection_stays_there_and_nothing_of_the_doors_can_be_named_away() {
        let mut head = parts(&[
            ("host", "tv.example"),
            ("connection", "close, X-Mine, x-real-ip, host"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers;q=0.5"),
            ("upgrade", "h2c"),
            ("http2-settings", "AA"),
            ("proxy-authorization", "Basic x"),
            ("expect", "100-continue"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x-last"),
        ]);
        for_node(&mut head, visitor()).unwrap();
        for gone in ["connection", "x-mine", "keep-alive", "upgrade", "http2-settings", "expect", "transfer-encoding"] {
            assert!(!head.headers.contains_key(gone), "{gone}");
        }
        assert_eq!(head.headers["te"], "trailers");
        assert_eq!(
            (head.headers["host"].as_bytes(), head.headers["x-real-ip"].as_bytes()),
            (&b"tv.example"[..], &b"203.0.113.7"[..])
        );
        assert_eq!(head.uri, "/LiveApp/x?token=a");
    }

    #[test]
    fn a_host_that_is_missing_double_or_no_host_is_refused() {
        for lines in [&[][..], &[("host", "a"), ("host", "a")], &[("host", "a/b")], &[("host", "")], &[("host", "u@a")]]
        {
            assert_eq!(for_node(&mut parts(lines), visitor()), Err(BadHead::Host), "{lines:?}");
        }
        let mut old = parts(&[]);
        old.version = Version::HTTP_10;
        assert_eq!(for_node(&mut old, visitor()), Ok(()));
        let coded = &[("host", "a"), ("transfer-encoding", "gzip, chunked")];
        assert_eq!(for_node(&mut parts(coded), visitor()), Err(BadHead::Coding));
    }

    #[test]
    fn the_doors_cookie_is_found_among_others() {
        let of = |value: &'static str| cookie(&parts(&[("cookie", value)]).headers);
        assert_eq!(of("JSESSIONID=1; forebay=00000000000000ff"), Some(255));
        for none in ["JSESSIONID=1", "forebay=ff", "forebay=+0000000000000ff", "xforebay=00000000000000ff"] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
