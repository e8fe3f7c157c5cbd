//! Splits events into batches within the limits of a call, by count and by bytes.

use super::{Limits, OutgoingEvent};

/// Splits events, in their order, into non-empty batches within `limits`. An event larger than
/// `limits.bytes` gets a batch of its own.
pub(super) fn split(
    events: Vec<OutgoingEvent>,
    limits: Limits,
    event_bytes: impl Fn(&OutgoingEvent) -> usize,
) -> Vec<Vec<OutgoingEvent>> {
    let mut batches: Vec<Vec<OutgoingEvent>> = Vec::new();
    let mut bytes = 0usize;
    for event in events {
        let size = event_bytes(&event);
        match batches.last_mut() {
            Some(batch) if batch.len() < limits.events && bytes.saturating_add(size) <= limits.bytes => {
                bytes += size;
                batch.push(event);
            }
            _ => {
                bytes = size;
                batches.push(vec![event]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dispatch::stub;

    proptest! {
        #[test]
        fn every_event_is_in_one_batch_in_order_and_no_batch_is_over_its_limits(
            sizes in prop::collection::vec(0usize..40, 0..60), events in 1usize..12, bytes in 1usize..60,
        ) {
            let limits = Limits { events, bytes, max_event_bytes: usize::MAX };
            let event_bytes = |event: &OutgoingEvent| sizes[event.lease.seq().0 as usize];
            let all = (0..sizes.len()).map(|seq| stub::outgoing(seq as i64)).collect();
            let batches = split(all, limits, event_bytes);
            let order: Vec<i64> = batches.iter().flatten().map(|event| event.lease.seq().0).collect();
            prop_assert_eq!(order, (0..sizes.len() as i64).collect::<Vec<_>>());
            for batch in &batches {
                let sum: usize = batch.iter().map(event_bytes).sum();
                prop_assert!(!batch.is_empty() && batch.len() <= events);
                prop_assert!(sum <= bytes || batch.len() == 1, "{} bytes in {} events", sum, batch.len());
            }
        }
    }
}
