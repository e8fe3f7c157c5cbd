//! Says what became of each event: a line of the log, and metrics.

use std::io::Write;

use parking_lot::Mutex;
use scalebridge::domain::time::Time;
use serde_json::{Value, json};

use crate::event::ScalingEvent;
use crate::ledger::{AppliedItem, Entries, Freeze, Ledger, LedgerError, TargetItem, Written};
use crate::metrics::Metrics;
use crate::outcome::Answer;
use crate::report::{Received, capacity_change, line};

/// Where lines of the log go.
pub type LogOutput = Box<dyn Write + Send>;

/// Writes the log and counts.
pub struct Observer {
    output: Mutex<LogOutput>,
    metrics: Metrics,
    /// In Lambda, where nothing scrapes.
    embeds_metrics: bool,
}

impl Observer {
    pub fn new(output: LogOutput, metrics: Metrics, embeds_metrics: bool) -> Self {
        Self { output: Mutex::new(output), metrics, embeds_metrics }
    }

    /// An event has its answer.
    pub fn event(&self, received: Received<'_>, answer: &Answer, now: Time) {
        self.metrics.event(received.platform(), answer.outcome);
        if let Some((direction, units)) = capacity_change(answer) {
            self.metrics.capacity_change(direction, units);
        }
        self.write(&line(received, answer, now, self.embeds_metrics));
    }

    /// A refused event did not get into the queue for those. It is in the log, and blocks nothing.
    pub fn refusal_lost(&self, answer: &Answer, error: &str, now: Time) {
        self.write(&json!({
            "timestamp": now.to_millis_string(), "level": "ERROR",
            "message": "the refused event was not sent to `refusals`", "event": answer.id, "error": error,
        }));
    }

    /// The log is not available: there is nowhere to say it.
    fn write(&self, line: &Value) {
        let mut output = self.output.lock();
        drop(writeln!(output, "{line}").and_then(|()| output.flush()));
    }
}

/// A ledger whose errors are counted.
pub(super) struct Counted<'a, L> {
    pub ledger: &'a L,
    pub observer: &'a Observer,
}

impl<L> Counted<'_, L> {
    fn count<T>(&self, result: Result<T, LedgerError>) -> Result<T, LedgerError> {
        result.inspect_err(|_| self.observer.metrics.ledger_error())
    }
}

impl<L: Ledger> Ledger for Counted<'_, L> {
    async fn read(&self, event: &ScalingEvent) -> Result<Entries, LedgerError> {
        self.count(self.ledger.read(event).await)
    }

    async fn write_target(
        &self,
        subject: &str,
        version: u64,
        item: &TargetItem,
    ) -> Result<Written, LedgerError> {
        self.count(self.ledger.write_target(subject, version, item).await)
    }

    async fn replace_applied(
        &self,
        subject: &str,
        old: &AppliedItem,
        new: &AppliedItem,
    ) -> Result<Written, LedgerError> {
        self.count(self.ledger.replace_applied(subject, old, new).await)
    }

    async fn write_applied(&self, subject: &str, item: &AppliedItem) -> Result<(), LedgerError> {
        self.count(self.ledger.write_applied(subject, item).await)
    }

    async fn read_freeze(&self) -> Result<Freeze, LedgerError> {
        self.count(self.ledger.read_freeze().await)
    }

    async fn write_freeze(&self, version: u64, freeze: &Freeze) -> Result<Written, LedgerError> {
        self.count(self.ledger.write_freeze(version, freeze).await)
    }
}
