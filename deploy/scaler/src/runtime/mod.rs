//! The two ways to run: as Lambda function, and as worker of a queue.

pub mod lambda;
mod log;
mod order;
#[cfg(test)]
mod script;
pub mod worker;

use std::time::{SystemTime, UNIX_EPOCH};

use scalebridge::domain::time::Time;

use crate::outcome::Answer;

/// Applies events. All that is said about an event (the line of the log, metrics, the queue of refused events) is said
/// by it.
pub trait Events: Send + Sync + 'static {
    /// Applies the event `body`, which is JSON as it came.
    fn handle(&self, body: &str) -> impl Future<Output = Answer> + Send;
}

/// The time of the machine.
pub fn now() -> Time {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_millis(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
}
