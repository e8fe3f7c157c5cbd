//! Episodes: those that are open, and closed ones with a deferred action.

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::get;

use super::extract::{Query, ops};
use super::operation::{Operation, ResponseBody, schema_of};
use crate::http::HttpState;
use crate::ops::api::{EpisodePage, ListEpisodesParams, Problem};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::read(
            Method::GET,
            "/episodes",
            "listEpisodes",
            "List open episodes, and closed ones whose action has not ended or whose rule owes a decrease",
            ResponseBody::Json(200, schema_of::<EpisodePage>),
            get(list),
        )
        .query::<ListEpisodesParams>(),
    ]
}

async fn list(
    State(shared): State<HttpState>,
    Query(params): Query<ListEpisodesParams>,
) -> Result<Json<EpisodePage>, Problem> {
    Ok(Json(ops(&shared)?.episodes(&params).await?))
}
