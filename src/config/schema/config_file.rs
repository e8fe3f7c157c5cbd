//! The schema of the configuration file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::access::{AdminClientCert, AdminJwt, AdminToken, AdminUser, HttpClient, SourceAuth, Tls};
use super::kinds::{Destination, KindName, with_description};
use super::{Duration, DurationOrOff, Matcher, Name};
use crate::config::kinds::{DestinationSettings, OwnSettings, SourceKind};
use crate::domain::duration::format;

/// The configuration of scalebridge. Keys are optional and have defaults unless marked as required.
#[derive(JsonSchema)]
#[schemars(title = "scalebridge configuration", deny_unknown_fields, extend("$id" = "urn:scalebridge:schema:config"))]
#[schemars(rename = "ConfigFile", bound = "D: DestinationSettings, S: SourceKind")]
pub(super) struct ConfigFile<D, S> {
    /// The listener for Alertmanager's webhooks.
    server: Option<Server>,
    /// The listener for metrics and the operator API.
    admin: Option<Admin>,
    /// The store of state, undelivered events and decisions: one of the two.
    store: Option<Store>,
    /// Sources by name: one for each Alertmanager cluster. Required unless `source_files` has some.
    sources: Option<BTreeMap<String, Option<Source<S>>>>,
    /// Keys of all sources, also of those in `source_files`. A key of a source replaces the one here, `labels` one by
    /// one.
    source_defaults: Option<Source<S>>,
    /// Files with more sources, relative to this file: names, and patterns such as `sources/*.yaml`.
    source_files: Option<Vec<String>>,
    /// Destinations of events by name. Required.
    destinations: BTreeMap<String, Destination<D>>,
    /// Retries, expiry and backlog of deliveries.
    delivery: Option<Delivery>,
    /// Settings for all rules.
    engine: Option<Engine>,
    /// Rules files, relative to this file: names, and patterns such as `rules/*.yaml`. Required.
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
    /// TLS; or `web_config_file`. By default plain HTTP.
    tls: Option<Tls>,
    /// Prometheus' web configuration file with TLS, users and headers; or `tls`. Relative to this file.
    web_config_file: Option<String>,
    /// Allow a non-loopback address although the listener does not ask for credentials. Default false.
    allow_unauthenticated: Option<bool>,
    /// Maximum size of a request body in bytes; a larger one gets 413. Default 33554432 (32 MiB).
    max_body_bytes: Option<u64>,
    /// Maximum number of concurrent requests; further ones get 503. Default 256.
    max_in_flight: Option<u32>,
    /// Maximum number of bytes of concurrent request bodies. Default 134217728 (128 MiB).
    max_in_flight_bytes: Option<u64>,
    /// Maximum number of open connections of each listener. Default 10000.
    max_connections: Option<u32>,
    /// Timeout for reading the headers of a request, and for the TLS handshake. Default 5s.
    header_timeout: Option<Duration>,
    /// Timeout for reading a request body. Default 30s.
    body_timeout: Option<Duration>,
    /// Timeout for a client to accept bytes of a response. Default 30s.
    write_timeout: Option<Duration>,
    /// Maximum time from SIGTERM to the end of the process. Default 25s.
    drain_timeout: Option<Duration>,
}

/// The listener for metrics and the operator API.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Admin {
    /// IP address and port. Default 127.0.0.1:9097.
    listen: Option<String>,
    /// TLS; or `web_config_file`. By default plain HTTP.
    tls: Option<Tls>,
    /// Prometheus' web configuration file with TLS, users and headers; or `tls`. Relative to this file.
    web_config_file: Option<String>,
    /// Allow a non-loopback address although the listener does not ask for credentials. Default false.
    allow_unauthenticated: Option<bool>,
    /// Bearer tokens.
    tokens: Option<Vec<AdminToken>>,
    /// The file with users and bcrypt hashes; requires `users`. Relative to this file.
    users_file: Option<String>,
    /// The scopes of the users of `users_file` or of the `web_config_file`.
    users: Option<Vec<AdminUser>>,
    /// Verified client certificates.
    client_certs: Option<Vec<AdminClientCert>>,
    /// JSON Web Tokens, tried in this order.
    jwt: Option<Vec<AdminJwt>>,
    /// Whether /metrics needs no credentials. Default false.
    metrics_unauthenticated: Option<bool>,
    /// The address under which browsers and proxies reach the listener, such as `https://ops.example/scalebridge`.
    external_url: Option<String>,
}

/// The store of state, undelivered events and decisions: one of the two.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Store {
    /// An embedded SQLite database.
    sqlite: Option<Sqlite>,
    /// A PostgreSQL database, which several replicas share.
    postgres: Option<Postgres>,
}

/// An embedded SQLite database.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Sqlite {
    /// The database file, relative to the working directory. Default data/scalebridge.db.
    path: String,
}

/// A PostgreSQL database, which several replicas share.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Postgres {
    /// A file with the database's URL in libpq's form, `postgres://USER:PASSWORD@HOST/DATABASE`. It is read for each new
    /// connection.
    url_file: String,
    /// The maximum number of connections of this replica; one more listens for notices. Default 8.
    #[schemars(range(min = 2, max = 1000))]
    max_connections: Option<u32>,
    /// Whether a token of AWS IAM takes the place of the password. Default false.
    iam: Option<bool>,
    /// Whether changes are announced to other replicas with NOTIFY, instead of being found by polling alone. Default true.
    notify: Option<bool>,
}

/// A source file, one of `source_files` in the configuration.
#[derive(JsonSchema)]
#[schemars(title = "scalebridge sources", deny_unknown_fields, extend("$id" = "urn:scalebridge:schema:sources"))]
#[schemars(rename = "SourceFile", bound = "S: SourceKind")]
pub(super) struct SourceFile<S> {
    /// Sources by name. Required.
    sources: BTreeMap<String, Option<Source<S>>>,
}

/// A source: the keys of all kinds, and one key for each kind that has settings of its own.
pub(super) struct Source<S>(PhantomData<S>);

impl<S: SourceKind> JsonSchema for Source<S> {
    fn schema_name() -> Cow<'static, str> {
        "Source".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut source = SourceKeys::<S>::json_schema(generator);
        let Some(Value::Object(properties)) = source.get_mut("properties") else { return source };
        if let Some(Value::Object(ttl)) = properties.get_mut("occurrence_ttl") {
            ttl.insert("description".to_owned(), occurrence_ttl_description::<S>().into());
        }
        for row in S::KINDS {
            if let OwnSettings::Required(own) = &row.settings {
                let schema = (own.schema)(generator);
                properties.insert(row.key.to_owned(), with_description(schema, generator));
            }
        }
        source
    }
}

/// `An alert that no notification mentions for this long expires. Default 24h, for prometheus 1h.`
fn occurrence_ttl_description<S: SourceKind>() -> String {
    let usual = S::KINDS.first().map_or(std::time::Duration::ZERO, |row| row.default_occurrence_ttl);
    let others = S::KINDS.iter().filter(|row| row.default_occurrence_ttl != usual);
    let others = others.map(|row| format!(", for {} {}", row.key, format(row.default_occurrence_ttl)));
    let others = others.collect::<String>();
    format!(
        "An alert that no notification mentions for this long expires. Default {}{others}.",
        format(usual)
    )
}

/// A sender of notifications: one Alertmanager cluster.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, bound = "S: SourceKind")]
struct SourceKeys<S> {
    /// The format of the notifications. Default alertmanager.
    kind: Option<KindName<S>>,
    /// The credentials of the sender. By default the users of the listener's `web_config_file`, or none.
    auth: Option<SourceAuth>,
    /// Labels that override those of each alert.
    labels: Option<BTreeMap<String, String>>,
    /// The alert that always fires. While it is not open, no alert of this source can decrease capacity.
    heartbeat: Option<HeartbeatForm>,
    /// The heartbeat ends after this long without a notification that contains it; requires `heartbeat`. Longer than
    /// `repeat_interval` plus `group_interval` of its route. By default it ends only when it resolves or expires.
    heartbeat_timeout: Option<Duration>,
    /// How long nothing is decreased after the heartbeat has opened; requires `heartbeat`. Longer than the longest
    /// `for` of the alerts of this source. Default 15m.
    heartbeat_grace: Option<Duration>,
    /// Labels in which the copies of one alert differ, for example the replica of a pair of Prometheus servers. Alerts
    /// that differ only in these count as one for growth.
    ignore_labels: Option<Vec<String>>,
    /// The rules that see the alerts of this source, by name. By default all, except those whose `sources` exclude it.
    rules: Option<Vec<Name>>,
    /// Patterns for the keys of the targets that alerts of this source can be about, as in `pause --target`:
    /// `platform/kind/account/region/cluster/namespace/name`, where `*` is any number of characters. An alert about
    /// another target is invalid. By default all targets are allowed.
    targets: Option<Vec<String>>,
    /// How long a firing alert that arrives after its own resolve is deferred, since it may be a late copy.
    /// Default 6m.
    late_window: Option<Duration>,
    /// Its description is generated: the default depends on the kind.
    occurrence_ttl: Option<Duration>,
    /// The Alertmanager of this source, which is asked what fires now: at the start, after notifications could not be
    /// received, and for alerts that were not heard of for long. By default nothing is asked.
    alertmanager: Option<AlertmanagerApi>,
}

/// The Alertmanager of a source, which is asked what fires now.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct AlertmanagerApi {
    /// The URL of each Alertmanager of the cluster, 1 to 16. Required.
    #[schemars(length(min = 1, max = 16))]
    urls: Vec<String>,
    /// The receivers in Alertmanager's configuration that send to this source. By default those that its notifications
    /// name.
    receivers: Option<Vec<String>>,
    /// How they are called.
    http: Option<HttpClient>,
}

/// A heartbeat: a list of matchers, or a map.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum HeartbeatForm {
    Matchers(Vec<Matcher>),
    Map(Heartbeat),
}

/// A heartbeat, and the labels that tell several heartbeats of a source apart.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Heartbeat {
    /// Matchers of the alert that always fires. Required.
    matchers: Vec<Matcher>,
    /// Label names. Each combination of their values is a heartbeat of its own, for the alerts with the same values.
    /// Without any, the source has one heartbeat.
    equal: Option<Vec<String>>,
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
    /// What a rule has added to a target and could not take back yet, counted from the last close of its episodes
    /// there. Must not be below `closed`. Default 7d.
    owed: Option<Duration>,
    /// Bodies of notifications as they came, for `replay --since`; `off` keeps none. Default 24h.
    notifications: Option<DurationOrOff>,
    /// Maximum number of compressed bytes of all these bodies; the oldest ones are removed first, and none is kept that
    /// has more than an eighth of it. Default 268435456 (256 MiB).
    notifications_bytes: Option<u64>,
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
