//! Opens the store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use super::wall_clock;
use crate::config::{self, PostgresStore};
use crate::domain::name::Name;
use crate::ops::Lifecycle;
use crate::store::{Connector, Error, Postgres, PostgresSettings, Sqlite, Store};

/// How long a database that cannot be reached is tried at the start. A failover of RDS takes up to two minutes. After it
/// the process ends, so that a wrong name of a host is noticed by who restarts it.
const START_TIMEOUT: Duration = Duration::from_secs(180);
/// The pause between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Opens the store of the configuration. Meanwhile the listeners answer 503.
///
/// # Errors
/// It cannot be opened; `Error::Unusable` if an operator has to change something.
pub(super) async fn open(
    settings: &config::Store,
    destinations: Vec<Name>,
    lifecycle: &Lifecycle,
) -> anyhow::Result<Store> {
    match settings {
        config::Store::Sqlite { path } => open_sqlite(path, destinations).await,
        config::Store::Postgres(settings) => {
            let opened =
                retried(lifecycle, async || Postgres::open(postgres_settings(settings), &destinations).await);
            Ok(Store::Postgres(opened.await?))
        }
    }
}

async fn open_sqlite(path: &Path, destinations: Vec<Name>) -> anyhow::Result<Store> {
    let path = path.to_owned();
    let (done, opened) = tokio::sync::oneshot::channel();
    // On a separate thread, so that the store's threads are not started from a thread of the runtime.
    let open = move || {
        let opened = Sqlite::open(&path, &destinations, Arc::new(wall_clock));
        // The receiver is gone if the process is stopping.
        drop(done.send(opened));
    };
    std::thread::Builder::new().name("store-open".to_owned()).spawn(open).context("cannot open the store")?;
    Ok(Store::Sqlite(opened.await.context("cannot open the store")??))
}

fn postgres_settings(settings: &PostgresStore) -> PostgresSettings {
    let PostgresStore { url_file, max_connections, iam, notify } = settings;
    PostgresSettings {
        connector: Connector::from_file(url_file.clone(), *iam),
        max_connections: *max_connections,
        notify: *notify,
    }
}

/// Calls `open` until it succeeds, or fails for a reason that does not pass.
async fn retried<T>(lifecycle: &Lifecycle, open: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    let deadline = Instant::now() + START_TIMEOUT;
    let mut is_logged = false;
    loop {
        let error = match open().await {
            Err(Error::Unavailable(error)) => error,
            opened => {
                lifecycle.set_waiting_for(None);
                return opened;
            }
        };
        if Instant::now() >= deadline {
            let minutes = START_TIMEOUT.as_secs() / 60;
            return Err(Error::Unusable(format!(
                "store.postgres: the database cannot be used since {minutes} minutes: {error}"
            )));
        }
        if !is_logged {
            tracing::warn!(error, "the database cannot be used yet, retrying");
            is_logged = true;
        }
        lifecycle.set_waiting_for(Some("the database"));
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_unreachable_database_is_tried_for_three_minutes() {
        let (lifecycle, tries) = (Lifecycle::default(), AtomicU32::new(0));
        let begin = Instant::now();
        let opened = retried(&lifecycle, async || {
            tries.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(Error::Unavailable("refused".to_owned()))
        });
        let error = opened.await.unwrap_err();
        assert!(matches!(&error, Error::Unusable(text) if text.ends_with("3 minutes: refused")), "{error}");
        assert_eq!((tries.into_inner(), begin.elapsed()), (181, START_TIMEOUT));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_pass_is_tried_once() {
        let (lifecycle, tries) = (Lifecycle::default(), AtomicU32::new(0));
        let open = async || match tries.fetch_add(1, Ordering::Relaxed) {
            0 => {
                assert_eq!(lifecycle.waiting_for(), None);
                Err::<(), _>(Error::Unavailable("refused".to_owned()))
            }
            _ => {
                assert_eq!(lifecycle.waiting_for(), Some("the database"));
                Err(Error::Unusable("no such role".to_owned()))
            }
        };
        assert!(matches!(retried(&lifecycle, open).await, Err(Error::Unusable(_))));
        assert_eq!(tries.into_inner(), 2);
        assert_eq!(lifecycle.waiting_for(), None);
    }
}
