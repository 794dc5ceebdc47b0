//! Cross-origin requests of browsers for what the door itself answers: which origin may, and what it may see.

use hyper::{
    StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue,
        ORIGIN, VARY,
    },
};

use super::{
    Front,
    http::{Answer, plain},
};
use crate::domain::ids::AppName;

/// How long a browser need not ask again: Chromium takes two hours at most.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
const METHODS: HeaderValue = HeaderValue::from_static("OPTIONS, GET, HEAD, POST, PATCH, DELETE");
/// `ETag`: a widespread WHIP client says it where it means `If-Match` (facts/clients.md §5).
const HEADERS: HeaderValue = HeaderValue::from_static("Authorization, Content-Type, If-Match, ETag");
/// One client looks for PATCH among the methods, cross-origin as well.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Location, ETag, Link, Accept-Post, Accept-Patch, Access-Control-Allow-Methods, Retry-After, WWW-Authenticate",
);

/// What `Access-Control-Allow-Origin` is to say, or the refusal of an origin that the app's list lacks.
pub(super) fn origin(front: &Front, app: &AppName, headers: &HeaderMap) -> Result<Option<HeaderValue>, Box<Answer>> {
    let apps = front.apps.load();
    let allowed = apps.get(app).map_or(&[][..], |app| &app.origins);
    let Some(origin) = headers.get(ORIGIN) else { return Ok(None) };
    if allowed.is_empty() {
        return Ok(Some(HeaderValue::from_static("*")));
    }
    if allowed.iter().any(|allowed| origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes())) {
        return Ok(Some(origin.clone()));
    }
    Err(Box::new(plain(StatusCode::FORBIDDEN, "this Origin may not use this app\n")))
}

/// Whether a browser asks whether it may ask.
pub(super) fn is_preflight(headers: &HeaderMap) -> bool {
    headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Lets the browser hand the answer to its page.
pub(super) fn allow(answer: &mut Answer, origin: Option<HeaderValue>) {
    let Some(origin) = origin else { return };
    let headers = answer.headers_mut();
    if origin != "*" {
        headers.insert(VARY, HeaderValue::from_static("Origin"));
    }
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
}
