//! What is not settled, for operators.

use super::{Claim, Lane};
use crate::store::{EventSeq, Lease};

impl Lane {
    /// Up to `max` unsettled deliveries that this process knows, each with whether it is claimed. Nothing is leased: the
    /// leases are not valid.
    pub(in crate::store) fn unsettled_deliveries(&self, max: usize) -> Vec<(Claim, bool)> {
        let in_window = self.window.iter().filter_map(|(&seq, slot)| {
            let body = Some(slot.body.clone()?);
            Some((seq, body, slot.emitted_at, 0))
        });
        let with_rows = self.retries.iter().filter(|(_, retry)| !retry.cancelled);
        let with_rows = with_rows.map(|(&seq, retry)| (seq, None, retry.age_from, retry.attempts));
        let all = in_window.chain(with_rows).take(max);
        all.map(|(seq, body, age_from, attempts)| {
            let lease = Lease::new(EventSeq(seq), 0);
            let is_uncertain = self.is_uncertain(EventSeq(seq));
            let claim = Claim { lease, body, age_from, compensates: false, attempts, is_uncertain };
            (claim, self.leases.contains_key(&seq))
        })
        .collect()
    }
}
