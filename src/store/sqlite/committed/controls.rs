//! The committed view: controls and tally as of the last commit, readable without the writer.

use std::sync::Arc;

use parking_lot::RwLock;
use rusqlite::{Connection, OptionalExtension, params};

use crate::domain::control::Controls;
use crate::domain::time::Time;
use crate::store::Tally;
use crate::store::sqlite::tally;

/// The committed controls and tally. Only the writer sets them, after each commit.
#[derive(Debug)]
pub(crate) struct CommittedView {
    controls: RwLock<Arc<Controls>>,
    tally: RwLock<Tally>,
}

impl CommittedView {
    /// Reads the committed values when the store is opened.
    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let controls = read_controls(connection)?;
        Ok(Self { controls: RwLock::new(Arc::new(controls)), tally: RwLock::new(tally::read(connection)?) })
    }

    pub(crate) fn controls(&self) -> Arc<Controls> {
        self.controls.read().clone()
    }

    pub(crate) fn set_controls(&self, controls: Arc<Controls>) {
        *self.controls.write() = controls;
    }

    /// Calls `read` with the committed tally.
    pub(crate) fn tally<R>(&self, read: impl FnOnce(&Tally) -> R) -> R {
        read(&self.tally.read())
    }

    pub(crate) fn change_tally(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.tally.write());
    }
}

fn read_controls(connection: &Connection) -> rusqlite::Result<Controls> {
    let mut read = connection.prepare("SELECT body FROM controls")?;
    let found = read.query_row([], |row| {
        serde_json::from_str(row.get_ref(0)?.as_str()?).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
        })
    });
    Ok(found.optional()?.unwrap_or_default())
}

/// Writes the controls with the time of the write.
pub(crate) fn write_controls(
    connection: &Connection,
    now: Time,
    controls: &Controls,
) -> rusqlite::Result<()> {
    let text = serde_json::to_string(controls)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let mut put = connection.prepare_cached("INSERT OR REPLACE INTO controls VALUES (1, ?1, ?2)")?;
    put.execute(params![now.as_nanos(), text]).map(drop)
}
