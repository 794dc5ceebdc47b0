//! RFC 9457: every error as a JSON object with `type`, `title`, `status` and `detail`, and a word for scripts.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::registry::DrainError;

/// An error (RFC 9457). Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Problem {
    /// `about:blank`: there is nothing more to say than the status and the code do.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// The status in words.
    #[schema(example = "Not Found")]
    title: &'static str,
    /// The HTTP status.
    #[serde(serialize_with = "as_number")]
    #[schema(value_type = u16, example = 404)]
    status: StatusCode,
    /// What it is, and what to do about it.
    detail: String,
    /// What it is, for scripts: stays the same over releases.
    #[schema(example = "unknown_node")]
    code: &'static str,
    #[serde(skip)]
    header: Option<(&'static str, &'static str)>,
}

fn as_number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    /// `detail` says what to do about it.
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self { kind: "about:blank", title, status, detail: detail.into(), code, header: None }
    }

    pub(super) fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub(super) fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    pub(super) fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    pub(super) fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).with("retry-after", "1")
    }

    /// Adds a header, by its name in lower case.
    pub(super) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }
}

impl From<DrainError> for Problem {
    fn from(error: DrainError) -> Self {
        let detail = error.to_string();
        match error {
            DrainError::UnknownNode => Self::not_found("unknown_node", format!("{detail}: see GET /v1/nodes")),
            DrainError::AmbiguousNode => Self::not_found("ambiguous_node", detail),
            DrainError::BadWish(_) => Self::bad_request("bad_drain", detail),
            DrainError::LastServing(_) => Self::conflict("last_serving", detail),
            DrainError::NotDraining => Self::conflict("not_draining", detail),
            DrainError::TooMany => Self::conflict("too_many_drains", detail),
            DrainError::Contended => Self::conflict("contended", detail),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, "application/problem+json"), (header::CACHE_CONTROL, "no-store")];
        let mut response = (self.status, kind, body).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        response
    }
}
