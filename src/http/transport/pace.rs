//! How long is waited for a client: a time at first, more for each byte that it moves.

use std::time::Duration;

use tokio::time::Instant;

/// The lowest rate of a client that is waited for.
const MIN_BYTES_PER_SECOND: u32 = 1024;

/// The time that is spent waiting for one client, and the bytes that it moves. Only waiting counts: a bridge that is too
/// busy to read what has arrived does not blame the sender.
#[derive(Debug)]
pub(super) struct Pace {
    grace: Duration,
    limit: Option<Duration>,
    /// What is left.
    credit: Duration,
    waited: Duration,
    since: Option<Instant>,
}

impl Pace {
    /// Waits for `grace`, and a second more for each KiB. With a `limit`, not longer than that in total. Without one, not
    /// longer than `grace` at any time: a client that moves much and then nothing would otherwise be waited for long.
    pub(super) fn new(grace: Duration, limit: Option<Duration>) -> Self {
        Self { grace, limit, credit: grace, waited: Duration::ZERO, since: None }
    }

    /// The client is waited for, now or still. Returns when it has used up its time.
    pub(super) fn wait(&mut self, now: Instant) -> Instant {
        let since = *self.since.get_or_insert(now);
        let until_limit = self.limit.map(|limit| limit.saturating_sub(self.waited));
        since + until_limit.map_or(self.credit, |rest| self.credit.min(rest))
    }

    /// The client has moved some bytes.
    pub(super) fn moved(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            let waited = since.elapsed();
            self.waited += waited;
            self.credit = self.credit.saturating_sub(waited);
        }
        let earned = Duration::from_secs(bytes as u64) / MIN_BYTES_PER_SECOND;
        let most = self.limit.unwrap_or(self.grace);
        self.credit = self.credit.saturating_add(earned).min(most);
    }

    /// The client has done all that it was waited for. Returns false if it was not.
    pub(super) fn reset(&mut self) -> bool {
        let was_waiting = self.since.is_some();
        *self = Self::new(self.grace, self.limit);
        was_waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_WINDOW: Duration = Duration::from_secs(5);

    /// Moves `bytes` every `interval`. Returns the time until the client has used up its own, if it ever does.
    async fn ends_after(mut pace: Pace, bytes: usize, interval: Duration) -> Option<Duration> {
        let start = Instant::now();
        for _ in 0..1000 {
            let deadline = pace.wait(Instant::now());
            if deadline < Instant::now() + interval {
                return Some(deadline - start);
            }
            tokio::time::sleep(interval).await;
            pace.moved(bytes);
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_moves_nothing_or_little_ends_soon() {
        let second = Duration::from_secs(1);
        assert_eq!(ends_after(Pace::new(START_WINDOW, None), 0, second).await, Some(START_WINDOW));
        let dripping = ends_after(Pace::new(START_WINDOW, None), 1, second).await.unwrap();
        assert!(dripping < START_WINDOW + second, "{dripping:?}");
        assert_eq!(
            ends_after(Pace::new(START_WINDOW, None), 900, second).await.map(|end| end > START_WINDOW),
            Some(true)
        );
        assert_eq!(ends_after(Pace::new(START_WINDOW, None), 1024, second).await, None);
        let limit = Some(Duration::from_secs(30));
        assert_eq!(ends_after(Pace::new(START_WINDOW, limit), 1 << 20, second).await, limit);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_moves_much_and_then_nothing_ends_as_soon_as_one_that_moves_nothing() {
        let mut pace = Pace::new(START_WINDOW, None);
        pace.wait(Instant::now());
        tokio::time::sleep(Duration::from_secs(2)).await;
        pace.moved(100 << 20);
        let now = Instant::now();
        assert_eq!(pace.wait(now) - now, START_WINDOW);
    }

    #[tokio::test(start_paused = true)]
    async fn only_waiting_counts() {
        let mut pace = Pace::new(START_WINDOW, Some(START_WINDOW));
        pace.wait(Instant::now());
        tokio::time::sleep(Duration::from_secs(2)).await;
        pace.moved(1);
        // The bridge is busy for an hour, and reads what has arrived meanwhile.
        tokio::time::sleep(Duration::from_secs(3600)).await;
        pace.moved(1);
        let now = Instant::now();
        assert_eq!(pace.wait(now) - now, Duration::from_secs(3));
        assert_eq!(pace.wait(now + Duration::from_secs(1)) - now, Duration::from_secs(3), "the wait goes on");
        pace.reset();
        assert_eq!(pace.wait(now) - now, START_WINDOW);
    }
}
