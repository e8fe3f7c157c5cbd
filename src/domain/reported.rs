//! What an Alertmanager says about its alerts when it is asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::notification::Alert;
use super::time::Time;

/// An alert that fires in an Alertmanager, whether it notifies anybody of it or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedAlert {
    /// The alert, firing.
    pub alert: Alert,
    /// The receivers to which Alertmanager's routes lead it.
    pub receivers: Vec<Arc<str>>,
    /// Its state.
    pub state: ReportedState,
    /// Why Alertmanager notifies nobody of it. May be empty although it is suppressed.
    pub suppressed_by: Vec<SuppressedBy>,
}

/// The state of an alert in Alertmanager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportedState {
    /// Alertmanager notifies its receivers.
    Active,
    /// It is silenced, inhibited or muted.
    Suppressed,
    /// Alertmanager has not decided yet (`unprocessed`).
    Undecided,
}

/// Why Alertmanager notifies nobody of an alert.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SuppressedBy {
    /// A silence, by its id.
    Silence(Arc<str>),
    /// Another alert, by its fingerprint.
    Inhibition(Arc<str>),
    /// A time interval of its route, by its name. Alertmanager says so since 0.28, and not before it has first evaluated
    /// the alert's group.
    TimeInterval(Arc<str>),
}

/// A silence of an Alertmanager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// Who made it, cut to [`MAX_NAME_CHARS`].
    pub created_by: String,
    /// The comment, cut to [`MAX_COMMENT_CHARS`].
    pub comment: String,
    /// When it ends.
    pub ends_at: Time,
}

/// The characters of `createdBy` of a silence that are kept.
pub const MAX_NAME_CHARS: usize = 100;
/// The characters of the comment of a silence that are kept.
pub const MAX_COMMENT_CHARS: usize = 300;

/// What one Alertmanager has answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The alerts that could be read.
    pub alerts: Vec<ReportedAlert>,
    /// The number of alerts that could not be read.
    pub unreadable: usize,
    /// The silences by id, as far as they were read.
    pub silences: BTreeMap<Arc<str>, Silence>,
    /// When the Alertmanager was started, by its clock. One that was started a short time ago does not know all alerts yet:
    /// Prometheus sends them again about once a minute.
    pub started_at: Option<Time>,
}
