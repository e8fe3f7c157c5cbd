//! Forgives what a rule owes on a target: an operator decides that nothing has to be taken back.

use std::cell::RefCell;

use super::rates::RateTransaction;
use super::{Bridge, changes, record};
use crate::domain::engine::{self, ForgivenEvent};
use crate::domain::name::Name;
use crate::domain::summary::Summary;
use crate::domain::target::TargetKey;
use crate::store::{self, AuditEntry, Changes, Keys};

/// What an operator forgives.
#[derive(Debug, Clone)]
pub(crate) struct Forgive {
    /// The target.
    pub target: TargetKey,
    /// Only what this rule owes.
    pub rule: Option<Name>,
    /// Who forgives it and why, for the decisions.
    pub detail: String,
}

impl Bridge {
    /// Forgives what is owed on a target: its deferred decreases are withdrawn, and those that are not confirmed are not
    /// called again. Returns the events that were owed; `audit` makes the entry of the audit trail from them. If nothing
    /// is owed, nothing is written.
    ///
    /// # Errors
    /// The store could not read or write; nothing has changed.
    pub(crate) async fn forgive(
        &self,
        forgive: Forgive,
        audit: impl Fn(&[ForgivenEvent]) -> AuditEntry + Send + Sync + 'static,
    ) -> Result<Vec<ForgivenEvent>, store::Error> {
        let snapshot = self.0.snapshot.load_full();
        let rates = RateTransaction::new(self.0.rates.clone());
        let step_rates = rates.clone();
        let keys = Keys { targets: vec![forgive.target.clone()], alerts: Vec::new() };
        let result = self.0.store.transact(keys, move |view| {
            // The step can be run again.
            let forgiven = RefCell::new(Vec::new());
            let step = step_rates.run(view.rates.as_ref(), |rates| {
                let context = snapshot.context(view, &view.controls, rates);
                let Forgive { target, rule, detail } = &forgive;
                let (step, events) = engine::forgive(&context, target, &view.states, rule.as_ref(), detail);
                forgiven.replace(events);
                step
            });
            let forgiven = forgiven.into_inner();
            if forgiven.is_empty() {
                return (Changes::default(), (forgiven, Summary::default()));
            }
            let record = record::for_due(view.clock(), &view.states, &step.decisions);
            let summary = Summary::from_decisions(&step.decisions);
            let changes = changes(&snapshot.routes, step, record, Vec::new());
            (Changes { audit: Some(audit(&forgiven)), ..changes }, (forgiven, summary))
        });
        match result.await {
            Ok((forgiven, summary)) => {
                self.0.metrics.record_decisions(&summary);
                self.0.commits.send_replace(());
                Ok(forgiven)
            }
            Err(error) => {
                rates.rollback();
                Err(error)
            }
        }
    }
}
