//! Says what became of each event: a line of the log, and metrics.

use std::io::Write;

use parking_lot::Mutex;
use scalebridge::domain::time::Time;
use serde_json::Value;

use crate::event::ScalingEvent;
use crate::ledger::{AppliedItem, Entries, Freeze, Ledger, LedgerError, Pending, TargetItem, Written};
use crate::metrics::{Metrics, QueueCall};
use crate::outcome::Answer;
use crate::report::{Received, capacity_change, change_line, difference, line, unsent_line};

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

    /// A pending change of another event was ended. It is counted here, since that event has no other answer any more than
    /// `already_applied`.
    pub fn change(&self, target: &str, pending: &Pending, now: Time) {
        if let Some((direction, units)) = difference(pending.from, pending.to) {
            self.metrics.capacity_change(direction, units);
        }
        self.write(&change_line(target, pending, now, self.embeds_metrics));
    }

    /// The queue of refused events has not taken one.
    pub fn refusal_unsent(&self, body: &str, answer: &Answer, error: &str, now: Time) {
        self.metrics.queue_error(QueueCall::Send);
        self.write(&unsent_line(body, answer, error, now, self.embeds_metrics));
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

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::capacity::Request;
    use crate::event::Limits;
    use crate::plan::test_support::{LATER, NOW, adjustment, id};

    /// The lines that were written.
    #[derive(Clone, Default)]
    pub(in crate::scaler) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        pub(in crate::scaler) fn read(&self) -> Vec<Value> {
            let text = String::from_utf8(self.0.lock().clone()).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    fn pending(from: u32, to: u32) -> Pending {
        let limits = Limits::default();
        Pending {
            id: id(7),
            token: id(7),
            called: true,
            reverts: Vec::new(),
            sequence: 3,
            expirytime: LATER,
            is_floor: false,
            from,
            to,
            cut_by: "the maximum of the group is 6".to_owned(),
            note: String::new(),
            request: Request { adjustment: adjustment("+4"), limits, take_back: None },
            worker: 42,
            held_since: NOW,
        }
    }

    #[test]
    fn a_change_that_was_ended_with_another_event_is_logged_and_counted() {
        let (lines, metrics) = (Lines::default(), Metrics::new());
        let observer = Observer::new(Box::new(lines.clone()), metrics.clone(), false);
        observer.change("ecs/web", &pending(4, 6), NOW);
        observer.change("ecs/web", &pending(6, 3), NOW);
        observer.change("ecs/web", &pending(3, 3), NOW);
        assert_eq!(
            lines.read()[0],
            json!({
                "timestamp": "1970-01-01T00:16:40.000Z", "level": "INFO", "message": "change", "event": id(7),
                "outcome": "capped", "from": 4, "to": 6,
                "reason": "it was ended with another event of the target; the maximum of the group is 6",
                "target": "ecs/web", "sequence": "3",
            })
        );
        let text = metrics.plain_text().unwrap();
        for expected in [
            "capacity_change_total{direction=\"increase\"} 2\n",
            "capacity_change_total{direction=\"decrease\"} 3\n",
            // Its own event is counted when it comes again.
            "events_total{platform=\"ecs\",outcome=\"capped\"} 0\n",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }

    #[test]
    fn in_lambda_such_a_line_carries_its_metric() {
        let lines = Lines::default();
        let observer = Observer::new(Box::new(lines.clone()), Metrics::new(), true);
        observer.change("ecs/web", &pending(6, 3), NOW);
        let line = &lines.read()[0];
        assert_eq!((&line["direction"], &line["capacity_change_total"]), (&json!("decrease"), &json!(3)));
        let metrics = line["_aws"]["CloudWatchMetrics"].as_array().unwrap();
        assert_eq!((metrics.len(), &metrics[0]["Dimensions"]), (1, &json!([["direction"]])));
    }
}
