//! Claims of deliveries and their leases.

use super::{Lane, Retry, Slot};
use crate::domain::header::EncodedEvent;
use crate::domain::time::Time;
use crate::store::{EventSeq, Lease};

/// A claimed delivery.
#[derive(Debug)]
pub(crate) struct Claim {
    pub lease: Lease,
    /// `None` if the event is not in memory and has to be read.
    pub body: Option<EncodedEvent>,
    /// The limits of its age count from then.
    pub age_from: Time,
    /// Whether the event compensates earlier ones.
    pub compensates: bool,
    pub attempts: u32,
    /// Whether an earlier call may have arrived.
    pub is_uncertain: bool,
}

impl Lane {
    /// Claims up to `max` deliveries.
    pub(crate) fn claim(&mut self, max: usize, now: Time) -> Vec<Claim> {
        while let Some(&(due, seq)) = self.retry_schedule.first()
            && due <= now
        {
            self.retry_schedule.pop_first();
            if let Some(retry) = self.retries.get_mut(&seq) {
                retry.due = None;
            }
            self.rejoin(seq);
            self.mark_ready_if_first(seq);
        }
        let mut claims = Vec::new();
        while claims.len() < max
            && let Some(seq) = self.ready.pop_first()
        {
            // A delivery with a row can still be in the window, until the cursor passes it.
            let lease = Lease::new(EventSeq(seq), self.last_token + 1);
            claims.push(match (self.retries.get(&seq), self.window.get(&seq)) {
                (Some(&Retry { age_from, compensates, attempts, marks, .. }), _) => {
                    let is_uncertain = marks.is_uncertain;
                    Claim { lease, body: None, age_from, compensates, attempts, is_uncertain }
                }
                (None, Some(Slot { emitted_at, compensates, body: body @ Some(_), .. })) => Claim {
                    lease,
                    body: body.clone(),
                    age_from: *emitted_at,
                    compensates: *compensates,
                    attempts: 0,
                    is_uncertain: false,
                },
                (None, _) => continue,
            });
            self.last_token = lease.token();
            self.leases.insert(seq, lease.token());
        }
        claims
    }

    /// Whether the lease is the current one of its delivery.
    pub(crate) fn holds(&self, lease: Lease) -> bool {
        self.leases.get(&lease.seq().0) == Some(&lease.token())
    }

    /// Ends a lease whose delivery was not attempted, unless it has ended already.
    pub(crate) fn end_lease(&mut self, lease: Lease) {
        if self.holds(lease) {
            self.unclaim(lease.seq());
        }
    }

    /// Releases a claimed delivery that was not attempted.
    pub(crate) fn unclaim(&mut self, seq: EventSeq) {
        self.leases.remove(&seq.0);
        if let Some(retry) = self.retries.get_mut(&seq.0) {
            retry.marks.is_uncertain |= std::mem::take(&mut retry.is_called);
        }
        if self.is_cancelled(seq) {
            self.finish(seq.0);
        } else if self.is_suspended(seq) {
            self.stand_aside(seq.0);
        } else {
            self.mark_ready_if_first(seq.0);
        }
    }

    /// Releases all claims, since no worker holds any. With `skip_delays`, retries are due at once as well.
    pub(crate) fn release_claims(&mut self, skip_delays: bool) {
        if skip_delays {
            self.retry_schedule.clear();
            self.retries.values_mut().for_each(|retry| retry.due = None);
            self.rejoin_all();
        }
        let firsts = self.groups.values().filter_map(|queue| queue.front().copied());
        let is_backing_off = |seq: &i64| self.retries.get(seq).is_some_and(|retry| retry.due.is_some());
        let claimed: Vec<i64> = firsts.filter(|seq| !is_backing_off(seq)).collect();
        self.leases.clear();
        claimed.into_iter().for_each(|seq| self.unclaim(EventSeq(seq)));
    }
}
