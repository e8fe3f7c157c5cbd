//! A bridge that nothing depends on: the same engine over a store in memory, with a clock that whoever
//! rehearses moves. What it emits arrives at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::Value;

use super::{Bridge, Explanation, told};
use crate::domain::engine::Policy;
use crate::domain::name::Name;
use crate::domain::notification::Notification;
use crate::domain::source::Source;
use crate::domain::table::RuleTable;
use crate::domain::time::Time;
use crate::store::{self, Memory, RecordQuery, Settlement, Store};
use crate::telemetry::Metrics;

/// Moments that are looked at on the way to a later one, at most: a rule acts once a second at the most often.
const MOST_MOMENTS: usize = 200_000;
/// What is delivered at once.
const AT_ONCE: usize = 1000;

/// A rehearsal.
pub struct Rehearsal {
    bridge: Bridge,
    store: Store,
    clock: Arc<AtomicI64>,
    destinations: BTreeSet<Name>,
    /// The number of the last record that was told.
    told: i64,
}

/// Why a rehearsal cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// The store in memory could not do it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// There is no such source.
    #[error("there is no source `{0}`")]
    NoSource(String),
    /// More moments than anybody waits for.
    #[error("more comes due on the way to that time than is looked at; take smaller steps")]
    TooMuch,
    /// A record that was just written cannot be read.
    #[error("a decision cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

impl Rehearsal {
    /// A bridge of these rules and sources that starts at a time, and never heard of anything.
    pub fn new(rules: Arc<RuleTable>, sources: BTreeMap<Name, Source>, policy: Policy, start: Time) -> Self {
        let clock = Arc::new(AtomicI64::new(start.as_nanos()));
        let destinations: BTreeSet<Name> =
            rules.rules().iter().flat_map(|rule| &rule.send_to).cloned().collect();
        let names: Vec<Name> = destinations.iter().cloned().collect();
        let reading = clock.clone();
        let read = Arc::new(move || Time::from_nanos(reading.load(Ordering::Relaxed)));
        let store = Store::Memory(Memory::new(&names, read));
        let bridge = Bridge::new(store.clone(), rules, sources, policy, Metrics::new());
        Self { bridge, store, clock, destinations, told: 0 }
    }

    /// The time that it is.
    pub fn now(&self) -> Time {
        self.store.now()
    }

    /// Lets time pass up to `at`, and decides what comes due on the way. Each decision has its whole event.
    ///
    /// # Errors
    /// [`RehearsalError`].
    pub async fn pass(&mut self, at: Time) -> Result<Vec<Value>, RehearsalError> {
        for _ in 0..MOST_MOMENTS {
            let due = *self.store.next_due().borrow();
            let Some(due) = due.filter(|due| *due <= at) else {
                self.clock.fetch_max(at.as_nanos(), Ordering::Relaxed);
                return self.since().await;
            };
            self.clock.fetch_max(due.as_nanos(), Ordering::Relaxed);
            self.bridge.come_due().await?;
            self.deliver().await?;
        }
        Err(RehearsalError::TooMuch)
    }

    /// Takes a notification now, and decides what comes due by it. Gives what was decided, each decision with its whole event.
    ///
    /// # Errors
    /// [`RehearsalError`].
    pub async fn notify(
        &mut self,
        source: &str,
        notification: Notification,
    ) -> Result<Vec<Value>, RehearsalError> {
        let found = self.bridge.source(source).ok_or_else(|| RehearsalError::NoSource(source.to_owned()))?;
        self.bridge.ingest(&found, notification, None).await?;
        self.deliver().await?;
        // What it has freed is due at once.
        self.pass(self.now()).await
    }

    /// What would be decided now. Nothing changes.
    ///
    /// # Errors
    /// [`RehearsalError`].
    pub async fn explain(
        &self,
        source: &str,
        notification: Notification,
    ) -> Result<Explanation, RehearsalError> {
        let found = self.bridge.source(source).ok_or_else(|| RehearsalError::NoSource(source.to_owned()))?;
        Ok(self.bridge.explain(&found, notification).await?)
    }

    /// Everything arrives.
    async fn deliver(&self) -> Result<(), RehearsalError> {
        for destination in &self.destinations {
            loop {
                let claimed = self.store.claim(destination, AT_ONCE).await?;
                if claimed.is_empty() {
                    break;
                }
                let settle = |claimed: store::Claimed| {
                    let withdrawn =
                        || Settlement::Withdrawn { reason: "what it would undo never arrived".to_owned() };
                    (
                        claimed.seq,
                        if claimed.nothing_to_compensate { withdrawn() } else { Settlement::Delivered },
                    )
                };
                self.store.settle(destination, claimed.into_iter().map(settle).collect()).await?;
            }
        }
        Ok(())
    }

    /// What was decided since this was asked last.
    async fn since(&mut self) -> Result<Vec<Value>, RehearsalError> {
        let above = Bound::Excluded(self.told);
        let wanted = RecordQuery { above, newest_first: false, max: usize::MAX, ..RecordQuery::default() };
        let mut decisions = Vec::new();
        for record in self.store.records(wanted).await?.records {
            self.told = record.id;
            for told in told::read(record.id, &record.body)? {
                let event = match &told.event {
                    Some(id) => self.store.event(id).await?,
                    None => None,
                };
                let event = event.and_then(|event| serde_json::from_str(&event.body).ok());
                decisions.push(told.with_event(event));
            }
        }
        Ok(decisions)
    }
}
