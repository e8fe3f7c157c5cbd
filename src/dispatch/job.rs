//! What one task of a worker does: send a batch and settle it, whatever becomes of it.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Answer, Class, Destination, Failure, Observed, Observer, Options, Outbox, Outcome, Outgoing};
use crate::domain::header::{self, Header};
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

/// What one task does.
#[derive(Debug)]
pub(super) enum Job {
    /// Send these in one call.
    Send(Vec<Outgoing>),
    /// These are no events: keep them as dead letters.
    GiveUp(Vec<(EventSeq, header::Error)>),
}

/// What a task found out about its destination.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) started: Instant,
    /// Whether the call reached the destination; None if there was no call.
    pub(super) reached: Option<Result<(), Failure>>,
}

/// A delivery and what became of it.
struct Settled {
    seq: EventSeq,
    attempts: u32,
    header: Option<Header>,
    settlement: Settlement,
    /// Why it was not delivered, as the log tells it.
    reason: String,
    took: Option<Duration>,
}

impl Outgoing {
    /// Reads the header of every event; those without one come second.
    pub(super) fn read(claimed: Vec<Claimed>) -> (Vec<Self>, Vec<(EventSeq, header::Error)>) {
        let mut events = Vec::with_capacity(claimed.len());
        let mut unreadable = Vec::new();
        for Claimed { seq, body, emitted_at, attempts, .. } in claimed {
            match Header::read(&body) {
                Ok(header) => events.push(Self { seq, body, header, emitted_at, attempts }),
                Err(error) => unreadable.push((seq, error)),
            }
        }
        (events, unreadable)
    }
}

impl<O: Outbox, D: Destination, V: Observer> Shared<O, D, V> {
    pub(super) async fn run(self: Arc<Self>, job: Job, mut rng: fastrand::Rng) -> Report {
        let started = Instant::now();
        let (settled, reached) = match job {
            Job::Send(events) => self.send(events, started, &mut rng).await,
            Job::GiveUp(unreadable) => {
                let give_up = |(seq, error)| Settled::given_up(seq, None, error);
                (unreadable.into_iter().map(give_up).collect(), None)
            }
        };
        // By the time of the answer: the store may take long to settle.
        let at = self.outbox.now();
        if self.settle(&settled, &mut rng).await {
            // A call that failed as a whole is the worker's to tell, once for all of its like.
            self.tell(&settled, at, !matches!(reached, Some(Err(_))));
        }
        Report { started, reached }
    }

    /// Sends what is not too old.
    async fn send(
        &self,
        events: Vec<Outgoing>,
        started: Instant,
        rng: &mut fastrand::Rng,
    ) -> (Vec<Settled>, Option<Result<(), Failure>>) {
        let now = self.outbox.now();
        let mut settled = Vec::with_capacity(events.len());
        let mut batch = Vec::with_capacity(events.len());
        for event in events {
            match self.too_old(&event, now) {
                Some(reason) => settled.push(Settled::given_up(event.seq, Some(event.header), reason)),
                None => batch.push(event),
            }
        }
        if batch.is_empty() {
            return (settled, None);
        }
        let (answers, reached) = match self.destination.send(&batch).await {
            Ok(answers) => (answers, Ok(())),
            // It answered: it is this event that it does not want.
            Err(failure) if failure.class == Class::Permanent => (vec![Err(failure); batch.len()], Ok(())),
            Err(failure) => (vec![Err(failure.clone()); batch.len()], Err(failure)),
        };
        let took = started.elapsed();
        let silence = || Some(Err(Failure::transient("the destination did not answer for the event")));
        let answers = answers.into_iter().map(Some).chain(std::iter::repeat_with(silence)).flatten();
        for (event, answer) in batch.into_iter().zip(answers) {
            settled.push(Settled {
                seq: event.seq,
                attempts: event.attempts,
                header: Some(event.header),
                settlement: self.settlement(event.attempts, &answer, rng),
                reason: answer.err().map_or_else(String::new, |failure| failure.message),
                took: Some(took),
            });
        }
        (settled, Some(reached))
    }

    fn too_old(&self, event: &Outgoing, now: Time) -> Option<retry::GivenUp> {
        let Options { max_age, scale_in_max_age, .. } = self.options;
        let max_age = if event.header.takes_away() { scale_in_max_age.min(max_age) } else { max_age };
        retry::give_up(now, event.emitted_at, event.header.expirytime, max_age)
    }

    fn settlement(&self, attempts: u32, answer: &Answer, rng: &mut fastrand::Rng) -> Settlement {
        match answer {
            Ok(()) => Settlement::Delivered,
            Err(failure) => match failure.class {
                Class::Permanent => Settlement::Dead { error: failure.kept() },
                Class::Transient | Class::Throttled | Class::Misconfigured => Settlement::Retry {
                    delay: self.options.backoff.delay(attempts.saturating_add(1), rng.f64()),
                    error: failure.kept(),
                },
            },
        }
    }

    /// Tries until the store has it: what arrived and is not settled would be sent again. False if
    /// the store is closed.
    async fn settle(&self, settled: &[Settled], rng: &mut fastrand::Rng) -> bool {
        let name = &self.options.name;
        let mut failures = 0u32;
        loop {
            let settlements = settled.iter().map(|one| (one.seq, one.settlement.clone())).collect();
            match self.outbox.settle(name, settlements).await {
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
    fn tell(&self, settled: &[Settled], at: Time, alone: bool) {
        let name = &self.options.name;
        for one in settled {
            let outcome = Outcome::from(&one.settlement);
            let observed = Observed { outcome, took: one.took, at, header: one.header.as_ref() };
            self.observer.on_delivery(name, &observed);
        }
        let dead = settled.iter().filter(|one| matches!(one.settlement, Settlement::Dead { .. }));
        if let Some((event, error, more)) = summary(dead) {
            tracing::warn!(destination = %name, event, error, more, "given up, kept as a dead letter");
        }
        let retry = |one: &&Settled| matches!(one.settlement, Settlement::Retry { .. });
        let first_failures = settled.iter().filter(|one| alone && one.attempts == 0).filter(retry);
        if let Some((event, error, more)) = summary(first_failures) {
            tracing::warn!(destination = %name, event, error, more, "not delivered, will be tried again");
        }
    }
}

/// The id and reason of the first, and how many more there are.
fn summary<'a>(mut all: impl Iterator<Item = &'a Settled>) -> Option<(&'a str, &'a str, usize)> {
    let first = all.next()?;
    let id = first.header.as_ref().map_or("unreadable", |header| &header.id);
    Some((id, &first.reason, all.count()))
}

impl Settled {
    /// A delivery that is a dead letter without having been sent.
    fn given_up(seq: EventSeq, header: Option<Header>, reason: impl Display) -> Self {
        let reason = reason.to_string();
        let settlement = Settlement::Dead { error: reason.clone() };
        Self { seq, attempts: 0, header, settlement, reason, took: None }
    }
}
