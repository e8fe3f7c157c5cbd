//! Tasks of the store that have to run as long as it is open.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;

/// The pause before a task is started again that has panicked, and the longest one: each is twice as long as the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// A task that has run for so long begins with the first pause again.
const STABLE: Duration = Duration::from_secs(300);

/// Runs a task in the background until it ends. After a panic it is started again: without it, this process would be missed by the others,
/// lose its leases, or show old figures until its next start.
pub(super) fn spawn<F>(task: &'static str, start: impl FnMut() -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(supervise(task, start));
}

async fn supervise<F: Future<Output = ()>>(task: &'static str, mut start: impl FnMut() -> F) {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = tokio::time::Instant::now();
        if AssertUnwindSafe(async { start().await }).catch_unwind().await.is_ok() {
            return;
        }
        if started.elapsed() >= STABLE {
            pause = FIRST_PAUSE;
        }
        tracing::error!(
            task,
            pause_seconds = pause.as_secs(),
            "a task of the store has panicked, it is started again"
        );
        tokio::time::sleep(pause).await;
        pause = MAX_PAUSE.min(pause * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_started_again_after_ever_longer_pauses_until_it_ends() {
        let (mut starts, began) = (Vec::new(), tokio::time::Instant::now());
        supervise("test", || {
            starts.push(began.elapsed().as_secs());
            let run = starts.len();
            async move {
                match run {
                    9 => tokio::time::sleep(STABLE).await,
                    11 => return,
                    _ => {}
                }
                panic!("run {run}");
            }
        })
        .await;
        assert_eq!(starts, [0, 1, 3, 7, 15, 31, 63, 123, 183, 484, 486]);
    }
}
