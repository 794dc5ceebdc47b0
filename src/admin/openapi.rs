//! `GET /openapi.json`: the API described by its own types.

use axum::Json;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        ContentBuilder, OpenApi as Document, Ref, RefOr, ResponseBuilder,
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

use super::{capacity, door, drains, events, explain, log, metrics, nodes, page, problem::Problem, sessions, streams};

/// The admin API.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Forebay's admin API",
        description = "What the door knows, and what an operator may change. Errors are RFC 9457 problem details."
    ),
    paths(
        nodes::list, nodes::one, drains::put, drains::delete,
        sessions::list, sessions::one, sessions::delete,
        streams::list, streams::one,
        explain::explain, capacity::capacity,
        door::get, door::put, door::delete, log::put,
        events::events, metrics::scrape, page::index,
    ),
    components(schemas(Problem, events::SessionEvent, events::Change, events::Gone, events::Lagged)),
    modifiers(&Common)
)]
pub(super) struct Api;

/// What every call has in common: the token, and problems.
struct Common;

impl Modify for Common {
    fn modify(&self, document: &mut Document) {
        document.info.version = crate::telemetry::VERSION.to_owned();
        let components = document.components.get_or_insert_default();
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("token", bearer);
        // Where no token is configured, none is asked for.
        let anyone = SecurityRequirement::default();
        document.security = Some(vec![SecurityRequirement::new::<_, [&str; 0], &str>("token", []), anyone]);
        for item in document.paths.paths.values_mut() {
            let calls = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
            for call in calls.into_iter().flatten() {
                let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
                let problem = ResponseBuilder::new().description("a problem; nothing was changed");
                let problem = problem.content("application/problem+json", content).build();
                call.responses.responses.insert("default".to_owned(), RefOr::T(problem));
            }
        }
    }
}

pub(super) async fn document() -> Json<Document> {
    Json(Api::openapi())
}
