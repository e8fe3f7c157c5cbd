//! What one step works with beside the states: what it reads, and what it changes for all targets.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::{Context, UndeliveredDecrease};
use crate::domain::control::Controls;
use crate::domain::name::Name;
use crate::domain::rate::Rates;
use crate::domain::rule::{Mode, Rule};
use crate::domain::state::Deferred;
use crate::domain::target::TargetKey;

pub(super) struct StepContext<'a> {
    pub context: &'a Context<'a>,
    controls: Cow<'a, Controls>,
    pub rates: &'a mut Rates,
    /// Ids of the events that this step has cancelled.
    superseded: BTreeSet<&'a str>,
}

impl<'a> StepContext<'a> {
    pub(super) fn new(context: &'a Context<'a>, rates: &'a mut Rates) -> Self {
        Self { context, controls: Cow::Borrowed(context.controls), rates, superseded: BTreeSet::new() }
    }

    /// The controls, with what this step has changed so far.
    pub(super) fn controls(&self) -> &Controls {
        &self.controls
    }

    pub(super) fn controls_mut(&mut self) -> &mut Controls {
        self.controls.to_mut()
    }

    /// The controls, if this step has changed them.
    pub(super) fn changed_controls(self) -> Option<Controls> {
        let version = self.context.controls.version;
        match self.controls {
            Cow::Owned(controls) if controls.version != version => Some(controls),
            _ => None,
        }
    }

    /// A rule as it is now.
    pub(super) fn rule(&self, name: &Name) -> Option<&'a Rule> {
        self.context.rules.rule(name)
    }

    pub(super) fn is_shadow(&self, name: &Name) -> bool {
        self.rule(name).is_some_and(|rule| rule.mode == Mode::Shadow)
    }

    /// The sources of these that have a heartbeat.
    pub(super) fn with_heartbeat<'s>(
        &self,
        sources: &'s [Name],
    ) -> impl Iterator<Item = &'s Name> + use<'s, 'a> {
        let known = self.context.with_heartbeat;
        sources.iter().filter(move |source| known.contains(*source))
    }

    /// Nobody waits any more for what was kept.
    pub(super) fn release_slot(&mut self, deferred: &Deferred) {
        if let Some(slot) = deferred.slot() {
            self.rates.release(slot);
        }
    }

    /// What an event that adds capacity cancels about a target, each once.
    pub(super) fn supersede(&mut self, key: &TargetKey) -> Vec<&'a UndeliveredDecrease> {
        let undelivered = self.context.undelivered_decreases.get(key).into_iter().flatten();
        undelivered.filter(|undelivered| self.superseded.insert(&undelivered.id)).collect()
    }
}
