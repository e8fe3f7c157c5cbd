//! Pauses: what people stop, and let go on.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::dead_letters::Actor;
use super::extract::{self, Id, Query, parse_name, parse_pattern, services};
use super::problem::Problem;
use crate::bridge::PauseRequest;
use crate::domain::control::Pause;
use crate::domain::direction::Direction;
use crate::domain::duration;
use crate::domain::time::Time;
use crate::http::HttpState;

/// Every decision reads all of them.
const MAX_PAUSES: usize = 1000;
/// Of an author and of a reason.
const MAX_TEXT_CHARS: usize = 500;

/// A pause.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PauseView {
    /// The number by which it is ended.
    id: u64,
    /// Actions of this rule only.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// Actions about targets with this key only; `*` is any text.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// `scale_out` or `scale_in`: actions in this direction only.
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<&'static str>,
    /// Since when, RFC 3339.
    since: String,
    /// When it ends by itself, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    /// Who has set it.
    author: String,
    /// Why.
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

pub(super) async fn list(State(shared): State<HttpState>) -> Result<Json<Vec<PauseView>>, Problem> {
    Ok(Json(services(&shared)?.bridge.pauses().into_iter().map(PauseView::from).collect()))
}

/// What is to be paused. What is not given covers all: without rule, target and direction everything stops.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPause {
    /// Actions of this rule only.
    rule: Option<String>,
    /// Actions about targets with this key only; `*` is any text.
    target: Option<String>,
    /// `scale_out` or `scale_in`: actions in this direction only.
    direction: Option<Direction>,
    /// After this it ends by itself, a Prometheus duration. Without it, it lasts until it is ended.
    ends_after: Option<String>,
    /// Who sets it.
    author: String,
    /// Why.
    reason: String,
}

fn parse_text(key: &str, text: &str) -> Result<String, Problem> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > MAX_TEXT_CHARS || text.contains(char::is_control) {
        let expected =
            format!("{key}: 1 to {MAX_TEXT_CHARS} characters are expected, none of them a control");
        return Err(Problem::bad_request(expected));
    }
    Ok(text.to_owned())
}

pub(super) async fn create(
    State(shared): State<HttpState>,
    extract::Json(new): extract::Json<NewPause>,
) -> Result<(StatusCode, Json<PauseView>), Problem> {
    let services = services(&shared)?;
    let rule = parse_name("rule", new.rule.as_deref())?;
    let settings = services.settings.load();
    if let Some(rule) = rule.as_ref().filter(|rule| settings.rules.rule(rule).is_none()) {
        let known: Vec<&str> = settings.rules.rules().iter().map(|rule| rule.name.as_str()).collect();
        return Err(Problem::not_found(format!("there is no rule `{rule}`; there are {}", known.join(", "))));
    }
    let read = |text: &str| {
        duration::parse(text).map_err(|error| Problem::bad_request(format!("ends_after: {error}")))
    };
    let ends_after = new.ends_after.as_deref().map(read).transpose()?;
    if ends_after.is_some_and(|after| after.is_zero()) {
        return Err(Problem::bad_request("ends_after: it has to be above zero"));
    }
    if services.bridge.pauses().len() >= MAX_PAUSES {
        return Err(Problem::conflict(format!(
            "there are {MAX_PAUSES} pauses; end some, or take one that covers more"
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

pub(super) async fn end(
    State(shared): State<HttpState>,
    Id(id): Id,
    Query(actor): Query<Actor>,
) -> Result<Json<PauseView>, Problem> {
    let services = services(&shared)?;
    let id: u64 = id.parse().map_err(|_| Problem::bad_request(format!("`{id}` is no number of a pause")))?;
    let ended = services.bridge.resume(id, actor.author.as_deref().unwrap_or_default()).await?;
    let ended = ended.ok_or_else(|| Problem::not_found(format!("there is no pause {id}; it may be over")))?;
    Ok(Json(ended.into()))
}
