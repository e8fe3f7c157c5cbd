//! What the rest of the bridge sees of a configuration: checked, with every default filled in.
//!
//! Past this module nobody validates again. What cannot be true cannot be built here, and what the
//! types cannot say is promised in words.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::engine::Policy;
use crate::domain::name::Name;
use crate::domain::rate::PerMinute;
use crate::domain::source::Source;
use crate::domain::table::RuleTable;

/// A whole configuration with its rules.
#[derive(Debug)]
pub struct Settings {
    /// The listener that takes webhooks.
    pub server: Server,
    /// The listener for metrics and operators.
    pub admin: Admin,
    /// Where state lives.
    pub store: Store,
    /// Senders of notifications, at least one.
    pub sources: BTreeMap<Name, Source>,
    /// Where events go, at least one.
    pub destinations: BTreeMap<Name, Destination>,
    /// With as many deliveries undelivered, over all destinations, nothing is taken in. Never zero.
    pub max_backlog: u64,
    /// The rules, at least one; every name in them is one of `sources` or `destinations`.
    pub rules: Arc<RuleTable>,
    /// What holds for all rules.
    pub engine: Engine,
    /// What is kept for how long.
    pub retention: Retention,
    /// How the bridge logs.
    pub log: Log,
}

/// The webhook's listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where it listens.
    pub listen: SocketAddr,
    /// A larger body is answered with 413. At most `max_in_flight_bytes`.
    pub max_body_bytes: usize,
    /// Requests at the same time; one more is answered with 503.
    pub max_in_flight: usize,
    /// Bytes of bodies at the same time, reserved before reading.
    pub max_in_flight_bytes: usize,
    /// For a request's head.
    pub header_timeout: Duration,
    /// For a request's body.
    pub body_timeout: Duration,
    /// From the signal to the end of the process.
    pub drain_timeout: Duration,
}

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens.
    pub listen: SocketAddr,
}

/// Where state lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// Embedded, in one file.
    Sqlite {
        /// The file, relative to the working directory.
        path: PathBuf,
    },
}

/// Where events go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Its name in the configuration, metrics and the store.
    pub name: Name,
    /// What it is.
    pub kind: DestinationKind,
    /// How a delivery is tried again and given up.
    pub delivery: Delivery,
    /// With as many deliveries undelivered here, new ones are dead letters at once. Never zero.
    pub max_backlog: Option<u64>,
    /// Calls at the same time, 1 to 256; 1 for a file.
    pub concurrency: usize,
    /// For one call, never zero.
    pub timeout: Duration,
}

/// What a destination is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DestinationKind {
    /// An SQS queue.
    Sqs(Sqs),
    /// A Lambda function.
    Lambda(Lambda),
    /// A file or stdout.
    File(File),
}

/// An SQS queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sqs {
    /// Its URL: http(s), host, account, queue.
    pub queue_url: String,
    /// Whether it is a FIFO queue: the URL ends in `.fifo`.
    pub fifo: bool,
    /// The region that is given or that its URL names; else the environment's.
    pub region: Option<String>,
    /// Another endpoint than AWS' own.
    pub endpoint_url: Option<String>,
    /// The role that calls it, where it is not the process' own.
    pub role: Option<Role>,
    /// The most bytes that one message may have, from [`Sqs::MIN_MESSAGE_BYTES`] to
    /// [`Sqs::MAX_MESSAGE_BYTES`].
    pub max_message_bytes: usize,
}

/// A Lambda function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lambda {
    /// Its name or ARN.
    pub function: String,
    /// Alias or version.
    pub qualifier: Option<String>,
    /// Whether the answer is waited for.
    pub invocation_type: InvocationType,
    /// Events of one call, from 1 to [`Lambda::MAX_EVENTS`]. Above 1 a call carries an array.
    pub max_events: usize,
    /// The region that is given or that its ARN names; else the environment's.
    pub region: Option<String>,
    /// Another endpoint than AWS' own.
    pub endpoint_url: Option<String>,
    /// The role that calls it, where it is not the process' own.
    pub role: Option<Role>,
}

/// A role that is assumed for a destination.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Role {
    /// Its ARN.
    pub arn: String,
    /// What its owner asks for beside that.
    pub external_id: Option<String>,
}

/// How a function is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvocationType {
    /// Lambda takes the event into its own queue and answers at once.
    Event,
    /// The answer is waited for, and a `FunctionError` in it is a failure.
    RequestResponse,
}

/// A place for one event a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum File {
    /// Standard output.
    Stdout,
    /// A file, relative to the working directory.
    Path(PathBuf),
}

/// How a delivery is tried again and given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Before the second attempt. Never zero, at most `max_backoff`.
    pub initial_backoff: Duration,
    /// The longest pause between two attempts.
    pub max_backoff: Duration,
    /// A delivery older than this is given up.
    pub max_age: Duration,
    /// The same for what takes capacity away. At most `max_age`.
    pub scale_in_max_age: Duration,
}

/// What holds for all rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Engine {
    /// How long guards may keep what takes capacity away, beside its own stabilization window.
    pub max_deferral: Duration,
    /// What this process may emit.
    pub per_minute: PerMinute,
}

/// What is kept for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Decisions.
    pub decisions: Duration,
    /// Events that every destination has.
    pub delivered: Duration,
    /// Episodes and occurrences that are over; not below any source's `late_window`.
    pub closed: Duration,
}

/// How the bridge logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// For people or machines.
    pub format: LogFormat,
    /// From this importance on.
    pub level: LogLevel,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The least importance that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What may fail soon.
    Warn,
    /// What happens.
    Info,
    /// What happens inside.
    Debug,
    /// Everything.
    Trace,
}

impl Settings {
    /// What holds for all rules, as the engine reads it.
    pub fn policy(&self) -> Policy {
        Policy {
            last_resolve_retention: self.retention.closed,
            // While the decisions of the one can be read, the events of the other have ids of their own.
            expired_episode_retention: self.retention.decisions.max(self.retention.closed),
            max_deferral: self.engine.max_deferral,
            per_minute: self.engine.per_minute,
        }
    }
}

impl Sqs {
    /// A smaller limit leaves no room for one alert.
    pub const MIN_MESSAGE_BYTES: usize = 8 * 1024;
    /// SQS takes no larger message.
    pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
}

impl Lambda {
    /// More events would hardly fit into one call.
    pub const MAX_EVENTS: usize = 100;
}

impl InvocationType {
    /// The most bytes that one call carries: Lambda's own limits, in powers of ten.
    pub const fn max_payload_bytes(self) -> usize {
        match self {
            Self::Event => 1_000_000,
            Self::RequestResponse => 6_000_000,
        }
    }
}

impl Destination {
    /// The most bytes that one event may have here.
    pub fn max_event_bytes(&self) -> usize {
        match &self.kind {
            DestinationKind::Sqs(sqs) => sqs.max_message_bytes,
            // In an array it stands between brackets.
            DestinationKind::Lambda(lambda) => {
                let brackets = if lambda.max_events > 1 { 2 } else { 0 };
                lambda.invocation_type.max_payload_bytes() - brackets
            }
            DestinationKind::File(_) => 1024 * 1024,
        }
    }

    /// Whether someone changes capacity when an event arrives here. A file only keeps it.
    pub fn is_acting(&self) -> bool {
        !matches!(self.kind, DestinationKind::File(_))
    }
}

impl LogLevel {
    /// The word in configuration, which `tracing`'s filters read as well.
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
