//! The WebSocket upgrade of HTTP/1.1 (RFC 6455 §4.2) and the CONNECT of HTTP/2 (RFC 8441), refused before it happens
//! where it would lead nowhere.

use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::Incoming,
    ext::Protocol,
    header::{
        CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_VERSION, UPGRADE,
    },
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;

use super::{
    Front, body,
    http::{Answer, busy, plain},
    pace::{Busy, Paced},
    transport::Transport,
    visitor::Visitor,
};
use crate::{
    domain::ids::AppName,
    sessions::Client,
    shutdown::Shutdown,
    upstream::{Socket, accept_key},
};

/// Checks the request, takes a seat, and hands the upgraded connection to a session.
pub(super) fn upgrade(
    front: &Front,
    app: AppName,
    visitor: Visitor,
    shutdown: &Shutdown,
    mut request: Request<Incoming>,
) -> Answer {
    let accept = match handshake(&request) {
        Ok(accept) => accept,
        Err(refusal) => return *refusal,
    };
    if !is_welcome(front, &app, request.headers()) {
        return plain(StatusCode::FORBIDDEN, "this Origin may not use this app\n");
    }
    let seat = match front.seat(&visitor) {
        Ok(seat) => seat,
        Err(why) => return busy(why),
    };
    let path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let host = host.or_else(|| request.uri().authority().map(ToString::to_string));
    let busy = request.extensions_mut().remove::<Busy>();
    let upgraded = hyper::upgrade::on(&mut request);
    let sessions = front.sessions.clone();
    shutdown.spawn(async move {
        let Some((io, read_ahead)) = transport(upgraded, busy).await else { return };
        let socket = Socket::server(io, &read_ahead, sessions.client_limits());
        drop(read_ahead); // it may be empty and still keep hyper's whole buffer
        sessions.run(Client { app, address: visitor.client, path, host, tls: visitor.secure, socket, seat }).await;
    });
    switching(accept)
}

/// What the client's bytes travel on from now on, and what of them was read ahead. A connection of HTTP/1.1 comes without
/// hyper's wrapping; a stream of HTTP/2 keeps its request under way.
async fn transport(upgraded: OnUpgrade, busy: Option<Busy>) -> Option<(Transport, bytes::Bytes)> {
    let upgraded: Upgraded = upgraded.await.inspect_err(|error| tracing::debug!(%error, "upgrade failed")).ok()?;
    match upgraded.downcast::<TokioIo<Paced>>() {
        Ok(parts) => Some((parts.io.into_inner().into_inner(), parts.read_buf)),
        Err(stream) => {
            Some((Transport::Stream { io: Box::new(TokioIo::new(stream)), _busy: busy? }, bytes::Bytes::new()))
        }
    }
}

/// How a proper handshake is accepted.
enum Accept {
    /// 101 with this `Sec-WebSocket-Accept`.
    Switch(String),
    /// 200: the stream is the WebSocket's from now on.
    Tunnel,
}

fn handshake(request: &Request<Incoming>) -> Result<Accept, Box<Answer>> {
    let headers = request.headers();
    let has_version = || headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    if request.extensions().get::<Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket") {
        return if has_version() { Ok(Accept::Tunnel) } else { Err(Box::new(wrong_version())) };
    }
    if *request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return Err(Box::new(plain(StatusCode::BAD_REQUEST, "a WebSocket is opened by GET over HTTP/1.1\n")));
    }
    if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade") {
        let mut answer = plain(StatusCode::UPGRADE_REQUIRED, "this path speaks WebSocket\n");
        answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        return Err(Box::new(answer));
    }
    if !has_version() {
        return Err(Box::new(wrong_version()));
    }
    match headers.get(SEC_WEBSOCKET_KEY) {
        Some(key) => Ok(Accept::Switch(accept_key(key.as_bytes()))),
        None => Err(Box::new(plain(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing\n"))),
    }
}

fn wrong_version() -> Answer {
    let mut answer = plain(StatusCode::UPGRADE_REQUIRED, "only WebSocket version 13\n");
    answer.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    answer
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// The app's allow-list of Origins; an empty one admits all, and so does a client that is no browser and sends none.
pub(super) fn is_welcome(front: &Front, app: &AppName, headers: &HeaderMap) -> bool {
    let apps = front.apps.load();
    let allowed = apps.get(app).map_or(&[][..], |app| &app.origins);
    let Some(origin) = headers.get(ORIGIN).filter(|_| !allowed.is_empty()) else { return true };
    allowed.iter().any(|allowed| origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes()))
}

fn switching(accept: Accept) -> Answer {
    let mut answer = Response::new(body::empty());
    let Accept::Switch(accept) = accept else { return answer };
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    // Base64 of a hash is always a legal header value.
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    answer
}
