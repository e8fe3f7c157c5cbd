//! scalebridge turns Prometheus alerts into scaling events that a team dares to let act on production.
//!
//! The map of the house, in reading order. Imports run upwards in this list and never down; layers on
//! the same line do not know each other.
//!
//! - `json`: writing JSON, fast.
//! - [`domain`]: what alerts, rules, targets and events are, and the engine that decides. Pure.
//! - [`config`], `store`: text to checked settings; what must survive.
//! - `telemetry`: logs and metrics.
//! - `bridge`, `dispatch`: from a notification to decisions on disk; from there to the
//!   destinations.
//! - `http`: the two listeners.
//! - `app`: wiring, start, drain.
//! - `cli`: the verbs.
//!
//! Without the feature `server` there are only `domain` and `config`: what a consumer needs to understand
//! events and what a tool needs to read rules.
//!
//! What holds everywhere:
//!
//! 1. A 200 follows the commit of every decision and every delivery that it causes.
//! 2. The engine decides what happens twice: ids are hashes of what an event is about, and the state
//!    that they come from is written in the same transaction.
//! 3. Nothing takes capacity away without positive evidence: an unknown status, a missing label, a
//!    truncated notification, a restart or a lost store never does.
//! 4. Every alert gets a verdict, and every verdict is kept.

#[cfg(feature = "server")]
mod app;
#[cfg(feature = "server")]
mod bridge;
#[cfg(feature = "server")]
mod cli;
pub mod config;
#[cfg(feature = "server")]
mod dispatch;
pub mod domain;
#[cfg(feature = "server")]
mod http;
mod json;
#[cfg(feature = "server")]
mod store;
#[cfg(feature = "server")]
mod telemetry;

#[cfg(feature = "server")]
pub use cli::run;

/// What integration tests and benchmarks use of the rest. Not an interface: it changes with them.
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod testing {
    pub use crate::app::wall_clock;
    pub use crate::bridge::{Bridge, PauseRequest};
    pub use crate::store::{Changes, Keys, Memory, NewEvent, Record, Settlement, Sqlite, Store};
    pub use crate::telemetry::Metrics;
}
