//! The listener, its thread, and what every request passes before its handler: the token, limits, and an answer in
//! problem details for whatever is no call of this API.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    AdminError, Inner,
    access::{Peer, authorized},
    capacity, door, drains, events, explain, log, metrics, nodes, openapi, page,
    problem::Problem,
    sessions, streams,
    tls::Tls,
};
use crate::{config, net};

/// Connections at a time; the next one waits in the kernel's backlog for a seat.
const CONNECTIONS: usize = 256;
/// A caller that has not sent its request's head by then is closed; so is an idle connection.
const HEAD: Duration = Duration::from_secs(30);
/// From a request's head to its answer, unless the caller wants to wait longer; beyond it a 503.
const REQUEST: Duration = Duration::from_secs(30);
/// After an accept that failed (no descriptors left), before the next one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(super) fn start(
    config: &config::Admin,
    listener: std::net::TcpListener,
    inner: Inner,
    stop: CancellationToken,
) -> Result<SocketAddr, AdminError> {
    let tls = config.tls.as_ref().map(Tls::open).transpose()?;
    net::serve_on_thread("admin", listener, stop, |listener| serve(listener, tls, inner))
        .map_err(|why| AdminError::Bind(config.bind, why))
}

fn router(inner: Inner) -> Router {
    let quick = Router::new()
        .route("/", get(page::index))
        .route("/page/{part}", get(page::part))
        .route("/metrics", get(metrics::scrape))
        .route("/openapi.json", get(openapi::document))
        .route("/v1/nodes", get(nodes::list))
        .route("/v1/nodes/{id}", get(nodes::one))
        .route("/v1/sessions", get(sessions::list))
        .route("/v1/sessions/{id}", get(sessions::one).delete(sessions::delete))
        .route("/v1/streams", get(streams::list))
        .route("/v1/streams/{app}/{stream}", get(streams::one))
        .route("/v1/explain", post(explain::explain))
        .route("/v1/capacity", get(capacity::capacity))
        .route("/v1/door", get(door::get))
        .route("/v1/door/drain", put(door::put).delete(door::delete))
        .route("/v1/log", put(log::put))
        .route("/v1/events", get(events::events))
        .layer(middleware::from_fn(within_limits));
    Router::new()
        .merge(quick)
        // Its caller says how long it may take.
        .route("/v1/nodes/{id}/drain", put(drains::put).delete(drains::delete))
        .method_not_allowed_fallback(async || {
            let detail = "the call exists, but not with this method: see Allow";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "bad_method", detail)
        })
        .fallback(async || Problem::not_found("unknown_call", "there is no such call: see GET /openapi.json"))
        .layer(middleware::from_fn_with_state(inner.clone(), authorized))
        .layer(middleware::from_fn_with_state(inner.clone(), counts))
        .with_state(inner)
}

/// Every path of the API, as metrics label it.
const ROUTES: [&str; 17] = [
    "/metrics",
    "/openapi.json",
    "/v1/nodes",
    "/v1/nodes/{id}",
    "/v1/nodes/{id}/drain",
    "/v1/sessions",
    "/v1/sessions/{id}",
    "/v1/streams",
    "/v1/streams/{app}/{stream}",
    "/v1/explain",
    "/v1/capacity",
    "/v1/door",
    "/v1/door/drain",
    "/v1/log",
    "/v1/events",
    "/",
    "/page/{part}",
];

/// The pattern that a path fits.
fn route(path: &str) -> &'static str {
    let fits = |pattern: &&&str| {
        let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                (Some(wanted), Some(given)) if wanted == given || wanted.starts_with('{') => {}
                _ => return false,
            }
        }
    };
    ROUTES.iter().find(fits).copied().unwrap_or("other")
}

async fn serve(listener: TcpListener, tls: Option<Tls>, inner: Inner) {
    let router = router(inner.clone());
    tokio::spawn(events::watch(inner));
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    let tls = tls.map(Arc::new);
    if let Some(tls) = tls.clone() {
        tokio::spawn(async move { tls.watch().await });
    }
    loop {
        let seat = Arc::clone(&seats).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (router, tls) = (router.clone(), tls.clone());
                tokio::spawn(async move {
                    let _seat = seat;
                    greet(stream, peer, tls.as_deref(), router).await;
                });
            }
            Err(why) => {
                tracing::warn!(%why, "the admin listener failed to accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection, after its handshake if there is one. A caller that goes away is no event.
async fn greet(stream: TcpStream, address: SocketAddr, tls: Option<&Tls>, router: Router) {
    let Some(tls) = tls else {
        let _ = connection(stream, Peer { address, over_tls: false, certificate: None }, router).await;
        return;
    };
    match tls.accept(stream).await {
        Ok((stream, certificate)) => {
            let _ = connection(stream, Peer { address, over_tls: true, certificate }, router).await;
        }
        Err(why) => tracing::debug!(%why, peer = %address, "a caller of the admin API was not let in"),
    }
}

async fn connection<S>(stream: S, peer: Peer, router: Router) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.call(request)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn within_limits(request: Request, next: Next) -> Response {
    let late = || Problem::unavailable("too_slow", "the door did not answer in time; ask again");
    tokio::time::timeout(REQUEST, next.run(request)).await.unwrap_or_else(|_| late().into_response())
}

async fn counts(State(inner): State<Inner>, request: Request, next: Next) -> Response {
    let route = route(request.uri().path());
    let answer = next.run(request).await;
    inner.state.metrics.http_answered(route, answer.status().as_u16());
    answer
}
