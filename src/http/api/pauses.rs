//! Pauses: operators block actions and resume them.

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::routing::{delete, get, post};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::dead_letters::Actor;
use super::extract::{self, Id, Query, parse_name, parse_pattern, services};
use super::operation::{Operation, ResponseBody, schema_of};
use super::problem::Problem;
use crate::bridge::PauseRequest;
use crate::domain::control::Pause;
use crate::domain::direction::Direction;
use crate::domain::duration;
use crate::domain::time::Time;
use crate::http::HttpState;

/// Every decision evaluates all pauses, so their number is limited.
const MAX_PAUSES: usize = 1000;
/// Maximum length of an author and of a reason.
const MAX_TEXT_CHARS: usize = 500;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            Method::GET,
            "/pauses",
            "listPauses",
            "List active pauses",
            ResponseBody::Json(200, schema_of::<Vec<PauseView>>),
            get(list),
        ),
        Operation::new(
            Method::POST,
            "/pauses",
            "createPause",
            "Pause actions",
            ResponseBody::Json(201, schema_of::<PauseView>),
            post(create),
        )
        .body::<NewPause>(),
        Operation::new(
            Method::DELETE,
            "/pauses/{id}",
            "endPause",
            "End a pause; deferred actions are re-evaluated at once",
            ResponseBody::Json(200, schema_of::<PauseView>),
            delete(end),
        )
        .query::<Actor>(),
    ]
}

/// An active pause.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PauseView {
    /// Its number, which identifies it when it is ended.
    id: u64,
    /// Only actions of this rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// Only actions for targets whose key matches this pattern; `*` matches any text.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// Only actions in this direction: `scale_out` or `scale_in`.
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<&'static str>,
    /// When it began, RFC 3339.
    since: String,
    /// When it ends automatically, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    /// Who created it.
    author: String,
    /// The reason, for other operators.
    reason: String,
}

impl From<Pause> for PauseView {
    fn from(pause: Pause) -> Self {
        Self {
            id: pause.id,
            rule: pause.rule.as_ref().map(ToString::to_string),
            target: pause.target.as_ref().map(ToString::to_string),
            direction: pause.direction.map(Direction::as_str),
            since: pause.since.to_millis_string(),
            until: pause.until.map(Time::to_millis_string),
            author: pause.author,
            reason: pause.reason,
        }
    }
}

async fn list(State(shared): State<HttpState>) -> Result<Json<Vec<PauseView>>, Problem> {
    Ok(Json(services(&shared)?.bridge.pauses().into_iter().map(PauseView::from).collect()))
}

/// A new pause. An omitted key does not restrict it: without rule, target and direction all actions are paused.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPause {
    /// Only actions of this rule.
    rule: Option<String>,
    /// Only actions for targets whose key matches this pattern; `*` matches any text.
    target: Option<String>,
    /// Only actions in this direction: `scale_out` or `scale_in`.
    direction: Option<Direction>,
    /// The duration, in Prometheus' format, after which it ends automatically. Default: until it is ended.
    ends_after: Option<String>,
    /// Who creates it.
    author: String,
    /// The reason, for other operators.
    reason: String,
}

fn parse_text(key: &str, text: &str) -> Result<String, Problem> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > MAX_TEXT_CHARS || text.contains(char::is_control) {
        let expected = format!("{key}: expected 1 to {MAX_TEXT_CHARS} characters without control characters");
        return Err(Problem::bad_request(expected));
    }
    Ok(text.to_owned())
}

async fn create(
    State(shared): State<HttpState>,
    extract::Json(new): extract::Json<NewPause>,
) -> Result<(StatusCode, Json<PauseView>), Problem> {
    let services = services(&shared)?;
    let rule = parse_name("rule", new.rule.as_deref())?;
    let settings = services.settings.load();
    if let Some(rule) = rule.as_ref().filter(|rule| settings.rules.rule(rule).is_none()) {
        let known: Vec<&str> = settings.rules.rules().iter().map(|rule| rule.name.as_str()).collect();
        return Err(Problem::not_found(format!("unknown rule `{rule}`; known rules: {}", known.join(", "))));
    }
    let read = |text: &str| {
        duration::parse(text).map_err(|error| Problem::bad_request(format!("ends_after: {error}")))
    };
    let ends_after = new.ends_after.as_deref().map(read).transpose()?;
    if ends_after.is_some_and(|after| after.is_zero()) {
        return Err(Problem::bad_request("ends_after: must be greater than zero"));
    }
    if services.bridge.pauses().len() >= MAX_PAUSES {
        return Err(Problem::conflict(format!(
            "too many pauses ({MAX_PAUSES}); end some, or use one that covers more actions"
        )));
    }
    let request = PauseRequest {
        rule,
        target: parse_pattern(new.target.as_deref())?,
        direction: new.direction,
        ends_after,
        author: parse_text("author", &new.author)?,
        reason: parse_text("reason", &new.reason)?,
    };
    let pause = services.bridge.pause(request).await?;
    Ok((StatusCode::CREATED, Json(pause.into())))
}

async fn end(
    State(shared): State<HttpState>,
    Id(id): Id,
    Query(actor): Query<Actor>,
) -> Result<Json<PauseView>, Problem> {
    let services = services(&shared)?;
    let id: u64 = id.parse().map_err(|_| {
        Problem::bad_request(format!("invalid pause number `{id}`; use the `id` of a pause in the list"))
    })?;
    let ended = services.bridge.resume(id, actor.author.as_deref().unwrap_or_default()).await?;
    let ended =
        ended.ok_or_else(|| Problem::not_found(format!("no active pause {id}; it may have ended")))?;
    Ok(Json(ended.into()))
}
