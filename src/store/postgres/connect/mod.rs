//! Connections to the server.

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, RecyclingMethod, Runtime};
use tokio_postgres::NoTls;

use super::error::DbError;
use crate::store::Error;

/// How long to wait for a connection.
const WAIT: Duration = Duration::from_secs(5);

/// The pool of connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pool(deadpool_postgres::Pool);

impl Pool {
    /// A pool of up to `max_connections` connections. None is opened yet.
    pub(super) fn new(config: tokio_postgres::Config, max_connections: usize) -> Result<Self, Error> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config, NoTls, recycling);
        let pool = deadpool_postgres::Pool::builder(manager)
            .max_size(max_connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT))
            .create_timeout(Some(WAIT))
            .build();
        pool.map(Self).map_err(|error| Error::Unusable(error.to_string()))
    }

    /// A connection.
    pub(super) async fn get(&self) -> Result<Object, DbError> {
        self.0.get().await.map_err(|error| match error {
            deadpool_postgres::PoolError::Backend(error) => DbError::Postgres(error),
            error => DbError::Pool(error.to_string()),
        })
    }

    /// Whether no connections are given any more.
    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Closes idle connections; no new ones are given.
    pub(super) fn close(&self) {
        self.0.close();
    }
}
