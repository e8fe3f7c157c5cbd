//! What is committed and read by many without asking the writer.

use std::sync::{Arc, PoisonError, RwLock};

use rusqlite::{Connection, OptionalExtension, params};

use super::dictionaries::Dictionaries;
use super::tally;
use crate::domain::control::Controls;
use crate::domain::time::Time;
use crate::store::Tally;

/// The committed controls, counts and samples. Set by the writer alone, after each commit.
#[derive(Debug)]
pub struct CommittedView {
    controls: RwLock<Arc<Controls>>,
    tally: RwLock<Tally>,
    dictionaries: RwLock<Arc<Dictionaries>>,
}

impl CommittedView {
    /// Reads them when the store is opened.
    pub fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let controls = read_controls(connection)?;
        Ok(Self {
            controls: RwLock::new(Arc::new(controls)),
            tally: RwLock::new(tally::read(connection)?),
            dictionaries: RwLock::new(Arc::new(Dictionaries::read(connection)?)),
        })
    }

    pub fn controls(&self) -> Arc<Controls> {
        self.controls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_controls(&self, controls: Arc<Controls>) {
        *self.controls.write().unwrap_or_else(PoisonError::into_inner) = controls;
    }

    pub fn dictionaries(&self) -> Arc<Dictionaries> {
        self.dictionaries.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_dictionaries(&self, dictionaries: Arc<Dictionaries>) {
        *self.dictionaries.write().unwrap_or_else(PoisonError::into_inner) = dictionaries;
    }

    /// Looks at the counts.
    pub fn tally<R>(&self, look: impl FnOnce(&Tally) -> R) -> R {
        look(&self.tally.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn change_tally(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.tally.write().unwrap_or_else(PoisonError::into_inner));
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

/// Writes the controls, and when.
pub fn write_controls(connection: &Connection, now: Time, controls: &Controls) -> rusqlite::Result<()> {
    let text = serde_json::to_string(controls)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let mut put = connection.prepare_cached("INSERT OR REPLACE INTO controls VALUES (1, ?1, ?2)")?;
    put.execute(params![now.as_nanos(), text]).map(drop)
}
