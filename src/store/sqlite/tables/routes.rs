//! Routes: the sets of destinations of events. There are few, and none is ever changed or deleted.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use crate::domain::name::Name;
use crate::store::fast_map::Map;
use crate::store::sqlite::committed::staged::WriteBatch;

/// The committed routes that were used since the start.
#[derive(Debug, Default)]
pub(crate) struct Routes(Map<Arc<[Name]>, i64>);

impl Routes {
    /// The destinations of a route; empty if it does not exist.
    pub(crate) fn destinations(
        &mut self,
        connection: &Connection,
        batch: &WriteBatch,
        id: i64,
    ) -> rusqlite::Result<Arc<[Name]>> {
        let known = self.0.iter().chain(batch.routes().map(|(names, id)| (names, id)));
        if let Some((names, _)) = known.into_iter().find(|(_, known)| **known == id) {
            return Ok(names.clone());
        }
        let names = read(connection, id)?.unwrap_or_else(|| [].into());
        self.0.insert(names.clone(), id);
        Ok(names)
    }

    /// The id of a route, which is added if it does not exist.
    pub(crate) fn id(
        &self,
        connection: &Connection,
        batch: &mut WriteBatch,
        destinations: &Arc<[Name]>,
    ) -> rusqlite::Result<i64> {
        let staged = batch.routes().find(|(known, _)| known == destinations);
        if let Some(&id) = self.0.get(destinations).or(staged.map(|(_, id)| id)) {
            return Ok(id);
        }
        let names: Vec<&str> = destinations.iter().map(Name::as_str).collect();
        let list = serde_json::to_string(&names)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        connection.execute("INSERT OR IGNORE INTO routes (destinations) VALUES (?1)", [&list])?;
        let id = connection
            .query_row("SELECT id FROM routes WHERE destinations = ?1", [&list], |row| row.get(0))?;
        batch.current.routes.push((destinations.clone(), id));
        Ok(id)
    }

    /// Adds the routes of a committed batch.
    pub(crate) fn extend(&mut self, committed: Vec<(Arc<[Name]>, i64)>) {
        self.0.extend(committed);
    }
}

/// The destinations of a route; `None` if it does not exist.
pub(crate) fn read(connection: &Connection, id: i64) -> rusqlite::Result<Option<Arc<[Name]>>> {
    let mut route = connection.prepare_cached("SELECT destinations FROM routes WHERE id = ?1")?;
    route.query_row([id], |row| Ok(parse(row.get_ref(0)?.as_str()?))).optional()
}

/// Parses the list of names in `routes.destinations`.
pub(crate) fn parse(list: &str) -> Arc<[Name]> {
    let names: Vec<String> = serde_json::from_str(list).unwrap_or_default();
    names.iter().filter_map(|name| Name::new(name).ok()).collect()
}
