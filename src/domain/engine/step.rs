//! Context of one engine step: read-only inputs plus its copies of the controls and rates, which it changes.

use std::borrow::Cow;
use std::sync::Arc;

use super::Context;
use crate::domain::control::Controls;
use crate::domain::delivery::{DeliveryChange, DeliveryChangeKind, EventDelivery};
use crate::domain::name::Name;
use crate::domain::rate::{RateDelta, StepRates};
use crate::domain::rule::{Mode, Rule};
use crate::domain::source::{HeartbeatSettings, Source};
use crate::domain::state::{Deferred, Emission, EmissionOutcome};
use crate::domain::target::TargetKey;

pub(super) struct StepContext<'a> {
    pub context: &'a Context<'a>,
    controls: Cow<'a, Controls>,
    pub rates: StepRates<'a>,
    pub delivery_changes: Vec<DeliveryChange>,
    /// The events that this step has emitted.
    pub emitted: Vec<Arc<str>>,
}

impl<'a> StepContext<'a> {
    pub(super) fn new(context: &'a Context<'a>) -> Self {
        let rates = StepRates::new(context.rates, context.policy.per_minute, context.now);
        Self {
            context,
            controls: Cow::Borrowed(context.controls),
            rates,
            delivery_changes: Vec::new(),
            emitted: Vec::new(),
        }
    }

    /// The controls, including the changes of this step.
    pub(super) fn controls(&self) -> &Controls {
        &self.controls
    }

    pub(super) fn controls_mut(&mut self) -> &mut Controls {
        self.controls.to_mut()
    }

    /// The controls, if this step has changed them, and its other changes.
    pub(super) fn into_changes(self) -> (Option<Controls>, RateDelta, Vec<DeliveryChange>) {
        let version = self.context.controls.version;
        let controls = match self.controls {
            Cow::Owned(controls) if controls.version != version => Some(controls),
            _ => None,
        };
        (controls, self.rates.into_delta(), self.delivery_changes)
    }

    /// The current version of a rule; `None` if it no longer exists.
    pub(super) fn rule(&self, name: &Name) -> Option<&'a Rule> {
        self.context.rules.rule(name)
    }

    /// Whether a rule is not known here, and may be part of a newer configuration of others.
    pub(super) fn is_kept(&self, name: &Name) -> bool {
        self.context.keeps_unknown_rules && self.rule(name).is_none()
    }

    /// The current version of a rule, if it sends events.
    pub(super) fn active_rule(&self, name: &Name) -> Option<&'a Rule> {
        self.rule(name).filter(|rule| rule.mode == Mode::Active)
    }

    /// The configured sources among these.
    pub(super) fn sources<'s>(
        &self,
        names: impl IntoIterator<Item = &'s Name>,
    ) -> impl Iterator<Item = &'a Source> {
        let known = self.context.sources;
        names.into_iter().filter_map(move |name| known.get(name).map(Arc::as_ref))
    }

    /// Those of these sources that have a heartbeat.
    pub(super) fn with_heartbeat<'s>(
        &self,
        names: impl IntoIterator<Item = &'s Name>,
    ) -> impl Iterator<Item = (&'a Source, &'a HeartbeatSettings)> {
        self.sources(names).filter_map(|source| Some((source, source.heartbeat.as_ref()?)))
    }

    /// Releases the rate limit slot of a deferred action, if it has one.
    pub(super) fn release_slot(&mut self, deferred: &Deferred) {
        if let Some(slot) = deferred.slot() {
            self.rates.release(slot);
        }
    }

    /// What the store knows about the delivery of an emission. An event of which it knows nothing counts as delivered
    /// when it was emitted, but a dead letter as discarded.
    pub(super) fn delivery(&self, key: &TargetKey, emission: &Emission) -> EventDelivery {
        match emission.outcome {
            EmissionOutcome::Delivered(at) if !emission.is_pending_elsewhere => EventDelivery::delivered(at),
            EmissionOutcome::Pending if self.emitted.contains(&emission.id) => EventDelivery::pending(),
            // What is pending elsewhere keeps the time of its first delivery.
            EmissionOutcome::Delivered(_) | EmissionOutcome::Pending | EmissionOutcome::DeadLetter => {
                let known =
                    self.context.deliveries.events.get(key).and_then(|events| events.get(&emission.id));
                let known = known.cloned().unwrap_or_else(|| match emission.outcome {
                    // Its dead letter is gone.
                    EmissionOutcome::DeadLetter => EventDelivery::default(),
                    _ => EventDelivery::delivered(emission.emitted_at),
                });
                EventDelivery { delivered_at: emission.delivered_at().or(known.delivered_at), ..known }
            }
        }
    }

    /// Changes the delivery of an event.
    pub(super) fn change_delivery(&mut self, key: &TargetKey, event: &Arc<str>, kind: DeliveryChangeKind) {
        self.delivery_changes.push(DeliveryChange { target: key.clone(), event: event.clone(), kind });
    }
}
