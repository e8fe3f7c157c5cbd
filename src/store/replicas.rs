//! The replicas that share a store.

use crate::domain::control::ReceptionGap;
use crate::domain::time::Time;

/// The replicas of a store that several can share, as this process has last read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replicas {
    /// When they were read, by the server's clock.
    pub read_at: Time,
    /// The schema step of the database.
    pub schema_step: i32,
    /// Those that run, and those that ended without being stopped and were heard within the last hour.
    pub all: Vec<Replica>,
}

/// A process that uses the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replica {
    /// A random number, new at each start.
    pub id: i64,
    /// The name of its host.
    pub name: String,
    /// The version of its program.
    pub version: String,
    /// The newest schema step that its program knows.
    pub schema_step: i32,
    /// When it was started.
    pub started: Time,
    /// When it was last heard.
    pub seen: Time,
    /// Whether it was heard within the last five seconds.
    pub is_alive: bool,
    /// Whether it accepts notifications.
    pub is_ready: bool,
    /// Whether it is this process.
    pub is_own: bool,
    /// Its wall clock minus the server's clock in nanoseconds, if it has measured that.
    pub clock_offset: Option<i64>,
}

/// How often the store came back behind what this process has seen, and the last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Rewinds {
    /// The number since the start of the process.
    pub count: u64,
    /// What was lost the last time.
    pub last: Option<ReceptionGap>,
}
