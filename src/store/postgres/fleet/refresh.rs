//! Reads what decisions do not need: the clock, the controls, when the next target is due, and the counts.

use std::sync::Weak;
use std::time::{Duration, Instant};

use tokio_postgres::types::Type;

use super::open::last_kept;
use super::tally;
use crate::domain::control::Controls;
use crate::domain::time::Time;
use crate::store::postgres::Shared;
use crate::store::postgres::error::{DbError, Stage};
use crate::store::postgres::schedule;
use crate::store::postgres::transaction::Transaction;
use crate::store::{Error, Tally};

/// The interval of what is cheap.
const INTERVAL: Duration = Duration::from_secs(1);
/// Counting takes at most this part of the time.
const COUNTING_SHARE: u32 = 20;

const SELECT_CONTROLS: &str = "
    SELECT now_ns(), version, CASE WHEN version <> $1 THEN body END FROM controls";
const SELECT_TALLY: &str = "SELECT tally, count(*) FROM targets WHERE tally IS NOT NULL GROUP BY tally";
/// Refreshes until the store is gone.
pub(super) async fn run(shared: Weak<Shared>) {
    let mut next_count = Instant::now();
    let Some(refresh_now) = shared.upgrade().map(|shared| shared.fleet.refresh_now.clone()) else { return };
    loop {
        drop(tokio::time::timeout(INTERVAL, refresh_now.notified()).await);
        let Some(shared) = shared.upgrade().filter(|shared| !shared.pool.is_closed()) else { return };
        let refreshed = async {
            cheap(&shared).await?;
            if Instant::now() >= next_count {
                let began = Instant::now();
                counts(&shared).await?;
                next_count = Instant::now() + began.elapsed() * COUNTING_SHARE;
            }
            Ok::<(), DbError>(())
        };
        if let Err(error) = refreshed.await {
            tracing::debug!(%error, "the cache of the fleet is not refreshed");
        }
    }
}

/// Everything.
pub(super) async fn all(shared: &Shared) -> Result<(), Error> {
    let read = async {
        cheap(shared).await?;
        counts(shared).await
    };
    read.await.map_err(|error| error.into_store(Stage::Use))
}

/// The clock, the controls and the next due time.
async fn cheap(shared: &Shared) -> Result<(), DbError> {
    let known = shared.fleet.controls().version as i64;
    let unreadable: Vec<i64> = shared.fleet.unreadable.lock().keys().copied().collect();
    let transaction = Transaction::begin_reading(&shared.pool).await?;
    let params = [(&known as _, Type::INT8)];
    let controls = transaction.query_one(SELECT_CONTROLS, &params).await?;
    let mark = shared.fleet.due_mark();
    let next = schedule::next_in(&transaction, shared.replica, &unreadable).await?;
    shared.clock.set(Time::from_nanos(controls.get(0)));
    shared.fleet.set_next_due(mark, next);
    if let Some(body) = controls.get::<_, Option<&str>>(2).filter(|body| !body.is_empty()) {
        let read: Result<Controls, _> = serde_json::from_str(body);
        match read {
            // Not if this process has committed newer ones meanwhile.
            Ok(controls) if known > controls.version as i64 => {
                if shared.fleet.controls().version as i64 == known {
                    shared.fleet.replace_controls(controls);
                }
            }
            Ok(controls) => shared.fleet.set_controls(controls.into()),
            Err(error) => return Err(DbError::Damaged(format!("the controls cannot be read: {error}"))),
        }
    }
    transaction.commit().await
}

/// The counts of targets and deliveries.
async fn counts(shared: &Shared) -> Result<(), DbError> {
    shared.fleet.begin_counting();
    let transaction = Transaction::begin_reading(&shared.pool).await?;
    let mut read = Tally::default();
    for row in transaction.query(SELECT_TALLY, &[]).await? {
        tally::add(&mut read, row.get(0), row.get(1));
    }
    shared.fleet.set_last_kept(last_kept(&transaction).await?);
    transaction.commit().await?;
    shared.fleet.set_tally(read);
    shared.destinations.refresh(&shared.pool).await
}
