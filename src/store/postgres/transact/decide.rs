//! The decisions of a batch, one after the other: each sees the controls and the rates as those before it have left them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::command::Command;
use super::view::{Locks, Shown, Slot};
use crate::domain::control::Controls;
use crate::domain::direction::Direction;
use crate::domain::rate::Rates;
use crate::store::Changes;

/// What a command has decided; `None` if the decision has panicked.
pub(super) type Decision = Option<Changes>;

/// The controls and rates after a batch.
pub(super) struct Outcome {
    /// `None` if no command has changed them.
    pub controls: Option<Arc<Controls>>,
    pub rates: Rates,
    /// The rows that are written.
    pub changed: Locks,
}

/// Runs the decisions. They can be run again, after the controls or rates have turned out to be others.
pub(super) fn decide(
    commands: &mut [Command],
    slots: &mut [Slot],
    shown: &Shown,
) -> (Vec<Decision>, Outcome) {
    let mut controls = shown.controls.clone();
    let mut outcome = Outcome { controls: None, rates: shown.rates.clone(), changed: Locks::default() };
    let mut decisions = Vec::with_capacity(commands.len());
    for (command, slot) in commands.iter_mut().zip(slots) {
        slot.view.controls.clone_from(&controls);
        slot.view.rates = Some(outcome.rates.clone());
        let view = &slot.view;
        // A panic would end the commands that share the batch.
        let decision =
            command.decide_mut().and_then(|decide| catch_unwind(AssertUnwindSafe(|| decide(view))).ok());
        if let Some(changes) = &decision {
            if let Some(changed) = &changes.controls {
                controls.clone_from(changed);
                outcome.controls = Some(changed.clone());
                outcome.changed.controls = true;
            }
            let seen = outcome.rates.clone();
            let is_applied = outcome.rates.try_apply(&seen, &changes.rates);
            debug_assert!(is_applied, "no other transaction changes these rates");
            for direction in changes.rates.directions() {
                outcome.changed.rates[usize::from(direction == Direction::ALL[1])] = true;
            }
        }
        decisions.push(decision);
    }
    (decisions, outcome)
}
