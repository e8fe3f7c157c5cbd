//! The operator API under `/api/v1`, described by OpenAPI.
//!
//! Each resource lists its operations with path, parameters, response and handler; both the routes and the OpenAPI
//! document are built from that list.

mod audit;
mod dead_letters;
mod decisions;
mod episodes;
mod events;
mod extract;
mod forgive;
mod inventory;
mod notifications;
mod openapi;
mod operation;
mod pauses;
pub(super) mod problem;
pub(super) mod reload;
mod status;
mod targets;
mod unreadable_states;

use axum::Router;

use super::HttpState;
pub(crate) use openapi::document;
use operation::Operation;

/// All operations, in the order of the OpenAPI document.
fn operations() -> Vec<Operation> {
    let resources = [
        status::operations(),
        inventory::operations(),
        decisions::operations(),
        events::operations(),
        notifications::operations(),
        episodes::operations(),
        targets::operations(),
        dead_letters::operations(),
        forgive::operations(),
        pauses::operations(),
        unreadable_states::operations(),
        audit::operations(),
    ];
    resources.into_iter().flatten().collect()
}

/// The routes, relative to `/api/v1`.
pub(crate) fn routes() -> Router<HttpState> {
    operations()
        .into_iter()
        .fold(Router::new(), |router, operation| router.route(operation.path, operation.handler))
}
