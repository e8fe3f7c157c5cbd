//! The tasks of a worker: send a batch, and settle its deliveries.
//!
//! Calls do not wait for the store: outcomes that arrive during a settlement are settled together in the
//! next one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::health::{CallOutcome, Ticket};
use super::{
    Answer, Class, DeliveryReport, Destination, Failure, Observer, Options, Outcome, OutgoingEvent,
    Withholding,
};
use crate::domain::delivery::GiveUp;
use crate::domain::header::EventHeader;
use crate::domain::retry::Backoff;
use crate::domain::target::TargetKey;
use crate::domain::time::{ClockReading, Time};
use crate::store::{self, Claimed, DeliveryQueue, Lease, RefusalReason, Refused, Settlement};

/// The backoff between attempts to claim or settle while the store fails.
pub(super) const STORE_BACKOFF: Backoff =
    match Backoff::new(Duration::from_millis(100), Duration::from_secs(5)) {
        Ok(backoff) => backoff,
        Err(_) => panic!("the initial delay exceeds the maximum"),
    };

/// The pause before it is looked again whether a lock of the store is held that was waited for.
const LOCKED_DELAY: Duration = Duration::from_secs(2);

/// The state shared by all tasks of a worker.
#[derive(Debug)]
pub(super) struct Shared<O, D, V> {
    pub(super) options: Options,
    pub(super) outbox: O,
    pub(super) destination: D,
    pub(super) observer: V,
    pub(super) withholding: Withholding,
}

/// How long a withheld delivery is not considered again, and so the longest delay after a pause or hold has ended.
const WITHHELD_DELAY: Duration = Duration::from_secs(5);

/// A decrease is not called if it was rechecked longer ago.
const MAX_RECHECK_AGE: Duration = Duration::from_secs(5);

/// The reason of a delivery that is withdrawn because it would compensate nothing.
const NOTHING_TO_COMPENSATE: &str = "the event that it compensates never arrived at this destination";
/// The reason of a delivery that was superseded while it waited for a call.
const SUPERSEDED: &str = "superseded by an increase before it was sent";
/// The reason of a delivery that was taken back while it waited for a call.
const SUSPENDED: &str = "taken back before it was sent";

/// Precedes the error of the last call in the error of an expired delivery.
const LAST_ERROR: &str = "; last error: ";

/// The result of a task.
#[derive(Debug)]
pub(super) enum TaskResult {
    /// A call was made, or none was needed.
    Sent { ticket: Ticket, call_outcome: CallOutcome, completed: CompletedCall },
    /// A settlement has completed, except for what is locked in the store.
    Settled { locked: Vec<CompletedCall> },
    /// So has that of what was locked.
    SettledLate,
}

/// The deliveries of one call, whose outcomes are known but not yet stored.
#[derive(Debug)]
pub(super) struct CompletedCall {
    settled: Vec<SettledDelivery>,
    /// The wall clock at the answer, since settling can take long.
    completed_at: Time,
    /// Whether the call failed as a whole or was throttled. The worker logs that, at most once per interval.
    failed: bool,
}

impl CompletedCall {
    /// Deliveries that needed no call.
    pub(super) const fn skipped(settled: Vec<SettledDelivery>, at: Time) -> Self {
        Self { settled, completed_at: at, failed: false }
    }

    pub(super) const fn len(&self) -> usize {
        self.settled.len()
    }

    /// Splits it into the deliveries that are settled and those with these leases.
    fn split(self, locked: &[Lease]) -> (Self, Self) {
        let Self { settled, completed_at, failed } = self;
        let (locked, settled) = settled.into_iter().partition(|delivery| locked.contains(&delivery.lease));
        (Self { settled, completed_at, failed }, Self { settled: locked, completed_at, failed })
    }

    /// Whether some of the deliveries wait for another attempt.
    pub(super) fn has_postponed(&self) -> bool {
        self.settled.iter().any(SettledDelivery::is_postponed)
    }
}

/// A delivery and its outcome.
#[derive(Debug)]
pub(super) struct SettledDelivery {
    lease: Lease,
    attempts: u32,
    header: Option<Arc<EventHeader>>,
    settlement: Settlement,
    /// Why it was not delivered, as logged.
    reason: String,
    call_duration: Option<Duration>,
}

impl OutgoingEvent {
    /// Reads the headers of claimed events. Returns the events to send, and the deliveries to settle
    /// without a call: unreadable events, and events that have nothing to compensate.
    pub(super) fn from_claimed(claimed: Vec<Claimed>) -> (Vec<Self>, Vec<SettledDelivery>) {
        let mut events = Vec::with_capacity(claimed.len());
        let mut settled = Vec::new();
        for one in claimed {
            let Claimed { lease, body, emitted_at, attempts, is_uncertain, redrives, last_error, .. } = one;
            match body.header() {
                header if one.nothing_to_compensate => {
                    settled.push(SettledDelivery::withdrawn(lease, header.ok(), NOTHING_TO_COMPENSATE));
                }
                Ok(header) => events.push(Self {
                    lease,
                    body,
                    header,
                    emitted_at,
                    attempts,
                    is_uncertain,
                    redrives,
                    last_error,
                }),
                Err(error) => {
                    settled.push(SettledDelivery::dead(lease, None, error.to_string(), GiveUp::Rejected));
                }
            }
        }
        (events, settled)
    }
}

impl<O: DeliveryQueue, D: Destination, V: Observer> Shared<O, D, V> {
    pub(super) async fn call_with(
        self: Arc<Self>,
        events: Vec<OutgoingEvent>,
        ticket: Ticket,
        mut rng: fastrand::Rng,
    ) -> TaskResult {
        let (settled, call_outcome) = self.send(events, &mut rng).await;
        let completed = CompletedCall {
            settled,
            completed_at: self.outbox.clock().wall,
            failed: call_outcome.failed_as_a_whole(),
        };
        TaskResult::Sent { ticket, call_outcome, completed }
    }

    /// Settles the deliveries of all completed calls together.
    pub(super) async fn settle_all(
        self: Arc<Self>,
        all: Vec<CompletedCall>,
        mut rng: fastrand::Rng,
    ) -> TaskResult {
        TaskResult::Settled { locked: self.settle_and_report(all, &mut rng).await }
    }

    /// Settles deliveries that were locked in the store, beside the settlements of others.
    pub(super) async fn settle_locked(
        self: Arc<Self>,
        mut all: Vec<CompletedCall>,
        mut rng: fastrand::Rng,
    ) -> TaskResult {
        while !all.is_empty() {
            tokio::time::sleep(LOCKED_DELAY).await;
            all = self.settle_and_report(all, &mut rng).await;
        }
        TaskResult::SettledLate
    }

    /// Returns what is locked in the store.
    async fn settle_and_report(
        &self,
        all: Vec<CompletedCall>,
        rng: &mut fastrand::Rng,
    ) -> Vec<CompletedCall> {
        let settled = all.iter().flat_map(|completed| &completed.settled);
        let settled: Vec<_> = settled.map(|delivery| (delivery.lease, delivery.settlement.clone())).collect();
        let Some(locked) = self.settle(&settled, rng).await else { return Vec::new() };
        let mut left = Vec::new();
        for completed in all {
            let (settled, locked) = completed.split(&locked);
            self.report(&settled.settled, settled.completed_at, !settled.failed);
            left.extend(Some(locked).filter(|locked| !locked.settled.is_empty()));
        }
        left
    }

    /// Whether the call of an event is stored before it is made.
    fn is_call_stored(&self, event: &OutgoingEvent) -> bool {
        event.header.decreases_capacity() || self.destination.stores_calls()
    }

    /// Stores which events are about to be called: decreases, after decisions have seen what may block them, or all if the
    /// destination requires it. Returns those that must not be called; `None` if that is not known.
    async fn begin_calls(&self, events: &[OutgoingEvent]) -> Option<Vec<Refused>> {
        let stored = events.iter().filter(|event| self.is_call_stored(event));
        let leases: Vec<Lease> = stored.map(|event| event.lease).collect();
        if leases.is_empty() {
            return Some(Vec::new());
        }
        let started = self.outbox.clock().now;
        let decreases = events.iter().filter(|event| event.header.decreases_capacity());
        let targets: Vec<TargetKey> =
            decreases.map(|event| TargetKey::from_stored(&event.header.subject)).collect();
        if !targets.is_empty() {
            self.withholding.recheck(targets).await.ok()?;
        }
        let refused = self.outbox.begin_calls(&self.options.name, leases).await.ok()?;
        // Notifications may have been missed meanwhile, because the process was stopped.
        let is_recent = self.outbox.clock().now.since(started) <= MAX_RECHECK_AGE;
        is_recent.then_some(refused)
    }

    /// Sends the events that still may be sent. This is checked right before the call, because an event can wait
    /// long for it while the destination is unavailable.
    async fn send(
        &self,
        events: Vec<OutgoingEvent>,
        rng: &mut fastrand::Rng,
    ) -> (Vec<SettledDelivery>, CallOutcome) {
        let (mut settled, mut batch) = (Vec::new(), Vec::with_capacity(events.len()));
        let clock = self.outbox.clock();
        for event in events {
            match self.obstacle(&event, clock) {
                Some(settlement) => settled.push(SettledDelivery::not_called(event, settlement)),
                None => batch.push(event),
            }
        }
        self.remove_refused(&mut batch, &mut settled, rng).await;
        if batch.is_empty() {
            return (settled, CallOutcome::Skipped);
        }
        let started = Instant::now();
        let (answers, call_outcome) = self.call(&batch).await;
        let call_duration = started.elapsed();
        for (event, answer) in batch.into_iter().zip(answers) {
            let reason = answer.as_ref().err().map_or_else(String::new, |failure| failure.message.clone());
            settled.push(SettledDelivery {
                lease: event.lease,
                attempts: event.attempts,
                header: Some(event.header),
                settlement: self.settlement(event.attempts, answer, rng),
                reason,
                call_duration: Some(call_duration),
            });
        }
        (settled, call_outcome)
    }

    /// What becomes of an event that must not be sent now, whatever the store says; `None` if it can be sent.
    fn obstacle(&self, event: &OutgoingEvent, clock: ClockReading) -> Option<Settlement> {
        if let Some(error) = self.expiry_reason(event, clock) {
            return Some(Settlement::Dead { error, cause: GiveUp::Expired, called: false, uncertain: false });
        }
        if let Some(error) = self.oversize_reason(event) {
            return Some(Settlement::Dead {
                error,
                cause: GiveUp::Rejected,
                called: false,
                uncertain: false,
            });
        }
        let is_withheld = self.withholding.covers(&event.header, clock.now);
        is_withheld.then_some(Settlement::NotCalled { delay: WITHHELD_DELAY, stands_aside: true })
    }

    /// Stores which events of a batch are about to be called, and takes those out of it that must not be.
    async fn remove_refused(
        &self,
        batch: &mut Vec<OutgoingEvent>,
        settled: &mut Vec<SettledDelivery>,
        rng: &mut fastrand::Rng,
    ) {
        let refused = self.begin_calls(batch).await;
        let refusal = |event: &OutgoingEvent| match &refused {
            // It keeps its place.
            None => self.is_call_stored(event).then_some(None),
            Some(refused) => {
                let refused = refused.iter().find(|refused| refused.lease == event.lease);
                refused.map(|refused| Some(refused.reason))
            }
        };
        for event in batch.extract_if(.., |event| refusal(event).is_some()).collect::<Vec<_>>() {
            settled.push(match refusal(&event).flatten() {
                Some(refusal) => SettledDelivery::refused(event, refusal),
                None => {
                    let delay = self.options.backoff.delay(event.attempts.saturating_add(1), rng.f64());
                    let settlement = Settlement::NotCalled { delay, stands_aside: false };
                    SettledDelivery::not_called(event, settlement)
                }
            });
        }
    }

    /// Returns one answer per event. If a whole batch is rejected permanently, it is bisected until the
    /// event that caused it is isolated, so that the others are delivered.
    async fn call(&self, batch: &[OutgoingEvent]) -> (Vec<Answer>, CallOutcome) {
        let mut answers: Vec<Answer> = Vec::with_capacity(batch.len());
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            match self.destination.send(part).await {
                Ok(mut part_answers) => {
                    let missing_answer = || {
                        let failure = Failure::transient("the destination returned no result for the event");
                        Err(failure.with_uncertainty(true))
                    };
                    part_answers.resize_with(part.len(), missing_answer);
                    answers.append(&mut part_answers);
                }
                Err(failure) if failure.class != Class::Permanent => {
                    // The destination fails as a whole: the rest of the batch is not sent, after a call that
                    // rejected it.
                    answers.resize(answers.len() + part.len(), Err(failure.clone()));
                    answers.resize(batch.len(), Err(failure.clone().with_uncertainty(false)));
                    return (answers, CallOutcome::failed(failure));
                }
                Err(_) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                // The destination answered: only this event is rejected.
                Err(failure) => answers.push(Err(failure)),
            }
        }
        let call_outcome = CallOutcome::from_answers(batch, &answers);
        (answers, call_outcome)
    }

    /// Why the event has expired, if it has.
    fn expiry_reason(&self, event: &OutgoingEvent, clock: ClockReading) -> Option<String> {
        let reason = self.options.age_limits.expiry_reason(clock, event.emitted_at, &event.header)?;
        // An event that was given up before and is pending again has the error of that time.
        let last_error = event.last_error.as_deref().and_then(|error| error.rsplit(LAST_ERROR).next());
        Some(match last_error.filter(|error| !error.starts_with("expired: ")) {
            Some(error) => format!("{reason}{LAST_ERROR}{error}"),
            None => reason.to_string(),
        })
    }

    /// Takes the expired events out of a batch that waits for a call.
    pub(super) fn take_expired(
        &self,
        batch: &mut Vec<OutgoingEvent>,
        clock: ClockReading,
    ) -> Vec<SettledDelivery> {
        let has_expired = |event: &mut OutgoingEvent| self.expiry_reason(event, clock).is_some();
        let expired = batch.extract_if(.., has_expired);
        expired
            .map(|event| {
                let error = self.expiry_reason(&event, clock).unwrap_or_default();
                let settlement =
                    Settlement::Dead { error, cause: GiveUp::Expired, called: false, uncertain: false };
                SettledDelivery::not_called(event, settlement)
            })
            .collect()
    }

    /// Why the event is too large, if it is.
    fn oversize_reason(&self, event: &OutgoingEvent) -> Option<String> {
        let (bytes, max_bytes) =
            (self.destination.event_bytes(event), self.destination.limits().max_event_bytes);
        (bytes > max_bytes).then(|| format!("too large: {bytes} bytes, the limit is {max_bytes}"))
    }

    fn settlement(&self, attempts: u32, answer: Answer, rng: &mut fastrand::Rng) -> Settlement {
        let failure = match answer {
            Ok(answer) => return Settlement::Delivered { answer },
            Err(failure) => failure,
        };
        let (error, uncertain) = (failure.stored_error(), failure.uncertain);
        match failure.class {
            Class::Permanent => Settlement::Dead { error, cause: GiveUp::Rejected, called: true, uncertain },
            Class::NotApplied => Settlement::Dead { error, cause: GiveUp::Expired, called: true, uncertain },
            Class::Transient | Class::Throttled | Class::Misconfigured => {
                let backoff = self.options.backoff;
                let delay = backoff.delay(attempts.saturating_add(1), rng.f64());
                // What a service asks for, within the limits of the configuration.
                let asked = failure.retry_after.unwrap_or_default().min(backoff.max());
                Settlement::Retry { delay: delay.max(asked), error, uncertain }
            }
        }
    }

    /// Retries until the store has settled the deliveries, since delivered but unsettled ones would be
    /// sent again. Returns those that are locked in the store; `None` if it is closed.
    async fn settle(&self, settled: &[(Lease, Settlement)], rng: &mut fastrand::Rng) -> Option<Vec<Lease>> {
        let name = &self.options.name;
        let mut failures = 0u32;
        loop {
            match self.outbox.settle(name, settled.to_vec()).await {
                Ok(()) if failures == 0 => return Some(Vec::new()),
                Ok(()) => {
                    tracing::info!(destination = %name, "settling deliveries works again");
                    return Some(Vec::new());
                }
                Err(store::Error::Locked(leases)) => return Some(leases),
                Err(error @ store::Error::Closed) => {
                    let count = settled.len();
                    tracing::error!(destination = %name, %error, count, "deliveries not settled, they will be sent again");
                    return None;
                }
                Err(error) if failures == 0 => {
                    tracing::warn!(destination = %name, %error, "settling deliveries failed, retrying");
                }
                Err(_) => {}
            }
            failures = failures.saturating_add(1);
            tokio::time::sleep(STORE_BACKOFF.delay(failures, rng.f64())).await;
        }
    }

    /// Reports each delivery to the observer, and logs what was given up and (if `log_first_failures`) failed
    /// first attempts, one line per batch.
    fn report(&self, settled: &[SettledDelivery], at: Time, log_first_failures: bool) {
        let name = &self.options.name;
        for delivery in settled {
            let outcome = Outcome::from(&delivery.settlement);
            if outcome == Outcome::NotCalled {
                continue;
            }
            let report = DeliveryReport {
                outcome,
                call_duration: delivery.call_duration,
                completed_at: at,
                header: delivery.header.as_deref(),
            };
            self.observer.on_delivery(name, &report);
        }
        let given_up = |as_cause: GiveUp| {
            settled.iter().filter(move |delivery| match delivery.settlement {
                Settlement::Dead { cause, .. } => cause == as_cause,
                _ => false,
            })
        };
        if let Some((event, error, more)) = summary(given_up(GiveUp::Rejected)) {
            tracing::warn!(destination = %name, event, error, more, "delivery given up, kept as a dead letter");
        }
        // What is still needed is decided after that: such an event is sent again, or its action requested again.
        if let Some((event, error, more)) = summary(given_up(GiveUp::Expired)) {
            tracing::warn!(destination = %name, event, error, more, "delivery expired");
        }
        let is_withdrawn = |delivery: &&SettledDelivery| {
            matches!(delivery.settlement, Settlement::Withdrawn { .. }) && delivery.reason != SUPERSEDED
        };
        if let Some((event, reason, more)) = summary(settled.iter().filter(is_withdrawn)) {
            tracing::info!(destination = %name, event, reason, more, "delivery withdrawn");
        }
        let is_retry = |delivery: &&SettledDelivery| matches!(delivery.settlement, Settlement::Retry { .. });
        let first_failures =
            settled.iter().filter(|delivery| log_first_failures && delivery.attempts == 0).filter(is_retry);
        if let Some((event, error, more)) = summary(first_failures) {
            tracing::warn!(destination = %name, event, error, more, "delivery failed, retrying");
        }
    }
}

/// The id and reason of the first delivery, and the number of others.
fn summary<'a>(mut all: impl Iterator<Item = &'a SettledDelivery>) -> Option<(&'a str, &'a str, usize)> {
    let first = all.next()?;
    let id = first.header.as_ref().map_or("unreadable", |header| &header.id);
    Some((id, &first.reason, all.count()))
}

impl SettledDelivery {
    /// A dead letter that was not sent.
    fn dead(lease: Lease, header: Option<Arc<EventHeader>>, reason: String, cause: GiveUp) -> Self {
        let settlement = Settlement::Dead { error: reason.clone(), cause, called: false, uncertain: false };
        Self { lease, attempts: 0, header, settlement, reason, call_duration: None }
    }

    /// A delivery whose event was not sent.
    fn not_called(event: OutgoingEvent, settlement: Settlement) -> Self {
        let OutgoingEvent { lease, header, attempts, .. } = event;
        let reason = match &settlement {
            Settlement::Dead { error, .. } => error.clone(),
            Settlement::Withdrawn { reason } => reason.clone(),
            _ => String::new(),
        };
        Self { lease, attempts, header: Some(header), settlement, reason, call_duration: None }
    }

    /// A delivery that was not sent, because decisions have changed it since it was claimed.
    fn refused(event: OutgoingEvent, reason: RefusalReason) -> Self {
        let OutgoingEvent { lease, header, attempts, .. } = &event;
        let (lease, header, attempts) = (*lease, header.clone(), *attempts);
        match reason {
            RefusalReason::Superseded | RefusalReason::LeaseEnded => {
                Self::withdrawn(lease, Some(header), SUPERSEDED)
            }
            RefusalReason::Locked => {
                Self::not_called(event, Settlement::NotCalled { delay: LOCKED_DELAY, stands_aside: false })
            }
            RefusalReason::Suspended => Self {
                lease,
                attempts,
                header: Some(header),
                settlement: Settlement::NotCalled { delay: Duration::ZERO, stands_aside: true },
                reason: SUSPENDED.to_owned(),
                call_duration: None,
            },
        }
    }

    /// A withdrawn delivery that was not sent.
    fn withdrawn(lease: Lease, header: Option<Arc<EventHeader>>, reason: &str) -> Self {
        let reason = reason.to_owned();
        let settlement = Settlement::Withdrawn { reason: reason.clone() };
        Self { lease, attempts: 0, header, settlement, reason, call_duration: None }
    }

    /// Whether it waits for another attempt.
    fn is_postponed(&self) -> bool {
        matches!(self.settlement, Settlement::Retry { .. } | Settlement::NotCalled { .. })
    }
}
