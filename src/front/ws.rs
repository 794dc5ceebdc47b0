//! The WebSocket upgrade (RFC 6455 §4.2), refused before it happens where it would lead nowhere.

use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::Incoming,
    header::{
        CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
    },
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    Front, body,
    http::{Answer, plain},
    visitor::Visitor,
};
use crate::{
    domain::ids::AppName,
    health::Ready,
    sessions::Client,
    shutdown::Shutdown,
    upstream::{Socket, accept_key},
};

/// SDK v1 asks again every second whatever this says (facts/clients.md §0.7); others may heed it.
const RETRY_SECONDS: &str = "2";

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
    // A draining door takes sessions until it begins to end them: load balancers look away late, and an SDK whose first
    // connection is refused does not try again (facts/clients.md §0.7).
    if front.readiness.now() == Ready::Starting || front.sessions.is_ending() {
        return busy("this door takes no new sessions now\n");
    }
    let seat = match front.sessions.seat(visitor.client.0.ip()) {
        Ok(seat) => seat,
        Err(full) => {
            tracing::debug!(%full, "refused");
            return busy("no seat is free\n");
        }
    };
    let path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let upgraded = hyper::upgrade::on(&mut request);
    let sessions = front.sessions.clone();
    shutdown.spawn(async move {
        let Some((io, read_ahead)) = stream(upgraded).await else { return };
        let socket = Socket::server(io, &read_ahead, sessions.client_limits());
        drop(read_ahead); // it may be empty and still keep hyper's whole buffer
        sessions.run(Client { app, address: visitor.client, path, host, tls: visitor.secure, socket, seat }).await;
    });
    switching(&accept)
}

/// The connection itself, without hyper's wrapping.
async fn stream(upgraded: OnUpgrade) -> Option<(TcpStream, bytes::Bytes)> {
    let upgraded: Upgraded = upgraded.await.inspect_err(|error| tracing::debug!(%error, "upgrade failed")).ok()?;
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
}

/// The `Sec-WebSocket-Accept` of a proper handshake.
fn handshake(request: &Request<Incoming>) -> Result<String, Box<Answer>> {
    let headers = request.headers();
    if *request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return Err(Box::new(plain(StatusCode::BAD_REQUEST, "a WebSocket is opened by GET over HTTP/1.1\n")));
    }
    if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade") {
        let mut answer = plain(StatusCode::UPGRADE_REQUIRED, "this path speaks WebSocket\n");
        answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        return Err(Box::new(answer));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut answer = plain(StatusCode::UPGRADE_REQUIRED, "only WebSocket version 13\n");
        answer.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(Box::new(answer));
    }
    match headers.get(SEC_WEBSOCKET_KEY) {
        Some(key) => Ok(accept_key(key.as_bytes())),
        None => Err(Box::new(plain(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing\n"))),
    }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// The app's allow-list of Origins; an empty one admits all, and so does a client that is no browser and sends none.
pub(super) fn is_welcome(front: &Front, app: &AppName, headers: &HeaderMap) -> bool {
    let allowed = front.apps.get(app).map_or(&[][..], |app| &app.origins);
    let Some(origin) = headers.get(ORIGIN).filter(|_| !allowed.is_empty()) else { return true };
    allowed.iter().any(|allowed| origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes()))
}

fn busy(text: &'static str) -> Answer {
    let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, text);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
    answer
}

fn switching(accept: &str) -> Answer {
    let mut answer = Response::new(body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    // Base64 of a hash is always a legal header value.
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    answer
}
