//! The listener, its thread, and what every request passes before its handler: the token, limits, and an answer in
//! problem details for whatever is no call of this API.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use aws_lc_rs::constant_time;
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{FromRequest, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{AdminError, Inner, explain, metrics, nodes, problem::Problem};
use crate::{
    config::{self, Secret},
    net,
};

/// Connections at a time; the next one waits in the kernel's backlog for a seat.
const CONNECTIONS: usize = 256;
/// A caller that has not sent its request's head by then is closed; so is an idle connection.
const HEAD: Duration = Duration::from_secs(30);
/// From a request's head to its answer; beyond it a 503.
const REQUEST: Duration = Duration::from_secs(30);
/// Largest body of a request; a larger one is a 413.
const LARGEST_BODY: usize = 64 * 1024;
/// After an accept that failed (no descriptors left), before the next one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(super) fn start(config: &config::Admin, inner: Inner, stop: CancellationToken) -> Result<SocketAddr, AdminError> {
    let router = router(inner, config.token.clone());
    net::serve_on_thread("admin", config.bind, stop, |listener| serve(listener, router))
        .map_err(|why| AdminError::Bind(config.bind, why))
}

fn router(inner: Inner, token: Option<Secret>) -> Router {
    let counted = inner.clone();
    Router::new()
        .route("/metrics", get(metrics::scrape))
        .route("/v1/nodes", get(nodes::list))
        .route("/v1/nodes/{id}", get(nodes::one))
        .route("/v1/explain", post(|state, Whole(body): Whole| explain::explain(state, body)))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "the call exists, but not with this method: see Allow")
        })
        .fallback(async || Problem::not_found("there is no such call"))
        .layer(middleware::from_fn(within_limits))
        .layer(middleware::from_fn_with_state(token.map(Arc::new), authorized))
        .layer(middleware::from_fn_with_state(counted, counts))
        .with_state(inner)
}

async fn serve(listener: TcpListener, router: Router) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let seat = Arc::clone(&seats).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    let _seat = seat;
                    // A caller that goes away is no event.
                    let _ = connection(stream, router).await;
                });
            }
            Err(why) => {
                tracing::warn!(%why, "the admin listener failed to accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router) -> Result<(), hyper::Error> {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
}

/// Lets pass who sends the token, where there is one.
async fn authorized(State(token): State<Option<Arc<Secret>>>, request: Request, next: Next) -> Response {
    let Some(token) = token else { return next.run(request).await };
    let given = request.headers().get(header::AUTHORIZATION).and_then(bearer).unwrap_or_default();
    if constant_time::verify_slices_are_equal(given, token.0.as_bytes()).is_ok() {
        return next.run(request).await;
    }
    let detail = "send the token of admin.token_file or admin.token_env: Authorization: Bearer …";
    let mut refused = Problem::new(StatusCode::UNAUTHORIZED, detail).into_response();
    refused.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"forebay\""));
    refused
}

/// RFC 6750 §2.1, the scheme in any case.
fn bearer(header: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = header.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

async fn within_limits(request: Request, next: Next) -> Response {
    let late = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the door did not answer in time; ask again");
    tokio::time::timeout(REQUEST, next.run(request)).await.unwrap_or_else(|_| late().into_response())
}

async fn counts(State(inner): State<Inner>, request: Request, next: Next) -> Response {
    let route = match request.uri().path() {
        "/metrics" => "/metrics",
        "/v1/nodes" => "/v1/nodes",
        "/v1/explain" => "/v1/explain",
        path if path.starts_with("/v1/nodes/") => "/v1/nodes/{id}",
        _ => "other",
    };
    let answer = next.run(request).await;
    inner.state.metrics.http_answered(route, answer.status().as_u16());
    answer
}

/// A body of at most [`LARGEST_BODY`], or the problem with it.
struct Whole(Result<Bytes, Problem>);

impl<S: Sync> FromRequest<S> for Whole {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, Self::Rejection> {
        let told = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let too_large =
            || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body may have {} KiB", LARGEST_BODY / 1024));
        if told.is_some_and(|length: u64| length > LARGEST_BODY as u64) {
            return Ok(Self(Err(too_large())));
        }
        let body = to_bytes(request.into_body(), LARGEST_BODY).await;
        Ok(Self(body.map_err(|why| match is_too_large(&why) {
            true => too_large(),
            false => Problem::bad_request("the body did not arrive whole"),
        })))
    }
}

fn is_too_large(why: &axum::Error) -> bool {
    std::error::Error::source(why).is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}
