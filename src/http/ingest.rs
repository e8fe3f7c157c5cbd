//! Notifications: `POST /webhook/{source}`, and `POST /prometheus/{source}/api/v2/alerts`, which differ only in the kinds
//! of sources that they belong to.

use std::collections::BTreeMap;
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::auth::RefusedSender;
use super::body::SentBody;
use super::error::Rejection;
use super::{HttpState, Services, body, transport};
use crate::bridge::SourceHandle;
use crate::config::SourceKind as _;
use crate::credentials::{Check, Presented};
use crate::domain::control::GapCause;
use crate::domain::summary::Summary;
use crate::ops::LifecyclePhase;
use crate::sources::{Endpoint, SourceKind};

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

/// `POST /webhook/{source}`
pub(super) async fn webhook(
    State(shared): State<HttpState>,
    source: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    process(&shared, Endpoint::Webhook, source, request).await
}

/// `POST /prometheus/{source}/api/v2/alerts`
pub(super) async fn prometheus(
    State(shared): State<HttpState>,
    source: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    process(&shared, Endpoint::Prometheus, source, request).await
}

/// Processes a notification. The 200 is sent after the commit.
async fn process(
    shared: &HttpState,
    endpoint: Endpoint,
    source: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    // A path segment that is not valid UTF-8 is an unknown source.
    let source = source.map_or_else(|_| String::new(), |Path(source)| source);
    let known = shared.services.get().is_some_and(|services| services.bridge.source(&source).is_some());
    let (parts, mut body) = request.into_parts();
    let result = accept(shared, endpoint, &source, transport::presented(&parts), &mut body).await;
    let code = result.as_ref().map_or_else(Rejection::status, |_| StatusCode::OK);
    // Only configured names become label values, which bounds the cardinality.
    shared.metrics.record_notification(if known { &source } else { "" }, 1, code.as_u16());
    match result {
        Ok(result) => Json(result).into_response(),
        Err(rejection) => {
            let (source, code) = (if known { source.as_str() } else { "?" }, code.as_u16());
            if is_logged_by_change(shared, rejection.cause()) {
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
    endpoint: Endpoint,
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
        let text = match endpoint {
            Endpoint::Webhook => {
                "unknown source; the last part of the path must be the name of a configured source"
            }
            Endpoint::Prometheus => {
                "unknown source; the part of the path after /prometheus/ must be the name of a configured source"
            }
        };
        return Err(Rejection::new(StatusCode::NOT_FOUND, text));
    };
    if services.settings.load().source_kinds.get(source).is_some_and(SourceKind::is_polled) {
        let text = "the notifications of this source come from its queue; it accepts no requests";
        return Err(Rejection::new(StatusCode::NOT_FOUND, text));
    }
    let refused = |RefusedSender { rejection, leaves_gap }| {
        if leaves_gap {
            services.bridge.receive(&handle.source().name).refuse(rejection.cause());
        }
        rejection
    };
    let checked = shared.access.check_source(&handle.source().name, presented).await;
    let body = match checked.map_err(refused)? {
        Check::Passed => Incoming::NotRead(body),
        Check::Signed(request) => {
            let sent = body::receive_unverified(&shared.limits, headers, body).await.map_err(refused)?;
            let checked = shared.access.check_signature(&handle.source().name, &request, &sent.bytes).await;
            checked.map_err(refused)?;
            Incoming::Read(sent)
        }
    };
    // From here on, an answer other than 200 is a reception gap of the source. Those before are not: while the bridge
    // starts or stops, all sources have one.
    let reception = services.bridge.receive(&handle.source().name);
    let received = receive(shared, services, endpoint, &handle, headers, body).await;
    match &received {
        Ok(_) => reception.accept(),
        Err(rejection) => reception.refuse(rejection.cause()),
    }
    received
}

/// The body of a request whose sender is known.
enum Incoming<'r> {
    /// By its headers.
    NotRead(&'r mut Body),
    /// By the signature of the body.
    Read(SentBody),
}

/// Receives a notification of a known source.
async fn receive(
    shared: &HttpState,
    services: &Services,
    endpoint: Endpoint,
    handle: &SourceHandle,
    headers: &HeaderMap,
    body: Incoming<'_>,
) -> Result<WebhookResponse, Rejection> {
    let settings = services.settings.load_full();
    let Some(kind) = settings.source_kinds.get(&handle.source().name) else {
        return Err(Rejection::unavailable("the configuration is being reloaded, retry"));
    };
    // An error of the configuration, which a repeat would not mend.
    kind.check_endpoint(endpoint).map_err(|text| Rejection::new(StatusCode::BAD_REQUEST, text))?;
    // Before the body is read.
    services.intake.check_backlog(&settings)?;
    let received = match body {
        Incoming::NotRead(body) => body::receive(&shared.limits, headers, body).await?,
        Incoming::Read(sent) => sent.decode(&shared.limits).await?,
    };
    // Taken after the body has arrived: slow senders would otherwise keep the other sources out.
    let _permit = shared.limits.requests.try_acquire();
    let _permit =
        _permit.map_err(|_| Rejection::unavailable("too many requests in flight (server.max_in_flight)"))?;
    let kind = kind.clone();
    let parse = move |body: &[u8], received_at| kind.parse(body, received_at);
    let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok());
    let processed = services.intake.process(&settings, handle, received.bytes, parse, traceparent).await;
    Ok(processed?.into())
}
