//! While the store or the limit of the backlog refuses notifications, all sources have a reception gap, whether or not
//! any is sent: a load balancer sends none to a bridge that is not ready. Logs when the limit of the backlog begins and ceases
//! to refuse them; the store logs its own outages.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::bridge::Bridge;
use crate::domain::control::GapCause;
use crate::kinds::Settings;
use crate::ops::NotReady;
use crate::store::Store;

/// The interval of the comparisons, which is also that of the log lines while the backlog is about as long as allowed.
const INTERVAL: Duration = Duration::from_secs(1);

/// Runs until `stop` is cancelled.
pub(super) async fn watch(
    bridge: Bridge,
    store: Store,
    settings: Arc<ArcSwap<Settings>>,
    stop: CancellationToken,
) {
    let mut was_refusing = false;
    while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        let backlog = match NotReady::find(&store, &settings.load()) {
            Some(NotReady::Backlog { undelivered, max_backlog }) => {
                bridge.refuse_all(GapCause::Backlog);
                Some((undelivered, max_backlog))
            }
            Some(NotReady::Store(_)) => {
                bridge.refuse_all(GapCause::Store);
                continue;
            }
            None => None,
        };
        match (std::mem::replace(&mut was_refusing, backlog.is_some()), backlog) {
            (false, Some((undelivered, max_backlog))) => tracing::error!(
                undelivered,
                max_backlog,
                "too many unsettled deliveries, refusing notifications until some are settled"
            ),
            (true, None) => tracing::info!("the backlog is below its limit, accepting notifications again"),
            _ => {}
        }
    }
}
