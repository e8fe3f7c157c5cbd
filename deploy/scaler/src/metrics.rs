//! Metrics, as Prometheus reads them.
//!
//! All series exist from the start, at 0. The values of labels are known ones, never a part of an event.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use scalebridge::domain::target::Platform;
use scalebridge::domain::time::Time;

use crate::outcome::Outcome;
use crate::report::NAMESPACE;

/// The content type of [`Metrics::openmetrics`].
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of [`Metrics::plain_text`].
pub const PLAIN_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The label `platform` of what could not be read as an event, and of a platform that is not known.
const UNKNOWN_PLATFORM: &str = "unknown";
const PLATFORMS: [&str; 6] = [
    Platform::Eks.as_str(),
    Platform::Ec2.as_str(),
    Platform::Ecs.as_str(),
    Platform::Kubernetes.as_str(),
    Platform::Nomad.as_str(),
    UNKNOWN_PLATFORM,
];
const OUTCOMES: [Outcome; 8] = [
    Outcome::Applied,
    Outcome::Capped,
    Outcome::AlreadyApplied,
    Outcome::Overtaken,
    Outcome::Expired,
    Outcome::Refused,
    Outcome::Retry,
    Outcome::DryRun,
];
const DIRECTIONS: [&str; 2] = ["increase", "decrease"];

/// A call to a queue: the worker's, or that of refused events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueCall {
    Receive,
    Delete,
    ChangeVisibility,
    /// Of a refused event, to the queue for those.
    Send,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    platform: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    call: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

/// All metrics. Clones share the same values.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    events: Family<EventLabels, Counter>,
    capacity_change: Family<DirectionLabels, Counter>,
    ledger_errors: Counter,
    in_progress: Gauge,
    queue_errors: Family<CallLabels, Counter>,
    last_poll: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers all metrics.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Arc::default(),
            events: Family::default(),
            capacity_change: Family::default(),
            ledger_errors: Counter::default(),
            in_progress: Gauge::default(),
            queue_errors: Family::default(),
            last_poll: Gauge::default(),
        };
        metrics.create_series();
        let mut registry = Registry::with_prefix(NAMESPACE);
        // A plain gauge: parsers of the older text format do not know the type `info`.
        let build = Family::<BuildLabels, Gauge>::default();
        build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "Version of the running binary", build);
        registry.register("events", "Events by platform and outcome", metrics.events.clone());
        let help = "Units of capacity that were added or taken away";
        registry.register("capacity_change", help, metrics.capacity_change.clone());
        let help = "Failed reads and writes of the ledger";
        registry.register("ledger_errors", help, metrics.ledger_errors.clone());
        let help = "Events that the worker is applying";
        registry.register("events_in_progress", help, metrics.in_progress.clone());
        let help = "Failed calls to the worker's queue, and (`send`) to that of refused events";
        registry.register("queue_errors", help, metrics.queue_errors.clone());
        let help = "Unix time of the worker's last successful poll of its queue; 0 if there was none";
        registry.register("last_poll_timestamp_seconds", help, metrics.last_poll.clone());
        metrics.registry = Arc::new(registry);
        metrics
    }

    fn create_series(&self) {
        for platform in PLATFORMS {
            for outcome in OUTCOMES.map(outcome_label) {
                drop(self.events.get_or_create(&EventLabels { platform, outcome }));
            }
        }
        for direction in DIRECTIONS {
            drop(self.capacity_change.get_or_create(&DirectionLabels { direction }));
        }
        for call in [QueueCall::Receive, QueueCall::Delete, QueueCall::ChangeVisibility, QueueCall::Send] {
            drop(self.queue_errors.get_or_create(&CallLabels { call: call.label() }));
        }
    }

    /// An event has ended.
    pub fn event(&self, platform: &str, outcome: Outcome) {
        let known = PLATFORMS.into_iter().find(|known| *known == platform);
        let labels =
            EventLabels { platform: known.unwrap_or(UNKNOWN_PLATFORM), outcome: outcome_label(outcome) };
        self.events.get_or_create(&labels).inc();
    }

    /// Units were added (`increase`) or taken away (`decrease`). Another direction is not counted.
    pub fn capacity_change(&self, direction: &str, units: u32) {
        if let Some(direction) = DIRECTIONS.into_iter().find(|known| *known == direction) {
            self.capacity_change.get_or_create(&DirectionLabels { direction }).inc_by(u64::from(units));
        }
    }

    /// The ledger could not be read or written.
    pub fn ledger_error(&self) {
        self.ledger_errors.inc();
    }

    /// The worker applies an event until the value is dropped.
    pub fn begin_event(&self) -> InProgress {
        self.in_progress.inc();
        InProgress(self.in_progress.clone())
    }

    /// A call to the queue has failed.
    pub fn queue_error(&self, call: QueueCall) {
        self.queue_errors.get_or_create(&CallLabels { call: call.label() }).inc();
    }

    /// The queue was polled successfully.
    pub fn polled(&self, at: Time) {
        self.last_poll.set(at.as_millis() as f64 / 1e3);
    }

    /// All metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// Never in practice, since it writes to memory.
    pub fn openmetrics(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// All metrics in Prometheus' older text format, which has the names of counters with `_total`.
    ///
    /// # Errors
    /// Never in practice, since it writes to memory.
    pub fn plain_text(&self) -> Result<String, fmt::Error> {
        Ok(plain_text(&self.openmetrics()?))
    }
}

/// An event that is being applied.
#[derive(Debug)]
pub struct InProgress(Gauge);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl QueueCall {
    fn label(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Delete => "delete",
            Self::ChangeVisibility => "change_visibility",
            Self::Send => "send",
        }
    }
}

/// The same word as in answers.
fn outcome_label(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Applied => "applied",
        Outcome::Capped => "capped",
        Outcome::AlreadyApplied => "already_applied",
        Outcome::Overtaken => "overtaken",
        Outcome::Expired => "expired",
        Outcome::Refused => "refused",
        Outcome::Retry => "retry",
        Outcome::DryRun => "dry_run",
    }
}

/// Converts OpenMetrics, in which there are only counters and gauges.
fn plain_text(openmetrics: &str) -> String {
    let mut plain = String::with_capacity(openmetrics.len());
    let mut lines = openmetrics.lines().peekable();
    while let Some(line) = lines.next() {
        match line.splitn(4, ' ').collect::<Vec<_>>()[..] {
            ["#", "EOF"] => continue,
            ["#", "HELP", name, help] => {
                let is_counter = lines.peek().is_some_and(|next| next.ends_with(" counter"));
                plain += &format!("# HELP {name}{} {help}", if is_counter { "_total" } else { "" });
            }
            ["#", "TYPE", name, "counter"] => plain += &format!("# TYPE {name}_total counter"),
            _ => plain += line,
        }
        plain.push('\n');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(metrics: &Metrics, series: &str) -> String {
        let text = metrics.plain_text().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.unwrap_or_else(|| panic!("no {series} in {text}")).trim().to_owned()
    }

    #[test]
    fn the_label_of_an_outcome_is_the_word_of_the_answer() {
        for outcome in OUTCOMES {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome_label(outcome));
        }
    }

    #[test]
    fn what_is_counted_is_shown_in_both_formats() {
        let metrics = Metrics::new();
        metrics.event("eks", Outcome::Applied);
        metrics.event("eks", Outcome::Applied);
        metrics.event("a name of an attacker", Outcome::Refused);
        metrics.capacity_change("increase", 7);
        metrics.capacity_change("sideways", 7);
        metrics.ledger_error();
        metrics.queue_error(QueueCall::ChangeVisibility);
        let first = metrics.begin_event();
        let second = metrics.begin_event();
        drop(first);
        for (series, expected) in [
            (r#"scalebridge_scaler_events_total{platform="eks",outcome="applied"}"#, "2"),
            (r#"scalebridge_scaler_events_total{platform="unknown",outcome="refused"}"#, "1"),
            (r#"scalebridge_scaler_events_total{platform="nomad",outcome="dry_run"}"#, "0"),
            (r#"scalebridge_scaler_capacity_change_total{direction="increase"}"#, "7"),
            (r#"scalebridge_scaler_capacity_change_total{direction="decrease"}"#, "0"),
            ("scalebridge_scaler_ledger_errors_total ", "1"),
            (r#"scalebridge_scaler_queue_errors_total{call="change_visibility"}"#, "1"),
            (r#"scalebridge_scaler_queue_errors_total{call="receive"}"#, "0"),
            (r#"scalebridge_scaler_queue_errors_total{call="send"}"#, "0"),
            ("scalebridge_scaler_events_in_progress ", "1"),
        ] {
            assert_eq!(value(&metrics, series), expected, "{series}");
        }
        drop(second);
        let openmetrics = metrics.openmetrics().unwrap();
        assert!(openmetrics.contains("# TYPE scalebridge_scaler_events counter\n"), "{openmetrics}");
        assert!(openmetrics.ends_with("# EOF\n"));
        let plain = metrics.plain_text().unwrap();
        assert!(plain.contains("# TYPE scalebridge_scaler_events_total counter\n"), "{plain}");
        assert!(!plain.contains("EOF"));
    }
}
