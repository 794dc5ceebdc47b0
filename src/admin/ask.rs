//! What a caller asks: parameters, bodies and pages, read strictly, so that a slip of the pen is told and not ignored.

use axum::{
    body::{Body, to_bytes},
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{StatusCode, header, request::Parts},
};
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// Largest body of a request; a larger one is a 413.
pub(super) const LARGEST_BODY: usize = 64 * 1024;
/// The longest list in one answer.
pub(super) const LONGEST_PAGE: usize = 1000;

/// The parameters of a call; unknown ones are a 400.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let read = Query::<T>::try_from_uri(&parts.uri);
        read.map(|Query(params)| Self(params)).map_err(|why| Problem::bad_request("bad_parameter", why.body_text()))
    }
}

/// The JSON body of a call; unknown fields are a 400, no body is an empty object.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, Problem> {
        let told = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let too_large = || {
            let detail = format!("the body may have {} KiB", LARGEST_BODY / 1024);
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
        };
        if told.is_some_and(|length: u64| length > LARGEST_BODY as u64) {
            return Err(too_large());
        }
        let body = to_bytes(request.into_body(), LARGEST_BODY).await.map_err(|why| match is_too_large(&why) {
            true => too_large(),
            false => Problem::bad_request("bad_body", "the body did not arrive whole"),
        })?;
        let json: &[u8] = if body.trim_ascii().is_empty() { b"{}" } else { &body };
        serde_json::from_slice(json)
            .map(Self)
            .map_err(|why| Problem::bad_request("bad_body", format!("the body: {why}")))
    }
}

fn is_too_large(why: &axum::Error) -> bool {
    std::error::Error::source(why).is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

/// How long a list may be: `limit`, or so many.
pub(super) fn limit(asked: Option<usize>, default: usize) -> Result<usize, Problem> {
    let limit = asked.unwrap_or(default);
    if (1..=LONGEST_PAGE).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::bad_request("bad_limit", format!("limit: write 1 to {LONGEST_PAGE}")))
}

/// Where a list goes on.
pub(super) fn cursor<T: std::str::FromStr>(asked: Option<&str>) -> Result<Option<T>, Problem> {
    let parsed = asked.map(str::parse).transpose();
    parsed.map_err(|_| Problem::bad_request("bad_cursor", "cursor: take it from `next` of the page before"))
}
