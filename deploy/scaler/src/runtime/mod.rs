//! The two ways to run: as Lambda function, and as worker of a queue.

use crate::outcome::Answer;

/// Applies events. All that is said about an event (the line of the log, metrics, the queue of refused events) is said
/// by it.
pub trait Events: Send + Sync + 'static {
    /// Applies the event `body`, which is JSON as it came.
    fn handle(&self, body: &str) -> impl Future<Output = Answer> + Send;
}
