//! The checked settings, with all defaults applied.
//!
//! No other module validates them again. Invalid values cannot be constructed from a configuration;
//! invariants beyond the types are documented at the fields.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::access::{AdminAuth, HttpClient, ListenerAccess, SourceAuth};
use crate::domain::engine::Policy;
use crate::domain::name::Name;
use crate::domain::rate::PerMinute;
use crate::domain::source::Source;
use crate::domain::table::RuleTable;

/// A checked configuration with its rules.
#[derive(Debug)]
pub struct Settings<D, S> {
    /// The webhook listener.
    pub server: Server,
    /// The listener for metrics and the operator API.
    pub admin: Admin,
    /// The store of state, outbox and decisions.
    pub store: Store,
    /// The sources by name, at least one.
    pub sources: BTreeMap<Name, Source>,
    /// The kind of each source.
    pub source_kinds: BTreeMap<Name, S>,
    /// The credentials of each source.
    pub source_auth: BTreeMap<Name, SourceAuth>,
    /// The Alertmanagers that are asked what fires now, of the sources that have any.
    pub alertmanagers: BTreeMap<Name, AlertmanagerApi>,
    /// The destinations by name, at least one.
    pub destinations: BTreeMap<Name, Destination<D>>,
    /// Maximum number of unsettled deliveries of all destinations; at this number the webhook responds 503.
    /// Never zero.
    pub max_backlog: u64,
    /// The rules, at least one; every name in them is one of `sources` or `destinations`.
    pub rules: Arc<RuleTable>,
    /// Settings of the engine for all rules.
    pub engine: Engine,
    /// Retention of decisions, events and closed episodes.
    pub retention: Retention,
    /// Format and level of the log.
    pub log: Log,
}

/// Settings of the webhook listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The IP address and port.
    pub listen: SocketAddr,
    /// Maximum size of a request body; a larger one gets 413. At most `max_in_flight_bytes`.
    pub max_body_bytes: usize,
    /// Maximum number of concurrent requests, 1 to 1,000,000; further ones get 503.
    pub max_in_flight: usize,
    /// Maximum number of bytes of concurrent request bodies, taken as bytes arrive and are decoded. The same number
    /// holds on the admin listener, on its own.
    pub max_in_flight_bytes: usize,
    /// Maximum number of open connections of each listener.
    pub max_connections: usize,
    /// Timeout for reading the headers of a request, and for the TLS handshake, on both listeners.
    pub header_timeout: Duration,
    /// Timeout for reading a request body, on both listeners.
    pub body_timeout: Duration,
    /// Timeout for a client to accept bytes of a response, on both listeners.
    pub write_timeout: Duration,
    /// Credentials and TLS.
    pub access: ListenerAccess,
    /// Maximum time from the stop signal to the end of the process.
    pub drain_timeout: Duration,
}

/// Settings of the admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// The IP address and port.
    pub listen: SocketAddr,
    /// TLS and the `web_config_file`.
    pub access: ListenerAccess,
    /// Tokens, users, certificates and their scopes.
    pub auth: AdminAuth,
}

/// The Alertmanagers of a source, which are asked what fires now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertmanagerApi {
    /// The URL of each peer of the cluster, without `/api/v2` and without a slash at its end; at least one.
    pub urls: Vec<String>,
    /// The receivers by which Alertmanager sends to this source; if empty, those that its notifications name.
    pub receivers: BTreeSet<String>,
    /// How they are called.
    pub http: HttpClient,
}

/// The kind of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// An embedded SQLite database.
    Sqlite {
        /// The database file, relative to the working directory.
        path: PathBuf,
    },
    /// A PostgreSQL database, which several replicas can share.
    Postgres(PostgresStore),
}

/// A PostgreSQL database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresStore {
    /// The file with its URL. It is read for each new connection.
    pub url_file: PathBuf,
    /// The maximum number of connections that are kept for work; one more listens for notices. At least two.
    pub max_connections: usize,
    /// Whether a token of AWS IAM takes the place of the password.
    pub iam: bool,
    /// Whether changes are announced to other replicas with `NOTIFY`. Without it, they find them by polling.
    pub notify: bool,
}

/// A receiver of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination<D> {
    /// The name in the configuration, the metrics and the store.
    pub name: Name,
    /// The kind, with the settings of that kind.
    pub settings: D,
    /// Whether a consumer changes capacity when an event arrives. If not, the events are only recorded.
    pub acting: bool,
    /// Backoff and maximum age.
    pub delivery: Delivery,
    /// Maximum number of unsettled deliveries of this destination; further ones are dead-lettered
    /// immediately. Never zero.
    pub max_backlog: Option<u64>,
    /// Maximum number of concurrent calls, from 1 to the kind's maximum.
    pub concurrency: usize,
    /// Timeout of one call, never zero.
    pub timeout: Duration,
}

/// Backoff and maximum age of deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Delay before the second attempt. Never zero, at most `max_backoff`.
    pub initial_backoff: Duration,
    /// Maximum delay between two attempts.
    pub max_backoff: Duration,
    /// An older delivery is dead-lettered. Never zero.
    pub max_age: Duration,
    /// `max_age` for events that can decrease capacity; the smaller of both applies. Never zero.
    pub scale_in_max_age: Duration,
}

/// Settings of the engine for all rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Engine {
    /// Maximum number of events per minute and direction of this process.
    pub per_minute: PerMinute,
}

/// Retention periods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Decision records and the audit trail.
    pub decisions: Duration,
    /// Events that are delivered to every destination.
    pub delivered: Duration,
    /// Closed episodes and occurrences; not below the `late_window` of any source.
    pub closed: Duration,
    /// What a rule owes on a target, counted from the last close of its episodes there; positive, and not below
    /// `closed`.
    pub owed: Duration,
    /// Bodies of notifications; zero if they are not kept.
    pub notifications: Duration,
    /// The maximum of the compressed bytes of all of these bodies.
    pub notifications_bytes: u64,
}

/// Format and level of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// The lowest level that is logged.
    pub level: LogLevel,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Human-readable text.
    Text,
    /// One JSON object per line.
    Json,
}

/// The lowest level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Failures that need an operator.
    Error,
    /// Failures that the bridge works around.
    Warn,
    /// Changes of state.
    Info,
    /// Details for developers.
    Debug,
    /// All messages.
    Trace,
}

impl Delivery {
    /// The default of `max_age`, for rules without a configuration.
    pub const DEFAULT_MAX_AGE: Duration = Duration::from_hours(1);
}

impl<D, S> Settings<D, S> {
    /// The settings that the engine uses for all rules.
    pub fn policy(&self) -> Policy {
        self.engine.policy(&self.retention)
    }
}

impl Engine {
    /// The settings that the engine uses for all rules.
    pub(super) fn policy(&self, retention: &Retention) -> Policy {
        Policy {
            last_resolve_retention: retention.closed,
            // While decisions of an expired episode are retained, event ids of a later one must differ from
            // its own.
            expired_episode_retention: retention.decisions.max(retention.closed),
            owed_retention: retention.owed,
            probes_destinations: true,
            per_minute: self.per_minute,
        }
    }
}

impl LogLevel {
    /// The keyword in the configuration, which is also a valid `tracing` filter.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
