//! Pauses: what people stop, and let go on.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ask::{self, Id, Query, name, pattern, running};
use super::letters::Who;
use super::problem::Problem;
use crate::bridge::PauseRequest;
use crate::domain::control::{Direction, Pause};
use crate::domain::duration;
use crate::domain::time::Time;
use crate::http::Shared;

/// Every decision reads all of them.
const MOST: usize = 1000;
/// Of an author and of a reason.
const MOST_CHARACTERS: usize = 500;

/// A pause.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ApiPause {
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

impl From<Pause> for ApiPause {
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

pub async fn list(State(shared): State<Shared>) -> Result<Json<Vec<ApiPause>>, Problem> {
    Ok(Json(running(&shared)?.bridge.pauses().into_iter().map(ApiPause::from).collect()))
}

/// What is to be paused. What is not given covers all: without rule, target and direction everything stops.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPause {
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

fn said(key: &str, text: &str) -> Result<String, Problem> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > MOST_CHARACTERS || text.contains(char::is_control) {
        let expected =
            format!("{key}: 1 to {MOST_CHARACTERS} characters are expected, none of them a control");
        return Err(Problem::bad(expected));
    }
    Ok(text.to_owned())
}

pub async fn create(
    State(shared): State<Shared>,
    ask::Json(new): ask::Json<NewPause>,
) -> Result<(StatusCode, Json<ApiPause>), Problem> {
    let running = running(&shared)?;
    let rule = name("rule", new.rule.as_deref())?;
    let settings = running.settings.load();
    if let Some(rule) = rule.as_ref().filter(|rule| settings.rules.rule(rule).is_none()) {
        let known: Vec<&str> = settings.rules.rules().iter().map(|rule| rule.name.as_str()).collect();
        return Err(Problem::missing(format!("there is no rule `{rule}`; there are {}", known.join(", "))));
    }
    let read =
        |text: &str| duration::parse(text).map_err(|error| Problem::bad(format!("ends_after: {error}")));
    let ends_after = new.ends_after.as_deref().map(read).transpose()?;
    if ends_after.is_some_and(|after| after.is_zero()) {
        return Err(Problem::bad("ends_after: it has to be above zero"));
    }
    if running.bridge.pauses().len() >= MOST {
        return Err(Problem::refused(format!(
            "there are {MOST} pauses; end some, or take one that covers more"
        )));
    }
    let request = PauseRequest {
        rule,
        target: pattern(new.target.as_deref())?,
        direction: new.direction,
        ends_after,
        author: said("author", &new.author)?,
        reason: said("reason", &new.reason)?,
    };
    let pause = running.bridge.pause(request).await?;
    Ok((StatusCode::CREATED, Json(pause.into())))
}

pub async fn end(
    State(shared): State<Shared>,
    Id(id): Id,
    Query(who): Query<Who>,
) -> Result<Json<ApiPause>, Problem> {
    let running = running(&shared)?;
    let id: u64 = id.parse().map_err(|_| Problem::bad(format!("`{id}` is no number of a pause")))?;
    let ended = running.bridge.resume(id, who.author.as_deref().unwrap_or_default()).await?;
    let ended = ended.ok_or_else(|| Problem::missing(format!("there is no pause {id}; it may be over")))?;
    Ok(Json(ended.into()))
}
