//! `PUT /v1/log`: another log filter, until it is changed again or the door starts anew.

use axum::{Extension, Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Inner, access::Caller, ask::Asked, problem::Problem};
use crate::telemetry::logs::{LogError, check_filter};

/// Longest filter that is read.
const LONGEST: usize = 1024;

/// What is logged.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// A filter such as `info` or `info,forebay::sessions=debug`.
    #[schema(example = "info,forebay::sessions=debug")]
    filter: String,
}

/// Changes the log filter, at once; it holds until it is changed again or the door starts anew.
#[utoipa::path(put, path = "/v1/log", tag = "door", request_body = Filter, responses((status = 200, body = Filter)))]
pub(super) async fn put(
    State(inner): State<Inner>,
    Extension(caller): Extension<Caller>,
    Asked(wish): Asked<Filter>,
) -> Result<Json<Filter>, Problem> {
    let Some(logs) = &inner.state.logs else {
        return Err(Problem::conflict("no_logs", "this process has not started logs of its own"));
    };
    if wish.filter.len() > LONGEST {
        return Err(Problem::bad_request("bad_filter", format!("filter: at most {LONGEST} characters")));
    }
    let bad = |why: LogError| Problem::bad_request("bad_filter", why.to_string());
    check_filter(&wish.filter).map_err(bad)?;
    // A filter that silences everything must not swallow the line that says so.
    caller.changed(&inner, "log", "filter", &logs.now(), &wish.filter);
    logs.set(&wish.filter).map_err(bad)?;
    Ok(Json(wish))
}
