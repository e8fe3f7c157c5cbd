//! HTTP services, which get each event by POST: a CloudEvent in structured mode, signed by the scheme of Standard Webhooks.
//!
//! The id of the webhook is that of the event, on every attempt: a service that has seen it needs not act again. Redirects
//! are not followed, since an event would change its receiver unnoticed. What a service answers decides: 2xx is delivered,
//! 429 and 5xx are retried, any other 4xx is a dead letter.

pub(super) mod schema;
pub(super) mod settings;

use std::fmt;
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, USER_AGENT};
use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;

use super::{Answer, Class, Destination, Failure, Limits, OutgoingEvent};
use crate::credentials::{OutgoingClient, PostError, PostLimits, Reply, Signer};
pub(super) use settings::Settings;

const CLOUD_EVENT: HeaderValue = HeaderValue::from_static("application/cloudevents+json");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("scalebridge/", env!("CARGO_PKG_VERSION")));

/// The maximum size of a stored answer.
const MAX_ANSWER_BYTES: usize = 4096;

/// An HTTP service with its client.
pub(crate) struct Http {
    client: OutgoingClient,
    signer: Signer,
    url: String,
    timeout: Duration,
    max_event_bytes: usize,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

impl Http {
    /// The first call opens a connection and reads the files.
    pub(crate) fn new(settings: &Settings, timeout: Duration) -> Self {
        let client = OutgoingClient::new(settings.client.clone());
        Self {
            client: if settings.allow_link_local { client } else { client.without_link_local() },
            signer: Signer::new(&settings.signing_key_files),
            url: settings.url.clone(),
            timeout,
            max_event_bytes: settings.max_event_bytes,
        }
    }

    async fn post(&self, event: &OutgoingEvent) -> Result<Reply, PostError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, CLOUD_EVENT);
        headers.insert(USER_AGENT, AGENT);
        if let Ok(traceparent) = HeaderValue::from_str(&event.header.traceparent)
            && !traceparent.is_empty()
        {
            headers.insert("traceparent", traceparent);
        }
        let body = Bytes::copy_from_slice(event.body.as_bytes());
        let signed = self.signer.add_headers(&mut headers, &event.header.id, &body).await;
        signed.map_err(PostError::NotSent)?;
        let limits = PostLimits { max_body_bytes: MAX_ANSWER_BYTES, timeout: self.timeout };
        self.client.post(&self.url, headers, body, limits).await
    }
}

impl Destination for Http {
    fn limits(&self) -> Limits {
        Limits { events: 1, bytes: self.max_event_bytes, max_event_bytes: self.max_event_bytes }
    }

    fn event_bytes(&self, event: &OutgoingEvent) -> usize {
        event.body.len()
    }

    async fn send(&self, batch: &[OutgoingEvent]) -> Result<Vec<Answer>, Failure> {
        let mut answers = Vec::with_capacity(batch.len());
        for event in batch {
            let reply = self.post(event).await.map_err(|error| not_answered(&error))?;
            answers.push(match answer(&reply) {
                // Only this event is rejected.
                Err(failure) if failure.class != Class::Permanent => return Err(failure),
                answer => answer,
            });
        }
        Ok(answers)
    }
}

/// What the answer of a service means.
fn answer(reply: &Reply) -> Answer {
    let status = reply.status;
    let said = excerpt(&reply.body);
    let failure = |class, what: &str| {
        let message =
            if what.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {what}") };
        let answer = said.as_ref().map(|said| said.chars().take(Failure::MAX_CHARS).collect());
        Failure { answer, retry_after: reply.retry_after, ..Failure::new(class, message) }
    };
    Err(match status {
        200..=299 => {
            return Ok(Some(
                said.map_or_else(|| format!("HTTP {status}"), |said| format!("HTTP {status}: {said}")),
            ));
        }
        300..=399 => failure(Class::Misconfigured, "redirects are not followed, configure the final URL"),
        // Too late for the service, not too late for us.
        408 | 425 => failure(Class::Transient, ""),
        429 => failure(Class::Throttled, ""),
        400..=499 => failure(Class::Permanent, ""),
        // It may come from a gateway, after the service has acted.
        _ => failure(Class::Transient, "").with_uncertainty(true),
    })
}

/// The failure of a call without an answer.
fn not_answered(error: &PostError) -> Failure {
    let (class, is_uncertain) = match error {
        PostError::NotSent(_) | PostError::LinkLocal(_) => (Class::Misconfigured, false),
        PostError::NotConnected(_) => (Class::Transient, false),
        PostError::NoAnswer(_) | PostError::TimedOut(_) => (Class::Transient, true),
    };
    Failure::new(class, error.to_string()).with_uncertainty(is_uncertain)
}

/// The beginning of an answer, if it is text.
fn excerpt(body: &[u8]) -> Option<String> {
    // A character may be cut.
    let text = String::from_utf8_lossy(body);
    let text = text.trim_end_matches('\u{fffd}').trim();
    let is_text = !text.is_empty()
        && !text.contains(|c: char| c == '\u{fffd}' || (c.is_control() && !c.is_whitespace()));
    is_text.then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
