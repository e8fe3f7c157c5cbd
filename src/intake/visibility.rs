//! Messages that are being processed stay hidden from others.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::domain::failure::Failure;
use crate::sources::sqs::{Queue, QueueMessage};

/// How long messages are hidden. If the process ends, others receive them after this time.
pub(super) const VISIBILITY: Duration = Duration::from_secs(30);
/// How often that is extended: two calls may fail.
const EXTENSION_INTERVAL: Duration = Duration::from_secs(10);

/// Extends the visibility time-out of messages.
pub(super) struct Extension {
    due: Instant,
}

impl Extension {
    /// For messages that were received now.
    pub(super) fn new() -> Self {
        Self { due: Instant::now() + EXTENSION_INTERVAL }
    }

    /// Waits for `work`, and meanwhile extends the time-out of `messages`.
    pub(super) async fn during<T>(
        &mut self,
        queue: &Queue,
        messages: [&[QueueMessage]; 2],
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = sleep_until(self.due) => {}
            }
            // The work goes on during the call.
            let extending = async {
                for messages in messages {
                    if let Err(error) = queue.set_visibility(messages, VISIBILITY).await {
                        log_failure(&error);
                    }
                }
            };
            self.due = Instant::now() + EXTENSION_INTERVAL;
            tokio::select! {
                done = &mut work => return done,
                () = extending => {}
            }
        }
    }
}

/// Messages that are received again change nothing, so that a failure is no error.
fn log_failure(error: &Failure) {
    tracing::debug!(%error, "extending the visibility of messages failed");
}
