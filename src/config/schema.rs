//! The documents that people write, as JSON Schema: what editors complete and check while typing.
//!
//! The types say what the readers of this module take, key for key; a test holds the two together. What a
//! schema cannot say (names that have to exist, templates that have to be readable) is left to `check`.

#![expect(dead_code, reason = "the types are described, and never built")]

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

/// The schema of a file of tests, `config/rules.test.yaml`.
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
/// Text with `{{ … }}` over labels, annotations, source and alert.
type Template = String;

/// The configuration of scalebridge. Each key has a default except where it says otherwise.
#[derive(JsonSchema)]
#[schemars(title = "scalebridge configuration", deny_unknown_fields, extend("$id" = "urn:scalebridge:schema:config"))]
struct ConfigFile {
    /// The listener that takes Alertmanager's webhooks.
    server: Option<Server>,
    /// The listener for metrics and operators.
    admin: Option<Admin>,
    /// Where state lives.
    store: Option<Store>,
    /// Who may send, by name: one for each Alertmanager cluster. Needed.
    sources: BTreeMap<String, Option<Source>>,
    /// Where events go, by name. Needed.
    destinations: BTreeMap<String, Destination>,
    /// How failed deliveries are tried again and given up.
    delivery: Option<Delivery>,
    /// What holds for all rules.
    engine: Option<Engine>,
    /// Files with rules, relative to this file. Needed.
    rules: Vec<String>,
    /// What is kept for how long.
    retention: Option<Retention>,
    /// How the bridge logs, on stderr.
    log: Option<Log>,
}

/// The listener that takes Alertmanager's webhooks.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Server {
    /// IP address and port. Default 127.0.0.1:9096.
    listen: Option<String>,
    /// Whether others than this machine may reach it, and nobody asks who they are.
    allow_unauthenticated: Option<bool>,
    /// A larger body is answered with 413. Default 32 MiB.
    max_body_bytes: Option<u64>,
    /// Requests at the same time. Default 256.
    max_in_flight: Option<u32>,
    /// Bytes of bodies at the same time. Default 128 MiB.
    max_in_flight_bytes: Option<u64>,
    /// For a request's head. Default 5s.
    header_timeout: Option<Duration>,
    /// For a request's body. Default 30s.
    body_timeout: Option<Duration>,
    /// From SIGTERM to the end of the process. Default 25s.
    drain_timeout: Option<Duration>,
}

/// The listener for metrics and operators.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Admin {
    /// IP address and port. Default 127.0.0.1:9097.
    listen: Option<String>,
    /// Whether others than this machine may reach it, and nobody asks who they are.
    allow_unauthenticated: Option<bool>,
}

/// Where state lives.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Store {
    /// One file on this machine.
    sqlite: Option<Sqlite>,
}

/// One file on this machine.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Sqlite {
    /// The file, relative to the working directory.
    path: String,
}

/// A sender of notifications: one Alertmanager cluster.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Source {
    /// Laid over each alert's own labels.
    labels: Option<BTreeMap<String, String>>,
    /// Matchers of an alert that always fires. While it does not, this source takes nothing away.
    heartbeat: Option<Vec<Matcher>>,
    /// How long a firing that comes after its own resolve waits for a late copy. Default 6m.
    late_window: Option<Duration>,
    /// How long an alert lives that nobody speaks of. Default 24h.
    occurrence_ttl: Option<Duration>,
}

/// Where events go: exactly one of sqs, lambda and file, and how it is delivered there.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Destination {
    /// An SQS queue.
    sqs: Option<Sqs>,
    /// A Lambda function.
    lambda: Option<Lambda>,
    /// A file, one event a line.
    file: Option<File>,
    /// Calls at the same time. Default 8.
    concurrency: Option<u16>,
    /// For one call. Default 30s.
    timeout: Option<Duration>,
    /// With as many deliveries waiting here, what else it should get is a dead letter at once.
    max_backlog: Option<u64>,
    /// As in `delivery`.
    initial_backoff: Option<Duration>,
    /// As in `delivery`.
    max_backoff: Option<Duration>,
    /// As in `delivery`.
    max_age: Option<Duration>,
    /// As in `delivery`.
    scale_in_max_age: Option<Duration>,
}

/// An SQS queue.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Sqs {
    /// The queue's URL; one that ends in .fifo keeps the order of a target's events.
    queue_url: String,
    /// Default: the one that the queue's URL names, else the SDK's.
    region: Option<String>,
    /// Default: AWS' own.
    endpoint_url: Option<String>,
    /// A role that is taken on for this queue.
    role_arn: Option<String>,
    /// Where the role's owner asks for one.
    external_id: Option<String>,
    /// Default 262144.
    #[schemars(range(min = 8192, max = 1_048_576))]
    max_message_bytes: Option<u32>,
}

/// A Lambda function.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Lambda {
    /// Name or ARN.
    function: String,
    /// Alias or version.
    qualifier: Option<String>,
    /// Default event.
    invocation_type: Option<InvocationType>,
    /// Whether the function counts on the order of a target's events.
    per_target_order: Option<bool>,
    /// Events of one call. Default 1.
    #[schemars(range(min = 1, max = 100))]
    max_events: Option<u32>,
    /// Default: the one of the function's ARN, else the SDK's.
    region: Option<String>,
    /// Default: AWS' own.
    endpoint_url: Option<String>,
    /// A role that is taken on for this function.
    role_arn: Option<String>,
    /// Where the role's owner asks for one.
    external_id: Option<String>,
}

/// `event` is queued by Lambda; the answer to `request_response` is waited for.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum InvocationType {
    Event,
    RequestResponse,
}

/// A file, one event a line.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct File {
    /// Relative to the working directory; `-` is stdout.
    path: String,
}

/// How failed deliveries are tried again and given up.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Delivery {
    /// Before the second attempt. Default 500ms.
    initial_backoff: Option<Duration>,
    /// The longest pause between two attempts. Default 1m.
    max_backoff: Option<Duration>,
    /// An older delivery is given up and kept as a dead letter. Default 1h.
    max_age: Option<Duration>,
    /// The same for what takes capacity away. Default 5m.
    scale_in_max_age: Option<Duration>,
    /// With as many deliveries waiting, over all destinations, the webhook answers 503. Default 1000000.
    max_backlog: Option<u64>,
}

/// What holds for all rules.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Engine {
    /// The most events of this process in a minute that take capacity away; 0 is no limit. Default 60.
    scale_in_per_minute: Option<u32>,
    /// The same for those that add capacity. Default 0.
    scale_out_per_minute: Option<u32>,
    /// What takes capacity away and is kept back for longer is withdrawn. Default 1h.
    max_deferral: Option<Duration>,
}

/// What is kept for how long.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Retention {
    /// Decisions, and that an episode expired. Default 7d.
    decisions: Option<Duration>,
    /// Events that have arrived everywhere. Default 24h.
    delivered: Option<Duration>,
    /// What is remembered of closed alerts. Default 1h.
    closed: Option<Duration>,
}

/// How the bridge logs.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Log {
    /// Default text.
    format: Option<LogFormat>,
    /// Default info.
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

/// Rules: which alert changes whose capacity. The first that fits takes an alert.
#[derive(JsonSchema)]
#[schemars(title = "scalebridge rules", deny_unknown_fields, extend("$id" = "urn:scalebridge:schema:rules"))]
struct RulesFile {
    /// What holds for every rule of this file that does not say otherwise.
    defaults: Option<Defaults>,
    /// The rules in their order.
    rules: Vec<Rule>,
}

/// What the rules of a file have in common.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Defaults {
    /// As in a rule.
    send_to: Option<Vec<Name>>,
    /// As in a rule.
    expires_after: Option<Duration>,
    /// As in a rule.
    limits: Option<Limits>,
    /// As in a rule.
    mode: Option<Mode>,
    /// As in a rule.
    budget: Option<Budget>,
    /// Of every action.
    cooldown: Option<Duration>,
    /// Of what takes capacity away.
    stabilization_window: Option<Duration>,
}

/// A rule.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Rule {
    /// The rule's identity, also across restarts and reloads.
    name: Name,
    /// The sources that it listens to. Default: all.
    sources: Option<Vec<Name>>,
    /// All must hold. None: every alert.
    matchers: Option<Vec<Matcher>>,
    /// An expression that must hold too, such as `annotations.value | float >= 1`.
    when: Option<String>,
    /// What it is about.
    target: Option<Target>,
    /// When an episode opens, and again when it grows.
    on_firing: Option<OnFiring>,
    /// When an episode closes.
    on_resolved: Option<OnResolved>,
    /// A consumer does not act on an older event. Default 1h.
    expires_after: Option<Duration>,
    /// For the consumer: not beyond these.
    limits: Option<Limits>,
    /// The most events about one target in a span of time.
    budget: Option<Budget>,
    /// Free texts for the consumer.
    parameters: Option<BTreeMap<String, Template>>,
    /// Default active.
    mode: Option<Mode>,
    /// Destinations.
    send_to: Option<Vec<Name>>,
    /// Whether later rules see the alert too.
    #[schemars(rename = "continue")]
    continues: Option<bool>,
}

/// A target, each field a template; platform, kind and name are needed except for a hold.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Target {
    /// Where it lives.
    platform: Option<Platform>,
    /// What it is there, for example nodegroup.
    kind: Option<Template>,
    /// Its name.
    name: Option<Template>,
    /// AWS account.
    account: Option<Template>,
    /// Cluster.
    cluster: Option<Template>,
    /// Kubernetes' or Nomad's namespace.
    namespace: Option<Template>,
    /// AWS region.
    region: Option<Template>,
}

/// Exactly one action, and its guards.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct OnFiring {
    /// Add capacity.
    scale_out: Option<Amount>,
    /// Take capacity away.
    scale_in: Option<Amount>,
    /// Go to a number.
    set_capacity: Option<SetCapacity>,
    /// An event that changes nothing.
    notify: Option<Notify>,
    /// Hold back what other rules would do.
    hold: Option<Hold>,
    /// How long an emission blocks later ones about the target. Default 5m.
    cooldown: Option<Duration>,
    /// How long it has to stay supported first. Default 5m for what takes capacity away, else 0.
    stabilization_window: Option<Duration>,
    /// Default on_growth.
    repeat: Option<Repeat>,
    /// Of one episode, with `repeat: while_firing`. Default 5.
    #[schemars(range(min = 1, max = 1000))]
    max_emissions: Option<u32>,
}

/// Exactly one action, and its guards.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct OnResolved {
    /// Add capacity.
    scale_out: Option<Amount>,
    /// Take capacity away.
    scale_in: Option<Amount>,
    /// Go to a number.
    set_capacity: Option<SetCapacity>,
    /// An event that changes nothing.
    notify: Option<Notify>,
    /// How long an emission blocks later ones about the target. Default 5m.
    cooldown: Option<Duration>,
    /// How long it has to stay supported first. Default 5m for what takes capacity away, else 0.
    stabilization_window: Option<Duration>,
}

/// By how much: one of by, by_percent, and metric with steps.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Amount {
    /// Units.
    #[schemars(range(min = 1))]
    by: Option<u32>,
    /// Percent of what is there.
    #[schemars(range(min = 1))]
    by_percent: Option<u32>,
    /// Beside by_percent: at least so many units.
    #[schemars(range(min = 1))]
    at_least: Option<u32>,
    /// Beside steps: the number that chooses the step.
    metric: Option<Template>,
    /// Rising.
    steps: Option<Vec<Step>>,
}

/// From this value of the metric on, by that many units.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Step {
    /// The lowest value that it serves.
    from: f64,
    /// Units.
    #[schemars(range(min = 1))]
    by: u32,
}

/// Go to a number of units.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct SetCapacity {
    /// Units.
    to: u32,
    /// Whether a consumer may lower capacity with it. Default false.
    allow_decrease: Option<bool>,
}

/// An event that changes nothing.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Notify {}

/// Hold back what other rules would do, as long as an alert of this rule fires.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Hold {
    /// Default both.
    blocks: Option<Vec<Direction>>,
    /// Every target.
    all: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Direction {
    ScaleOut,
    ScaleIn,
}

/// `on_growth` acts again when more alerts fire than ever before in the episode, `while_firing` once for each
/// cooldown.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Repeat {
    Never,
    OnGrowth,
    WhileFiring,
}

/// `shadow` decides and records and sends nothing; `disabled` takes its alerts and does nothing.
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
    /// Not below.
    min_capacity: Option<u32>,
    /// Not above.
    max_capacity: Option<u32>,
}

/// The most events about one target in any span of this length.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Budget {
    /// Events.
    #[schemars(range(min = 1, max = 1000))]
    events: u32,
    /// The span.
    per: Duration,
}

/// Unit tests of rules, run by `scalebridge test`.
#[derive(JsonSchema)]
#[schemars(title = "scalebridge tests", deny_unknown_fields, extend("$id" = "urn:scalebridge:schema:tests"))]
struct TestsFile {
    /// The rules files that are tested, relative to this file. Instead of `config`.
    rules: Option<Vec<String>>,
    /// The configuration that is tested, with its sources. Instead of `rules`.
    config: Option<String>,
    /// Sources, beside `rules`. Those that only steps or rules name need not be here.
    sources: Option<BTreeMap<String, Option<Source>>>,
    /// The tests.
    tests: Vec<Test>,
}

/// A test.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Test {
    /// What it proves.
    name: String,
    /// When it starts, RFC 3339. Default 2026-01-01T00:00:00Z.
    #[schemars(extend("format" = "date-time"))]
    start: Option<String>,
    /// In the order of their times.
    steps: Vec<TestStep>,
}

/// One moment of a test.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct TestStep {
    /// After the start.
    at: Duration,
    /// What arrives.
    notify: Option<OneOrMore>,
    /// What has to be decided since the step before: exact for what acts or waits.
    expect: Option<Vec<Expected>>,
}

/// One notification, or several.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum OneOrMore {
    One(TestNotification),
    More(Vec<TestNotification>),
}

/// A notification.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct TestNotification {
    /// Who sends it.
    source: Name,
    /// Its alerts.
    alerts: Vec<TestAlert>,
    /// How many alerts `max_alerts` has left out.
    #[schemars(rename = "truncatedAlerts")]
    truncated_alerts: Option<u32>,
    /// As in Alertmanager's body.
    receiver: Option<String>,
    /// As in Alertmanager's body.
    #[schemars(rename = "groupKey")]
    group_key: Option<String>,
    /// As in Alertmanager's body.
    #[schemars(rename = "externalURL")]
    external_url: Option<String>,
    /// As in Alertmanager's body.
    notification_reason: Option<String>,
}

/// An alert of a notification.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct TestAlert {
    /// Whether it fires.
    status: Status,
    /// Text only: put numbers in quotes.
    labels: BTreeMap<String, String>,
    /// Text only.
    annotations: Option<BTreeMap<String, String>>,
    /// RFC 3339, or a duration after the start, with a minus before it. Default: the step that first fires it.
    #[schemars(rename = "startsAt")]
    starts_at: Option<String>,
    /// As `startsAt`. Default: the step that resolves it.
    #[schemars(rename = "endsAt")]
    ends_at: Option<String>,
    /// Default: Alertmanager's, of the labels.
    fingerprint: Option<String>,
    /// As in Alertmanager's body.
    #[schemars(rename = "generatorURL")]
    generator_url: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Status {
    Firing,
    Resolved,
}

/// A decision, as far as its fields are given; maps are compared by the keys that are given.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Expected {
    /// The rule.
    rule: Option<String>,
    /// The outcome.
    verdict: Option<Verdict>,
    /// What is asked for.
    action: Option<String>,
    /// Which end of the episode.
    phase: Option<Status>,
    /// The target's key.
    subject: Option<String>,
    /// The target.
    target: Option<BTreeMap<String, String>>,
    /// A part of the explanation.
    detail: Option<String>,
    /// When it is looked at again: RFC 3339, or a duration after the start.
    until: Option<String>,
    /// The event, as its own schema says.
    event: Option<BTreeMap<String, serde_json::Value>>,
    /// The alerts, or how many.
    alerts: Option<serde_json::Value>,
    /// The episode's id.
    episode: Option<String>,
    /// The destination, where it is about one only.
    destination: Option<String>,
    /// The notification that caused it.
    notification: Option<BTreeMap<String, serde_json::Value>>,
    /// Whether that left alerts out.
    truncated: Option<bool>,
}
