//! Kept notifications.

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::get;

use super::extract::{Query, ops};
use super::operation::{Operation, ResponseBody, schema_of};
use crate::http::HttpState;
use crate::ops::api::{ListNotificationsParams, NotificationPage, Problem};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::read(
            Method::GET,
            "/notifications",
            "listNotifications",
            "List the notifications that were received and are kept, oldest first, with their bodies as they came",
            ResponseBody::Json(200, schema_of::<NotificationPage>),
            get(list),
        )
        .query::<ListNotificationsParams>(),
    ]
}

async fn list(
    State(shared): State<HttpState>,
    Query(params): Query<ListNotificationsParams>,
) -> Result<Json<NotificationPage>, Problem> {
    Ok(Json(ops(&shared)?.notifications(&params).await?))
}
