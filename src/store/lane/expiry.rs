//! When the deliveries of a lane expire, whatever they wait for.
//!
//! The index is filled only when a worker asks for expired deliveries, so a destination that works does not pay for it.

use std::collections::BTreeSet;

use super::{Claim, Lane};
use crate::domain::retry::AgeLimits;
use crate::domain::time::{ClockReading, Time};
use crate::store::fast_map::Map;
use crate::store::outbox::Expired;
use crate::store::{Claimed, EventSeq, Lease};

/// The change between the clocks after which the times are computed again: the wall clock was stepped.
const MAX_CLOCK_CHANGE_NANOS: u64 = 1_000_000_000;

/// Deliveries by the time at which they expire.
#[derive(Debug, Default)]
pub(super) struct ExpiryIndex {
    /// The limits for which `by_time` was computed, and by how much the store's clock was ahead of the wall clock then.
    basis: Option<(AgeLimits, i64)>,
    by_time: BTreeSet<(Time, i64)>,
    times: Map<i64, Time>,
    /// Deliveries outside the window, whose events have to be read first.
    unexamined: BTreeSet<i64>,
    /// The event up to which the window is in the index.
    examined_up_to: i64,
}

/// Leases of deliveries that may have to be given up.
#[derive(Debug, Default)]
pub(in crate::store) struct ExpiredClaims {
    /// These have expired.
    pub expired: Vec<Claim>,
    /// The events of these have to be read, see [`Lane::keep_expired`].
    pub unexamined: Vec<Claim>,
    /// The number of deliveries outside the window: they wait for a retry, or for one of their target.
    pub waiting: usize,
}

impl ExpiryIndex {
    /// Adds a delivery whose event is not in memory.
    pub(super) fn add_unexamined(&mut self, seq: i64) {
        self.unexamined.insert(seq);
    }

    /// The age of a delivery counts from another time.
    pub(super) fn reexamine(&mut self, seq: i64) {
        self.remove(seq);
        self.unexamined.insert(seq);
    }

    /// A delivery leaves the window without being settled.
    pub(super) fn leave_window(&mut self, seq: i64) {
        if !self.times.contains_key(&seq) {
            self.unexamined.insert(seq);
        }
    }

    fn add(&mut self, seq: i64, expires_at: Time) {
        self.remove(seq);
        self.times.insert(seq, expires_at);
        self.by_time.insert((expires_at, seq));
    }

    /// Removes a delivery.
    pub(super) fn remove(&mut self, seq: i64) {
        if !self.unexamined.is_empty() {
            self.unexamined.remove(&seq);
        }
        if let Some(at) = self.times.remove(&seq) {
            self.by_time.remove(&(at, seq));
        }
    }
}

impl Lane {
    /// Leases deliveries that have expired or whose expiry is unknown, at most `max` of them. Unlike a claimed delivery,
    /// such a delivery keeps its place and the end of its backoff; if it is claimed meanwhile, the lease ends. The age of a
    /// suspended one counts from its end.
    pub(in crate::store) fn claim_expired(
        &mut self,
        limits: AgeLimits,
        clock: ClockReading,
        max: usize,
    ) -> ExpiredClaims {
        self.index_window(limits, clock);
        let now = clock.now;
        let candidate = |seq: &i64| {
            let is_suspended = self.is_suspended(EventSeq(*seq));
            !is_suspended && !self.leases.contains_key(seq)
        };
        let expired = self.expiry.by_time.range(..(now, i64::MIN)).map(|&(_, seq)| seq);
        let expired: Vec<i64> = expired.filter(candidate).take(max).collect();
        let unexamined = self.expiry.unexamined.iter().copied();
        let unexamined: Vec<i64> = unexamined.filter(candidate).take(max - expired.len()).collect();
        ExpiredClaims {
            expired: expired.into_iter().filter_map(|seq| self.lease(seq)).collect(),
            unexamined: unexamined.into_iter().filter_map(|seq| self.lease(seq)).collect(),
            waiting: self.retries.len(),
        }
    }

    /// Those of the leased deliveries that have expired. The leases of the others end.
    pub(in crate::store) fn keep_expired(
        &mut self,
        leased: Vec<Claimed>,
        limits: AgeLimits,
        clock: ClockReading,
        waiting: usize,
    ) -> Expired {
        let mut kept = Expired { waiting, ..Expired::default() };
        for one in leased {
            // An unreadable event is given up as such.
            match one.body.header().map(|header| limits.expires_at(clock, one.emitted_at, &header)) {
                Ok(expires_at) if expires_at >= clock.now => {
                    kept.examined += 1;
                    self.record_expiry(one.lease, expires_at);
                }
                _ => kept.claimed.push(one),
            }
        }
        kept
    }

    /// Ends the lease of a delivery that has not expired, and remembers when it will.
    fn record_expiry(&mut self, lease: Lease, expires_at: Time) {
        if self.holds(lease) {
            self.end_expiry_lease(lease);
            self.expiry.add(lease.seq().0, expires_at);
        }
    }

    /// Ends a lease of [`Lane::claim_expired`], unless it has ended already.
    pub(in crate::store) fn end_expiry_lease(&mut self, lease: Lease) {
        if self.holds(lease) {
            self.leases.remove(&lease.seq().0);
        }
    }

    /// Adds the events of the window that are not in the index yet.
    fn index_window(&mut self, limits: AgeLimits, clock: ClockReading) {
        let index = &mut self.expiry;
        let ahead = clock.ahead_nanos();
        let is_valid = index.basis.is_some_and(|(known, known_ahead)| {
            known == limits && known_ahead.abs_diff(ahead) < MAX_CLOCK_CHANGE_NANOS
        });
        if !is_valid {
            index.basis = Some((limits, ahead));
            index.unexamined.extend(self.retries.keys());
            index.by_time.clear();
            index.times.clear();
            index.examined_up_to = i64::MIN;
        }
        let from = index.examined_up_to.saturating_add(1);
        for (&seq, slot) in self.window.range(from..) {
            index.examined_up_to = seq;
            let Some(body) = &slot.body else { continue };
            // An unreadable event is given up when it is read.
            let expires_at = body.header().map(|header| limits.expires_at(clock, slot.emitted_at, &header));
            index.add(seq, expires_at.unwrap_or(slot.emitted_at));
        }
    }

    fn lease(&mut self, seq: i64) -> Option<Claim> {
        let lease = Lease::new(EventSeq(seq), self.last_token + 1);
        let claim = match (self.retries.get(&seq), self.window.get(&seq)) {
            (Some(retry), _) => Claim {
                lease,
                body: None,
                age_from: retry.age_from,
                compensates: retry.compensates,
                attempts: retry.attempts,
                is_uncertain: retry.marks.is_uncertain,
            },
            (None, Some(slot)) => Claim {
                lease,
                body: Some(slot.body.clone()?),
                age_from: slot.emitted_at,
                compensates: slot.compensates,
                attempts: 0,
                is_uncertain: false,
            },
            (None, None) => return None,
        };
        self.last_token = lease.token();
        self.leases.insert(seq, lease.token());
        Some(claim)
    }
}
