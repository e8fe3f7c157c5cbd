//! Forgives what rules owe on a target.

use super::Ops;
use super::act::Initiator;
use super::api::{AuditDetails, ForgiveDetails, ForgiveRequest, Forgiven, ForgivenEventView};
use super::audit::{self, OperatorAct};
use super::error::Error;
use super::parse;
use crate::bridge::Forgive;
use crate::domain::engine::ForgivenEvent;
use crate::domain::target::TargetKey;

fn views(events: &[ForgivenEvent]) -> Vec<ForgivenEventView> {
    let view = |event: &ForgivenEvent| ForgivenEventView {
        rule: event.rule.to_string(),
        event: event.event.to_string(),
    };
    events.iter().map(view).collect()
}

impl Ops {
    /// Forgives what one rule, or each rule, owes on a target: nothing is taken back for it any more.
    ///
    /// # Errors
    /// A parameter is invalid, nothing is owed there, or the store cannot write.
    pub(crate) async fn forgive(&self, by: Initiator, request: &ForgiveRequest) -> Result<Forgiven, Error> {
        let rule = parse::name("rule", request.rule.as_deref())?;
        let target = request.target.trim();
        if target.is_empty() {
            return Err(Error::Invalid(
                "target: expected a target's key, as `episodes --owing` shows it".to_owned(),
            ));
        }
        let detail = format!("forgiven by {}: {}", by.actor, by.reason_text());
        let forgive = Forgive { target: TargetKey::from_stored(target), rule: rule.clone(), detail };
        let (actor, reason) = (by.actor.to_string(), by.reason_text().to_owned());
        let (subject, rule_name) = (target.to_owned(), rule.as_ref().map(ToString::to_string));
        let forgiven = self.0.bridge.forgive(forgive, move |events| {
            let details =
                ForgiveDetails { target: subject.clone(), rule: rule_name.clone(), events: views(events) };
            audit::entry(
                OperatorAct::Forgive,
                &by,
                AuditDetails { forgive: Some(details), ..AuditDetails::done() },
            )
        });
        let events = views(&forgiven.await?);
        if events.is_empty() {
            let by_rule = rule.map_or_else(String::new, |rule| format!(" by rule `{rule}`"));
            return Err(Error::NotFound(format!(
                "nothing is owed on target `{target}`{by_rule}; `scalebridge episodes --owing` lists what is"
            )));
        }
        tracing::info!(
            target = target,
            events = events.len(),
            author = actor,
            reason,
            "owed decreases forgiven"
        );
        Ok(Forgiven { target: target.to_owned(), events })
    }
}
