//! Rejections: the error response to the sender. The cause is logged separately, where the error is handled.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::domain::control::GapCause;
use crate::intake::{IntakeError, RefusalReason};

/// A response other than 200. Alertmanager does not retry a 4xx, 429 included, and retries a 5xx; so a 4xx is
/// returned only for requests that can never be accepted, and 503 for any transient condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rejection {
    status: StatusCode,
    message: String,
    cause: GapCause,
    /// `WWW-Authenticate` of a 401.
    challenge: Option<&'static str>,
    /// Whether it has a line of its own in the log.
    has_log_line: bool,
}

#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
}

impl Rejection {
    /// A permanent rejection.
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            cause: GapCause::Refused,
            challenge: None,
            has_log_line: true,
        }
    }

    /// A transient rejection: 503 with `Retry-After: 1`.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// The same, with another cause of the reception gap that a refused notification leaves.
    pub(super) fn caused_by(self, cause: GapCause) -> Self {
        Self { cause, ..self }
    }

    /// The same, with the credentials that the sender can present.
    pub(super) fn with_challenge(self, challenge: &'static str) -> Self {
        Self { challenge: Some(challenge), ..self }
    }

    /// The same, already counted and logged, together with others of its kind.
    pub(super) fn without_log_line(self) -> Self {
        Self { has_log_line: false, ..self }
    }

    pub(super) fn has_log_line(&self) -> bool {
        self.has_log_line
    }

    /// The cause of the reception gap, if a notification of a known source is refused.
    pub(super) fn cause(&self) -> GapCause {
        self.cause
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The text that the sender receives.
    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

impl From<IntakeError> for Rejection {
    fn from(IntakeError { reason, message, cause }: IntakeError) -> Self {
        let status = match reason {
            RefusalReason::Malformed => StatusCode::BAD_REQUEST,
            RefusalReason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            RefusalReason::Unavailable | RefusalReason::UnreadableState => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, message).caused_by(cause)
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(Body { error: &self.message })).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}
