//! What the tasks of a worker do: send a batch, and settle what was sent, whatever becomes of it.
//!
//! Calls do not wait for the store: what came back while the store was at work on the last settlement is
//! settled together in the next.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::health::{CallOutcome, Ticket};
use super::{
    Answer, Class, DeliveryReport, Destination, Failure, Observer, Options, Outbox, Outcome, OutgoingEvent,
};
use crate::domain::header::EventHeader;
use crate::domain::retry::{self, Backoff};
use crate::domain::time::Time;
use crate::store::{self, Claimed, EventSeq, Settlement};

/// Between the tries to settle or claim, when the store cannot.
pub(super) const STORE_BACKOFF: Backoff =
    match Backoff::new(Duration::from_millis(100), Duration::from_secs(5)) {
        Ok(backoff) => backoff,
        Err(_) => panic!("100 ms are less than 5 s"),
    };

/// What all tasks of a worker share.
#[derive(Debug)]
pub(super) struct Shared<O, D, V> {
    pub(super) options: Options,
    pub(super) outbox: O,
    pub(super) destination: D,
    pub(super) observer: V,
}

/// Why what would undo something is not sent.
const NOTHING_TO_COMPENSATE: &str = "what it would undo never arrived here";
/// Why what was superseded while it waited for its call is not sent.
const SUPERSEDED: &str = "capacity was added before it was sent";

/// What a task has done.
#[derive(Debug)]
pub(super) enum TaskResult {
    /// It made a call, or found that none was needed.
    Sent { ticket: Ticket, call_outcome: CallOutcome, completed: CompletedCall },
    /// It settled what had come back.
    Settled,
}

/// Deliveries whose end is known and not written yet: those of one call.
#[derive(Debug)]
pub(super) struct CompletedCall {
    settled: Vec<SettledDelivery>,
    /// By the time of the answer: the store may take long to settle.
    completed_at: Time,
    /// Whether the call failed as a whole, which is the worker's to tell, once for all of its like.
    failed: bool,
}

impl CompletedCall {
    /// What needed no call.
    pub(super) const fn skipped(settled: Vec<SettledDelivery>, at: Time) -> Self {
        Self { settled, completed_at: at, failed: false }
    }

    pub(super) const fn len(&self) -> usize {
        self.settled.len()
    }
}

/// A delivery and what became of it.
#[derive(Debug)]
pub(super) struct SettledDelivery {
    seq: EventSeq,
    attempts: u32,
    header: Option<Arc<EventHeader>>,
    settlement: Settlement,
    /// Why it was not delivered, as the log tells it.
    reason: String,
    call_duration: Option<Duration>,
}

impl OutgoingEvent {
    /// Reads the header of every event. What is not to be sent comes second: what has none, and what
    /// would undo what never arrived.
    pub(super) fn from_claimed(claimed: Vec<Claimed>) -> (Vec<Self>, Vec<SettledDelivery>) {
        let mut events = Vec::with_capacity(claimed.len());
        let mut settled = Vec::new();
        for Claimed { seq, body, emitted_at, attempts, last_error, nothing_to_compensate } in claimed {
            match body.header() {
                header if nothing_to_compensate => {
                    settled.push(SettledDelivery::withdrawn(seq, header.ok(), NOTHING_TO_COMPENSATE));
                }
                Ok(header) => events.push(Self { seq, body, header, emitted_at, attempts, last_error }),
                Err(error) => settled.push(SettledDelivery::dead(seq, None, error.to_string())),
            }
        }
        (events, settled)
    }
}

impl CallOutcome {
    /// Of a call that brought answers. One event of many that was throttled is enough to send less;
    /// that a person has to mend something is believed when nothing passed.
    fn from_answers(answers: &[Answer]) -> Self {
        let failures = || answers.iter().filter_map(|answer| answer.as_ref().err());
        let first = |class| failures().find(|failure| failure.class == class).cloned();
        let none_passed = answers.iter().all(Result::is_err);
        let misconfigured = || first(Class::Misconfigured).filter(|_| none_passed);
        first(Class::Throttled).or_else(misconfigured).map_or(Self::Reached, Self::Failed)
    }
}

impl<O: Outbox, D: Destination, V: Observer> Shared<O, D, V> {
    /// One call.
    pub(super) async fn call_with(
        self: Arc<Self>,
        events: Vec<OutgoingEvent>,
        ticket: Ticket,
        mut rng: fastrand::Rng,
    ) -> TaskResult {
        let (settled, call_outcome) = self.send(events, &mut rng).await;
        let completed = CompletedCall {
            settled,
            completed_at: self.outbox.now(),
            failed: matches!(call_outcome, CallOutcome::Failed(_)),
        };
        TaskResult::Sent { ticket, call_outcome, completed }
    }

    /// Writes what has come back, all of it together.
    pub(super) async fn settle_all(
        self: Arc<Self>,
        all: Vec<CompletedCall>,
        mut rng: fastrand::Rng,
    ) -> TaskResult {
        let settled = all.iter().flat_map(|completed| &completed.settled);
        let settled: Vec<_> = settled.map(|delivery| (delivery.seq, delivery.settlement.clone())).collect();
        if self.settle(&settled, &mut rng).await {
            all.iter().for_each(|completed| {
                self.report(&completed.settled, completed.completed_at, !completed.failed);
            });
        }
        TaskResult::Settled
    }

    /// Sends what is neither superseded nor too old nor too large. It may have waited long for its call: a
    /// destination that fails gets none.
    async fn send(
        &self,
        events: Vec<OutgoingEvent>,
        rng: &mut fastrand::Rng,
    ) -> (Vec<SettledDelivery>, CallOutcome) {
        let now = self.outbox.now();
        let mut settled = Vec::with_capacity(events.len());
        let mut batch = Vec::with_capacity(events.len());
        for event in events {
            if event.header.decreases_capacity() && self.outbox.is_cancelled(&self.options.name, event.seq) {
                settled.push(SettledDelivery::withdrawn(event.seq, Some(event.header), SUPERSEDED));
                continue;
            }
            match self.expiry_reason(&event, now).or_else(|| self.oversize_reason(&event)) {
                Some(reason) => settled.push(SettledDelivery::dead(event.seq, Some(event.header), reason)),
                None => batch.push(event),
            }
        }
        if batch.is_empty() {
            return (settled, CallOutcome::Skipped);
        }
        let started = Instant::now();
        let (answers, call_outcome) = self.call(&batch).await;
        let call_duration = started.elapsed();
        for (event, answer) in batch.into_iter().zip(answers) {
            let reason = answer.as_ref().err().map_or_else(String::new, |failure| failure.message.clone());
            settled.push(SettledDelivery {
                seq: event.seq,
                attempts: event.attempts,
                header: Some(event.header),
                settlement: self.settlement(event.attempts, answer, rng),
                reason,
                call_duration: Some(call_duration),
            });
        }
        (settled, call_outcome)
    }

    /// One answer for each event. Where one of them made the destination refuse the whole batch for
    /// good, its halves are sent, and theirs, so that the others pass.
    async fn call(&self, batch: &[OutgoingEvent]) -> (Vec<Answer>, CallOutcome) {
        let mut answers: Vec<Answer> = Vec::with_capacity(batch.len());
        let mut call_outcome = CallOutcome::Reached;
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            match self.destination.send(part).await {
                Ok(part_answers) => {
                    let missing_answer =
                        || Err(Failure::transient("the destination did not answer for the event"));
                    let mut part_answers = part_answers;
                    part_answers.resize_with(part.len(), missing_answer);
                    if call_outcome == CallOutcome::Reached {
                        call_outcome = CallOutcome::from_answers(&part_answers);
                    }
                    answers.append(&mut part_answers);
                }
                Err(failure) if failure.class != Class::Permanent => {
                    // It fails as a whole, so what is left of the batch is not tried on it.
                    answers.resize(batch.len(), Err(failure.clone()));
                    return (answers, CallOutcome::Failed(failure));
                }
                Err(_) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                // It answered: it is this event that it does not want.
                Err(failure) => answers.push(Err(failure)),
            }
        }
        (answers, call_outcome)
    }

    /// Why the event is not sent any more, if it is not.
    fn expiry_reason(&self, event: &OutgoingEvent, now: Time) -> Option<String> {
        let Options { max_age, scale_in_max_age, .. } = self.options;
        let max_age = if event.header.decreases_capacity() { scale_in_max_age.min(max_age) } else { max_age };
        let reason = retry::expiry_reason(now, event.emitted_at, event.header.expirytime, max_age)?;
        Some(match &event.last_error {
            Some(error) => format!("{reason}; the last error: {error}"),
            None => reason.to_string(),
        })
    }

    /// Why the event cannot be sent at all, if it cannot.
    fn oversize_reason(&self, event: &OutgoingEvent) -> Option<String> {
        let (bytes, max_bytes) =
            (self.destination.event_bytes(event), self.destination.limits().max_event_bytes);
        (bytes > max_bytes).then(|| format!("too large: it has {bytes} bytes of {max_bytes}"))
    }

    fn settlement(&self, attempts: u32, answer: Answer, rng: &mut fastrand::Rng) -> Settlement {
        match answer {
            Ok(None) => Settlement::Delivered,
            Ok(Some(answer)) => Settlement::Answered { answer },
            Err(failure) => match failure.class {
                Class::Permanent => Settlement::Dead { error: failure.stored_error() },
                Class::Transient | Class::Throttled | Class::Misconfigured => Settlement::Retry {
                    delay: self.options.backoff.delay(attempts.saturating_add(1), rng.f64()),
                    error: failure.stored_error(),
                },
            },
        }
    }

    /// Tries until the store has it: what arrived and is not settled would be sent again. False if
    /// the store is closed.
    async fn settle(&self, settled: &[(EventSeq, Settlement)], rng: &mut fastrand::Rng) -> bool {
        let name = &self.options.name;
        let mut failures = 0u32;
        loop {
            match self.outbox.settle(name, settled.to_vec()).await {
                Ok(()) if failures == 0 => return true,
                Ok(()) => {
                    tracing::info!(destination = %name, "the store settles deliveries again");
                    return true;
                }
                Err(error @ store::Error::Closed) => {
                    let count = settled.len();
                    tracing::error!(destination = %name, %error, count, "deliveries are not settled and will be sent again");
                    return false;
                }
                Err(error) if failures == 0 => {
                    tracing::warn!(destination = %name, %error, "the store does not settle deliveries; trying until it does");
                }
                Err(_) => {}
            }
            failures = failures.saturating_add(1);
            tokio::time::sleep(STORE_BACKOFF.delay(failures, rng.f64())).await;
        }
    }

    /// Tells metrics of each, and the log of what is new: dead letters and (if `alone`) first
    /// failures, one line for all of a batch.
    fn report(&self, settled: &[SettledDelivery], at: Time, log_first_failures: bool) {
        let name = &self.options.name;
        for delivery in settled {
            let outcome = Outcome::from(&delivery.settlement);
            let report = DeliveryReport {
                outcome,
                call_duration: delivery.call_duration,
                completed_at: at,
                header: delivery.header.as_deref(),
            };
            self.observer.on_delivery(name, &report);
        }
        let dead = settled.iter().filter(|delivery| matches!(delivery.settlement, Settlement::Dead { .. }));
        if let Some((event, error, more)) = summary(dead) {
            tracing::warn!(destination = %name, event, error, more, "given up, kept as a dead letter");
        }
        let is_retry = |delivery: &&SettledDelivery| matches!(delivery.settlement, Settlement::Retry { .. });
        let first_failures =
            settled.iter().filter(|delivery| log_first_failures && delivery.attempts == 0).filter(is_retry);
        if let Some((event, error, more)) = summary(first_failures) {
            tracing::warn!(destination = %name, event, error, more, "not delivered, will be tried again");
        }
    }
}

/// The id and reason of the first, and how many more there are.
fn summary<'a>(mut all: impl Iterator<Item = &'a SettledDelivery>) -> Option<(&'a str, &'a str, usize)> {
    let first = all.next()?;
    let id = first.header.as_ref().map_or("unreadable", |header| &header.id);
    Some((id, &first.reason, all.count()))
}

impl SettledDelivery {
    /// A delivery that is a dead letter without having been sent.
    fn dead(seq: EventSeq, header: Option<Arc<EventHeader>>, reason: String) -> Self {
        let settlement = Settlement::Dead { error: reason.clone() };
        Self { seq, attempts: 0, header, settlement, reason, call_duration: None }
    }

    /// A delivery that is over without having been sent.
    fn withdrawn(seq: EventSeq, header: Option<Arc<EventHeader>>, reason: &str) -> Self {
        let reason = reason.to_owned();
        let settlement = Settlement::Withdrawn { reason: reason.clone() };
        Self { seq, attempts: 0, header, settlement, reason, call_duration: None }
    }
}
