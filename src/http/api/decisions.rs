//! Decisions: query, stream and explain.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::{get, post};
use futures_core::Stream;
use schemars::JsonSchema;
use tokio::sync::mpsc;

use super::extract::{Query, json_body, ops, services};
use super::operation::{Operation, ResponseBody, schema_of};
use super::problem;
use crate::http::HttpState;
use crate::ops::api::{DecisionPage, DecisionView, ExplainParams, Explanation, ListDecisionsParams, Problem};

/// Events buffered for a stream whose reader is slow.
const STREAM_BUFFER_EVENTS: usize = 64;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::read(
            Method::GET,
            "/decisions",
            "listDecisions",
            "List decisions, newest first",
            ResponseBody::Json(200, schema_of::<DecisionPage>),
            get(list),
        )
        .query::<ListDecisionsParams>(),
        Operation::read(
            Method::GET,
            "/decisions/stream",
            "streamDecisions",
            "Stream decisions as server-sent events",
            ResponseBody::Stream(schema_of::<DecisionView>),
            get(stream),
        )
        .query::<ListDecisionsParams>(),
        Operation::read(
            Method::POST,
            "/explain",
            "explain",
            "Explain how a notification would be processed now; nothing is written",
            ResponseBody::Json(200, schema_of::<Explanation>),
            post(explain),
        )
        .query::<ExplainParams>()
        .body::<NotificationBody>(),
    ]
}

/// A notification in Alertmanager's format; unknown fields are ignored. Those of other kinds of sources are accepted, too.
#[derive(JsonSchema)]
#[schemars(rename = "AlertmanagerNotification")]
#[expect(dead_code, reason = "used only for its schema")]
struct NotificationBody {
    /// Always "4".
    version: String,
    /// The alerts, each with status, labels, annotations, startsAt, endsAt, generatorURL and fingerprint.
    alerts: Vec<serde_json::Map<String, serde_json::Value>>,
}

async fn list(
    State(shared): State<HttpState>,
    Query(params): Query<ListDecisionsParams>,
) -> Result<Json<DecisionPage>, Problem> {
    Ok(Json(ops(&shared)?.decisions(&params).await?))
}

/// Sends each new decision as a server-sent event. A reader that reconnects with `Last-Event-ID` resumes after it.
async fn stream(
    State(shared): State<HttpState>,
    Query(params): Query<ListDecisionsParams>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let ops = ops(&shared)?;
    let last_event_id = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let permit = shared.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| problem::unavailable("too many concurrent streams; close one"))?;
    let mut feed = ops.follow_decisions(&params, last_event_id).await?;
    let (sender, receiver) = mpsc::channel(STREAM_BUFFER_EVENTS);
    let lifecycle = shared.lifecycle.clone();
    tokio::spawn(async move {
        let _permit = permit;
        loop {
            let found = tokio::select! {
                () = sender.closed() => return,
                () = lifecycle.stopping() => return,
                found = feed.next() => found,
            };
            let Some(found) = found else { return };
            for decision in found {
                let data = serde_json::to_string(&decision).unwrap_or_default();
                let event = Event::default().id(decision.id).event("decision").data(data);
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(Sse::new(EventStream(receiver)).keep_alive(KeepAlive::default()))
}

struct EventStream(mpsc::Receiver<Event>);

impl Stream for EventStream {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|event| event.map(Ok))
    }
}

async fn explain(
    State(shared): State<HttpState>,
    Query(params): Query<ExplainParams>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Explanation>, Problem> {
    let services = services(&shared)?;
    let max_bytes = services.settings.load().server.max_body_bytes;
    let received = json_body(&shared, &headers, body, max_bytes).await?;
    Ok(Json(services.ops.explain(&params, &received.bytes).await?))
}
