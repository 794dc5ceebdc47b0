//! WHIP and WHEP: publishes and plays over HTTP.

use hyper::{Request, StatusCode, body::Incoming};

use super::{
    Front,
    http::{Answer, plain},
    visitor::Visitor,
};
use crate::{domain::http::route::WhipPath, shutdown::Shutdown};

/// Answers a request for a WHIP or WHEP endpoint, or for one of its resources, of an app that exists.
pub(super) async fn answer(
    _front: &Front,
    _path: WhipPath<'_>,
    _visitor: Visitor,
    _shutdown: &Shutdown,
    _request: Request<Incoming>,
) -> Answer {
    plain(StatusCode::NOT_FOUND, "this door speaks no WHIP\n")
}
