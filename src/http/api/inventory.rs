//! The configured rules, sources and destinations.

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::get;

use super::extract::ops;
use super::operation::{Operation, ResponseBody, schema_of};
use crate::http::HttpState;
use crate::ops::api::{DestinationView, Problem, RuleView, SourceView};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::read(
            Method::GET,
            "/rules",
            "listRules",
            "List rules in evaluation order",
            ResponseBody::Json(200, schema_of::<Vec<RuleView>>),
            get(rules),
        ),
        Operation::read(
            Method::GET,
            "/sources",
            "listSources",
            "List sources",
            ResponseBody::Json(200, schema_of::<Vec<SourceView>>),
            get(sources),
        ),
        Operation::read(
            Method::GET,
            "/destinations",
            "listDestinations",
            "List destinations with their backlog",
            ResponseBody::Json(200, schema_of::<Vec<DestinationView>>),
            get(destinations),
        ),
    ]
}

async fn rules(State(shared): State<HttpState>) -> Result<Json<Vec<RuleView>>, Problem> {
    Ok(Json(ops(&shared)?.rules()))
}

async fn sources(State(shared): State<HttpState>) -> Result<Json<Vec<SourceView>>, Problem> {
    Ok(Json(ops(&shared)?.sources()))
}

async fn destinations(State(shared): State<HttpState>) -> Result<Json<Vec<DestinationView>>, Problem> {
    Ok(Json(ops(&shared)?.destinations()))
}
