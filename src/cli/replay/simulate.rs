//! Decides a scenario under the rules of a configuration.

use std::collections::BTreeMap;

use super::scenario::{Action, ReceivedNotification, Scenario, Step};
use crate::bridge::decision_view::ExplainedDecision;
use crate::bridge::{Simulator, SimulatorError};
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::kinds::Settings;

/// The decisions up to and including each step, and those that come due after the last one. Steps run as those of a
/// rule test. `source` sends the notifications that have no source of their own; those of a source that is not
/// configured are not decided.
pub(super) async fn decide(
    settings: &Settings,
    scenario: &Scenario,
    source: Option<&Name>,
) -> Result<Vec<Vec<ExplainedDecision>>, SimulatorError> {
    let (rules, sources) = (settings.rules.clone(), settings.sources.clone());
    let mut simulator = Simulator::new(rules, sources, settings.policy(), scenario.start);
    let mut decided = Vec::new();
    for step in &scenario.steps {
        let mut decisions = simulator.advance_to(step.at).await?;
        // What is due at the end of a gap is decided before something else happens.
        decisions.extend(simulator.advance_to(simulator.now()).await?);
        decisions.extend(execute(&mut simulator, step, source).await?);
        decided.push(decisions);
    }
    decided.push(simulator.advance_to(scenario.end).await?);
    Ok(decided)
}

async fn execute(
    simulator: &mut Simulator,
    step: &Step,
    source: Option<&Name>,
) -> Result<Vec<ExplainedDecision>, SimulatorError> {
    match &step.action {
        Action::Notify(received) => {
            let Some(source) = received.source.as_ref().or(source) else { return Ok(Vec::new()) };
            return match simulator.notify(source.as_str(), received.notification.clone()).await {
                Err(SimulatorError::UnknownSource(_)) => Ok(Vec::new()),
                decided => decided,
            };
        }
        Action::Gap(source, length) => {
            return match simulator.gap(Some(source), *length).await {
                Ok(()) | Err(SimulatorError::UnknownSource(_)) => Ok(Vec::new()),
                Err(error) => Err(error),
            };
        }
        Action::Restart(length) => return simulator.restart(*length).await.map(|()| Vec::new()),
        Action::Pause(pause) => simulator.pause(pause.clone()).await?,
        Action::Destination(name, state) => simulator.set_destination(name.clone(), *state),
    }
    simulator.advance_to(simulator.now()).await
}

/// What happened at one time, with the decisions of both sides.
#[derive(Default)]
pub(super) struct Instant {
    pub happened: Vec<String>,
    pub new: Vec<ExplainedDecision>,
    pub old: Vec<ExplainedDecision>,
}

/// The decisions by the time at which they were made, without those that are not comparable.
pub(super) fn by_time(
    scenario: &Scenario,
    new: Vec<Vec<ExplainedDecision>>,
    old: Option<Vec<Vec<ExplainedDecision>>>,
) -> BTreeMap<Time, Instant> {
    let mut instants: BTreeMap<Time, Instant> = BTreeMap::new();
    for step in &scenario.steps {
        instants.entry(step.at).or_default().happened.push(step.describe());
    }
    let mut add = |sides: Vec<Vec<ExplainedDecision>>,
                   side: fn(&mut Instant) -> &mut Vec<ExplainedDecision>| {
        for (at, decisions) in sides.into_iter().enumerate() {
            let step = scenario.steps.get(at);
            for decision in decisions.into_iter().filter(|decision| is_comparable(step, decision)) {
                let Ok(time) = Time::parse(&decision.decision.at) else { continue };
                side(instants.entry(time).or_default()).push(decision);
            }
        }
    };
    add(new, |instant| &mut instant.new);
    add(old.unwrap_or_default(), |instant| &mut instant.old);
    instants
}

/// Whether a decision is about an alert whose history is known.
fn is_comparable(step: Option<&Step>, decision: &ExplainedDecision) -> bool {
    let Some(Action::Notify(received)) = step.map(|step| &step.action) else { return true };
    let ReceivedNotification { not_comparable, .. } = &**received;
    let alerts = &decision.decision.alerts;
    alerts.is_empty() || !alerts.iter().all(|alert| not_comparable.contains(&alert.fingerprint))
}
