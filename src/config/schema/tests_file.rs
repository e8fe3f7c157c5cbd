//! The schema of a test file.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::config_file::Source;
use super::{Duration, Name};
use crate::config::kinds::SourceKind;
use crate::domain::verdict::Verdict;

/// Unit tests of rules, run by `scalebridge test`.
#[derive(JsonSchema)]
#[schemars(title = "scalebridge tests", deny_unknown_fields, extend("$id" = "urn:scalebridge:schema:tests"))]
#[schemars(rename = "TestsFile", bound = "S: SourceKind")]
pub(super) struct TestsFile<S> {
    /// Rules files under test, relative to this file. Excludes `config`.
    rules: Option<Vec<String>>,
    /// The configuration under test, with its sources. Excludes `rules`.
    config: Option<String>,
    /// Sources by name, with `rules` only. Sources with default settings need not be listed.
    sources: Option<BTreeMap<String, Option<Source<S>>>>,
    /// The tests of the file.
    tests: Vec<Test>,
}

/// A test: steps on a virtual clock.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Test {
    /// What the test verifies. Unique in the file.
    name: String,
    /// Start time, RFC 3339. Default 2026-01-01T00:00:00Z.
    #[schemars(extend("format" = "date-time"))]
    start: Option<String>,
    /// Steps, sorted by `at`; at least one.
    steps: Vec<TestStep>,
}

/// What happens at one point in time, in the order of the keys, and what is expected then.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct TestStep {
    /// Offset from the start of the test.
    at: Duration,
    /// Notifications that arrive.
    notify: Option<OneOrMore>,
    /// A reception gap: notifications are refused for this long. The next step must not be before its end.
    gap: Option<Duration>,
    /// The source whose notifications are refused; requires `gap`. Default: all sources.
    source: Option<Name>,
    /// The bridge does not run for this long, a reception gap of all sources. The next step must not be before its end.
    restart: Option<Duration>,
    /// An operator pauses actions.
    pause: Option<TestPause>,
    /// An operator ends all pauses: `resume: {}`.
    resume: Option<TestResume>,
    /// How destinations answer from now on, by name.
    destination: Option<BTreeMap<String, DestinationState>>,
    /// Expected decisions since the previous step. All must be listed, except those with the verdicts duplicate,
    /// still_open, no_action, stale, unmatched, condition_false, heartbeat and disabled.
    expect: Option<Vec<Expected>>,
}

/// A pause. An absent condition covers all actions.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct TestPause {
    /// Only actions of this rule.
    rule: Option<Name>,
    /// Only actions on targets whose key matches this pattern; `*` matches any text. A name
    /// without `/` and `*` is that of targets in any cluster.
    target: Option<String>,
    /// Only actions in this direction.
    direction: Option<Direction>,
    /// When the pause expires: RFC 3339, or a duration relative to the start. Without it, it lasts until it is resumed.
    until: Option<String>,
}

/// Ends all pauses.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct TestResume {}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Direction {
    ScaleOut,
    ScaleIn,
}

/// `up`: calls succeed. `down`: calls fail. `unknown`: the answer is lost.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum DestinationState {
    Up,
    Down,
    Unknown,
}

/// One or more notifications.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum OneOrMore {
    One(TestNotification),
    More(Vec<TestNotification>),
}

/// A notification of Alertmanager.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct TestNotification {
    /// The source that sends it.
    source: Name,
    /// The alerts of the notification.
    alerts: Vec<TestAlert>,
    /// Number of alerts that `max_alerts` has truncated.
    #[schemars(rename = "truncatedAlerts")]
    truncated_alerts: Option<u32>,
    /// When it was sent, if it comes by a queue, which can reorder and repeat: RFC 3339, or a duration relative to the
    /// start, negative for earlier times.
    sent_at: Option<String>,
    /// Field of Alertmanager's notification.
    receiver: Option<String>,
    /// Field of Alertmanager's notification.
    #[schemars(rename = "groupKey")]
    group_key: Option<String>,
    /// Field of Alertmanager's notification.
    #[schemars(rename = "externalURL")]
    external_url: Option<String>,
    /// Field of Alertmanager's notification.
    notification_reason: Option<String>,
}

/// An alert of a notification.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct TestAlert {
    /// Firing or resolved.
    status: Status,
    /// Labels. Values must be text: quote numbers.
    labels: BTreeMap<String, String>,
    /// Annotations. Values must be text: quote numbers.
    annotations: Option<BTreeMap<String, String>>,
    /// RFC 3339, or a duration relative to the start, negative for earlier times. Default: the time of the
    /// step that first fires the alert, or first fires it again after a resolve.
    #[schemars(rename = "startsAt")]
    starts_at: Option<String>,
    /// Another name of `startsAt`.
    #[schemars(rename = "starts_at")]
    starts_at_alias: Option<String>,
    /// Format as for `startsAt`. Default: the time of the step that resolves the alert.
    #[schemars(rename = "endsAt")]
    ends_at: Option<String>,
    /// Another name of `endsAt`.
    #[schemars(rename = "ends_at")]
    ends_at_alias: Option<String>,
    /// Of a resolved alert: why its sender has ended it without evidence that its condition is over, such as Grafana's
    /// `MissingSeries`.
    absence: Option<String>,
    /// Of a firing alert: for how long its sender vouches for it, as Prometheus does. Then it is absent, unless it is sent
    /// again.
    valid_for: Option<String>,
    /// Default: Alertmanager's hash of the labels.
    fingerprint: Option<String>,
    /// Field of Alertmanager's notification.
    #[schemars(rename = "generatorURL")]
    generator_url: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Status {
    Firing,
    Resolved,
}

/// An expected decision. Only the given fields, and the given keys of maps, are compared.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Expected {
    /// Name of the rule, which must exist.
    rule: Option<String>,
    /// The verdict of the decision.
    verdict: Option<Verdict>,
    /// The action of the rule.
    action: Option<String>,
    /// Phase of the episode: firing or resolved.
    phase: Option<Status>,
    /// The target's key.
    subject: Option<String>,
    /// Fields of the target.
    target: Option<BTreeMap<String, String>>,
    /// A part of the explanation text.
    detail: Option<String>,
    /// When the deferred action is rechecked: RFC 3339, or a duration relative to the start.
    until: Option<String>,
    /// Fields of the event; see the schema of events.
    event: Option<BTreeMap<String, serde_json::Value>>,
    /// The alerts, or their number.
    alerts: Option<serde_json::Value>,
    /// ID of the episode.
    episode: Option<String>,
    /// The destination, if the decision is about a single one.
    destination: Option<String>,
    /// Fields of the notification that caused the decision.
    notification: Option<BTreeMap<String, serde_json::Value>>,
    /// Whether the notification was truncated.
    truncated: Option<bool>,
}
