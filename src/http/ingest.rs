//! The webhook: `POST /webhook/{source}`.

use std::collections::BTreeMap;
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;

use super::auth::RefusedSender;
use super::error::Rejection;
use super::{HttpState, Services, body, transport};
use crate::bridge::SourceHandle;
use crate::credentials::Presented;
use crate::domain::control::GapCause;
use crate::domain::name::Name;
use crate::domain::summary::Summary;
use crate::ops::LifecyclePhase;
use crate::sources::ParseError;
use crate::store::{self, KeptNotification, NotificationLimits};

/// A larger body is parsed and compressed on a blocking thread.
const MAX_INLINE_PARSE_BYTES: usize = 256 * 1024;

/// `{"alerts":3,"events":1,"verdicts":{"emitted":3}}`.
#[derive(Serialize)]
struct WebhookResponse {
    alerts: usize,
    events: u64,
    verdicts: BTreeMap<&'static str, u64>,
}

impl From<Summary> for WebhookResponse {
    fn from(summary: Summary) -> Self {
        let verdicts = summary.verdicts.into_iter().map(|(verdict, count)| (verdict.as_str(), count));
        Self { alerts: summary.alerts, events: summary.events, verdicts: verdicts.collect() }
    }
}

/// Processes a notification. The 200 is sent after the commit.
pub(super) async fn webhook(
    State(shared): State<HttpState>,
    source: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    // A path segment that is not valid UTF-8 is an unknown source.
    let source = source.map_or_else(|_| String::new(), |Path(source)| source);
    let known = shared.services.get().is_some_and(|services| services.bridge.source(&source).is_some());
    let (parts, mut body) = request.into_parts();
    let result = accept(&shared, &source, transport::presented(&parts), &mut body).await;
    let code = result.as_ref().map_or_else(Rejection::status, |_| StatusCode::OK);
    // Only configured names become label values, which bounds the cardinality.
    shared.metrics.record_notification(if known { &source } else { "" }, 1, code.as_u16());
    match result {
        Ok(result) => Json(result).into_response(),
        Err(rejection) => {
            let (source, code) = (if known { source.as_str() } else { "?" }, code.as_u16());
            if is_logged_by_change(&shared, rejection.cause()) {
                tracing::debug!(source, code, reason = rejection.message(), "notification rejected");
            } else if rejection.has_log_line() {
                let kind = (source.to_owned(), code, rejection.cause().as_str());
                if let Some(count) = shared.limits.lines.rejections.count_to_log(kind, Instant::now()) {
                    tracing::warn!(
                        source,
                        code,
                        reason = rejection.message(),
                        count,
                        "notification rejected"
                    );
                }
            }
            rejection.into_response()
        }
    }
}

/// Whether one line says when this cause begins and one when it ends, instead of one for each request: see
/// `store/health.rs` and `app/readiness.rs`.
fn is_logged_by_change(shared: &HttpState, cause: GapCause) -> bool {
    match cause {
        GapCause::Backlog => true,
        GapCause::Store => shared.services.get().is_some_and(|services| services.store.outage().is_some()),
        _ => false,
    }
}

async fn accept(
    shared: &HttpState,
    source: &str,
    presented: Presented<'_>,
    body: &mut Body,
) -> Result<WebhookResponse, Rejection> {
    let services = match (shared.lifecycle.phase(), shared.services.get()) {
        (LifecyclePhase::Ready, Some(services)) => services,
        (LifecyclePhase::Stopping, _) => return Err(Rejection::unavailable("scalebridge is stopping")),
        _ => return Err(Rejection::unavailable("scalebridge is starting")),
    };
    let headers = presented.headers;
    shared.access.check_sender(headers)?;
    let Some(handle) = services.bridge.source(source) else {
        let text = "unknown source; the last part of the path must be the name of a configured source";
        return Err(Rejection::new(StatusCode::NOT_FOUND, text));
    };
    let checked = shared.access.check_source(&handle.source().name, presented).await;
    if let Err(RefusedSender { rejection, leaves_gap }) = checked {
        if leaves_gap {
            services.bridge.receive(&handle.source().name).refuse(rejection.cause());
        }
        return Err(rejection);
    }
    // From here on, an answer other than 200 is a reception gap of the source. Those before are not: while the bridge
    // starts or stops, all sources have one.
    let reception = services.bridge.receive(&handle.source().name);
    let received = receive(shared, services, &handle, headers, body).await;
    match &received {
        Ok(_) => reception.accept(),
        Err(rejection) => reception.refuse(rejection.cause()),
    }
    received
}

/// Receives a notification of a known source.
async fn receive(
    shared: &HttpState,
    services: &Services,
    handle: &SourceHandle,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<WebhookResponse, Rejection> {
    let settings = services.settings.load_full();
    let Some(kind) = settings.source_kinds.get(&handle.source().name).copied() else {
        return Err(Rejection::unavailable("the configuration is being reloaded, retry"));
    };
    // Checked in memory, before the body is read.
    if services.store.undelivered() >= settings.max_backlog {
        let rejection = Rejection::unavailable("too many unsettled deliveries (delivery.max_backlog)");
        return Err(rejection.caused_by(GapCause::Backlog));
    }
    let received = body::receive(&shared.limits, headers, body).await?;
    // Taken after the body has arrived: slow senders would otherwise keep the other sources out.
    let _permit = shared.limits.requests.try_acquire();
    let _permit =
        _permit.map_err(|_| Rejection::unavailable("too many requests in flight (server.max_in_flight)"))?;
    let parsed = if received.bytes.len() > MAX_INLINE_PARSE_BYTES {
        let bytes = received.bytes.clone();
        let parsing = tokio::task::spawn_blocking(move || kind.parse(&bytes));
        parsing.await.map_err(|_| Rejection::unavailable("parsing the body was interrupted"))?
    } else {
        kind.parse(&received.bytes)
    };
    let notification = parsed.map_err(|error| {
        let status = match error {
            ParseError::TooManyAlerts(_) => StatusCode::PAYLOAD_TOO_LARGE,
            ParseError::Format(_) => StatusCode::BAD_REQUEST,
        };
        Rejection::new(status, error.to_string())
    })?;
    let retention = settings.retention;
    let limits =
        NotificationLimits { max_age: retention.notifications, max_bytes: retention.notifications_bytes };
    let kept = keep(&handle.source().name, received.bytes, limits).await?;
    let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok());
    let summary = services.bridge.ingest_and_keep(handle, notification, traceparent, kept).await;
    let summary = summary.map_err(store_unavailable)?;
    tracing::debug!(
        source = %handle.source().name,
        alerts = summary.alerts,
        events = summary.events,
        verdicts = %verdicts(&summary),
        "notification processed"
    );
    Ok(summary.into())
}

/// Compresses a body that is to be kept: here, since the thread of the store is the bottleneck.
async fn keep(
    source: &Name,
    body: Bytes,
    limits: NotificationLimits,
) -> Result<Option<KeptNotification>, Rejection> {
    if limits.is_enabled() && body.len() > MAX_INLINE_PARSE_BYTES {
        let source = source.clone();
        let kept = tokio::task::spawn_blocking(move || KeptNotification::new(&source, &body, limits));
        return kept.await.map_err(|_| Rejection::unavailable("compressing the body was interrupted"));
    }
    Ok(KeptNotification::new(source, &body, limits))
}

fn verdicts(summary: &Summary) -> String {
    let list: Vec<String> =
        summary.verdicts.iter().map(|(verdict, count)| format!("{verdict}={count}")).collect();
    list.join(" ")
}

fn store_unavailable(error: store::Error) -> Rejection {
    let rejection = match error {
        // Its other alerts are committed.
        store::Error::Unreadable(states) => Rejection::unavailable(states.to_string()),
        error => {
            tracing::debug!(%error, "storing notification failed");
            Rejection::unavailable("store unavailable, retry")
        }
    };
    rejection.caused_by(GapCause::Store)
}
