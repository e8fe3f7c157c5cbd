//! `/api/v1`: what operators see and do, described by OpenAPI.
//!
//! One table says of each operation where it is, what it takes and gives, and who handles it: the routes and
//! the description both come from it.

mod ask;
mod decisions;
mod letters;
mod openapi;
mod pauses;
mod problem;
mod standing;
mod things;

use axum::Router;
use axum::http::Method;
use axum::routing::{MethodRouter, delete, get, post};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::Shared;
pub use openapi::document;
pub use problem::Problem;
pub use standing::Configuration;

/// Makes the schema of a type.
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// What an operation gives.
enum Gives {
    /// JSON.
    Json(u16, SchemaOf),
    /// Server-sent events whose data is JSON.
    Stream(SchemaOf),
    /// Nothing.
    Nothing,
}

/// An operation of the API.
struct Operation {
    method: Method,
    /// Below `/api/v1`, in OpenAPI's and axum's form, which are the same.
    path: &'static str,
    /// The operation's name for generated clients.
    id: &'static str,
    summary: &'static str,
    query: Option<SchemaOf>,
    body: Option<SchemaOf>,
    gives: Gives,
    handler: MethodRouter<Shared>,
}

impl Operation {
    fn new(
        method: Method,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        gives: Gives,
        handler: MethodRouter<Shared>,
    ) -> Self {
        Self { method, path, id, summary, query: None, body: None, gives, handler }
    }

    fn query<T: JsonSchema>(self) -> Self {
        Self { query: Some(of::<T>), ..self }
    }

    fn body<T: JsonSchema>(self) -> Self {
        Self { body: Some(of::<T>), ..self }
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
    use Gives::{Json, Nothing, Stream};
    use decisions::{AskSource, Decisions};
    use letters::{ApiLetter, DiscardThose, Done, HowToRedrive, Letters, RedriveThose, Who};
    use pauses::{ApiPause, NewPause};
    use standing::{ApiDestination, ApiRule, ApiSource, Status};
    use things::{ApiEvent, Episodes};

    use crate::bridge::Explanation;
    use crate::bridge::told::Told;

    let op = Operation::new;
    vec![
        op(
            Method::GET,
            "/status",
            "getStatus",
            "How the bridge stands",
            Json(200, of::<Status>),
            get(standing::status),
        ),
        op(
            Method::GET,
            "/rules",
            "listRules",
            "The rules in their order",
            Json(200, of::<Vec<ApiRule>>),
            get(standing::rules),
        ),
        op(
            Method::GET,
            "/sources",
            "listSources",
            "Who may send",
            Json(200, of::<Vec<ApiSource>>),
            get(standing::sources),
        ),
        op(
            Method::GET,
            "/destinations",
            "listDestinations",
            "Where events go, and what waits there",
            Json(200, of::<Vec<ApiDestination>>),
            get(standing::destinations),
        ),
        op(
            Method::GET,
            "/decisions",
            "listDecisions",
            "Why it did or did not scale: decisions, newest first",
            Json(200, of::<Decisions>),
            get(decisions::list),
        )
        .query::<decisions::Ask>(),
        op(
            Method::GET,
            "/decisions/stream",
            "streamDecisions",
            "Decisions as they are made, as server-sent events",
            Stream(of::<Told>),
            get(decisions::stream),
        )
        .query::<decisions::Ask>(),
        op(
            Method::POST,
            "/explain",
            "explain",
            "What would be decided about a notification now; nothing is written",
            Json(200, of::<Explanation>),
            post(decisions::explain),
        )
        .query::<AskSource>()
        .body::<NotificationBody>(),
        op(
            Method::GET,
            "/events/{id}",
            "getEvent",
            "An event with its deliveries",
            Json(200, of::<ApiEvent>),
            get(things::event),
        ),
        op(
            Method::GET,
            "/episodes",
            "listEpisodes",
            "What is open, and what waits",
            Json(200, of::<Episodes>),
            get(things::episodes),
        )
        .query::<things::Ask>(),
        op(
            Method::GET,
            "/dead-letters",
            "listDeadLetters",
            "Deliveries that were given up, oldest first",
            Json(200, of::<Letters>),
            get(letters::list),
        )
        .query::<letters::Ask>(),
        op(
            Method::POST,
            "/dead-letters/redrive",
            "redriveDeadLetters",
            "Send many once more",
            Json(200, of::<Done>),
            post(letters::redrive_those),
        )
        .body::<RedriveThose>(),
        op(
            Method::POST,
            "/dead-letters/discard",
            "discardDeadLetters",
            "Throw many away",
            Json(200, of::<Done>),
            post(letters::discard_those),
        )
        .body::<DiscardThose>(),
        op(
            Method::GET,
            "/dead-letters/{id}",
            "getDeadLetter",
            "One with its event",
            Json(200, of::<ApiLetter>),
            get(letters::show),
        ),
        op(
            Method::DELETE,
            "/dead-letters/{id}",
            "discardDeadLetter",
            "Throw one away",
            Nothing,
            delete(letters::discard),
        )
        .query::<Who>(),
        op(
            Method::POST,
            "/dead-letters/{id}/redrive",
            "redriveDeadLetter",
            "Send one once more",
            Nothing,
            post(letters::redrive),
        )
        .body::<HowToRedrive>(),
        op(
            Method::GET,
            "/pauses",
            "listPauses",
            "What people have stopped",
            Json(200, of::<Vec<ApiPause>>),
            get(pauses::list),
        ),
        op(
            Method::POST,
            "/pauses",
            "createPause",
            "Stop actions",
            Json(201, of::<ApiPause>),
            post(pauses::create),
        )
        .body::<NewPause>(),
        op(
            Method::DELETE,
            "/pauses/{id}",
            "endPause",
            "Let them go on",
            Json(200, of::<ApiPause>),
            delete(pauses::end),
        )
        .query::<Who>(),
    ]
}

/// The routes below `/api/v1`.
pub fn routes() -> Router<Shared> {
    operations()
        .into_iter()
        .fold(Router::new(), |router, operation| router.route(operation.path, operation.handler))
}
