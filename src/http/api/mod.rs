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
pub(super) mod reload;
mod status;
mod targets;
mod unreadable_states;

use super::auth::Routes;
use super::problem;
pub(crate) use openapi::document;
use operation::Operation;

/// What precedes the paths of operations.
const PREFIX: &str = "/api/v1";

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

/// Adds all operations to the routes of the admin listener.
pub(super) fn add_routes(routes: Routes) -> Routes {
    let add = |routes: Routes, operation: Operation| {
        routes.scoped(operation.scope, &format!("{PREFIX}{}", operation.path), operation.handler)
    };
    operations().into_iter().fold(routes, add)
}
