//! Connections to the server.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, RecyclingMethod, Runtime};
use tokio_postgres::NoTls;

use super::commits::Commits;
use super::error::DbError;
use crate::store::Error;

/// How long to wait for a connection.
const WAIT: Duration = Duration::from_secs(5);

/// The pool of connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pool {
    connections: deadpool_postgres::Pool,
    replica: i64,
    commits: Arc<Commits>,
}

impl Pool {
    /// A pool of up to `max_connections` connections. None is opened yet.
    pub(super) fn new(
        config: tokio_postgres::Config,
        max_connections: usize,
        replica: i64,
    ) -> Result<Self, Error> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config, NoTls, recycling);
        let pool = deadpool_postgres::Pool::builder(manager)
            .max_size(max_connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT))
            .create_timeout(Some(WAIT))
            .build();
        let connections = pool.map_err(|error| Error::Unusable(error.to_string()))?;
        Ok(Self { connections, replica, commits: Arc::default() })
    }

    /// A connection.
    pub(super) async fn get(&self) -> Result<Object, DbError> {
        self.connections.get().await.map_err(|error| match error {
            deadpool_postgres::PoolError::Backend(error) => DbError::Postgres(error),
            error => DbError::Pool(error.to_string()),
        })
    }

    /// The random number that names this process in the database.
    pub(super) fn replica(&self) -> i64 {
        self.replica
    }

    /// The transactions of this process.
    pub(super) fn commits(&self) -> &Arc<Commits> {
        &self.commits
    }

    pub(super) fn is_closed(&self) -> bool {
        self.connections.is_closed()
    }

    /// Closes idle connections; no new ones are given.
    pub(super) fn close(&self) {
        self.connections.close();
    }
}
