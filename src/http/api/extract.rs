//! What a request asks for: query strings and bodies, read strictly.

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::domain::control::TargetPattern;
use crate::domain::duration;
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::http::{HttpState, Services};
use crate::json::Object;

/// The most bytes of a body of the API, other than a notification.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Items of a page where none is asked for, and at most.
const DEFAULT_PAGE_SIZE: usize = 100;
const MAX_PAGE_SIZE: usize = 1000;

/// A query string in which every key is known.
pub(super) struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<HttpState> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &HttpState) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let read = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        let read = read
            .map_err(|error| Problem::bad_request(format!("the query `{query}` cannot be read: {error}")));
        read.map(|axum::extract::Query(read)| Self(read))
    }
}

/// The last part of a path that names one of many.
pub(super) struct Id(pub String);

impl FromRequestParts<HttpState> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Problem> {
        let read = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        read.map(|axum::extract::Path(id)| Self(id)).map_err(|error| Problem::bad_request(error.to_string()))
    }
}

/// A JSON body in which every key is known.
///
/// Its content type has to be JSON: a browser asks before it sends that to another origin, so no page that
/// somebody visits can change anything here.
pub(super) struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<HttpState> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &HttpState) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = json_bytes(&parts.headers, body, MAX_BODY_BYTES).await?;
        let read = serde_json::from_slice(&bytes);
        read.map(|Object(read)| Self(read))
            .map_err(|error| Problem::bad_request(format!("the body cannot be read: {error}")))
    }
}

/// The bytes of a body whose content type is JSON.
pub(super) async fn json_bytes(
    headers: &HeaderMap,
    body: Body,
    max_bytes: usize,
) -> Result<Vec<u8>, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Problem::new(status, "send JSON, with `content-type: application/json`"));
    }
    let read = to_bytes(body, max_bytes).await;
    let too_large =
        || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {max_bytes} bytes"));
    read.map(Vec::from).map_err(|_| too_large())
}

/// What is there once the bridge runs.
pub(super) fn services(shared: &HttpState) -> Result<&Services, Problem> {
    shared.services.get().ok_or_else(|| Problem::unavailable("scalebridge is starting"))
}

/// A name, if one is given.
pub(super) fn parse_name(key: &str, text: Option<&str>) -> Result<Option<Name>, Problem> {
    let read = |text| Name::new(text).map_err(|error| Problem::bad_request(format!("{key}: {error}")));
    text.map(read).transpose()
}

/// A pattern over keys of targets, if one is given.
pub(super) fn parse_pattern(text: Option<&str>) -> Result<Option<TargetPattern>, Problem> {
    let read = |text| {
        TargetPattern::new(text)
            .ok_or_else(|| Problem::bad_request("target: a pattern of 1 to 4096 bytes is expected"))
    };
    text.map(read).transpose()
}

/// RFC 3339, or a duration before now.
pub(super) fn parse_time(key: &str, text: Option<&str>, now: Time) -> Result<Option<Time>, Problem> {
    let read = |text: &str| match duration::parse(text) {
        Ok(ago) => {
            let nanos = i64::try_from(ago.as_nanos()).unwrap_or(i64::MAX);
            Ok(Time::from_nanos(now.as_nanos().saturating_sub(nanos)))
        }
        Err(_) => Time::parse(text).map_err(|error| {
            Problem::bad_request(format!("{key}: {error}; or write how long ago it was, for example 90m"))
        }),
    };
    text.map(read).transpose()
}

/// How many items a page has.
pub(super) fn page_size(asked: Option<usize>) -> Result<usize, Problem> {
    match asked.unwrap_or(DEFAULT_PAGE_SIZE) {
        limit @ 1..=MAX_PAGE_SIZE => Ok(limit),
        other => Err(Problem::bad_request(format!("limit: {other} is not between 1 and {MAX_PAGE_SIZE}"))),
    }
}
