//! The transactions that the server has confirmed to this process: after a failover they show whether any was lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Confirmed transactions are remembered at least this long. A standby that was promoted can lack what was committed right
/// before.
const REMEMBERED: Duration = Duration::from_secs(60);
/// The maximum number that is remembered.
const MAX_REMEMBERED: usize = 10_000;

/// Numbers of transactions. Cheap to use: no IO.
#[derive(Default)]
pub(super) struct Commits(Mutex<State>);

#[derive(Default)]
struct State {
    last: i64,
    /// By number, when each was confirmed.
    confirmed: BTreeMap<i64, Instant>,
}

impl Commits {
    /// The number of a transaction that is about to be committed.
    pub(super) fn next(&self) -> i64 {
        let mut state = self.0.lock();
        state.last += 1;
        state.last
    }

    /// The server has confirmed it.
    pub(super) fn confirm(&self, number: i64, now: Instant) {
        let mut state = self.0.lock();
        state.confirmed.insert(number, now);
        while let Some(oldest) = state.confirmed.first_entry()
            && (now.duration_since(*oldest.get()) > REMEMBERED
                || oldest.key() + MAX_REMEMBERED as i64 <= number)
        {
            oldest.remove();
        }
    }

    /// The confirmed ones that are remembered.
    pub(super) fn confirmed(&self) -> Vec<i64> {
        self.0.lock().confirmed.keys().copied().collect()
    }

    /// The rows below this number are not needed.
    pub(super) fn oldest(&self) -> Option<i64> {
        self.0.lock().confirmed.first_key_value().map(|(number, _)| *number)
    }

    /// Forgets what was lost.
    pub(super) fn clear(&self) {
        self.0.lock().confirmed.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirmed_transactions_are_remembered_for_a_minute_and_up_to_a_number() {
        let (commits, start) = (Commits::default(), Instant::now());
        for second in 0..100 {
            let number = commits.next();
            commits.confirm(number, start + Duration::from_secs(second));
        }
        assert_eq!(commits.confirmed(), (40..=100).collect::<Vec<_>>());
        for _ in 0..20_000 {
            let number = commits.next();
            commits.confirm(number, start + Duration::from_secs(100));
        }
        assert_eq!((commits.confirmed().len(), commits.oldest()), (MAX_REMEMBERED, Some(10_101)));
    }
}
