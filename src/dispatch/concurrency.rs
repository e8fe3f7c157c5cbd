//! AIMD concurrency limit: halved on throttling, +1 after a full round of successes, up to the configured
//! maximum. Pure.

/// The limit of concurrent calls, between 1 and the configured maximum.
#[derive(Debug)]
pub(super) struct AdaptiveConcurrency {
    max_limit: usize,
    limit: usize,
    /// Successful calls since the limit last changed.
    successes: usize,
    /// The number of decreases. Concurrent calls are throttled together and reduce the limit only once.
    epoch: u64,
}

/// Identifies the period between two decreases in which a call was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch(u64);

/// The change of the limit by a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitChange {
    None,
    /// It fell below the maximum.
    Reduced,
    /// A call was throttled although the limit is 1 already.
    AtMinimum,
    /// It reached the maximum again.
    Restored,
}

impl AdaptiveConcurrency {
    /// Starts at the maximum, which is at least 1.
    pub(super) fn new(max_limit: usize) -> Self {
        let max_limit = max_limit.max(1);
        Self { max_limit, limit: max_limit, successes: 0, epoch: 0 }
    }

    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    pub(super) const fn max_limit(&self) -> usize {
        self.max_limit
    }

    pub(super) const fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    /// A call was not throttled. As many successes as the limit raise it by one. Stale epochs are ignored.
    pub(super) fn on_success(&mut self, epoch: Epoch) -> LimitChange {
        if self.limit == self.max_limit || epoch != self.epoch() {
            return LimitChange::None;
        }
        self.successes += 1;
        if self.successes >= self.limit {
            self.limit += 1;
            self.successes = 0;
        }
        if self.limit == self.max_limit { LimitChange::Restored } else { LimitChange::None }
    }

    /// A call was throttled. Stale epochs are ignored.
    pub(super) fn on_throttle(&mut self, epoch: Epoch) -> LimitChange {
        if epoch != self.epoch() {
            return LimitChange::None;
        }
        let before = self.limit;
        self.limit = (before / 2).max(1);
        self.successes = 0;
        self.epoch += 1;
        match before {
            1 => LimitChange::AtMinimum,
            _ if before == self.max_limit => LimitChange::Reduced,
            _ => LimitChange::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn concurrent_throttled_calls_halve_the_limit_once() {
        let mut concurrency = AdaptiveConcurrency::new(8);
        let epoch = concurrency.epoch();
        assert_eq!(concurrency.on_throttle(epoch), LimitChange::Reduced);
        assert_eq!((concurrency.on_throttle(epoch), concurrency.limit()), (LimitChange::None, 4));
        let mut limits = vec![];
        loop {
            let change = concurrency.on_throttle(concurrency.epoch());
            limits.push(concurrency.limit());
            if change == LimitChange::AtMinimum {
                break;
            }
        }
        assert_eq!(limits, [2, 1, 1]);
    }

    #[test]
    fn the_limit_grows_by_one_per_full_round_of_successes() {
        let mut concurrency = AdaptiveConcurrency::new(4);
        concurrency.on_throttle(concurrency.epoch());
        let changes: Vec<_> =
            (0..6).map(|_| (concurrency.on_success(concurrency.epoch()), concurrency.limit())).collect();
        let (none, restored) = (LimitChange::None, LimitChange::Restored);
        assert_eq!(changes, [(none, 2), (none, 3), (none, 3), (none, 3), (restored, 4), (none, 4)]);
    }

    #[test]
    fn the_limit_never_falls_below_one() {
        let mut concurrency = AdaptiveConcurrency::new(1);
        assert_eq!(
            (concurrency.on_throttle(concurrency.epoch()), concurrency.limit()),
            (LimitChange::AtMinimum, 1)
        );
        assert_eq!(AdaptiveConcurrency::new(0).limit(), 1);
    }

    proptest! {
        #[test]
        fn the_limit_stays_within_its_bounds_and_recovers(max_limit in 1usize..300, calls in prop::collection::vec(any::<(bool, bool)>(), 0..300)) {
            let mut concurrency = AdaptiveConcurrency::new(max_limit);
            let mut old = concurrency.epoch();
            for (throttled, is_stale) in calls {
                let (before, now) = (concurrency.limit(), concurrency.epoch());
                let epoch = if is_stale { old } else { now };
                let change = if throttled { concurrency.on_throttle(epoch) } else { concurrency.on_success(epoch) };
                prop_assert!((1..=max_limit).contains(&concurrency.limit()));
                if throttled {
                    prop_assert!(concurrency.limit() <= before);
                    prop_assert!(concurrency.limit() >= before / 2);
                } else {
                    prop_assert!((before..=before + 1).contains(&concurrency.limit()));
                }
                prop_assert!(epoch == now || concurrency.limit() == before, "a stale epoch changes nothing");
                prop_assert_eq!(change == LimitChange::Restored, before < max_limit && concurrency.limit() == max_limit);
                old = now;
            }
            for _ in 0..max_limit * max_limit {
                concurrency.on_success(concurrency.epoch());
            }
            prop_assert_eq!(concurrency.limit(), max_limit);
        }
    }
}
