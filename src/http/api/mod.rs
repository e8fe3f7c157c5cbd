//! `/api/v1`: what operators see and do, described by OpenAPI.
//!
//! One table says of each operation where it is, what it takes and gives, and who handles it: the routes and
//! the description both come from it.

mod dead_letters;
mod decisions;
mod episodes;
mod extract;
mod inventory;
mod openapi;
mod pauses;
mod problem;

use axum::Router;
use axum::http::Method;
use axum::routing::{MethodRouter, delete, get, post};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::HttpState;
pub(crate) use inventory::ConfigurationStatus;
pub(crate) use openapi::document;
pub(crate) use problem::Problem;

/// Makes the schema of a type.
type SchemaFn = fn(&mut SchemaGenerator) -> Schema;

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// What an operation gives.
enum ResponseBody {
    /// JSON.
    Json(u16, SchemaFn),
    /// Server-sent events whose data is JSON.
    Stream(SchemaFn),
    /// Nothing.
    Empty,
}

/// An operation of the API.
struct Operation {
    method: Method,
    /// Below `/api/v1`, in OpenAPI's and axum's form, which are the same.
    path: &'static str,
    /// The operation's name for generated clients.
    id: &'static str,
    summary: &'static str,
    query: Option<SchemaFn>,
    body: Option<SchemaFn>,
    response: ResponseBody,
    handler: MethodRouter<HttpState>,
}

impl Operation {
    fn new(
        method: Method,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        response: ResponseBody,
        handler: MethodRouter<HttpState>,
    ) -> Self {
        Self { method, path, id, summary, query: None, body: None, response, handler }
    }

    fn query<T: JsonSchema>(self) -> Self {
        Self { query: Some(schema_of::<T>), ..self }
    }

    fn body<T: JsonSchema>(self) -> Self {
        Self { body: Some(schema_of::<T>), ..self }
    }
}

/// A notification in Alertmanager's format; unknown fields are let through.
#[derive(JsonSchema)]
#[schemars(rename = "AlertmanagerNotification")]
#[expect(dead_code, reason = "the type is described, and never built")]
struct NotificationBody {
    /// Always "4".
    version: String,
    /// The alerts, each with status, labels, annotations, startsAt, endsAt, generatorURL and fingerprint.
    alerts: Vec<serde_json::Map<String, serde_json::Value>>,
}

fn operations() -> Vec<Operation> {
    use ResponseBody::{Empty, Json, Stream};
    use dead_letters::{
        Actor, BulkDiscard, BulkRedrive, BulkResult, DeadLetterPage, DeadLetterView, RedriveOptions,
    };
    use decisions::{DecisionPage, ExplainParams};
    use episodes::{EpisodePage, EventView};
    use inventory::{DestinationView, RuleView, SourceView, Status};
    use pauses::{NewPause, PauseView};

    use crate::bridge::Explanation;
    use crate::bridge::decision_view::DecisionView;

    let op = Operation::new;
    vec![
        op(
            Method::GET,
            "/status",
            "getStatus",
            "How the bridge stands",
            Json(200, schema_of::<Status>),
            get(inventory::status),
        ),
        op(
            Method::GET,
            "/rules",
            "listRules",
            "The rules in their order",
            Json(200, schema_of::<Vec<RuleView>>),
            get(inventory::rules),
        ),
        op(
            Method::GET,
            "/sources",
            "listSources",
            "Who may send",
            Json(200, schema_of::<Vec<SourceView>>),
            get(inventory::sources),
        ),
        op(
            Method::GET,
            "/destinations",
            "listDestinations",
            "Where events go, and what waits there",
            Json(200, schema_of::<Vec<DestinationView>>),
            get(inventory::destinations),
        ),
        op(
            Method::GET,
            "/decisions",
            "listDecisions",
            "Why it did or did not scale: decisions, newest first",
            Json(200, schema_of::<DecisionPage>),
            get(decisions::list),
        )
        .query::<decisions::ListDecisionsParams>(),
        op(
            Method::GET,
            "/decisions/stream",
            "streamDecisions",
            "Decisions as they are made, as server-sent events",
            Stream(schema_of::<DecisionView>),
            get(decisions::stream),
        )
        .query::<decisions::ListDecisionsParams>(),
        op(
            Method::POST,
            "/explain",
            "explain",
            "What would be decided about a notification now; nothing is written",
            Json(200, schema_of::<Explanation>),
            post(decisions::explain),
        )
        .query::<ExplainParams>()
        .body::<NotificationBody>(),
        op(
            Method::GET,
            "/events/{id}",
            "getEvent",
            "An event with its deliveries",
            Json(200, schema_of::<EventView>),
            get(episodes::event),
        ),
        op(
            Method::GET,
            "/episodes",
            "listEpisodes",
            "What is open, and what waits",
            Json(200, schema_of::<EpisodePage>),
            get(episodes::episodes),
        )
        .query::<episodes::ListEpisodesParams>(),
        op(
            Method::GET,
            "/dead-letters",
            "listDeadLetters",
            "Deliveries that were given up, oldest first",
            Json(200, schema_of::<DeadLetterPage>),
            get(dead_letters::list),
        )
        .query::<dead_letters::ListDeadLettersParams>(),
        op(
            Method::POST,
            "/dead-letters/redrive",
            "redriveDeadLetters",
            "Send many once more",
            Json(200, schema_of::<BulkResult>),
            post(dead_letters::redrive_selected),
        )
        .body::<BulkRedrive>(),
        op(
            Method::POST,
            "/dead-letters/discard",
            "discardDeadLetters",
            "Throw many away",
            Json(200, schema_of::<BulkResult>),
            post(dead_letters::discard_selected),
        )
        .body::<BulkDiscard>(),
        op(
            Method::GET,
            "/dead-letters/{id}",
            "getDeadLetter",
            "One with its event",
            Json(200, schema_of::<DeadLetterView>),
            get(dead_letters::show),
        ),
        op(
            Method::DELETE,
            "/dead-letters/{id}",
            "discardDeadLetter",
            "Throw one away",
            Empty,
            delete(dead_letters::discard),
        )
        .query::<Actor>(),
        op(
            Method::POST,
            "/dead-letters/{id}/redrive",
            "redriveDeadLetter",
            "Send one once more",
            Empty,
            post(dead_letters::redrive),
        )
        .body::<RedriveOptions>(),
        op(
            Method::GET,
            "/pauses",
            "listPauses",
            "What people have stopped",
            Json(200, schema_of::<Vec<PauseView>>),
            get(pauses::list),
        ),
        op(
            Method::POST,
            "/pauses",
            "createPause",
            "Stop actions",
            Json(201, schema_of::<PauseView>),
            post(pauses::create),
        )
        .body::<NewPause>(),
        op(
            Method::DELETE,
            "/pauses/{id}",
            "endPause",
            "Let them go on",
            Json(200, schema_of::<PauseView>),
            delete(pauses::end),
        )
        .query::<Actor>(),
    ]
}

/// The routes below `/api/v1`.
pub(crate) fn routes() -> Router<HttpState> {
    operations()
        .into_iter()
        .fold(Router::new(), |router, operation| router.route(operation.path, operation.handler))
}
