//! Carries the steps of a plan out, until there is an answer. Whatever fails, or dies, leaves the ledger so that the next
//! delivery of any event of the target goes on.

use scalebridge::domain::time::Time;

use crate::event::ScalingEvent;
use crate::ledger::{Entries, Ledger, LedgerError, Pending, TargetItem, Written};
use crate::outcome::Answer;
use crate::plan::{self, End, Facts, Policy, Present, Step};

/// The maximum number of steps for an event. One worker alone takes two; each write of another worker in between costs one
/// more.
const MAX_STEPS: usize = 20;

/// The capacity of one target at its platform.
pub trait Capacity: Send + Sync {
    /// Reads it.
    fn read(&self) -> impl Future<Output = Result<Present, PlatformError>> + Send;

    /// Sets the lever to `to`. Calls with the same `token` and the same value are one change. On a platform with
    /// preconditions nothing is set if the capacity has changed since `read`.
    fn set(
        &self,
        read: &Present,
        to: u32,
        token: &str,
    ) -> impl Future<Output = Result<(), PlatformError>> + Send;
}

/// Why a platform has not answered with a capacity, or has not set it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// It never will; nothing was set.
    #[error("{0}")]
    Refused(String),
    /// It may later; nothing was set.
    #[error("{0}")]
    Busy(String),
    /// The answer was lost: it may have been set.
    #[error("{0}")]
    Unknown(String),
}

/// Applies an event. `worker` is a random number, a new one for each delivery. `on_other` is called with the pending change
/// of another event that this worker has ended; the next delivery of that event is answered as `already_applied`.
pub async fn apply(
    worker: u64,
    event: &ScalingEvent,
    ledger: &impl Ledger,
    capacity: &impl Capacity,
    policy: &Policy,
    clock: impl Fn() -> Time,
    on_other: impl Fn(&Pending) + Sync,
) -> Answer {
    let worker = Worker { number: worker, event, ledger, capacity, policy, on_other: &on_other };
    for _ in 0..MAX_STEPS {
        match worker.step(clock()).await {
            Ok(Some(answer)) => return answer,
            Ok(None) => {}
            Err(Stop::Ledger(LedgerError(error))) => {
                return plan::retry(event, format!("the ledger is not available: {error}"));
            }
            Err(Stop::Platform(PlatformError::Busy(error) | PlatformError::Unknown(error))) => {
                return plan::retry(event, error);
            }
            Err(Stop::Platform(PlatformError::Refused(error))) => return plan::refuse(event, error),
        }
    }
    plan::retry(event, "other workers change the target all the time".to_owned())
}

/// Why an event cannot be gone on with.
enum Stop {
    Ledger(LedgerError),
    Platform(PlatformError),
}

impl From<LedgerError> for Stop {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

struct Worker<'a, L, C> {
    number: u64,
    event: &'a ScalingEvent,
    ledger: &'a L,
    capacity: &'a C,
    policy: &'a Policy,
    on_other: &'a (dyn Fn(&Pending) + Sync),
}

impl<L: Ledger, C: Capacity> Worker<'_, L, C> {
    /// `None` if there is another step.
    async fn step(&self, now: Time) -> Result<Option<Answer>, Stop> {
        let entries = self.ledger.read(self.event).await?;
        if let Some(answer) = plan::settled(self.event, &entries, now) {
            return Ok(Some(answer));
        }
        let present = self.capacity.read().await.map_err(Stop::Platform)?;
        let facts = Facts {
            worker: self.number,
            event: self.event,
            entries: &entries,
            present: &present,
            policy: self.policy,
            now,
        };
        match plan::plan(&facts) {
            Step::Answer(answer) => Ok(Some(answer)),
            Step::Begin(target) | Step::GiveUp { target, .. } => {
                self.write(&entries, &target).await?;
                Ok(None)
            }
            Step::Call(pending) => self.call(entries, &present, &pending).await,
            Step::End(end) => self.end(&entries, *end).await,
        }
    }

    async fn call(
        &self,
        entries: Entries,
        present: &Present,
        pending: &Pending,
    ) -> Result<Option<Answer>, Stop> {
        let target = plan::called(&entries, pending);
        if !self.write(&entries, &target).await? {
            return Ok(None);
        }
        let entries = Entries { target, ..entries };
        match self.capacity.set(present, pending.to, &pending.token).await {
            Ok(()) => self.end(&entries, plan::ended(&entries, &self.event.subject, pending)).await,
            Err(PlatformError::Refused(why)) => {
                self.write(&entries, &entries.target.give_up()).await?;
                let is_own = pending.id == self.event.id;
                Ok(is_own.then(|| plan::refuse(self.event, why)))
            }
            Err(error @ PlatformError::Busy(_)) => {
                self.write(&entries, &plan::released(&entries, pending)).await?;
                Err(Stop::Platform(error))
            }
            Err(error @ PlatformError::Unknown(_)) => Err(Stop::Platform(error)),
        }
    }

    async fn end(&self, entries: &Entries, end: End) -> Result<Option<Answer>, Stop> {
        let End { pending, taken_back, never_applied, applied, target } = end;
        let subject = &self.event.subject;
        for (old, new) in &taken_back {
            if self.ledger.replace_applied(subject, old, new).await? == Written::Changed {
                return Ok(None);
            }
        }
        for item in never_applied.iter().chain([&applied]) {
            self.ledger.write_applied(subject, item).await?;
        }
        if !self.write(entries, &target).await? {
            // Another worker has read what was noted, and has ended the change.
            return Ok(None);
        }
        if pending.id == self.event.id {
            return Ok(Some(plan::answer_of(self.event, &pending)));
        }
        (self.on_other)(&pending);
        Ok(None)
    }

    /// Returns whether it was written: not if it was changed meanwhile.
    async fn write(&self, entries: &Entries, target: &TargetItem) -> Result<bool, Stop> {
        let written = self.ledger.write_target(&self.event.subject, entries.target.version, target).await?;
        Ok(written == Written::Yes)
    }
}

#[cfg(test)]
mod tests;
