//! Rows that cannot be read. Each concerns its own target only: the target is left out of due work, transactions
//! on it fail, and everything else goes on. An operator gives such a row up with `store drop`.

use std::collections::BTreeMap;

use parking_lot::RwLock;

use super::index::Fingerprint;
use crate::domain::target::TargetKey;
use crate::store::UnreadableRow;

/// The unreadable rows by id of the target.
#[derive(Debug, Default)]
pub(crate) struct Quarantine(RwLock<BTreeMap<i64, (Fingerprint, UnreadableRow)>>);

impl Quarantine {
    pub(crate) fn contains(&self, id: i64) -> bool {
        // Nearly always empty.
        let rows = self.0.read();
        !rows.is_empty() && rows.contains_key(&id)
    }

    /// Adds a row; false if it is in quarantine already.
    pub(crate) fn add(&self, id: i64, hash: Fingerprint, row: UnreadableRow) -> bool {
        self.0.write().insert(id, (hash, row)).is_none()
    }

    pub(crate) fn remove(&self, id: i64) {
        self.0.write().remove(&id);
    }

    /// The hash of the target's key.
    pub(crate) fn hash(&self, id: i64) -> Option<Fingerprint> {
        self.0.read().get(&id).map(|(hash, _)| *hash)
    }

    /// The target of a row, if its key can be read.
    pub(crate) fn target(&self, id: i64) -> Option<TargetKey> {
        self.0.read().get(&id).and_then(|(_, row)| row.target.clone())
    }

    /// All of them, by id.
    pub(crate) fn rows(&self) -> Vec<UnreadableRow> {
        self.0.read().values().map(|(_, row)| row.clone()).collect()
    }
}
