//! In-memory store with a clock that the caller sets: the reference model for property tests, and the store of
//! `test`, `explain` and `replay`.

mod feedback;
mod inner;
mod notifications;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::store::audit::MemoryAudit;
use inner::Inner;
use notifications::Notifications;

use crate::domain::alert_key::AlertKey;
use crate::domain::control::Controls;
use crate::domain::event::{EventDocument, id_prefix};
use crate::domain::name::Name;
use crate::domain::retry::AgeLimits;
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::domain::time::{ClockReading, Time};
use crate::store::health::Outage;
use crate::store::history::History;
use crate::store::lane::{ExpiredClaims, Lane, Position};
use crate::store::lanes::{LaneHandle, LaneHandles};
use crate::store::outbox::{COMPENSATION_DELAY, DeliveryQueue, Expired, Outbox, UnsettledEvent};
use crate::store::states::StateStore;
use crate::store::{
    AuditPage, AuditQuery, AuditWrite, Claimed, DeadLetter, DeadLetterError, DecideFn, DeliveryId,
    DeliveryPage, DeliveryQuery, DestinationStats, DropError, Error, EventCursor, EventDeliveries, Keys,
    Lease, NotificationLimits, NotificationPage, NotificationQuery, RecordCursor, RecordQuery, Records,
    Redrive, Refused, Retries, Settlement, Snapshot, StateCursor, StoredEvent, StoredRecord, StoredState,
    UnreadableRow, View, WallClock,
};

/// An in-memory store. Cheap to clone.
#[derive(Clone)]
pub struct Memory {
    inner: Arc<Mutex<Inner>>,
    lanes: LaneHandles,
    clock: WallClock,
    wall: WallClock,
    due: watch::Sender<Option<Time>>,
}

impl Memory {
    /// An empty store, created at the clock's time, which is also the wall clock.
    pub fn new(destinations: &[Name], clock: WallClock) -> Self {
        Self::with_wall_clock(destinations, clock.clone(), clock)
    }

    /// The same with a wall clock of its own, which the caller can step.
    pub(crate) fn with_wall_clock(destinations: &[Name], clock: WallClock, wall: WallClock) -> Self {
        let handle = |(id, name): (usize, &Name)| {
            let handle = LaneHandle::new(name.clone(), id as i64, Lane::new(Position::default()));
            (name.clone(), Arc::new(handle))
        };
        let inner = Inner {
            created: clock(),
            controls: Arc::default(),
            recheck_queue: BTreeSet::new(),
            target_ids: BTreeMap::new(),
            states: BTreeMap::new(),
            due: BTreeSet::new(),
            waiting: BTreeSet::new(),
            alerts: BTreeMap::new(),
            records: Vec::new(),
            events: Vec::new(),
            errors: BTreeMap::new(),
            dead: BTreeMap::new(),
            causes: BTreeMap::new(),
            never_delivered: BTreeSet::new(),
            replaced: BTreeSet::new(),
            uncertain: BTreeSet::new(),
            receipts: BTreeMap::new(),
            ids: BTreeMap::new(),
            changed: BTreeSet::new(),
            expiry: BTreeMap::new(),
            audit: MemoryAudit::default(),
            notifications: Notifications::default(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            lanes: LaneHandles::new(destinations.iter().enumerate().map(handle).collect()),
            clock,
            wall,
            due: watch::Sender::new(None),
        }
    }

    fn with_inner<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> R {
        f(&mut self.inner.lock())
    }

    /// When the next delivery that waits can be claimed.
    pub(crate) fn next_retry(&self) -> Option<Time> {
        let lanes = self.lanes.all();
        lanes.values().filter_map(|handle| handle.with_lane(|lane| lane.next_due())).min()
    }

    /// Calls to a destination succeed again: all retries are due at once, and the targets that wait for it too.
    pub(crate) fn set_reachable(&self, destination: &Name) {
        let Some(handle) = self.lanes.get(destination) else { return };
        handle.with_lane(Lane::retry_at_once);
        let successes = handle.add_successes(self.clock());
        self.with_inner(|inner| inner.destination_succeeded(destination, successes));
        self.publish_due();
    }

    /// Notifies of the time at which the next target is due.
    fn publish_due(&self) {
        let now = self.now();
        let next = self.with_inner(|inner| {
            let to_recheck = inner.recheck_queue.first().or_else(|| inner.changed.first()).map(|_| now);
            inner.due.first().map(|(at, _)| *at).into_iter().chain(to_recheck).min()
        });
        self.due.send_replace(next);
    }

    fn add_destination(&self, destination: Name) {
        if self.lanes.get(&destination).is_some() {
            return;
        }
        let (newest, dead) = self.with_inner(|inner| {
            let dead = inner.dead.keys().filter(|delivery_id| delivery_id.destination == destination).count();
            (inner.events.len() as i64, dead as u64)
        });
        let id = self.lanes.all().len() as i64;
        let position = Position { cursor: newest, dead, ..Position::default() };
        self.lanes.add(Arc::new(LaneHandle::new(destination, id, Lane::new(position))));
    }
}

impl StateStore for Memory {
    async fn transact(&self, keys: Keys, mut decide: DecideFn) -> Result<(), Error> {
        let clock = self.clock();
        let ClockReading { now, wall } = clock;
        self.with_inner(|inner| {
            let states = inner.states(&keys);
            let (created, controls) = (inner.created, inner.controls.clone());
            let deliveries = inner.deliveries(&states, &self.lanes);
            let (rates, incarnation) = (None, 0);
            let view = View {
                now,
                wall,
                created,
                states,
                controls,
                deliveries,
                rates,
                incarnation,
                has_newer_configuration: false,
            };
            let changes = decide(&view);
            inner.apply(clock, changes, &self.lanes);
        });
        self.lanes.all().values().for_each(|handle| handle.wake());
        self.publish_due();
        Ok(())
    }

    async fn locate(&self, alerts: Vec<AlertKey>) -> Result<BTreeMap<AlertKey, Vec<TargetKey>>, Error> {
        let keys = Keys { alerts, targets: Vec::new() };
        Ok(self.with_inner(|inner| inner.states(&keys).alerts))
    }

    async fn due(&self, max: usize) -> Result<Vec<TargetKey>, Error> {
        let now = self.now();
        Ok(self.with_inner(|inner| {
            let scheduled = inner.due.iter().take_while(|(at, _)| *at <= now).take(max);
            let due: Vec<&TargetKey> = scheduled.map(|(_, key)| key).collect();
            let known: BTreeSet<_> = due.iter().copied().collect();
            let to_recheck = inner.recheck_queue.union(&inner.changed).filter(|key| !known.contains(key));
            due.into_iter().chain(to_recheck).take(max).cloned().collect()
        }))
    }

    fn next_due(&self) -> watch::Receiver<Option<Time>> {
        self.due.subscribe()
    }

    /// None: an in-memory store is always new.
    fn last_stored(&self) -> Option<Time> {
        None
    }

    /// None: an in-memory store is always new.
    fn last_kept(&self) -> BTreeMap<Name, Time> {
        BTreeMap::new()
    }

    fn snapshot(&self) -> Snapshot {
        let (controls, tally) = self.with_inner(|inner| (inner.controls.clone(), inner.tally()));
        Snapshot { controls, tally, unreadable_rows: Vec::new() }
    }

    async fn drop_unreadable(&self, _row: i64, _audit: AuditWrite) -> Result<UnreadableRow, DropError> {
        Err(DropError::NotUnreadable)
    }

    async fn audit(&self, write: AuditWrite) -> Result<i64, Error> {
        let wall = self.clock().wall;
        Ok(self.with_inner(|inner| inner.audit.write(wall, write)))
    }

    /// Deletes nothing: an in-memory store is short-lived.
    async fn prune(&self, _decisions: Duration, _delivered: Duration) -> Result<bool, Error> {
        Ok(false)
    }

    async fn prune_notifications(&self, limits: NotificationLimits) -> Result<bool, Error> {
        let now = self.now();
        self.with_inner(|inner| inner.notifications.prune(now, limits));
        Ok(false)
    }

    async fn close(&self) {}
}

impl Memory {
    /// None: memory is always writable.
    pub(super) const fn outage(&self) -> Option<Outage> {
        None
    }

    pub(super) fn controls(&self) -> Arc<Controls> {
        self.with_inner(|inner| inner.controls.clone())
    }
}

impl DeliveryQueue for Memory {
    async fn claim(&self, destination: &Name, max: usize) -> Result<Vec<Claimed>, Error> {
        let handle = self.lanes.require(destination)?;
        let now = self.now();
        self.with_inner(|inner| {
            handle.with_lane(|lane| {
                inner.refill(&handle.name, lane);
                let claims = lane.claim(max, now).into_iter();
                let claimed = claims.filter_map(|claim| {
                    let delivery_id = DeliveryId { seq: claim.lease.seq(), destination: handle.name.clone() };
                    let has_arrived = !claim.compensates || inner.has_arrived(&delivery_id);
                    if !has_arrived && inner.is_compensation_undecided(&delivery_id, lane) {
                        lane.postpone(claim.lease.seq(), now.after(COMPENSATION_DELAY), true);
                        return None;
                    }
                    Some(inner.claimed(&handle.name, claim))
                });
                Ok(claimed.collect())
            })
        })
    }

    async fn claim_expired(
        &self,
        destination: &Name,
        limits: AgeLimits,
        max: usize,
    ) -> Result<Expired, Error> {
        let handle = self.lanes.require(destination)?;
        let clock = self.clock();
        self.with_inner(|inner| {
            handle.with_lane(|lane| {
                inner.refill(&handle.name, lane);
                let ExpiredClaims { expired, unexamined, waiting } = lane.claim_expired(limits, clock, max);
                let claims = expired.into_iter().chain(unexamined);
                let leased = claims.map(|claim| inner.claimed(&handle.name, claim)).collect();
                Ok(lane.keep_expired(leased, limits, clock, waiting))
            })
        })
    }

    fn undelivered_at(&self, destination: &Name) -> u64 {
        self.lanes.get(destination).map_or(0, |handle| handle.with_lane(|lane| lane.undelivered()))
    }

    async fn begin_calls(&self, destination: &Name, leases: Vec<Lease>) -> Result<Vec<Refused>, Error> {
        let handle = self.lanes.require(destination)?;
        let mut refused = Vec::new();
        // Not while a transaction changes deliveries.
        self.with_inner(|_| {
            handle.with_lane(|lane| {
                for lease in leases {
                    match lane.refusal_reason(lease) {
                        Some(reason) => refused.push(Refused { lease, reason }),
                        None => lane.mark_called(lease.seq()),
                    }
                }
            });
        });
        Ok(refused)
    }

    async fn settle(&self, destination: &Name, settled: Vec<(Lease, Settlement)>) -> Result<(), Error> {
        let handle = &self.lanes.require(destination)?;
        let clock = self.clock();
        self.with_inner(|inner| {
            for (lease, settlement) in settled {
                if !handle.with_lane(|lane| lane.holds(lease)) {
                    continue;
                }
                let is_delivered = matches!(settlement, Settlement::Delivered { .. });
                inner.settle(clock, handle, lease.seq(), settlement);
                if is_delivered {
                    let successes = handle.add_successes(clock);
                    inner.destination_succeeded(&handle.name, successes);
                }
            }
        });
        handle.wake();
        self.publish_due();
        Ok(())
    }

    async fn wait(&self, destination: &Name) {
        match self.lanes.require(destination) {
            Ok(handle) => handle.wait(self.now()).await,
            Err(_) => std::future::pending().await,
        }
    }

    fn clock(&self) -> ClockReading {
        ClockReading { now: (self.clock)(), wall: (self.wall)() }
    }
}

impl Outbox for Memory {
    async fn add_destinations(&self, destinations: Vec<Name>) -> Result<(), Error> {
        destinations.into_iter().for_each(|destination| self.add_destination(destination));
        Ok(())
    }

    async fn remove_destination(&self, destination: Name) -> Result<(), Error> {
        self.lanes.remove(&destination);
        Ok(())
    }

    /// None: the caller of an in-memory store knows all its destinations.
    async fn orphaned_destinations(&self) -> Result<Vec<Name>, Error> {
        Ok(Vec::new())
    }

    fn set_max_backlog(&self, destination: &Name, max_backlog: Option<u64>) -> Result<(), Error> {
        self.lanes.require(destination)?.set_max_backlog(max_backlog);
        Ok(())
    }

    fn release(&self, destination: &Name, retries: Retries) -> Result<(), Error> {
        self.lanes.require(destination)?.release_claims(retries);
        Ok(())
    }

    fn undelivered(&self) -> u64 {
        self.lanes.undelivered()
    }

    fn stats(&self, destination: &Name) -> DestinationStats {
        self.lanes.stats(destination)
    }

    async fn dead_letters(
        &self,
        destination: Option<Name>,
        after: Option<DeliveryId>,
        max: usize,
    ) -> Result<Vec<DeadLetter>, Error> {
        Ok(self.with_inner(|inner| {
            let wanted = |delivery_id: &DeliveryId| {
                destination.as_ref().is_none_or(|wanted| *wanted == delivery_id.destination)
                    && after.as_ref().is_none_or(|after| delivery_id > after)
            };
            let found = inner.dead.iter().filter(|(delivery_id, _)| wanted(delivery_id)).take(max);
            found.map(|(_, row)| DeadLetter::from(row.clone())).collect()
        }))
    }

    async fn unsettled_events(&self, destination: &Name, max: usize) -> Result<Vec<UnsettledEvent>, Error> {
        let handle = self.lanes.require(destination)?;
        let found = handle.with_lane(|lane| lane.unsettled_deliveries(max));
        let claimed: Vec<_> = found.iter().filter(|one| one.1).map(|(claim, _)| claim.lease.seq()).collect();
        let read = self.with_inner(|inner| {
            found.into_iter().map(|(claim, _)| inner.claimed(&handle.name, claim)).collect()
        });
        Ok(UnsettledEvent::from_claimed(read, &claimed))
    }

    async fn redrive(
        &self,
        delivery_id: &DeliveryId,
        redrive: Redrive,
        audit: AuditWrite,
    ) -> Result<(), DeadLetterError> {
        let clock = self.clock();
        let DeliveryId { seq, destination } = delivery_id.clone();
        let handle = &self.lanes.get(&destination).ok_or(DeadLetterError::NotConfigured(destination))?;
        self.with_inner(|inner| {
            inner.redrive(clock, handle, seq, redrive).map(|()| inner.audit.write(clock.wall, audit))
        })?;
        handle.wake();
        self.publish_due();
        Ok(())
    }

    async fn discard(&self, delivery_id: &DeliveryId, audit: AuditWrite) -> Result<(), DeadLetterError> {
        let wall = self.clock().wall;
        self.with_inner(|inner| {
            inner.dead.remove(delivery_id).map(|_| {
                inner.never_delivered.insert(delivery_id.clone());
                let target = inner.event(delivery_id.seq).2.target.clone();
                inner.delivery_ended(&target);
                inner.audit.write(wall, audit);
            })
        })
        .ok_or(DeadLetterError::NotDead)?;
        let handle = self.lanes.get(&delivery_id.destination);
        handle.into_iter().for_each(|handle| handle.with_lane(|lane| lane.mark_discarded(1)));
        self.publish_due();
        Ok(())
    }
}

impl History for Memory {
    async fn history(&self, target: &TargetKey, from: Time, to: Time) -> Result<Vec<String>, Error> {
        Ok(self.with_inner(|inner| {
            let matching = inner
                .records
                .iter()
                .filter(|(at, record)| *at >= from && *at <= to && record.targets.contains(target));
            matching.map(|(_, record)| record.body.clone()).collect()
        }))
    }

    async fn records(&self, wanted: RecordQuery) -> Result<Records, Error> {
        let (low, high) = wanted.id_range();
        Ok(self.with_inner(|inner| {
            // Ids are positions: a reader of what is new skips what it has read.
            let skipped = usize::try_from(low.saturating_sub(1)).unwrap_or(0);
            let matching = inner.records.iter().zip(1..).skip(skipped).filter(|((at, record), id)| {
                (low..=high).contains(id)
                    && (wanted.from..=wanted.to).contains(at)
                    && wanted.target.as_ref().is_none_or(|target| record.targets.contains(target))
            });
            let mut found: Vec<_> = matching
                .map(|((_, record), id)| StoredRecord {
                    cursor: RecordCursor::new(id),
                    body: record.body.clone(),
                })
                .collect();
            if wanted.newest_first {
                found.reverse();
            }
            let has_more = found.len() > wanted.max;
            found.truncate(wanted.max);
            Records { records: found, has_more }
        }))
    }

    async fn event(&self, id: &str) -> Result<Option<StoredEvent>, Error> {
        let prefix = id_prefix(id);
        Ok(self.with_inner(|inner| {
            let found = inner.events.iter().rev().find(|(_, _, event)| event.body.starts_with(&prefix));
            found.map(|(seq, emitted_at, event)| {
                let deliveries = event.destinations.iter().filter_map(|destination| {
                    let handle = self.lanes.get(destination)?;
                    Some(inner.delivery(*seq, &handle))
                });
                StoredEvent {
                    emitted_at: *emitted_at,
                    body: event.body.to_string(),
                    deliveries: deliveries.collect(),
                }
            })
        }))
    }

    async fn deliveries(&self, query: DeliveryQuery) -> Result<DeliveryPage, Error> {
        let DeliveryQuery { from, to, below, max } = query;
        Ok(self.with_inner(|inner| {
            let wanted = inner.events.iter().rev().filter(|(seq, at, _)| {
                (from..=to).contains(at) && below.is_none_or(|below| EventCursor::new(seq.0) < below)
            });
            let mut events: Vec<EventDeliveries> = wanted
                .take(max.saturating_add(1))
                .map(|(seq, emitted_at, event)| {
                    let lanes =
                        event.destinations.iter().filter_map(|destination| self.lanes.get(destination));
                    EventDeliveries {
                        cursor: EventCursor::new(seq.0),
                        emitted_at: *emitted_at,
                        time: EventDocument::read(&event.body).ok().and_then(|event| event.time()),
                        deliveries: lanes.map(|handle| inner.delivery(*seq, &handle)).collect(),
                    }
                })
                .collect();
            let has_more = events.len() > max;
            events.truncate(max);
            let next = events.last().filter(|_| has_more).map(|last| last.cursor);
            DeliveryPage { events, next }
        }))
    }

    async fn states(&self, after: Option<StateCursor>, max: usize) -> Result<Vec<StoredState>, Error> {
        Ok(self.with_inner(|inner| {
            let numbered = inner.states.iter().filter_map(|(key, state)| {
                let cursor = StateCursor::new(*inner.target_ids.get(key)?);
                let is_after = after.is_none_or(|after| cursor > after);
                is_after.then(|| StoredState { cursor, key: key.clone(), state: TargetState::clone(state) })
            });
            let mut found: Vec<_> = numbered.collect();
            found.sort_by_key(|state| state.cursor);
            found.truncate(max);
            found
        }))
    }

    async fn notifications(&self, query: NotificationQuery) -> Result<NotificationPage, Error> {
        Ok(self.with_inner(|inner| inner.notifications.page(&query)))
    }

    async fn audit_trail(&self, query: AuditQuery) -> Result<AuditPage, Error> {
        Ok(self.with_inner(|inner| inner.audit.page(&query)))
    }
}
