//! Calls with a limit of their time.

use std::time::Duration;

use crate::apply::PlatformError;

/// The limit of a read, and of a write: [`crate::plan::CALL_WINDOW`] and [`crate::plan::MAX_HOLD`] rely on it.
const CALL_TIMEOUT: Duration = Duration::from_secs(9);

/// Waits for a read. `what` is what did not answer.
pub(super) async fn read_in_time<T>(
    what: &str,
    read: impl Future<Output = Result<T, PlatformError>>,
) -> Result<T, PlatformError> {
    let late = || PlatformError::Busy(format!("{what} has not answered within {CALL_TIMEOUT:?}"));
    tokio::time::timeout(CALL_TIMEOUT, read).await.unwrap_or_else(|_| Err(late()))
}

/// Waits for a write, which may have been made if there is no answer.
pub(super) async fn write_in_time<T>(
    what: &str,
    write: impl Future<Output = Result<T, PlatformError>>,
) -> Result<T, PlatformError> {
    let late = || PlatformError::Unknown(format!("{what} has not answered within {CALL_TIMEOUT:?}"));
    tokio::time::timeout(CALL_TIMEOUT, write).await.unwrap_or_else(|_| Err(late()))
}

/// The messages of an error and of its causes.
pub(super) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
