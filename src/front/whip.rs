//! WHIP (RFC 9725) and WHEP: publishes and plays over HTTP, ended at this door.
//!
//! ```text
//!  POST    /{app}/whip/{stream}        an offer            ─► 201, its answer, `Location`: the resource
//!  PATCH   /{app}/whip/{stream}/{id}   candidates, restart ─► 204, or 200 with the other side's
//!  DELETE  /{app}/whip/{stream}/{id}                       ─► 200, also for one that has ended by itself
//!  OPTIONS anywhere                                        ─► what may be asked, and from which origin
//! ```
//!
//! Nobody is ever redirected: browsers drop `Authorization` on the way to another origin (facts/clients.md §5).

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Incoming},
    header::{
        ALLOW, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HOST, HeaderMap, HeaderName, HeaderValue, IF_MATCH,
        LINK, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
    },
};

use super::{
    Front, body, cors,
    http::{Answer, busy, plain},
    visitor::Visitor,
};
use crate::{
    domain::{
        http::route::{WhipKind, WhipPath},
        ids::Kind,
        sdp::MAX_SDP,
        whip::{Condition, Patch, Refusal, Reply, WISHES, Wish},
    },
    sessions::{Post, ResourceId},
};

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
/// From the head of a request to the end of its body, which is one packet or a few.
const BODY: Duration = Duration::from_secs(10);
/// Bytes of a query's value after decoding; AMS's `metaData` is the longest.
const MAX_VALUE: usize = 8 * 1024;

const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// Answers a request for a WHIP or WHEP endpoint, or for one of its resources, of an app that exists.
pub(super) async fn answer(front: &Front, path: WhipPath<'_>, visitor: Visitor, request: Request<Incoming>) -> Answer {
    let origin = match cors::origin(front, &path.app, request.headers()) {
        Ok(origin) => origin,
        Err(refusal) => return *refusal,
    };
    let mut answer = answer_any(front, &path, visitor, request).await;
    cors::allow(&mut answer, origin);
    answer
}

async fn answer_any(front: &Front, path: &WhipPath<'_>, visitor: Visitor, request: Request<Incoming>) -> Answer {
    match (request.method(), path.resource) {
        (&Method::OPTIONS, _) => options(front, path, request.headers()),
        (&Method::POST, None) => post(front, path, visitor, request).await,
        (&Method::PATCH, Some(id)) => patch(front, path, id, request).await,
        (&Method::DELETE, Some(id)) => delete(front, path, id).await,
        (&Method::GET | &Method::HEAD, None) => look(path.kind),
        (&Method::GET | &Method::HEAD, Some(id)) if find(front, path, id).is_some() => look(path.kind),
        (&Method::GET | &Method::HEAD, Some(_)) => no_resource(),
        (_, resource) => {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "not here\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods(resource.is_some())));
            answer
        }
    }
}

fn methods(of_resource: bool) -> &'static str {
    if of_resource { "OPTIONS, GET, HEAD, PATCH, DELETE" } else { "OPTIONS, GET, HEAD, POST" }
}

/// RFC 9725 §4.2: what may be sent here; and, unless a browser asks before it asks, which ICE servers there are (§4.6).
fn options(front: &Front, path: &WhipPath<'_>, headers: &HeaderMap) -> Answer {
    let mut answer = empty(StatusCode::OK);
    let own = answer.headers_mut();
    own.insert(ALLOW, HeaderValue::from_static(methods(path.resource.is_some())));
    own.insert(ACCEPT_POST, HeaderValue::from_static(SDP));
    own.insert(ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT));
    if !cors::is_preflight(headers) {
        add_ice_servers(front, own);
    }
    answer
}

/// RFC 9725 §4.1: a GET is answered with nothing. WHEP's HEAD says what a POST would get.
fn look(kind: WhipKind) -> Answer {
    let mut answer = empty(StatusCode::OK);
    if kind == WhipKind::Whep {
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(SDP));
    }
    answer
}

async fn post(front: &Front, path: &WhipPath<'_>, visitor: Visitor, request: Request<Incoming>) -> Answer {
    let seat = match front.seat(&visitor) {
        Ok(seat) => seat,
        Err(why) => return busy(why),
    };
    let Some(wish) = wish(request.uri().query().unwrap_or_default(), request.headers()) else {
        return plain(StatusCode::BAD_REQUEST, "a parameter cannot be read, or is too long\n");
    };
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(|authority| authority.as_str())).map(str::to_owned);
    let offer = match text(request, SDP).await {
        Ok(offer) => offer,
        Err(refusal) => return *refusal,
    };
    let kind = kind(path.kind);
    let (app, stream) = (path.app.clone(), path.stream.clone());
    let post = Post { app, kind, stream, wish, offer, client: visitor.client, host, tls: visitor.secure, seat };
    let (id, sdp, tag) = match front.resources.create(post).await {
        Ok(created) => created,
        Err(refusal) => return refused(refusal),
    };
    let mut answer = described(StatusCode::CREATED, SDP, sdp, &tag);
    let headers = answer.headers_mut();
    let word = if kind == Kind::Publish { "whip" } else { "whep" };
    // Where several doors share one name, only this very door has the resource.
    let door = front.locate.public_url.as_deref().unwrap_or_default();
    insert(headers, LOCATION, &format!("{door}/{}/{word}/{}/{id}", path.app, path.stream));
    headers.insert(ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT));
    add_ice_servers(front, headers);
    answer
}

async fn patch(front: &Front, path: &WhipPath<'_>, id: &str, request: Request<Incoming>) -> Answer {
    let Some(resource) = find(front, path, id) else { return no_resource() };
    let condition = condition(request.headers());
    let frag = match text(request, FRAGMENT).await {
        Ok(frag) => frag,
        Err(refusal) => return *refusal,
    };
    match resource.patch(Patch { frag, condition }).await {
        Reply::Taken => empty(StatusCode::NO_CONTENT),
        Reply::Restarted { frag, tag } => described(StatusCode::OK, FRAGMENT, frag, &tag),
        Reply::Refused(refusal) => refused(refusal),
        // Only a POST creates.
        Reply::Created { .. } => refused(Refusal::BadNode),
    }
}

async fn delete(front: &Front, path: &WhipPath<'_>, id: &str) -> Answer {
    if let Some(resource) = find(front, path, id) {
        resource.delete().await;
        return empty(StatusCode::OK);
    }
    let has_ended = ResourceId::parse(id).is_some_and(|id| front.resources.has_ended(id));
    if has_ended { empty(StatusCode::OK) } else { no_resource() }
}

fn find(front: &Front, path: &WhipPath<'_>, id: &str) -> Option<crate::sessions::Resource> {
    front.resources.find(&path.app, kind(path.kind), &path.stream, ResourceId::parse(id)?)
}

fn kind(kind: WhipKind) -> Kind {
    match kind {
        WhipKind::Whip => Kind::Publish,
        WhipKind::Whep => Kind::Play,
    }
}

/// The body, if it is of this type, complete in time and text. Bodies are small: one is read only when it is wanted.
async fn text(request: Request<Incoming>, wanted: &'static str) -> Result<String, Box<Answer>> {
    let given = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let given = given.split(';').next().unwrap_or_default().trim();
    if !given.eq_ignore_ascii_case(wanted) {
        let mut answer = plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not the content type that is spoken here\n");
        let name = if wanted == SDP { ACCEPT_POST } else { ACCEPT_PATCH };
        answer.headers_mut().insert(name, HeaderValue::from_static(wanted));
        return Err(Box::new(answer));
    }
    let refuse = |status, text| Err(Box::new(plain(status, text)));
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > MAX_SDP) {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "more than 64 KiB\n");
    }
    let body = Limited::new(request.into_body(), MAX_SDP).collect();
    match tokio::time::timeout(BODY, body).await {
        Err(_) => refuse(StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n"),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            refuse(StatusCode::PAYLOAD_TOO_LARGE, "more than 64 KiB\n")
        }
        Ok(Err(_)) => refuse(StatusCode::BAD_REQUEST, "the body broke off\n"),
        Ok(Ok(body)) => match String::from_utf8(body.to_bytes().into()) {
            Ok(text) => Ok(text),
            Err(_) => refuse(StatusCode::BAD_REQUEST, "the body is not UTF-8\n"),
        },
    }
}

/// `If-Match`; a widespread client says `ETag` instead (facts/clients.md §5).
fn condition(headers: &HeaderMap) -> Condition {
    let values = |name: &HeaderName| -> Vec<String> {
        let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        lines.flat_map(|line| line.split(',')).map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty()).collect()
    };
    let tags = match values(&IF_MATCH) {
        none if none.is_empty() => values(&ETAG),
        tags => tags,
    };
    match tags.first().map(String::as_str) {
        None => Condition::Absent,
        Some("*") => Condition::Any,
        Some(_) => Condition::Tags(tags),
    }
}

/// Token and parameters. `None` if one cannot be decoded or is too long.
fn wish(query: &str, headers: &HeaderMap) -> Option<Wish> {
    let mut wish = Wish::default();
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let known = WISHES.into_iter().find(|known| *known == name);
        if known.is_none() && name != "token" {
            continue;
        }
        let value = decoded(value).filter(|value| value.len() <= MAX_VALUE)?;
        match known {
            Some(_) if value.is_empty() => {}
            Some(known) => wish.fields.push((known, value)),
            None if value.is_empty() => {}
            None => wish.token = Some(value),
        }
    }
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    wish.token = bearer.filter(|token| !token.is_empty()).or(wish.token);
    Some(wish)
}

/// A query's value without its percent signs and pluses.
fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit =
                    |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                digit(rest.next())? << 4 | digit(rest.next())?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn refused(refusal: Refusal) -> Answer {
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let mut answer = plain(status, refusal.text());
    if let Some(after) = refusal.retry_after() {
        insert(answer.headers_mut(), RETRY_AFTER, &after.as_secs().to_string());
    }
    if status == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

fn no_resource() -> Answer {
    plain(StatusCode::NOT_FOUND, "no such resource\n")
}

fn described(status: StatusCode, content_type: &'static str, text: String, tag: &str) -> Answer {
    let mut answer = empty(status);
    *answer.body_mut() = body::whole(Bytes::from(text));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    insert(answer.headers_mut(), ETAG, tag);
    answer
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Answer::new(body::empty());
    *answer.status_mut() = status;
    answer
}

/// RFC 9725 §4.6: the ICE servers that sessions over WebSocket are told of.
fn add_ice_servers(front: &Front, headers: &mut HeaderMap) {
    if let Some(link) = front.resources.ice_server_link() {
        insert(headers, LINK, link);
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // A configured secret may hold what no header can: then there is none.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
