//! `POST /webhook/{source}`.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::error::Refusal;
use super::{Phase, Shared, body};
use crate::domain::notification::{self, Notification};
use crate::domain::summary::Summary;
use crate::store;

/// A body of more bytes than this is decoded on a thread that may block.
const LARGE: usize = 256 * 1024;

/// `{"alerts":3,"events":1,"verdicts":{"emitted":3}}`.
#[derive(Serialize)]
struct Answer {
    alerts: usize,
    events: u64,
    verdicts: BTreeMap<&'static str, u64>,
}

impl From<Summary> for Answer {
    fn from(summary: Summary) -> Self {
        let verdicts = summary.verdicts.into_iter().map(|(verdict, count)| (verdict.as_str(), count));
        Self { alerts: summary.alerts, events: summary.events, verdicts: verdicts.collect() }
    }
}

/// Takes a notification. The 200 follows the commit.
pub async fn webhook(
    State(shared): State<Shared>,
    source: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    mut body: Body,
) -> Response {
    // What is no text is no name of a source either.
    let source = source.map_or_else(|_| String::new(), |Path(source)| source);
    let known = shared.running.get().is_some_and(|running| running.bridge.source(&source).is_some());
    let answer = take(&shared, &source, &headers, &mut body).await;
    let code = answer.as_ref().map_or_else(Refusal::status, |_| StatusCode::OK);
    // Only names from the configuration become labels.
    shared.metrics.record_notification(if known { &source } else { "" }, code.as_u16());
    match answer {
        Ok(answer) => Json(answer).into_response(),
        Err(refusal) => {
            tracing::warn!(
                source = if known { source.as_str() } else { "?" },
                code = code.as_u16(),
                reason = refusal.message(),
                "refused a notification"
            );
            body::discard(&shared.limits, &mut body).await;
            refusal.into_response()
        }
    }
}

async fn take(
    shared: &Shared,
    source: &str,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Answer, Refusal> {
    let running = match (shared.life.phase(), shared.running.get()) {
        (Phase::Ready, Some(running)) => running,
        (Phase::Stopping, _) => return Err(Refusal::later("scalebridge is stopping")),
        _ => return Err(Refusal::later("scalebridge is starting")),
    };
    let Some(speaker) = running.bridge.source(source) else {
        let text = "there is no source of this name; sources are named in the configuration";
        return Err(Refusal::new(StatusCode::NOT_FOUND, text));
    };
    // Asked of memory, and before a byte of the body is read.
    if running.store.undelivered() >= running.settings.load().max_backlog {
        return Err(Refusal::later("too many deliveries are undelivered (delivery.max_backlog)"));
    }
    let _permit = shared.limits.requests.try_acquire();
    let _permit =
        _permit.map_err(|_| Refusal::later("too many requests in flight (server.max_in_flight)"))?;
    let received = body::receive(&shared.limits, headers, body).await?;
    let parsed = if received.bytes.len() > LARGE {
        let bytes = received.bytes.clone();
        let parsing = tokio::task::spawn_blocking(move || Notification::parse(&bytes));
        parsing.await.map_err(|_| Refusal::later("reading the body was interrupted"))?
    } else {
        Notification::parse(&received.bytes)
    };
    let notification = parsed.map_err(|error| {
        let status = match error {
            notification::Error::TooMany(_) => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        Refusal::new(status, error.to_string())
    })?;
    let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok());
    let summary = running.bridge.ingest(&speaker, notification, traceparent).await.map_err(refuse)?;
    tracing::info!(
        source = %speaker.source().name,
        alerts = summary.alerts,
        events = summary.events,
        verdicts = %verdicts(&summary),
        "decided a notification"
    );
    Ok(summary.into())
}

fn verdicts(summary: &Summary) -> String {
    let list: Vec<String> =
        summary.verdicts.iter().map(|(verdict, count)| format!("{verdict}={count}")).collect();
    list.join(" ")
}

fn refuse(error: store::Error) -> Refusal {
    tracing::error!(%error, "cannot keep a notification");
    Refusal::later("the store cannot keep it now; send it again")
}
