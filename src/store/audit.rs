//! The audit trail: who did what as an operator, and what came of it.
//!
//! The store reads no entry: `body` is a JSON document of its writer. An entry is committed in the transaction of the act
//! that it records, so there is neither an act without an entry nor an entry of an act that did not happen.

use crate::domain::time::Time;

/// The record of an act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Who acted.
    pub actor: String,
    /// What was done, as one word.
    pub act: String,
    /// The details: a JSON document.
    pub body: String,
}

/// A write to the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditWrite {
    /// Adds an entry.
    Add(AuditEntry),
    /// Replaces the body of an entry; nothing happens if it was pruned.
    Update {
        /// The entry's id.
        id: i64,
        /// The new body.
        body: String,
    },
}

/// An entry as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAuditEntry {
    /// Ascending and never reused.
    pub id: i64,
    /// When it was added, by the wall clock.
    pub at: Time,
    /// The entry.
    pub entry: AuditEntry,
}

/// A query of the audit trail, newest first.
#[derive(Debug, Clone)]
pub struct AuditQuery {
    /// Only entries of this actor.
    pub actor: Option<String>,
    /// Only entries of this act.
    pub act: Option<String>,
    /// Inclusive lower bound of the time.
    pub from: Time,
    /// Inclusive upper bound of the time.
    pub to: Time,
    /// Only entries with a smaller id.
    pub below: Option<i64>,
    /// The maximum number of entries.
    pub max: usize,
}

impl Default for AuditQuery {
    fn default() -> Self {
        Self {
            actor: None,
            act: None,
            from: Time::from_nanos(i64::MIN),
            to: Time::from_nanos(i64::MAX),
            below: None,
            max: 100,
        }
    }
}

impl AuditQuery {
    /// Whether the query selects an entry.
    pub(super) fn selects(&self, stored: &StoredAuditEntry) -> bool {
        let is = |wanted: &Option<String>, text: &str| wanted.as_deref().is_none_or(|wanted| wanted == text);
        is(&self.actor, &stored.entry.actor)
            && is(&self.act, &stored.entry.act)
            && (self.from..=self.to).contains(&stored.at)
            && self.below.is_none_or(|below| stored.id < below)
    }
}

/// A page of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPage {
    /// The entries, newest first.
    pub entries: Vec<StoredAuditEntry>,
    /// Whether there may be a next page.
    pub has_more: bool,
}

/// The audit trail of an in-memory store.
#[derive(Debug, Default)]
pub(super) struct MemoryAudit(Vec<StoredAuditEntry>);

impl MemoryAudit {
    /// Returns the id of the entry.
    pub(super) fn write(&mut self, wall: Time, write: AuditWrite) -> i64 {
        match write {
            AuditWrite::Add(entry) => {
                let id = self.0.len() as i64 + 1;
                self.0.push(StoredAuditEntry { id, at: wall, entry });
                id
            }
            AuditWrite::Update { id, body } => {
                if let Some(stored) = self.0.iter_mut().find(|stored| stored.id == id) {
                    stored.entry.body = body;
                }
                id
            }
        }
    }

    pub(super) fn page(&self, query: &AuditQuery) -> AuditPage {
        let mut found = self.0.iter().rev().filter(|stored| query.selects(stored));
        let entries = found.by_ref().take(query.max).cloned().collect();
        AuditPage { entries, has_more: found.next().is_some() }
    }
}
