//! `/forebay/locate`: which door a client should use (the SDK's `httpEndpointUrl`).

use hyper::{Request, StatusCode, body::Incoming};

use super::{
    Front,
    http::{Answer, plain},
    visitor::Visitor,
};

/// Answers a request for `/forebay/locate`.
pub(super) async fn answer(_front: &Front, _visitor: Visitor, _request: Request<Incoming>) -> Answer {
    plain(StatusCode::NOT_FOUND, "not found\n")
}
