//! Extractors: query strings, path parameters and bodies; unknown keys are errors.

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use super::problem;
use crate::http::auth::Caller;
use crate::http::body::{self, ReceivedBody};
use crate::http::{HttpState, Services};
use crate::json::Object;
use crate::ops::api::{InitiatorParams, Problem};
use crate::ops::{Initiator, Ops};

/// Maximum size of a request body other than a notification.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// A query string; an unknown key is an error if `T` denies unknown fields.
pub(super) struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<HttpState> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &HttpState) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let read = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        let read = read.map_err(|error| problem::bad_request(format!("invalid query `{query}`: {error}")));
        read.map(|axum::extract::Query(read)| Self(read))
    }
}

/// The path parameter `{id}`.
pub(super) struct Id(pub String);

impl FromRequestParts<HttpState> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Problem> {
        let read = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        read.map(|axum::extract::Path(id)| Self(id)).map_err(|error| problem::bad_request(error.to_string()))
    }
}

/// A JSON body; an unknown key is an error if `T` denies unknown fields.
///
/// The content type must be JSON: a browser sends that to another origin only after a CORS preflight, which fails, so
/// no web page can make a browser change anything here.
pub(super) struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<HttpState> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, shared: &HttpState) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let received = json_body(shared, &parts.headers, body, MAX_BODY_BYTES).await?;
        let text = std::str::from_utf8(&received.bytes);
        let text = text.map_err(|error| problem::bad_request(format!("the body is not UTF-8: {error}")))?;
        let read = serde_json::from_str(text);
        read.map(|Object(read)| Self(read))
            .map_err(|error| problem::bad_request(format!("invalid body: {error}")))
    }
}

/// Reads a body whose content type is JSON, with bytes from the budget of the listener.
pub(super) async fn json_body(
    shared: &HttpState,
    headers: &HeaderMap,
    mut body: Body,
    max_bytes: usize,
) -> Result<ReceivedBody, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(problem::new(
            status,
            "unsupported content type; send JSON with `content-type: application/json`",
        ));
    }
    let read = body::read(&mut body, max_bytes, shared.admin_limits.bodies.take_nothing()).await;
    read.map_err(|error| problem::new(error.status(), error.to_string()))
}

pub(super) fn services(shared: &HttpState) -> Result<&Services, Problem> {
    shared.services.get().ok_or_else(|| problem::unavailable("scalebridge is starting"))
}

pub(super) fn ops(shared: &HttpState) -> Result<&Ops, Problem> {
    Ok(&services(shared)?.ops)
}

pub(super) fn initiator(caller: &Caller, params: &InitiatorParams) -> Result<Initiator, Problem> {
    caller.initiator(params.author.as_deref(), params.reason.as_deref())
}
