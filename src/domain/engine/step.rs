//! Context of one engine step: read-only inputs plus its copies of the controls and rates, which it changes.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::{Context, UndeliveredDecrease};
use crate::domain::control::Controls;
use crate::domain::name::Name;
use crate::domain::rate::{RateDelta, StepRates};
use crate::domain::rule::{Mode, Rule};
use crate::domain::state::Deferred;
use crate::domain::target::TargetKey;

pub(super) struct StepContext<'a> {
    pub context: &'a Context<'a>,
    controls: Cow<'a, Controls>,
    pub rates: StepRates<'a>,
    /// Ids of the events that this step has superseded.
    superseded: BTreeSet<&'a str>,
}

impl<'a> StepContext<'a> {
    pub(super) fn new(context: &'a Context<'a>) -> Self {
        let rates = StepRates::new(context.rates, context.policy.per_minute, context.now);
        Self { context, controls: Cow::Borrowed(context.controls), rates, superseded: BTreeSet::new() }
    }

    /// The controls, including the changes of this step.
    pub(super) fn controls(&self) -> &Controls {
        &self.controls
    }

    pub(super) fn controls_mut(&mut self) -> &mut Controls {
        self.controls.to_mut()
    }

    /// The controls, if this step has changed them, and its changes to the rates.
    pub(super) fn into_changes(self) -> (Option<Controls>, RateDelta) {
        let version = self.context.controls.version;
        let controls = match self.controls {
            Cow::Owned(controls) if controls.version != version => Some(controls),
            _ => None,
        };
        (controls, self.rates.into_delta())
    }

    /// The current version of a rule; `None` if it no longer exists.
    pub(super) fn rule(&self, name: &Name) -> Option<&'a Rule> {
        self.context.rules.rule(name)
    }

    pub(super) fn is_shadow(&self, name: &Name) -> bool {
        self.rule(name).is_some_and(|rule| rule.mode == Mode::Shadow)
    }

    /// Those of `sources` that have a heartbeat configured.
    pub(super) fn with_heartbeat<'s>(
        &self,
        sources: &'s [Name],
    ) -> impl Iterator<Item = &'s Name> + use<'s, 'a> {
        let known = self.context.with_heartbeat;
        sources.iter().filter(move |source| known.contains(*source))
    }

    /// Releases the rate limit slot of a deferred action, if it has one.
    pub(super) fn release_slot(&mut self, deferred: &Deferred) {
        if let Some(slot) = deferred.slot() {
            self.rates.release(slot);
        }
    }

    /// The undelivered decreases of a target that an increase cancels. Each is returned once in a step.
    pub(super) fn supersede(&mut self, key: &TargetKey) -> Vec<&'a UndeliveredDecrease> {
        let undelivered = self.context.undelivered_decreases.get(key).into_iter().flatten();
        undelivered.filter(|undelivered| self.superseded.insert(&undelivered.id)).collect()
    }
}
