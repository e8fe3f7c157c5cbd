//! scalebridge turns Prometheus alerts into scaling events that are safe to act on in production.
//!
//! The modules in reading order. A module may import those above it; modules on the same line do not
//! import each other (`tests/it/layers.rs`).
//!
//! - `json`: JSON encoding, and the escapes that SQS requires.
//! - [`domain`]: alerts, rules, targets, events, and the engine that decides. Pure: no IO, no clock.
//! - [`config`]: configuration files to checked settings.
//! - `credentials`: who may send to a source and use the admin listener; TLS settings and outgoing HTTP clients.
//! - `aws`: access to services of AWS, for sources and destinations.
//! - `store`: the durable state, which reaches PostgreSQL with the TLS of `credentials`.
//! - `telemetry`: logs and metrics.
//! - `sources`, `bridge`, `dispatch`: bodies to notifications; notifications to committed decisions;
//!   committed events to destinations.
//! - `kinds`: the configuration with the kinds of sources and destinations that there are.
//! - `intake`: bodies of requests and messages of queues, from their arrival to the commit.
//! - `ops`: what operators do and read, with the audit trail.
//! - `http`: the webhook and the admin listener.
//! - `app`: wiring, reload, shutdown.
//! - `cli`: the commands.
//!
//! Without the feature `server` the crate has only `json`, `domain` and `config`: what consumers need to
//! read events, and tools to read rules.
//!
//! # Where to find what
//!
//! - A decrease without positive evidence gets the verdict `no_evidence`: `check_evidence` in
//!   `domain/engine/act.rs`, and `domain/engine/mod.rs` for a resolve of an alert that never fired.
//! - A decrease is blocked by the guards: `domain/engine/guard.rs`. Blocked actions are deferred, rechecked
//!   and, if no longer justified, withdrawn: `domain/engine/deferred.rs`.
//! - An undelivered decrease is superseded by an increase: `domain/engine/episode.rs`.
//! - An event is retried with exponential backoff: `domain/retry.rs` (delay and expiry),
//!   `dispatch/send.rs` (outcome of each delivery), `dispatch/worker.rs` (the loop). The circuit breaker
//!   is `dispatch/breaker.rs`, the AIMD concurrency limit `dispatch/concurrency.rs`.
//! - A commit is made by the one writer thread: `store/sqlite/writer/mod.rs` (group commit in WAL mode, with a
//!   savepoint for each command). It also decides the transactions: `store/sqlite/writer/transact.rs`.
//! - A state that cannot be read concerns its own target only: `store/sqlite/committed/quarantine.rs`.
//! - A pause is recorded in the controls, and like every act of an operator in the audit trail:
//!   `ops/pauses.rs`, `domain/control.rs`, `ops/audit.rs`.
//!
//! ARCHITECTURE.md has the complete map, docs/GLOSSARY.md the terms.
//!
//! # Invariants
//!
//! 1. A 200 follows the commit of all decisions and of the events still to be delivered.
//! 2. The engine is deterministic: event ids are hashes of what an event is about, and the state that they
//!    are derived from is written in the same transaction.
//! 3. Capacity is only decreased on positive evidence, never because of an unknown status, a missing label,
//!    a truncated notification, a restart or a lost store.
//! 4. Every alert gets a verdict, and every verdict is stored.

#[cfg(feature = "server")]
mod app;
#[cfg(feature = "server")]
mod aws;
#[cfg(feature = "server")]
mod bridge;
#[cfg(feature = "server")]
mod cli;
pub mod config;
#[cfg(feature = "server")]
mod credentials;
#[cfg(feature = "server")]
mod dispatch;
pub mod domain;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "server")]
mod http;
#[cfg(feature = "server")]
mod intake;
mod json;
#[cfg(feature = "server")]
mod kinds;
#[cfg(feature = "server")]
mod ops;
#[cfg(feature = "server")]
mod sources;
#[cfg(feature = "server")]
mod store;
#[cfg(feature = "server")]
mod telemetry;

#[cfg(feature = "server")]
pub use cli::run;

/// Internals for integration tests and benchmarks. Not a public interface: it changes without notice.
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod testing {
    pub use crate::app::wall_clock;
    pub use crate::bridge::Bridge;
    pub use crate::ops::{Error as OpsError, Initiator, PauseRequest, Pauses};
    pub use crate::store::{
        Changes, DeliveryQueue, Keys, MAX_WINDOW_BYTES, Memory, NewEvent, Record, RefusalReason, Refused,
        Settlement, Sqlite, Store,
    };
    pub use crate::telemetry::Metrics;

    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Arc;

    use crate::config::Diagnostics;
    use crate::domain::name::Name;
    use crate::domain::notification::Notification;
    use crate::domain::source::Source;
    use crate::domain::table::RuleTable;
    use crate::kinds;
    use crate::sources::SourceKind;

    /// The parts of a configuration that the bridge needs.
    #[derive(Debug)]
    pub struct BridgeSettings {
        /// The rules.
        pub rules: Arc<RuleTable>,
        /// The sources by name.
        pub sources: BTreeMap<Name, Source>,
    }

    /// Loads the configuration file at `path`, without environment variables.
    ///
    /// # Errors
    /// All errors and warnings, if there is an error.
    pub fn load(path: &Path) -> Result<BridgeSettings, Diagnostics> {
        let settings = kinds::load(path, [])?.settings;
        Ok(BridgeSettings { rules: settings.rules, sources: settings.sources })
    }

    /// Parses a body as the webhook of a source with the default kind does.
    ///
    /// # Errors
    /// The body as a whole is rejected.
    pub fn parse_notification(body: &[u8]) -> Result<Notification, impl std::error::Error + use<>> {
        SourceKind::default().parse(body, crate::app::wall_clock())
    }
}
