//! Bulk operations on dead letters: each with one audit entry, which shows its progress at any time.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use super::Ops;
use super::act::Initiator;
use super::api::{
    AuditDetails, BulkDetails, BulkDiscard, BulkFailure, BulkRedrive, BulkResult, DeadLetterSelector,
    OUTCOME_DONE, OUTCOME_FAILED, OUTCOME_RUNNING,
};
use super::audit::{self, OperatorAct};
use super::dead_letters::{format_id, redrive_details, redrive_options};
use super::error::Error;
use super::parse;
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::{self, AuditWrite, DeadLetter, DeadLetterError, DeliveryId, Redrive, Store};

/// Dead letters read per query.
const BULK_PAGE_SIZE: usize = 500;
/// Failures that are listed in the result.
const MAX_LISTED_FAILURES: usize = 100;

#[derive(Debug, Clone, Copy)]
enum BulkAction {
    Redrive(Redrive),
    Discard,
}

/// A checked selector.
struct Selection {
    destination: Option<Name>,
    rule: Option<String>,
    action: Option<String>,
    /// Inclusive.
    given_up_before: Time,
}

impl Selection {
    /// A delivery that is given up after `started` is not selected, so one that is redriven and given up again is
    /// processed once.
    fn new(selector: &DeadLetterSelector, started: Time) -> Result<Self, Error> {
        let DeadLetterSelector { destination, rule, action, given_up_before, all } = selector;
        let has_filter =
            destination.is_some() || rule.is_some() || action.is_some() || given_up_before.is_some();
        if has_filter == *all {
            let text = "selector: at least one filter or `all` is required, but not both";
            return Err(Error::Invalid(text.to_owned()));
        }
        let before = parse::time("given_up_before", given_up_before.as_deref(), started)?;
        Ok(Self {
            destination: parse::name("destination", destination.as_deref())?,
            rule: rule.clone(),
            action: action.clone(),
            given_up_before: before.unwrap_or(started).min(started),
        })
    }

    fn selects(&self, dead_letter: &DeadLetter) -> bool {
        self.rule.as_ref().is_none_or(|rule| *rule == dead_letter.rule)
            && self.action.as_ref().is_none_or(|action| *action == dead_letter.action)
            && dead_letter.given_up_at <= self.given_up_before
    }
}

/// The audit entry of a bulk operation in progress. It leaves the set of running ones when it is dropped, which also
/// happens when the request is cancelled.
struct BulkEntry<'a> {
    id: i64,
    details: AuditDetails,
    bulk: BulkDetails,
    running: &'a Mutex<BTreeSet<i64>>,
}

impl Drop for BulkEntry<'_> {
    fn drop(&mut self) {
        self.running.lock().remove(&self.id);
    }
}

impl BulkEntry<'_> {
    fn write(&self, bulk: BulkDetails, outcome: &'static str) -> AuditWrite {
        let details = AuditDetails { outcome: outcome.into(), bulk: Some(bulk), ..self.details.clone() };
        audit::update(self.id, &details)
    }

    /// The write that belongs to the change of one more dead letter.
    fn step(&self) -> AuditWrite {
        let bulk = BulkDetails { succeeded: self.bulk.succeeded + 1, ..self.bulk.clone() };
        self.write(bulk, OUTCOME_RUNNING)
    }

    /// Sets the outcome. If that fails, the entry stays without one, with exact counts.
    async fn finish(mut self, store: &Store, error: Option<&store::Error>) {
        self.bulk.ended_at = Some(store.clock().wall.to_millis_string());
        self.details.errors = error.iter().map(ToString::to_string).collect();
        let outcome = if error.is_some() { OUTCOME_FAILED } else { OUTCOME_DONE };
        if let Err(error) = store.audit(self.write(self.bulk.clone(), outcome)).await {
            tracing::error!(%error, entry = self.id, "writing the audit trail failed");
        }
    }
}

impl Ops {
    /// Redrives the selected dead letters.
    ///
    /// # Errors
    /// A parameter is invalid, or the store cannot read or write; then some may have been redriven.
    pub(crate) async fn bulk_redrive(
        &self,
        by: &Initiator,
        params: &BulkRedrive,
    ) -> Result<BulkResult, Error> {
        let action = BulkAction::Redrive(redrive_options(&params.options)?);
        let redrive = Some(redrive_details(&params.options));
        let details = AuditDetails { redrive, ..AuditDetails::default() };
        let result =
            self.for_each_selected(OperatorAct::BulkRedrive, by, &params.selector, action, details).await?;
        let (author, reason) = (by.actor.as_str(), by.reason_text());
        tracing::info!(count = result.succeeded, author, reason, "dead letters redriven");
        Ok(result)
    }

    /// Discards the selected dead letters.
    ///
    /// # Errors
    /// A parameter is invalid, or the store cannot read or write; then some may have been discarded.
    pub(crate) async fn bulk_discard(
        &self,
        by: &Initiator,
        params: &BulkDiscard,
    ) -> Result<BulkResult, Error> {
        let (action, details) = (BulkAction::Discard, AuditDetails::default());
        let result =
            self.for_each_selected(OperatorAct::BulkDiscard, by, &params.selector, action, details).await?;
        let (author, reason) = (by.actor.as_str(), by.reason_text());
        tracing::info!(count = result.succeeded, author, reason, "dead letters discarded");
        Ok(result)
    }

    async fn for_each_selected(
        &self,
        act: OperatorAct,
        by: &Initiator,
        selector: &DeadLetterSelector,
        action: BulkAction,
        details: AuditDetails,
    ) -> Result<BulkResult, Error> {
        let store = &self.0.store;
        let selection = Selection::new(selector, store.clock().wall)?;
        let mut entry = self.begin(act, by, selector, details).await?;
        let mut result = BulkResult::default();
        let mut after: Option<DeliveryId> = None;
        let ended = loop {
            let page = store.dead_letters(selection.destination.as_ref(), after.as_ref(), BULK_PAGE_SIZE);
            let page = match page.await {
                Ok(page) => page,
                Err(error) => break Err(error),
            };
            let selected = page.iter().filter(|dead_letter| selection.selects(dead_letter));
            if let Err(error) = apply(store, action, selected, &mut entry, &mut result).await {
                break Err(error);
            }
            if page.len() < BULK_PAGE_SIZE {
                break Ok(());
            }
            after = page.last().map(|last| last.delivery_id.clone());
        };
        entry.finish(store, ended.as_ref().err()).await;
        ended?;
        Ok(result)
    }

    /// Writes the entry, before anything changes.
    async fn begin(
        &self,
        act: OperatorAct,
        by: &Initiator,
        selector: &DeadLetterSelector,
        details: AuditDetails,
    ) -> Result<BulkEntry<'_>, Error> {
        let bulk = BulkDetails { selector: Some(selector.clone()), ..BulkDetails::default() };
        let details = AuditDetails {
            reason: by.reason.clone(),
            outcome: OUTCOME_RUNNING.into(),
            bulk: Some(bulk.clone()),
            ..details
        };
        let id = self.0.store.audit(AuditWrite::Add(audit::entry(act, by, details.clone()))).await?;
        self.0.running.lock().insert(id);
        Ok(BulkEntry { id, details, bulk, running: &self.0.running })
    }
}

/// Applies the action to dead letters of one page.
async fn apply(
    store: &Store,
    action: BulkAction,
    selected: impl Iterator<Item = &DeadLetter>,
    entry: &mut BulkEntry<'_>,
    result: &mut BulkResult,
) -> Result<(), store::Error> {
    for DeadLetter { delivery_id, .. } in selected {
        let outcome = match action {
            BulkAction::Redrive(redrive) => store.redrive(delivery_id, redrive, entry.step()).await,
            BulkAction::Discard => store.discard(delivery_id, entry.step()).await,
        };
        match outcome {
            Ok(()) => result.succeeded += 1,
            Err(DeadLetterError::Store(error)) => return Err(error),
            Err(error) => {
                result.failed_total += 1;
                if result.failed.len() < MAX_LISTED_FAILURES {
                    let id = format_id(delivery_id);
                    result.failed.push(BulkFailure { id, reason: error.to_string() });
                }
            }
        }
        entry.bulk.succeeded = result.succeeded;
        entry.bulk.failed_total = result.failed_total;
    }
    Ok(())
}
