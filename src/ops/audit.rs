//! The audit trail: every act of an operator, with its actor, reason and outcome.
//!
//! - A pause, its end, a redrive, a discard and the drop of an unreadable state are committed together with their entries.
//!   A rejected one (404, 409) has no entry.
//! - A bulk operation has one entry. It is written first, as `running`, before the first dead letter changes. Each
//!   change then updates its counts in the same transaction, and the end sets the outcome. So the counts are exact
//!   wherever it stops, also if the process is killed.
//! - A reload changes files' contents in memory, not the store. Its entry is written before it is answered. If the store
//!   cannot write, the reload stays valid, because it may be the fix, and the log line is its only trace.
//!
//! One type, [`AuditDetails`], writes and reads the stored document.

use super::Ops;
use super::act::Initiator;
use super::api::{
    AuditDetails, AuditEntryView, AuditPage, ListAuditParams, OUTCOME_INTERRUPTED, OUTCOME_RUNNING,
};
use super::error::Error;
use super::parse;
use crate::store::{AuditEntry, AuditQuery, AuditWrite, StoredAuditEntry};

/// An act of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OperatorAct {
    Pause,
    Resume,
    Redrive,
    Discard,
    BulkRedrive,
    BulkDiscard,
    Reload,
    DropState,
    Forgive,
}

impl OperatorAct {
    const ALL: [Self; 9] = [
        Self::Pause,
        Self::Resume,
        Self::Redrive,
        Self::Discard,
        Self::BulkRedrive,
        Self::BulkDiscard,
        Self::Reload,
        Self::DropState,
        Self::Forgive,
    ];

    /// The name in the store and in the API.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Redrive => "redrive",
            Self::Discard => "discard",
            Self::BulkRedrive => "bulk_redrive",
            Self::BulkDiscard => "bulk_discard",
            Self::Reload => "reload",
            Self::DropState => "drop_state",
            Self::Forgive => "forgive",
        }
    }
}

/// The entry of an act.
pub(super) fn entry(act: OperatorAct, by: &Initiator, details: AuditDetails) -> AuditEntry {
    let details = AuditDetails { reason: by.reason.clone(), ..details };
    AuditEntry { actor: by.actor.as_str().to_owned(), act: act.as_str().to_owned(), body: document(&details) }
}

/// The changed details of an entry. They have to include the reason.
pub(super) fn update(id: i64, details: &AuditDetails) -> AuditWrite {
    AuditWrite::Update { id, body: document(details) }
}

fn document(details: &AuditDetails) -> String {
    // A struct of texts and numbers always serializes.
    serde_json::to_string(details).unwrap_or_default()
}

impl Ops {
    /// Lists the audit trail, newest first.
    ///
    /// # Errors
    /// A parameter is invalid, or the store cannot be read.
    pub(crate) async fn audit_trail(&self, params: &ListAuditParams) -> Result<AuditPage, Error> {
        let store = &self.0.store;
        let now = store.clock().wall;
        let defaults = AuditQuery::default();
        if let Some(act) = params.act.as_deref()
            && OperatorAct::ALL.iter().all(|known| known.as_str() != act)
        {
            let known = OperatorAct::ALL.map(OperatorAct::as_str).join(", ");
            return Err(Error::Invalid(format!("act: unknown act `{act}`; known acts: {known}")));
        }
        let cursor = |text: &str| {
            text.parse().map_err(|_| Error::Invalid("cursor: invalid; use the `next` of a page".to_owned()))
        };
        let query = AuditQuery {
            actor: params.actor.clone(),
            act: params.act.clone(),
            from: parse::time("since", params.since.as_deref(), now)?.unwrap_or(defaults.from),
            to: parse::time("until", params.until.as_deref(), now)?.unwrap_or(defaults.to),
            below: params.cursor.as_deref().map(cursor).transpose()?,
            max: parse::page_size(params.limit)?,
        };
        let page = store.audit_trail(query).await?;
        let next = page.entries.last().filter(|_| page.has_more).map(|last| last.id.to_string());
        let running = self.0.running.lock().clone();
        let view = |stored| view(stored, |id| running.contains(&id));
        Ok(AuditPage { entries: page.entries.into_iter().map(view).collect(), next })
    }
}

/// An entry that says `running` without being in progress was interrupted: by the end of the process, or of the request.
fn view(stored: StoredAuditEntry, is_running: impl Fn(i64) -> bool) -> AuditEntryView {
    let StoredAuditEntry { id, at, entry: AuditEntry { actor, act, body } } = stored;
    let mut details: AuditDetails = serde_json::from_str(&body).unwrap_or_else(|error| {
        tracing::error!(%error, entry = id, "audit entry unreadable");
        AuditDetails {
            errors: vec![format!("the details are unreadable: {error}")],
            ..AuditDetails::default()
        }
    });
    if details.outcome == OUTCOME_RUNNING && !is_running(id) {
        details.outcome = OUTCOME_INTERRUPTED.into();
    }
    AuditEntryView { id, at: at.to_millis_string(), actor, act: act.into(), details }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Time;

    fn stored(body: &str) -> StoredAuditEntry {
        let entry = AuditEntry { actor: "ann".into(), act: "bulk_redrive".into(), body: body.into() };
        StoredAuditEntry { id: 7, at: Time::from_millis(0), entry }
    }

    #[test]
    fn an_entry_that_is_not_in_progress_any_more_was_interrupted() {
        let running = stored(r#"{"outcome":"running"}"#);
        assert_eq!(view(running.clone(), |_| true).details.outcome, "running");
        assert_eq!(view(running, |_| false).details.outcome, "interrupted");
        assert_eq!(view(stored(r#"{"outcome":"done"}"#), |_| false).details.outcome, "done");
    }

    #[test]
    fn an_unreadable_entry_is_shown_with_its_actor() {
        let shown = view(stored("{"), |_| false);
        assert_eq!((shown.actor.as_str(), shown.details.errors.len()), ("ann", 1));
    }

    #[test]
    fn details_are_read_as_they_were_written_and_unknown_ones_are_ignored() {
        let details = AuditDetails { dead_letter: Some("17-queue".into()), ..AuditDetails::done() };
        assert_eq!(serde_json::from_str::<AuditDetails>(&document(&details)).unwrap(), details);
        assert_eq!(document(&details), r#"{"outcome":"done","dead_letter":"17-queue"}"#);
        let newer = r#"{"outcome":"done","dead_letter":"17-queue","moon":"full"}"#;
        assert_eq!(serde_json::from_str::<AuditDetails>(newer).unwrap(), details);
    }
}
