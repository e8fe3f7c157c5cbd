//! Logs and metrics.
//!
//! Metrics are typed handles that are passed down. Their label values come from the configuration, never
//! from alerts, so the number of series does not depend on who sends alerts.

mod process;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};
use crate::domain::control::GapCause;
use crate::domain::engine::EvaluatedAlert;
use crate::domain::name::Name;
use crate::domain::notification::Status;
use crate::domain::source::Source;
use crate::domain::summary::Summary;
use crate::domain::table::RuleTable;
use crate::domain::time::Time;
use crate::domain::verdict::Verdict;
use crate::store::{Backlog, Tally};

/// The content type of [`Metrics::encode`].
pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of [`Metrics::encode_plain`].
pub(crate) const PLAIN_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The values of `status`.
const ALERT_STATUSES: [&str; 3] = ["firing", "resolved", "invalid"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NotificationLabels {
    source: String,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AlertLabels {
    source: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: String,
}

/// What came of asking the Alertmanagers of a source what fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReconciliationResult {
    /// Alerts have opened of which no notification was received.
    Opened,
    /// Everything that they would send is open here.
    Agreed,
    /// Something is not open here that may be on its way, or they do not agree among themselves.
    Differed,
    /// None has answered, or the store could not take over the answer.
    Failed,
}

impl ReconciliationResult {
    const ALL: [Self; 4] = [Self::Opened, Self::Agreed, Self::Differed, Self::Failed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Agreed => "agreed",
            Self::Differed => "differed",
            Self::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GapLabels {
    source: String,
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconciliationLabels {
    source: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    rule: String,
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    source: String,
    rule: String,
    action: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeliveryLabels {
    destination: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DestinationLabels {
    destination: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutboxLabels {
    destination: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabels {
    rule: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AuthFailureLabels {
    listener: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

/// The help of a metric that each replica has of its own.
fn of_replica(help: &str) -> String {
    format!("{help} (of this replica)")
}

/// The help of a metric of the store. Replicas that share it have the same value, up to a few seconds old.
fn of_fleet(help: &str) -> String {
    format!("{help} (of the fleet: take the maximum over replicas)")
}

type SecondsGauge = Gauge<f64, AtomicU64>;
type SecondsCounter = Counter<f64, AtomicU64>;

/// All metrics. Clones share the same values.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    notifications: Family<NotificationLabels, Counter>,
    alerts: Family<AlertLabels, Counter>,
    gaps: Family<GapLabels, Counter>,
    reconciliations: Family<ReconciliationLabels, Counter>,
    gap_seconds: Family<SourceLabels, SecondsCounter>,
    decisions: Family<DecisionLabels, Counter>,
    events: Family<EventLabels, Counter>,
    deliveries: Family<DeliveryLabels, Counter>,
    delivery_seconds: Family<DestinationLabels, Histogram>,
    alert_to_delivery_seconds: Family<DestinationLabels, Histogram>,
    outbox: Family<OutboxLabels, Gauge>,
    outbox_oldest_seconds: Family<DestinationLabels, SecondsGauge>,
    dead_letters: Family<DestinationLabels, Gauge>,
    destination_up: Family<DestinationLabels, Gauge>,
    open_episodes: Family<RuleLabels, Gauge>,
    owed_decreases: Family<RuleLabels, Gauge>,
    /// The rules with a series in `open_episodes` and `owed_decreases`.
    shown_rules: Arc<Mutex<BTreeSet<Name>>>,
    deferred: Family<VerdictLabels, Gauge>,
    paused: Gauge,
    last_notification: Family<SourceLabels, SecondsGauge>,
    heartbeat: Family<SourceLabels, Gauge>,
    auth_failures: Family<AuthFailureLabels, Counter>,
    store_up: Gauge,
    unreadable_rows: Gauge,
    due_lag_seconds: SecondsGauge,
    clock_offset_seconds: SecondsGauge,
    config_successful: Gauge,
    config_success_time: SecondsGauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers all metrics.
    pub fn new() -> Self {
        let call_buckets = || {
            Histogram::new([
                0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
            ])
        };
        let alert_buckets =
            || Histogram::new([0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0]);
        let mut metrics = Self {
            registry: Arc::default(),
            notifications: Family::default(),
            alerts: Family::default(),
            gaps: Family::default(),
            reconciliations: Family::default(),
            gap_seconds: Family::default(),
            decisions: Family::default(),
            events: Family::default(),
            deliveries: Family::default(),
            delivery_seconds: Family::new_with_constructor(call_buckets),
            alert_to_delivery_seconds: Family::new_with_constructor(alert_buckets),
            outbox: Family::default(),
            outbox_oldest_seconds: Family::default(),
            dead_letters: Family::default(),
            destination_up: Family::default(),
            open_episodes: Family::default(),
            owed_decreases: Family::default(),
            shown_rules: Arc::default(),
            deferred: Family::default(),
            paused: Gauge::default(),
            last_notification: Family::default(),
            heartbeat: Family::default(),
            auth_failures: Family::default(),
            store_up: Gauge::default(),
            unreadable_rows: Gauge::default(),
            due_lag_seconds: Gauge::default(),
            clock_offset_seconds: Gauge::default(),
            config_successful: Gauge::default(),
            config_success_time: Gauge::default(),
        };
        let mut registry = Registry::default();
        let bridge = registry.sub_registry_with_prefix("scalebridge");
        metrics.register_decisions(bridge);
        metrics.register_deliveries(bridge);
        metrics.register_state(bridge);
        registry.register_collector(Box::new(process::Process::new()));
        metrics.registry = Arc::new(registry);
        metrics
    }

    fn register_decisions(&self, bridge: &mut Registry) {
        // A plain gauge: parsers of the older text format do not know the OpenMetrics type `info`.
        let build = Family::<BuildLabels, Gauge>::default();
        build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        bridge.register("build_info", of_replica("Version of the running binary"), build);
        let help = of_replica("Webhook requests by source and HTTP status code");
        bridge.register("notifications", help, self.notifications.clone());
        bridge.register("alerts", of_replica("Alerts received by source and status"), self.alerts.clone());
        let help = of_replica("Times in which notifications of a source could not be accepted, by cause");
        bridge.register("source_reception_gaps", help, self.gaps.clone());
        let help = of_replica("Length of the reception gaps of a source in seconds");
        bridge.register("source_reception_gap_seconds", help, self.gap_seconds.clone());
        let help =
            of_replica("Times at which the Alertmanagers of a source were asked what fires, by result");
        bridge.register("source_reconciliations", help, self.reconciliations.clone());
        bridge.register("decisions", of_replica("Decisions by rule and verdict"), self.decisions.clone());
        let help = of_replica("Events emitted by source, rule and action");
        bridge.register("events", help, self.events.clone());
        let help = of_fleet("Unix time of the last accepted notification of a source; 0 if none is known");
        bridge.register("last_notification_timestamp_seconds", help, self.last_notification.clone());
        let help =
            of_fleet("1 if the heartbeat of a source is open; 0 if it is not, or if none is configured");
        bridge.register("source_heartbeat", help, self.heartbeat.clone());
    }

    fn register_deliveries(&self, bridge: &mut Registry) {
        let help = of_replica("Delivery attempts by destination and result");
        bridge.register("deliveries", help, self.deliveries.clone());
        let help = of_replica("Duration of delivery calls in seconds");
        bridge.register("delivery_duration_seconds", help, self.delivery_seconds.clone());
        let help = of_replica("Seconds from the startsAt of an event's oldest alert to its delivery");
        bridge.register("alert_to_delivery_seconds", help, self.alert_to_delivery_seconds.clone());
        let help = of_fleet("Unsettled deliveries by destination and state");
        bridge.register("outbox_deliveries", help, self.outbox.clone());
        let help = of_fleet("Age of the oldest unsettled delivery in seconds");
        bridge.register("outbox_oldest_seconds", help, self.outbox_oldest_seconds.clone());
        let help = of_fleet("Dead letters by destination");
        bridge.register("dead_letters", help, self.dead_letters.clone());
        let help = of_replica(
            "1 if the destination accepts deliveries; 0 if its circuit breaker is open or its last ten calls delivered nothing",
        );
        bridge.register("destination_up", help, self.destination_up.clone());
    }

    fn register_state(&self, bridge: &mut Registry) {
        bridge.register("open_episodes", of_fleet("Open episodes by rule"), self.open_episodes.clone());
        let help = of_fleet("Increases that a rule has emitted and not taken back");
        bridge.register("owed_decreases", help, self.owed_decreases.clone());
        let help = of_fleet("Deferred actions and late firings by blocking verdict");
        bridge.register("deferred_decisions", help, self.deferred.clone());
        bridge.register("paused", of_fleet("Active pauses"), self.paused.clone());
        let help =
            of_replica("Requests refused for their credentials, or because a page of another site sent them");
        bridge.register("auth_failures", help, self.auth_failures.clone());
        self.store_up.set(1);
        let help =
            of_replica("1 if the last decision was committed; 0 if the store could not read or write it");
        bridge.register("store_up", help, self.store_up.clone());
        let help = of_replica("Rows of the store that were found unreadable; each concerns one target");
        bridge.register("store_unreadable_rows", help, self.unreadable_rows.clone());
        let help = of_fleet(
            "Seconds for which the target that is due first has been waiting to be processed; 0 if none is due",
        );
        bridge.register("due_lag_seconds", help, self.due_lag_seconds.clone());
        let help = of_replica(
            "The wall clock minus the store's clock, by which all waits are measured, in seconds; with PostgreSQL that is the server's",
        );
        bridge.register("clock_offset_seconds", help, self.clock_offset_seconds.clone());
        let help = of_replica("1 if the last load of the configuration was successful; 0 if it failed");
        bridge.register("config_last_reload_successful", help, self.config_successful.clone());
        let help = of_replica("Unix time of the last successful load of the configuration");
        bridge.register(
            "config_last_reload_success_timestamp_seconds",
            help,
            self.config_success_time.clone(),
        );
    }

    /// Counts webhook requests. `source` is empty if no source has that name.
    pub fn record_notification(&self, source: &str, count: u64, code: u16) {
        self.notifications
            .get_or_create(&NotificationLabels { source: source.to_owned(), code })
            .inc_by(count);
    }

    /// Sets the gauges of a source: when it was last heard, as Unix time, and whether its heartbeat is open.
    pub fn set_source_gauges(&self, source: &Name, last_heard: Option<Time>, has_heartbeat: bool) {
        let labels = SourceLabels { source: source.to_string() };
        let seconds = last_heard.map_or(0.0, |at| at.as_millis() as f64 / 1e3);
        self.last_notification.get_or_create(&labels).set(seconds);
        self.heartbeat.get_or_create(&labels).set(i64::from(has_heartbeat));
    }

    /// Counts refused requests of a listener.
    pub fn record_auth_failures(&self, listener: &'static str, reason: &'static str, count: u64) {
        self.auth_failures.get_or_create(&AuthFailureLabels { listener, reason }).inc_by(count);
    }

    /// Sets whether the store works.
    pub fn set_store_up(&self, is_up: bool) {
        self.store_up.set(i64::from(is_up));
    }

    fn decision_counter(&self, rule: &str, verdict: Verdict) -> Counter {
        let labels = DecisionLabels { rule: rule.to_owned(), verdict: verdict.as_str() };
        self.decisions.get_or_create_owned(&labels)
    }

    /// Creates the series of rules.
    pub fn add_rules(&self, rules: &RuleTable, sources: &BTreeMap<Name, Source>) {
        // Alerts that no rule takes.
        for verdict in [Verdict::Unmatched, Verdict::ConditionFalse, Verdict::Heartbeat, Verdict::Invalid] {
            drop(self.decision_counter("", verdict));
        }
        let of_rules = |verdict: &Verdict| {
            !matches!(verdict, Verdict::Unmatched | Verdict::ConditionFalse | Verdict::Heartbeat)
        };
        for rule in rules.rules() {
            let name = rule.name.to_string();
            for verdict in Verdict::ALL.iter().filter(|verdict| of_rules(verdict)) {
                drop(self.decision_counter(&name, *verdict));
            }
            let firing = rule.on_firing.as_ref().map(|firing| &firing.action);
            let resolved = rule.on_resolved.as_ref().map(|resolved| &resolved.action);
            let actions = firing.into_iter().chain(resolved).map(|action| action.change.action());
            for action in actions.collect::<BTreeSet<_>>() {
                for source in sources.values().filter(|source| rule.sees(source)) {
                    let (source, rule) = (source.name.to_string(), name.clone());
                    drop(self.events.get_or_create_owned(&EventLabels { source, rule, action }));
                }
            }
        }
    }

    /// Counts received alerts.
    pub fn record_alerts(&self, source: &Name, alerts: &[EvaluatedAlert]) {
        let mut counts = ALERT_STATUSES.map(|status| (status, 0_u64));
        for alert in alerts {
            let index = match alert.alert().map(|alert| alert.status) {
                Some(Status::Firing) => 0,
                Some(Status::Resolved) => 1,
                None => 2,
            };
            counts[index].1 += 1;
        }
        for (status, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            self.alerts.get_or_create(&AlertLabels { source: source.to_string(), status }).inc_by(count);
        }
    }

    /// Creates the series of sources.
    pub fn add_sources<'s>(&self, sources: impl Iterator<Item = &'s Name>) {
        for source in sources {
            self.record_notification(source.as_str(), 0, 200);
            for status in ALERT_STATUSES {
                let labels = AlertLabels { source: source.to_string(), status };
                drop(self.alerts.get_or_create_owned(&labels));
            }
            self.set_source_gauges(source, None, false);
            GapCause::ALL.into_iter().for_each(|cause| self.record_gap(source, cause, false, Duration::ZERO));
        }
    }

    /// Adds the length of a reception gap, or of a part of it, and counts a new one.
    pub fn record_gap(&self, source: &Name, cause: GapCause, is_new: bool, length: Duration) {
        let source = source.to_string();
        let labels = GapLabels { source: source.clone(), cause: cause.as_str() };
        self.gaps.get_or_create(&labels).inc_by(u64::from(is_new));
        self.gap_seconds.get_or_create(&SourceLabels { source }).inc_by(length.as_secs_f64());
    }

    /// Creates the series of sources whose Alertmanagers are asked what fires.
    pub fn add_reconciled_sources<'s>(&self, sources: impl IntoIterator<Item = &'s Name>) {
        for source in sources {
            for result in ReconciliationResult::ALL {
                let labels = ReconciliationLabels { source: source.to_string(), result: result.as_str() };
                drop(self.reconciliations.get_or_create_owned(&labels));
            }
        }
    }

    /// Counts that the Alertmanagers of a source were asked what fires.
    pub fn record_reconciliation(&self, source: &Name, result: ReconciliationResult) {
        let labels = ReconciliationLabels { source: source.to_string(), result: result.as_str() };
        self.reconciliations.get_or_create(&labels).inc();
    }

    /// Counts committed decisions and their events.
    pub fn record_decisions(&self, summary: &Summary) {
        for ((rule, verdict), count) in &summary.decisions {
            let rule = rule.as_ref().map(ToString::to_string).unwrap_or_default();
            self.decision_counter(&rule, *verdict).inc_by(*count);
        }
        for ((source, rule, action), count) in &summary.actions {
            let labels = EventLabels { source: source.to_string(), rule: rule.to_string(), action };
            self.events.get_or_create(&labels).inc_by(*count);
        }
    }

    /// Sets whether a destination is available.
    pub fn set_destination_up(&self, destination: &Name, up: bool) {
        let labels = DestinationLabels { destination: destination.to_string() };
        self.destination_up.get_or_create(&labels).set(i64::from(up));
    }

    /// Removes the gauges of a destination. Its counters stay, since counters must not disappear.
    pub fn remove_destination(&self, destination: &Name) {
        let destination = destination.to_string();
        for state in ["pending", "retrying"] {
            self.outbox.remove(&OutboxLabels { destination: destination.clone(), state });
        }
        let labels = DestinationLabels { destination };
        self.outbox_oldest_seconds.remove(&labels);
        self.dead_letters.remove(&labels);
        self.destination_up.remove(&labels);
    }

    /// The metrics of deliveries to one destination.
    pub fn delivery_metrics(&self, destination: &Name) -> DeliveryMetrics {
        let labels = DestinationLabels { destination: destination.to_string() };
        let counter = |result| {
            let destination = destination.to_string();
            self.deliveries.get_or_create_owned(&DeliveryLabels { destination, result })
        };
        drop(["retry", "dead", "withdrawn"].map(counter));
        DeliveryMetrics {
            delivered: counter("delivered"),
            call_seconds: self.delivery_seconds.get_or_create_owned(&labels),
            alert_to_delivery_seconds: self.alert_to_delivery_seconds.get_or_create_owned(&labels),
            metrics: self.clone(),
            destination: destination.to_string(),
        }
    }

    /// Sets the gauges of the outbox of a destination. `oldest` is the age of the oldest unsettled delivery.
    pub fn set_backlog(&self, destination: &Name, backlog: Backlog, oldest: Duration) {
        let destination = destination.to_string();
        for (state, count) in [("pending", backlog.pending), ("retrying", backlog.retrying)] {
            let labels = OutboxLabels { destination: destination.clone(), state };
            self.outbox.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let labels = DestinationLabels { destination };
        self.outbox_oldest_seconds.get_or_create(&labels).set(oldest.as_secs_f64());
        self.dead_letters.get_or_create(&labels).set(i64::try_from(backlog.dead).unwrap_or(i64::MAX));
    }

    /// Sets the gauges of open episodes and owed decreases (of `rules`, and of removed rules that still have some),
    /// deferred actions and pauses.
    pub fn set_state_gauges<'r>(
        &self,
        rules: impl Iterator<Item = &'r Name>,
        tally: &'r Tally,
        pauses: usize,
    ) {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let labels = |rule: &Name| RuleLabels { rule: rule.to_string() };
        // Held during the update: concurrent scrapes must not remove series of existing rules.
        let mut shown = self.shown_rules.lock();
        let with_state = tally.open_episodes.keys().chain(tally.owed.keys());
        let current: BTreeSet<Name> = rules.chain(with_state).cloned().collect();
        for rule in &current {
            let open = tally.open_episodes.get(rule).copied().unwrap_or_default();
            self.open_episodes.get_or_create(&labels(rule)).set(count(open));
            let owed = tally.owed.get(rule).copied().unwrap_or_default();
            self.owed_decreases.get_or_create(&labels(rule)).set(count(owed));
        }
        for removed in shown.difference(&current) {
            self.open_episodes.remove(&labels(removed));
            self.owed_decreases.remove(&labels(removed));
        }
        *shown = current;
        drop(shown);
        for verdict in Verdict::ALL.into_iter().filter(|verdict| verdict.is_deferred()) {
            let deferred = tally.deferred.get(&verdict).copied().unwrap_or_default();
            self.deferred.get_or_create(&VerdictLabels { verdict: verdict.as_str() }).set(count(deferred));
        }
        self.paused.set(count(pauses as u64));
    }

    /// Sets the gauge of unreadable rows.
    pub fn set_unreadable_rows(&self, count: usize) {
        self.unreadable_rows.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets the gauges of time: by how many nanoseconds the wall clock is ahead of the store's clock, and the delay of the
    /// target that is `due` first by the store's clock.
    pub fn set_clock_gauges(&self, now: Time, offset: i64, due: Option<Time>) {
        self.clock_offset_seconds.set(offset as f64 / 1e9);
        self.due_lag_seconds.set(due.map_or(Duration::ZERO, |due| now.since(due)).as_secs_f64());
    }

    /// Records a load of the configuration: successful at the Unix time `at`, or failed (`None`).
    pub fn record_config_load(&self, at: Option<Duration>) {
        self.config_successful.set(i64::from(at.is_some()));
        if let Some(at) = at {
            self.config_success_time.set(at.as_secs_f64());
        }
    }

    /// Encodes all metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// Never in practice, since it writes to memory.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Encodes all metrics in Prometheus' older text format, which has the names of counters with `_total`.
    ///
    /// # Errors
    /// Never in practice, since it writes to memory.
    pub fn encode_plain(&self) -> Result<String, std::fmt::Error> {
        Ok(plain_text(&self.encode()?))
    }
}

/// Converts OpenMetrics to the older text format.
fn plain_text(openmetrics: &str) -> String {
    let mut plain = String::with_capacity(openmetrics.len());
    let mut lines = openmetrics.lines().peekable();
    while let Some(line) = lines.next() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "EOF", ..] | ["#", "UNIT", ..] => continue,
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

/// The metrics of deliveries to one destination. Series that each delivery updates are looked up once.
pub struct DeliveryMetrics {
    metrics: Metrics,
    destination: String,
    delivered: Counter,
    call_seconds: Histogram,
    alert_to_delivery_seconds: Histogram,
}

impl DeliveryMetrics {
    fn counter(&self, result: &'static str) -> Counter {
        let labels = DeliveryLabels { destination: self.destination.clone(), result };
        self.metrics.deliveries.get_or_create_owned(&labels)
    }

    /// Counts a delivered delivery.
    pub fn record_delivered(&self) {
        self.delivered.inc();
    }

    /// Counts a delivery that was settled without success, as `retry`, `dead` or `withdrawn`.
    pub fn record_undelivered(&self, result: &'static str) {
        self.counter(result).inc();
    }

    /// Records the duration of the call of a delivery.
    pub fn observe_call(&self, duration: Duration) {
        self.call_seconds.observe(duration.as_secs_f64());
    }

    /// Records the time from the start of an event's oldest alert to its delivery.
    pub fn observe_alert_to_delivery(&self, duration: Duration) {
        self.alert_to_delivery_seconds.observe(duration.as_secs_f64());
    }
}

/// Starts logging to stderr. Stdout is reserved for data.
///
/// # Errors
/// Logging was started before, or the log level is invalid.
pub(crate) fn start_logging(log: &Log) -> anyhow::Result<()> {
    // Lines of libraries below WARN are useful only for debugging these, and the AWS SDK prints endpoints there, user info
    // included. The warnings of aws_config repeat a failure to load credentials at each call, which the workers log once.
    let libraries = log.level.min(crate::config::LogLevel::Warn);
    let filter = EnvFilter::try_new(format!("{libraries},aws_config=error,scalebridge={}", log.level))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Stderr)
        .log_internal_errors(false)
        .with_target(false);
    let started = match log.format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

thread_local! {
    /// The lines that [`log_in_one_write`] holds back.
    static HELD_LINES: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Writes all lines that `log` logs at once: a write costs more than the text of a line.
pub(crate) fn log_in_one_write(log: impl FnOnce()) {
    /// Also if `log` panics, so that no later line is held back.
    struct WriteOnDrop;
    impl Drop for WriteOnDrop {
        fn drop(&mut self) {
            if let Some(lines) = HELD_LINES.take() {
                drop(std::io::stderr().write_all(&lines));
            }
        }
    }
    HELD_LINES.set(Some(Vec::new()));
    let _write = WriteOnDrop;
    log();
}

/// Stderr without errors. A line that cannot be written (full disk, closed pipe) is dropped: an error would
/// make logging panic or fail its caller.
struct Stderr;

impl std::io::Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        HELD_LINES.with_borrow_mut(|held| match held {
            Some(lines) => lines.extend_from_slice(bytes),
            None => drop(std::io::stderr().write_all(bytes)),
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        drop(std::io::stderr().flush());
        Ok(())
    }
}

/// Writes a line to stderr where logging has not started. Errors are ignored as well.
pub(crate) fn print_to_stderr(text: impl std::fmt::Display) {
    drop(writeln!(Stderr, "{text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two Prometheus servers may scrape at the same time.
    #[test]
    fn concurrent_scrapes_see_every_rule() {
        let metrics = Metrics::new();
        let rules: Vec<Name> = ["idle", "pods"].into_iter().filter_map(|name| Name::new(name).ok()).collect();
        let tally = Tally { open_episodes: [(rules[1].clone(), 3)].into(), ..Tally::default() };
        let scrape = || {
            metrics.set_state_gauges(rules.iter(), &tally, 0);
            metrics.encode().unwrap()
        };
        scrape();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let text = scrape();
                        for series in ["{rule=\"idle\"} 0\n", "{rule=\"pods\"} 3\n"] {
                            assert!(text.contains(&format!("scalebridge_open_episodes{series}")), "{text}");
                        }
                    }
                });
            }
        });
    }
}
