//! `GET /`: the dashboard, one page with nothing from another host. It knows what the API tells, and holds no secret.

use axum::{
    extract::Path,
    http::header,
    response::{IntoResponse, Response},
};

use super::problem::Problem;

/// Scripts and styles of its own only, asking nobody else, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The dashboard.
#[utoipa::path(
    get,
    path = "/",
    tag = "cluster",
    responses((status = 200, content_type = "text/html", body = String, description = "the dashboard"))
)]
pub(super) async fn index() -> Response {
    asset("text/html; charset=utf-8", include_bytes!("index.html"))
}

/// A part of the page.
pub(super) async fn part(Path(name): Path<String>) -> Response {
    match name.as_str() {
        "dashboard.css" => asset("text/css; charset=utf-8", include_bytes!("dashboard.css")),
        "dashboard.js" => asset(SCRIPT, include_bytes!("dashboard.js")),
        "api.js" => asset(SCRIPT, include_bytes!("api.js")),
        "draw.js" => asset(SCRIPT, include_bytes!("draw.js")),
        "drain.js" => asset(SCRIPT, include_bytes!("drain.js")),
        "story.js" => asset(SCRIPT, include_bytes!("story.js")),
        _ => Problem::not_found("unknown_call", "the dashboard has no such part").into_response(),
    }
}

fn asset(content_type: &'static str, bytes: &'static [u8]) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, bytes).into_response()
}
