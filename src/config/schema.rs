//! JSON Schemas of the configuration, rules and test files, for completion and validation in editors.
//!
//! The types describe the keys that the readers of this module accept; a test compares the two. Only `check`
//! validates what a schema cannot express, such as references to names and the syntax of templates.

#![expect(dead_code, reason = "the types only describe the schemas and are never constructed")]

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

use crate::domain::target::Platform;
use crate::domain::verdict::Verdict;

/// The schema of the configuration file, `config/scalebridge.yaml`.
pub fn config() -> Schema {
    root::<ConfigFile>()
}

/// The schema of a rules file, `config/rules.yaml`.
pub fn rules() -> Schema {
    root::<RulesFile>()
}

/// The schema of a test file, `config/rules.test.yaml`.
pub fn tests() -> Schema {
    root::<TestsFile>()
}

fn root<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>()
}

/// A Prometheus duration such as 500ms, 90s, 1h30m or 7d; 0 needs no unit.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Duration {
    Text(
        #[schemars(
            length(min = 1),
            regex(pattern = "^(0|([0-9]+y)?([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$")
        )]
        String,
    ),
    Number(#[schemars(extend("const" = 0))] u32),
}

/// The name of a source, a destination or a rule.
#[derive(JsonSchema)]
#[schemars(transparent)]
struct Name(#[schemars(regex(pattern = "^[a-z0-9][a-z0-9_-]{0,62}$"))] String);

/// A matcher in Alertmanager's syntax, such as `severity =~ "warning|critical"`.
type Matcher = String;
/// A template: text with `{{ … }}` expressions on labels, annotations, source and alert.
type Template = String;

/// The configuration of scalebridge. Keys are optional and have defaults unless marked as required.
#[derive(JsonSchema)]
#[schemars(title = "scalebridge configuration", deny_unknown_fields, extend("$id" = "urn:scalebridge:schema:config"))]
struct ConfigFile {
    /// The listener for Alertmanager's webhooks.
    server: Option<Server>,
    /// The listener for metrics and the operator API.
    admin: Option<Admin>,
    /// The store of state, undelivered events and decisions.
    store: Option<Store>,
    /// Sources by name: one for each Alertmanager cluster. Required.
    sources: BTreeMap<String, Option<Source>>,
    /// Destinations of events by name. Required.
    destinations: BTreeMap<String, Destination>,
    /// Retries, expiry and backlog of deliveries.
    delivery: Option<Delivery>,
    /// Settings for all rules.
    engine: Option<Engine>,
    /// Rules files, relative to this file. Required.
    rules: Vec<String>,
    /// Retention periods.
    retention: Option<Retention>,
    /// The log on stderr.
    log: Option<Log>,
}

/// The listener for Alertmanager's webhooks.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Server {
    /// IP address and port. Default 127.0.0.1:9096.
    listen: Option<String>,
    /// Allow a non-loopback address although the listener has no authentication. Default false.
    allow_unauthenticated: Option<bool>,
    /// Maximum size of a request body in bytes; a larger one gets 413. Default 33554432 (32 MiB).
    max_body_bytes: Option<u64>,
    /// Maximum number of concurrent requests; further ones get 503. Default 256.
    max_in_flight: Option<u32>,
    /// Maximum number of bytes of concurrent request bodies. Default 134217728 (128 MiB).
    max_in_flight_bytes: Option<u64>,
    /// Timeout for reading the headers of a request. Default 5s.
    header_timeout: Option<Duration>,
    /// Timeout for reading a request body. Default 30s.
    body_timeout: Option<Duration>,
    /// Maximum time from SIGTERM to the end of the process. Default 25s.
    drain_timeout: Option<Duration>,
}

/// The listener for metrics and the operator API.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Admin {
    /// IP address and port. Default 127.0.0.1:9097.
    listen: Option<String>,
    /// Allow a non-loopback address although the listener has no authentication. Default false.
    allow_unauthenticated: Option<bool>,
}

/// The store of state, undelivered events and decisions.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Store {
    /// An embedded SQLite database.
    sqlite: Option<Sqlite>,
}

/// An embedded SQLite database.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Sqlite {
    /// The database file, relative to the working directory. Default data/scalebridge.db.
    path: String,
}

/// A sender of notifications: one Alertmanager cluster.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Source {
    /// Labels that override those of each alert.
    labels: Option<BTreeMap<String, String>>,
    /// Matchers of an alert that always fires. While it is absent, no alert of this source can decrease
    /// capacity.
    heartbeat: Option<Vec<Matcher>>,
    /// How long a firing alert that arrives after its own resolve is deferred, since it may be a late copy.
    /// Default 6m.
    late_window: Option<Duration>,
    /// An alert that no notification mentions for this long expires. Default 24h.
    occurrence_ttl: Option<Duration>,
}

/// A destination of events: exactly one of sqs, lambda and file, and delivery settings.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Destination {
    /// An SQS queue.
    sqs: Option<Sqs>,
    /// A Lambda function.
    lambda: Option<Lambda>,
    /// A file or stdout, one event per line.
    file: Option<File>,
    /// Maximum number of concurrent calls. Default 8, for a file 1.
    concurrency: Option<u16>,
    /// Timeout of one call. Default 30s.
    timeout: Option<Duration>,
    /// Maximum number of unsettled deliveries of this destination; further ones are dead-lettered
    /// immediately.
    max_backlog: Option<u64>,
    /// Overrides the value of `delivery`.
    initial_backoff: Option<Duration>,
    /// Overrides the value of `delivery`.
    max_backoff: Option<Duration>,
    /// Overrides the value of `delivery`.
    max_age: Option<Duration>,
    /// Overrides the value of `delivery`.
    scale_in_max_age: Option<Duration>,
}

/// An SQS queue.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Sqs {
    /// The queue URL. If it ends in .fifo, the events of a target are delivered in order.
    queue_url: String,
    /// AWS region. Default: the one in the queue URL, otherwise that of the AWS SDK.
    region: Option<String>,
    /// Endpoint URL. Default: the AWS endpoint.
    endpoint_url: Option<String>,
    /// ARN of a role to assume for this queue.
    role_arn: Option<String>,
    /// External ID, if the role's trust policy requires one.
    external_id: Option<String>,
    /// Maximum size of a message in bytes. Default 262144.
    #[schemars(range(min = 8192, max = 1_048_576))]
    max_message_bytes: Option<u32>,
}

/// A Lambda function.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Lambda {
    /// Function name or ARN.
    function: String,
    /// Alias or version.
    qualifier: Option<String>,
    /// Invocation type. Default event.
    invocation_type: Option<InvocationType>,
    /// Whether the function requires the events of a target in order. Default false.
    per_target_order: Option<bool>,
    /// Maximum number of events per call; above 1 the payload is an array. Default 1.
    #[schemars(range(min = 1, max = 100))]
    max_events: Option<u32>,
    /// AWS region. Default: the one in the ARN, otherwise that of the AWS SDK.
    region: Option<String>,
    /// Endpoint URL. Default: the AWS endpoint.
    endpoint_url: Option<String>,
    /// ARN of a role to assume for this function.
    role_arn: Option<String>,
    /// External ID, if the role's trust policy requires one.
    external_id: Option<String>,
}

/// `event` is asynchronous: Lambda queues the event. `request_response` waits for the function's response.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum InvocationType {
    Event,
    RequestResponse,
}

/// A file or stdout, one event per line.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct File {
    /// Path, relative to the working directory; `-` is stdout.
    path: String,
}

/// Retries, expiry and backlog of deliveries.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Delivery {
    /// Delay before the second attempt. Default 500ms.
    initial_backoff: Option<Duration>,
    /// Maximum delay between two attempts. Default 1m.
    max_backoff: Option<Duration>,
    /// An older delivery is dead-lettered. Default 1h.
    max_age: Option<Duration>,
    /// `max_age` of events that can decrease capacity. Default 5m.
    scale_in_max_age: Option<Duration>,
    /// Maximum number of unsettled deliveries of all destinations; at this number the webhook responds 503.
    /// Default 1000000.
    max_backlog: Option<u64>,
}

/// Settings for all rules.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Engine {
    /// Maximum number of events per minute that decrease capacity, of all rules; 0 means no limit. Default
    /// 60.
    scale_in_per_minute: Option<u32>,
    /// Maximum number of events per minute that increase capacity, of all rules; 0 means no limit. Default 0.
    scale_out_per_minute: Option<u32>,
    /// A decrease that is deferred for longer is withdrawn. Default 1h.
    max_deferral: Option<Duration>,
}

/// Retention periods.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Retention {
    /// Decisions and expired episodes. Default 7d.
    decisions: Option<Duration>,
    /// Events that are delivered to every destination. Default 24h.
    delivered: Option<Duration>,
    /// Closed episodes and alerts. Default 1h.
    closed: Option<Duration>,
}

/// Format and level of the log.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Log {
    /// Format of the log. Default text.
    format: Option<LogFormat>,
    /// The lowest level that is logged. Default info.
    level: Option<LogLevel>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum LogFormat {
    Text,
    Json,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Rules: which alerts change the capacity of which targets. An alert is handled by the first rule that
/// matches.
#[derive(JsonSchema)]
#[schemars(title = "scalebridge rules", deny_unknown_fields, extend("$id" = "urn:scalebridge:schema:rules"))]
struct RulesFile {
    /// Defaults of the rules in this file.
    defaults: Option<Defaults>,
    /// The rules, evaluated in order.
    rules: Vec<Rule>,
}

/// Defaults of the rules in a file; a rule can override each of them.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Defaults {
    /// See the key of the same name in a rule.
    send_to: Option<Vec<Name>>,
    /// See the key of the same name in a rule.
    expires_after: Option<Duration>,
    /// See the key of the same name in a rule.
    limits: Option<Limits>,
    /// See the key of the same name in a rule.
    mode: Option<Mode>,
    /// See the key of the same name in a rule.
    budget: Option<Budget>,
    /// The `cooldown` of actions.
    cooldown: Option<Duration>,
    /// The `stabilization_window` of actions that can decrease capacity.
    stabilization_window: Option<Duration>,
}

/// A rule: which alerts it matches, the target, and the actions.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Rule {
    /// The unique name, which identifies the rule across restarts and reloads. Required.
    name: Name,
    /// Sources whose alerts the rule accepts. Default: all.
    sources: Option<Vec<Name>>,
    /// Matchers, all of which must match. Without matchers the rule matches every alert.
    matchers: Option<Vec<Matcher>>,
    /// A condition that must be true as well, such as `annotations.value | float >= 1`.
    when: Option<String>,
    /// The target of the actions.
    target: Option<Target>,
    /// The action when an episode opens, and when it grows.
    on_firing: Option<OnFiring>,
    /// The action when an episode closes.
    on_resolved: Option<OnResolved>,
    /// Consumers must not act on an older event. Default 1h.
    expires_after: Option<Duration>,
    /// Bounds of the target's capacity, enforced by the consumer.
    limits: Option<Limits>,
    /// Maximum number of events of this rule about one target in a period.
    budget: Option<Budget>,
    /// Custom parameters for the consumer.
    parameters: Option<BTreeMap<String, Template>>,
    /// Whether the rule acts. Default active.
    mode: Option<Mode>,
    /// Destinations of the events.
    send_to: Option<Vec<Name>>,
    /// Whether later rules are evaluated for the same alert. Default false.
    #[schemars(rename = "continue")]
    continues: Option<bool>,
}

/// A target. Fields except platform are templates; platform, kind and name are required unless the action is
/// a hold.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Target {
    /// Platform.
    platform: Option<Platform>,
    /// Kind of resource, for example nodegroup.
    kind: Option<Template>,
    /// Name of the resource.
    name: Option<Template>,
    /// AWS account ID.
    account: Option<Template>,
    /// Name of the cluster.
    cluster: Option<Template>,
    /// Kubernetes or Nomad namespace.
    namespace: Option<Template>,
    /// AWS region.
    region: Option<Template>,
}

/// The action when an episode opens or grows: exactly one action, and its guards.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct OnFiring {
    /// Increase capacity.
    scale_out: Option<Amount>,
    /// Decrease capacity.
    scale_in: Option<Amount>,
    /// Set the capacity to a number of units.
    set_capacity: Option<SetCapacity>,
    /// Send an event that does not change capacity.
    notify: Option<Notify>,
    /// Block actions of other rules.
    hold: Option<Hold>,
    /// How long an event blocks later ones about the same target. Default 5m.
    cooldown: Option<Duration>,
    /// How long the situation must not change before the action. Default 5m if it can decrease capacity,
    /// otherwise 0.
    stabilization_window: Option<Duration>,
    /// When the action is repeated within an episode. Default on_growth.
    repeat: Option<Repeat>,
    /// Maximum number of events per episode; requires `repeat: while_firing`. Default 5.
    #[schemars(range(min = 1, max = 1000))]
    max_emissions: Option<u32>,
}

/// The action when an episode closes: exactly one action, and its guards.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct OnResolved {
    /// Increase capacity.
    scale_out: Option<Amount>,
    /// Decrease capacity.
    scale_in: Option<Amount>,
    /// Set the capacity to a number of units.
    set_capacity: Option<SetCapacity>,
    /// Send an event that does not change capacity.
    notify: Option<Notify>,
    /// How long an event blocks later ones about the same target. Default 5m.
    cooldown: Option<Duration>,
    /// How long the situation must not change before the action. Default 5m if it can decrease capacity,
    /// otherwise 0.
    stabilization_window: Option<Duration>,
}

/// The amount: exactly one of by, by_percent, and metric with steps.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Amount {
    /// Number of units.
    #[schemars(range(min = 1))]
    by: Option<u32>,
    /// Percentage of the current capacity.
    #[schemars(range(min = 1))]
    by_percent: Option<u32>,
    /// With by_percent: minimum number of units.
    #[schemars(range(min = 1))]
    at_least: Option<u32>,
    /// With steps: the number that selects the step.
    metric: Option<Template>,
    /// Steps with ascending `from`.
    steps: Option<Vec<Step>>,
}

/// A step: the amount from a value of the metric on.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Step {
    /// The lowest metric value of this step.
    from: f64,
    /// Number of units.
    #[schemars(range(min = 1))]
    by: u32,
}

/// Set the capacity to a number of units.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct SetCapacity {
    /// Number of units.
    to: u32,
    /// Whether this may decrease capacity. Default false.
    allow_decrease: Option<bool>,
}

/// Send an event that does not change capacity.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Notify {}

/// Block actions of other rules on the target while an alert of this rule fires.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Hold {
    /// Directions to block. Default: both.
    blocks: Option<Vec<Direction>>,
    /// Hold every target; requires that `target` is absent. Default false.
    all: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Direction {
    ScaleOut,
    ScaleIn,
}

/// `on_growth` repeats the action when more alerts fire than at any earlier event of the episode,
/// `while_firing` once per cooldown.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Repeat {
    Never,
    OnGrowth,
    WhileFiring,
}

/// `shadow` records decisions without sending events; `disabled` matches alerts without acting.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Mode {
    Active,
    Shadow,
    Disabled,
}

/// Bounds of a target's capacity.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Limits {
    /// Minimum capacity.
    min_capacity: Option<u32>,
    /// Maximum capacity.
    max_capacity: Option<u32>,
}

/// Maximum number of events about one target in a sliding period.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Budget {
    /// Maximum number of events.
    #[schemars(range(min = 1, max = 1000))]
    events: u32,
    /// Length of the period.
    per: Duration,
}

/// Unit tests of rules, run by `scalebridge test`.
#[derive(JsonSchema)]
#[schemars(title = "scalebridge tests", deny_unknown_fields, extend("$id" = "urn:scalebridge:schema:tests"))]
struct TestsFile {
    /// Rules files under test, relative to this file. Excludes `config`.
    rules: Option<Vec<String>>,
    /// The configuration under test, with its sources. Excludes `rules`.
    config: Option<String>,
    /// Sources by name, with `rules` only. Sources with default settings need not be listed.
    sources: Option<BTreeMap<String, Option<Source>>>,
    /// The tests of the file.
    tests: Vec<Test>,
}

/// A test: steps on a virtual clock.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Test {
    /// What the test verifies.
    name: String,
    /// Start time, RFC 3339. Default 2026-01-01T00:00:00Z.
    #[schemars(extend("format" = "date-time"))]
    start: Option<String>,
    /// Steps, sorted by `at`.
    steps: Vec<TestStep>,
}

/// Notifications and expectations at one point in time.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct TestStep {
    /// Offset from the start of the test.
    at: Duration,
    /// Notifications that arrive.
    notify: Option<OneOrMore>,
    /// Expected decisions since the previous step. All must be listed, except those with the verdicts duplicate,
    /// still_open, no_action, stale, unmatched, condition_false, heartbeat and disabled.
    expect: Option<Vec<Expected>>,
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
    /// step that first fires the alert.
    #[schemars(rename = "startsAt")]
    starts_at: Option<String>,
    /// Format as for `startsAt`. Default: the time of the step that resolves the alert.
    #[schemars(rename = "endsAt")]
    ends_at: Option<String>,
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
    /// Name of the rule.
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
