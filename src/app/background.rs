//! Background tasks that begin when notifications are accepted.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Starts `work` when the gap since the last process has ended: nothing is decided before.
pub(super) fn when_receiving<Work: Future<Output = ()> + Send + 'static>(
    receiving: &CancellationToken,
    background: &CancellationToken,
    work: impl FnOnce(CancellationToken) -> Work + Send + 'static,
) -> JoinHandle<()> {
    let (receiving, background) = (receiving.clone(), background.clone());
    tokio::spawn(async move {
        background.run_until_cancelled(receiving.cancelled()).await;
        work(background).await;
    })
}
