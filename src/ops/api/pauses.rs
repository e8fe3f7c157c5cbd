//! Pauses.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Word;
use crate::domain::control::Pause;
use crate::domain::direction::Direction;
use crate::domain::time::Time;

/// A pause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct PauseView {
    /// Its number, which identifies it when it is ended.
    pub id: u64,
    /// Only actions of this rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Only actions for targets whose key matches this pattern; `*` matches any text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Only actions in this direction: `scale_out` or `scale_in`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Word>,
    /// When it began, RFC 3339.
    pub since: String,
    /// When it ends automatically, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Who created it.
    pub author: String,
    /// The reason, for other operators.
    pub reason: String,
    /// When it was ended, or its time was over, RFC 3339; only of ended pauses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// Who ended it; absent if its time was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<String>,
    /// Only of a new pause: the number of events that were emitted and not delivered yet, and that it covers. Increases
    /// among them wait for its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undelivered_events: Option<u64>,
    /// Only of a new pause: the number of calls with such events that may have been under way already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_in_flight: Option<u64>,
}

impl From<Pause> for PauseView {
    fn from(pause: Pause) -> Self {
        Self {
            id: pause.id,
            rule: pause.rule.as_ref().map(ToString::to_string),
            target: pause.target.as_ref().map(ToString::to_string),
            direction: pause.direction.map(|direction| direction.as_str().into()),
            since: pause.since.to_millis_string(),
            until: pause.until.map(Time::to_millis_string),
            author: pause.author,
            reason: pause.reason,
            ended_at: None,
            ended_by: None,
            undelivered_events: None,
            calls_in_flight: None,
        }
    }
}

/// Which pauses are listed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListPausesParams {
    /// Whether ended pauses are listed too, as far as the audit trail has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<bool>,
}

/// A new pause. An omitted key does not restrict it: without rule, target and direction all actions are paused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPause {
    /// Only actions of this rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Only actions for targets whose key matches this pattern; `*` matches any text. A name without `/` and `*` is that of
    /// targets in any cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Only actions in this direction: `scale_out` or `scale_in`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// The duration, in Prometheus' format, after which it ends automatically. Default: until it is ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_after: Option<String>,
    /// Who creates it; required if the bridge asks for no credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The reason, for other operators.
    pub reason: String,
}
