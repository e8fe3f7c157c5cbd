//! Whether the worker is ready, and if not, why.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A queue that could not be polled for this long makes the worker unready.
const MAX_FAILING: Duration = Duration::from_secs(60);

/// What became of the polls. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Health(Arc<Mutex<State>>);

#[derive(Debug, Clone, Default)]
struct State {
    was_polled: bool,
    /// Since when polls have failed, and the error of the last one.
    failure: Option<(Instant, String)>,
    is_stopping: bool,
}

impl Health {
    pub(super) fn poll_succeeded(&self) {
        let mut state = self.0.lock();
        (state.was_polled, state.failure) = (true, None);
    }

    pub(super) fn poll_failed(&self, now: Instant, error: String) {
        let mut state = self.0.lock();
        let since = state.failure.as_ref().map_or(now, |(since, _)| *since);
        state.failure = Some((since, error));
    }

    pub(super) fn stop(&self) {
        self.0.lock().is_stopping = true;
    }

    /// Why the worker is not ready, as far as the queue is concerned. While it has no room for more events it does not
    /// poll, and stays ready.
    pub(super) fn problem(&self, now: Instant) -> Option<String> {
        let State { was_polled, failure, is_stopping } = self.0.lock().clone();
        match failure {
            _ if is_stopping => Some("the worker stops".to_owned()),
            None => (!was_polled).then(|| "the queue was not polled yet".to_owned()),
            Some((since, error)) => {
                let seconds = now.duration_since(since).as_secs();
                let is_long = seconds >= MAX_FAILING.as_secs() || !was_polled;
                is_long.then(|| format!("the queue could not be polled for {seconds} s: {error}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_cannot_be_polled_makes_it_unready_after_a_minute() {
        let health = Health::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let problem = |seconds| health.problem(after(seconds));
        assert_eq!(problem(0).as_deref(), Some("the queue was not polled yet"));
        health.poll_failed(after(1), "AccessDenied".into());
        assert_eq!(problem(3).as_deref(), Some("the queue could not be polled for 2 s: AccessDenied"));
        health.poll_succeeded();
        assert_eq!(problem(500), None, "it has no room for more, and does not poll");
        health.poll_failed(after(500), "no answer in time".into());
        health.poll_failed(after(550), "AccessDenied".into());
        assert_eq!(problem(559), None);
        assert_eq!(problem(560).as_deref(), Some("the queue could not be polled for 60 s: AccessDenied"));
        health.poll_succeeded();
        assert_eq!(problem(561), None);
        health.stop();
        assert_eq!(problem(561).as_deref(), Some("the worker stops"));
    }
}
