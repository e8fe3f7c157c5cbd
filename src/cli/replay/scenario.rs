//! What is replayed: notifications, and what else happened to the bridge, on one time line.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::cli::capture;
use crate::cli::output::pluralize;
use crate::domain::control::Pause;
use crate::domain::delivery::DestinationState;
use crate::domain::name::Name;
use crate::domain::notification::{Notification, Status};
use crate::domain::time::Time;

/// The times that are replayed, and of which source.
pub(super) struct Period {
    pub from: Time,
    pub until: Time,
    pub source: Option<String>,
}

/// What happened between two times, oldest first. Times have a precision of milliseconds, as in rule tests.
pub(super) struct Scenario {
    /// When the simulation starts, with nothing.
    pub start: Time,
    pub steps: Vec<Step>,
    /// When it ends.
    pub end: Time,
}

/// What happened at one time.
pub(super) struct Step {
    pub at: Time,
    pub action: Action,
}

pub(super) enum Action {
    Notify(Box<ReceivedNotification>),
    /// A pause begins. It ends by itself, also where an operator has ended it.
    Pause(Pause),
    Destination(Name, DestinationState),
    /// Notifications of a source are refused for this long.
    Gap(Name, Duration),
    /// The bridge does not run for this long.
    Restart(Duration),
}

/// A notification.
pub(super) struct ReceivedNotification {
    /// Where it comes from: a file, or the source of a kept one.
    pub name: String,
    /// `None` for files: their source is an argument or the only one.
    pub source: Option<Name>,
    pub notification: Notification,
    /// The fingerprints of alerts that have resolved and did not fire before: what happened before the start is unknown.
    pub not_comparable: BTreeSet<String>,
}

/// An alert whose first notification says that it has resolved.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct NotComparable {
    pub source: String,
    pub fingerprint: String,
    pub labels: BTreeMap<String, String>,
    /// When the notification was received.
    pub at: String,
}

impl Scenario {
    /// The notifications of files, each at the time of its latest alert start or end, or at which its file was modified if
    /// it is of Prometheus.
    pub(super) fn from_files(bodies: &[PathBuf], advance: Duration) -> Result<Self, String> {
        let mut steps: Vec<Step> = Vec::new();
        let mut start: Option<Time> = None;
        for path in bodies {
            let capture = capture::read(path)?;
            let previous = steps.last().map(|last| last.at);
            let (first, last) = capture::time_range(&capture)
                .or(previous.map(|at| (at, at)))
                .ok_or_else(|| format!("{}: the notification has no valid alert", path.display()))?;
            start = Some(start.map_or(first, |start| start.min(first)));
            let received = ReceivedNotification {
                name: path.display().to_string(),
                source: None,
                notification: capture.notification,
                not_comparable: BTreeSet::new(),
            };
            let at = floor_millis(previous.map_or(last, |previous| previous.max(last)));
            steps.push(Step { at, action: Action::Notify(Box::new(received)) });
        }
        let start = start.unwrap_or(Time::from_nanos(0));
        let end = steps.last().map_or(start, |last| last.at).after(advance);
        let start = Time::from_nanos(start.as_nanos().saturating_sub(1_000_000_000));
        Ok(Self { start: floor_millis(start), steps, end })
    }

    /// Sorts the steps and marks the alerts that are first seen resolved, which it returns. Of the steps at one time,
    /// notifications are last: they are decided under the pauses and destinations of that time.
    pub(super) fn order(&mut self) -> Vec<NotComparable> {
        self.steps.sort_by_key(|step| (step.at, matches!(step.action, Action::Notify(_))));
        let mut fired: BTreeSet<(Name, String)> = BTreeSet::new();
        let mut listed: BTreeMap<(Name, String), NotComparable> = BTreeMap::new();
        for step in &mut self.steps {
            let at = step.at;
            let Action::Notify(received) = &mut step.action else { continue };
            let Some(source) = received.source.clone() else { continue };
            for alert in received.notification.alerts.iter().flatten() {
                let key = (source.clone(), alert.fingerprint.to_string());
                match alert.status {
                    Status::Firing => drop(fired.insert(key)),
                    Status::Resolved if fired.contains(&key) => {}
                    Status::Resolved => {
                        received.not_comparable.insert(key.1.clone());
                        let labels = alert.labels.iter();
                        let not_comparable = || NotComparable {
                            source: source.to_string(),
                            fingerprint: alert.fingerprint.to_string(),
                            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                            at: at.to_millis_string(),
                        };
                        listed.entry(key).or_insert_with(not_comparable);
                    }
                }
            }
        }
        let mut listed: Vec<NotComparable> = listed.into_values().collect();
        listed.sort_by(|one, other| one.at.cmp(&other.at));
        listed
    }

    /// The number of alerts of kept notifications that were firing before the start.
    pub(super) fn adopted_alerts(&self) -> usize {
        let mut adopted: BTreeSet<(&Name, &str)> = BTreeSet::new();
        for step in &self.steps {
            let Action::Notify(received) = &step.action else { continue };
            let Some(source) = &received.source else { continue };
            let firing = received.notification.alerts.iter().flatten();
            let firing = firing
                .filter(|alert| alert.status == Status::Firing && alert.starts_at < self.start)
                .map(|alert| (source, &*alert.fingerprint));
            adopted.extend(firing);
        }
        adopted.len()
    }

    pub(super) fn notifications(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step.action, Action::Notify(_))).count()
    }
}

impl Step {
    /// What happened, in a few words.
    pub(super) fn describe(&self) -> String {
        match &self.action {
            Action::Notify(received) => match &received.source {
                Some(source) => {
                    format!("{source}, {}", pluralize(received.notification.alerts.len(), "alert"))
                }
                None => received.name.clone(),
            },
            Action::Pause(pause) => format!("paused by {}", pause.author),
            Action::Destination(name, state) => format!("{name} is {}", state.as_str()),
            Action::Gap(source, _) => format!("notifications of {source} are refused"),
            Action::Restart(_) => "the bridge does not run".to_owned(),
        }
    }
}

/// The last millisecond that is not after a time.
pub(super) const fn floor_millis(time: Time) -> Time {
    Time::from_millis(time.as_millis())
}
