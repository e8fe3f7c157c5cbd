//! What decisions know about deliveries, and what they change about them, in an in-memory store.

use std::sync::Arc;

use super::inner::Inner;
use crate::domain::delivery::{DeliveryChange, DeliveryChangeKind, GiveUp};
use crate::domain::engine::{DeliveryFeedback, States};
use crate::domain::name::Name;
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::domain::time::{ClockReading, Time};
use crate::store::expiry::after_renewal;
use crate::store::lane::{Lookup, Marks, PendingRetry};
use crate::store::lanes::{LaneHandle, LaneHandles};
use crate::store::tracking::{self, Status, Successes, Watch};
use crate::store::{DeliveryId, EventSeq};

impl Inner {
    /// The delivery of the events that the states track.
    pub(super) fn deliveries(&self, states: &States, lanes: &LaneHandles) -> DeliveryFeedback {
        let mut deliveries = DeliveryFeedback::default();
        for (key, state) in &states.targets {
            for id in state.tracked_events() {
                let Some(&seq) = self.ids.get(&(key.clone(), id.clone())) else { continue };
                let acting = self.event(seq).2.acting.clone();
                let all = acting.iter().filter_map(|name| Some(self.status(&*lanes.get(name)?, seq)));
                let all: Vec<Status> = all.collect();
                if !all.is_empty() {
                    deliveries
                        .events
                        .entry(key.clone())
                        .or_default()
                        .insert(id.clone(), tracking::combine(all));
                }
            }
        }
        let awaits = |state: &TargetState| lanes.all().keys().any(|name| state.awaits_destination(name));
        if !deliveries.events.is_empty() || states.targets.values().any(|state| awaits(state)) {
            let succeeded =
                |(name, handle): (&Name, &Arc<LaneHandle>)| Some((name.clone(), handle.last_success()?.now));
            deliveries.last_success = lanes.all().iter().filter_map(succeeded).collect();
        }
        deliveries
    }

    fn status(&self, handle: &LaneHandle, seq: EventSeq) -> Status {
        let delivery_id = DeliveryId { seq, destination: handle.name.clone() };
        let is_uncertain = self.uncertain.contains(&delivery_id);
        if let Some(receipt) = self.receipts.get(&delivery_id) {
            return Status::Arrived(receipt.at());
        }
        if let Some(letter) = self.dead.get(&delivery_id) {
            let later_success = tracking::later_success(handle.last_success(), letter.given_up_at);
            let cause = self.causes.get(&delivery_id).copied().unwrap_or(GiveUp::Rejected);
            return Status::Dead { cause, is_uncertain, later_success };
        }
        match handle.with_lane(|lane| lane.look_up(seq)) {
            Lookup::Unsettled { is_uncertain } => Status::Pending { is_uncertain },
            _ if self.never_delivered.contains(&delivery_id) => Status::NotDelivered { is_uncertain },
            _ => Status::Pending { is_uncertain: false },
        }
    }

    /// Applies a change to the deliveries of an event.
    pub(super) fn change_delivery(
        &mut self,
        clock: ClockReading,
        change: &DeliveryChange,
        lanes: &LaneHandles,
    ) {
        let DeliveryChange { target, event, kind } = change;
        let ClockReading { now, wall } = clock;
        let Some(&seq) = self.ids.get(&(target.clone(), event.clone())) else { return };
        if *kind == DeliveryChangeKind::Cancel {
            return self.cancel(seq, lanes);
        }
        let destinations = self.event(seq).2.destinations.clone();
        for handle in destinations.iter().filter_map(|name| lanes.get(name)) {
            let delivery_id = DeliveryId { seq, destination: handle.name.clone() };
            match (*kind, self.status(&handle, seq)) {
                (DeliveryChangeKind::Suspend, Status::Pending { .. }) => self.suspend(&handle, seq),
                (DeliveryChangeKind::Resume, Status::Pending { .. }) => {
                    handle.with_lane(|lane| lane.resume(seq, now));
                }
                (
                    DeliveryChangeKind::Renew { expires_after },
                    Status::Dead { cause: GiveUp::Expired, .. },
                ) => {
                    let before = self.expiry.get(&delivery_id).copied();
                    self.expiry.insert(delivery_id, after_renewal(wall.after(expires_after), before));
                    self.deliver_again(now, &handle, seq);
                }
                (DeliveryChangeKind::EndRenewal, Status::Pending { .. }) => {
                    self.expiry.remove(&delivery_id);
                    let (_, emitted_at, _) = self.event(seq);
                    handle.with_lane(|lane| lane.end_renewal(seq, *emitted_at));
                }
                (DeliveryChangeKind::Replace, Status::Dead { .. }) => {
                    self.dead.remove(&delivery_id);
                    self.never_delivered.insert(delivery_id.clone());
                    self.replaced.insert(delivery_id);
                    handle.with_lane(|lane| lane.mark_discarded(1));
                }
                _ => {}
            }
        }
    }

    fn suspend(&self, handle: &LaneHandle, seq: EventSeq) {
        let (_, emitted_at, event) = self.event(seq);
        let pending = PendingRetry {
            seq,
            group: self.group(&event.target, seq),
            emitted_at: *emitted_at,
            age_from: *emitted_at,
            compensates: super::inner::compensates(event),
            attempts: 0,
            marks: Marks { is_suspended: true, is_uncertain: false },
            due: Time::from_nanos(0),
        };
        handle.with_lane(|lane| lane.suspend(pending));
    }

    /// Cancels the deliveries of an event that are not settled.
    fn cancel(&mut self, seq: EventSeq, lanes: &LaneHandles) {
        let destinations = self.event(seq).2.destinations.clone();
        for handle in destinations.iter().filter_map(|name| lanes.get(name)) {
            let delivery_id = DeliveryId { seq, destination: handle.name.clone() };
            if let Status::Pending { is_uncertain } = self.status(&handle, seq)
                && !handle.with_lane(|lane| lane.is_cancelled(seq))
            {
                handle.with_lane(|lane| lane.cancel(seq));
                if is_uncertain {
                    self.uncertain.insert(delivery_id.clone());
                }
                self.never_delivered.insert(delivery_id);
            }
        }
    }

    fn watch(&self, key: &TargetKey, destination: Option<&Name>) -> Watch {
        let none = TargetState::default();
        Watch::of(self.states.get(key).map_or(&none, |state| state), destination)
    }

    /// A delivery of a target has arrived.
    pub(super) fn delivery_arrived(&mut self, key: &TargetKey) {
        if self.watch(key, None).awaits_delivery {
            self.changed.insert(key.clone());
        }
    }

    /// A delivery of a target has ended without arriving, or is tried again.
    pub(super) fn delivery_ended(&mut self, key: &TargetKey) {
        let watch = self.watch(key, None);
        if watch.tracks_events || watch.awaits_delivery {
            self.changed.insert(key.clone());
        }
    }

    /// Calls to a destination have succeeded.
    pub(super) fn destination_succeeded(&mut self, destination: &Name, successes: Successes) {
        let awaits = |key: &&TargetKey| self.watch(key, Some(destination)).awaits(destination, successes);
        let keys = self.waiting.iter().filter(awaits);
        let keys: Vec<TargetKey> = keys.cloned().collect();
        self.changed.extend(keys);
    }
}
