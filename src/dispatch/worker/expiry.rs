//! Gives up deliveries when their age is over, although no call is due: the destination is unavailable, or they wait for
//! a retry, or for a delivery that does.
//!
//! Deliveries that can be sent need no timer: their age is checked right before the call.

use std::time::Duration;

use tokio::time::Instant;

use super::{CompletedCall, OutgoingEvent, Worker};
use crate::dispatch::{Destination, Observer};
use crate::store::{self, DeliveryQueue};

/// The time between two checks, and so the longest delay of a give-up while the store keeps up.
const INTERVAL: Duration = Duration::from_secs(1);
/// The maximum number of deliveries in one check. The next one follows their settlement.
const MAX_PER_CHECK: usize = 1000;

/// When the ages are checked next.
#[derive(Debug)]
pub(super) struct ExpiryTimer {
    /// Whether some deliveries may wait for something else than a call.
    is_watching: bool,
    /// The time of the next check, once it is known.
    next: Option<Instant>,
}

/// Deliveries may wait for a retry since before the start.
impl Default for ExpiryTimer {
    fn default() -> Self {
        Self { is_watching: true, next: None }
    }
}

impl ExpiryTimer {
    /// A delivery waits for a retry.
    pub(super) const fn watch(&mut self) {
        self.is_watching = true;
    }
}

impl<O: DeliveryQueue, D: Destination, V: Observer> Worker<O, D, V> {
    /// When the ages have to be checked. None if all deliveries can be sent, or while others are being settled.
    pub(super) fn next_expiry_check(&self, now: Instant) -> Option<Instant> {
        let is_needed = self.expiry.is_watching || !self.ready.is_empty() || self.paused_until().is_some();
        let has_undelivered = || self.shared.outbox.undelivered_at(&self.shared.options.name) > 0;
        if !is_needed || !self.completed.is_empty() || !has_undelivered() {
            return None;
        }
        Some(self.expiry.next.unwrap_or(now))
    }

    /// Gives up the deliveries whose age is over, if a check is due.
    ///
    /// # Errors
    /// The store is closed.
    pub(super) async fn give_up_expired(&mut self) -> Result<(), store::Error> {
        let now = Instant::now();
        if self.is_idle() {
            self.health.on_idle(now);
        }
        if self.next_expiry_check(now).is_none_or(|next| next > now) {
            return Ok(());
        }
        self.expiry.next = Some(now + INTERVAL);
        self.give_up_ready();
        let shared = &self.shared;
        let (name, limits) = (&shared.options.name, shared.options.age_limits);
        match shared.outbox.claim_expired(name, limits, MAX_PER_CHECK).await {
            Ok(expired) => {
                self.expiry.is_watching = expired.waiting > 0;
                if expired.claimed.len() + expired.examined >= MAX_PER_CHECK {
                    self.expiry.next = Some(now);
                }
                let (mut events, mut settled) = OutgoingEvent::from_claimed(expired.claimed);
                settled.extend(shared.take_expired(&mut events, shared.outbox.clock()));
                if !settled.is_empty() {
                    self.completed.push(CompletedCall::skipped(settled, shared.outbox.clock().wall));
                }
                Ok(())
            }
            Err(error @ store::Error::Closed) => Err(error),
            Err(error) => {
                self.store_failed(&error);
                Ok(())
            }
        }
    }

    /// Nothing is left to be delivered.
    fn is_idle(&self) -> bool {
        let is_busy = self.calls_in_flight > 0 || !self.ready.is_empty() || self.is_settling;
        !is_busy
            && self.completed.is_empty()
            && self.shared.outbox.undelivered_at(&self.shared.options.name) == 0
    }

    /// Gives up those that are claimed and wait for a call.
    fn give_up_ready(&mut self) {
        let clock = self.shared.outbox.clock();
        let shared = &self.shared;
        let settled: Vec<_> =
            self.ready.iter_mut().flat_map(|batch| shared.take_expired(batch, clock)).collect();
        self.ready.retain(|batch| !batch.is_empty());
        if !settled.is_empty() {
            self.completed.push(CompletedCall::skipped(settled, clock.wall));
        }
    }
}
