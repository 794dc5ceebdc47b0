//! A node's HTTP: the few paths that others ask, and the WebSocket.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{files, node::Node, page, session, words::MAX_MESSAGE};

/// Bytes of a request head; a larger one is refused.
const MAX_HEAD: usize = 16 * 1024;
/// What a WebSocket reads at a time.
const READ_BUFFER: usize = 8 * 1024;
/// Bytes that a WebSocket may hold unsent.
const WRITE_BUFFER: usize = 1024 * 1024;

/// One client's TCP connection, from which it can be cut off.
#[derive(Clone)]
pub(super) struct Line(Arc<socket2::Socket>);

impl Line {
    fn of(stream: &TcpStream) -> std::io::Result<Self> {
        use std::os::fd::AsFd;
        Ok(Self(Arc::new(socket2::Socket::from(stream.as_fd().try_clone_to_owned()?))))
    }

    /// Whatever closes this connection from now on resets it, as the end of a process does.
    pub(super) fn will_reset(&self) {
        if let Err(error) = self.0.set_linger(Some(Duration::ZERO)) {
            tracing::debug!(%error, "a connection will close instead of being reset");
        }
    }
}

/// Takes connections for as long as the node lives.
pub(super) async fn accept(node: &Arc<Node>, listener: &TcpListener) {
    loop {
        node.freezer.thawed().await;
        match listener.accept().await {
            Ok((stream, _)) => match Line::of(&stream) {
                Ok(line) => node.spawn_survivor(connection(Arc::clone(node), stream, line)),
                Err(error) => tracing::debug!(%error, "a connection was dropped"),
            },
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(node: Arc<Node>, stream: TcpStream, line: Line) {
    let _ = stream.set_nodelay(true);
    let service = {
        let (node, line) = (Arc::clone(&node), line.clone());
        service_fn(move |request| answer(Arc::clone(&node), line.clone(), request))
    };
    let served =
        http1::Builder::new().max_buf_size(MAX_HEAD).serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::select! {
        () = node.dead.cancelled() => line.will_reset(),
        result = served => if let Err(error) = result {
            tracing::debug!(%error, "a connection broke");
        },
    }
}

async fn answer(node: Arc<Node>, line: Line, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    node.freezer.thawed().await;
    let app = node.options.app.as_str();
    let in_app = request.uri().path().strip_prefix('/').and_then(|path| path.strip_prefix(app));
    if let Some(path) = in_app
        && let Some(answer) = files::answer(&node, request.method(), path, request.headers()).await
    {
        return Ok(answer);
    }
    Ok(match (request.uri().path(), in_app) {
        (_, Some("/websocket")) => return Ok(upgrade(node, line, request)),
        (_, Some("/demo/members")) => {
            let room = request.uri().query().unwrap_or_default().parse();
            let members = room.map(|room| node.rooms.members(&room)).unwrap_or_default();
            json(serde_json::json!({ "members": members }))
        }
        ("/rest/v2/liveness", _) => json(serde_json::json!({ "host": node.address.ip(), "status": "ok" })),
        (_, Some("" | "/")) => plain(StatusCode::OK, "a demo node of forebay\n"),
        (path, _) => match page::asset(path) {
            // The page works at a node of its own, too: then there is no door between.
            Some((content_type, bytes)) => content(content_type, Bytes::from_static(bytes)),
            None => plain(StatusCode::NOT_FOUND, "no such page\n"),
        },
    })
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

fn json(value: serde_json::Value) -> Response<Full<Bytes>> {
    content("application/json", Bytes::from(value.to_string()))
}

fn content(content_type: &'static str, bytes: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(bytes));
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}

/// Accepts a WebSocket and starts its session.
fn upgrade(node: Arc<Node>, line: Line, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let wants = request.headers().get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY).cloned().filter(|_| wants) else {
        return plain(StatusCode::BAD_REQUEST, "this is a WebSocket\n");
    };
    // Another node that pulls says so; a client's own query (`target`, `rtmpForward`) means nothing to a node.
    let query = request.uri().query().unwrap_or_default();
    let puller = query.split('&').any(|pair| pair.starts_with("pull="));
    let upgraded = hyper::upgrade::on(&mut request);
    let owner = Arc::clone(&node);
    node.spawn_survivor(async move {
        let node = owner;
        let stream = match upgraded.await {
            Ok(upgraded) => upgraded,
            Err(error) => return tracing::debug!(%error, "an upgrade failed"),
        };
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, Some(limits())).await;
        session::run(node, socket, line, puller).await;
    });
    let mut response = plain(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = response.headers_mut();
    headers.insert(UPGRADE, hyper::header::HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, hyper::header::HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = derive_accept_key(key.as_bytes()).parse() {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// The limits of a node's WebSockets, on either side.
pub(super) fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER)
}

/// Whether another node answers HTTP at all, within a second: AMS's own question before it takes a stream over.
pub(super) async fn answers(origin: &str, port: u16, app: &str) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect((origin, port)).await?;
        let request = format!("HEAD /{app} HTTP/1.1\r\nHost: {origin}:{port}\r\nConnection: close\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await?;
        let mut start = [0; 5];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut start).await?;
        Ok::<bool, std::io::Error>(&start == b"HTTP/")
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), asked).await, Ok(Ok(true)))
}
