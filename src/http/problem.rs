//! Error responses of the API: constructors of problem details, and the statuses of errors.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::ops::api::Problem;
use crate::ops::{Error, ReloadError};
use crate::store;

pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
    Problem {
        kind: "about:blank".into(),
        title: status.canonical_reason().unwrap_or("Error").to_owned(),
        status: status.as_u16(),
        detail: detail.into(),
        errors: Vec::new(),
    }
}

pub(crate) fn bad_request(detail: impl Into<String>) -> Problem {
    new(StatusCode::BAD_REQUEST, detail)
}

pub(crate) fn not_found(detail: impl Into<String>) -> Problem {
    new(StatusCode::NOT_FOUND, detail)
}

/// A transient error: 503 with `Retry-After: 1`.
pub(crate) fn unavailable(detail: impl Into<String>) -> Problem {
    new(StatusCode::SERVICE_UNAVAILABLE, detail)
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(detail) => bad_request(detail),
            Error::NotFound(detail) => not_found(detail),
            Error::Conflict(detail) => new(StatusCode::CONFLICT, detail),
            Error::Store(error) => {
                tracing::error!(%error, "admin request failed in the store");
                match error {
                    // Lasts until an operator gives the state up, so the text says how.
                    store::Error::Unreadable(states) => unavailable(states.to_string()),
                    _ => unavailable("store unavailable, retry; the cause is in the log of scalebridge"),
                }
            }
        }
    }
}

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Self {
        match error {
            ReloadError::Invalid(errors) => {
                let detail = "invalid configuration; the running one stays active";
                Self { errors, ..new(StatusCode::UNPROCESSABLE_ENTITY, detail) }
            }
            ReloadError::Failed(reason) => unavailable(reason),
            ReloadError::Unavailable => unavailable("scalebridge is starting or stopping"),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&self).unwrap_or_default();
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
