//! Lints of the amounts of actions, against the limits of their rule.

use super::super::diagnostic::{Code, Diagnostics};
use super::super::rules::RuleSpans;
use crate::domain::rule::{Amount, Change, Mode, Rule};

/// Checks the actions of a rule that is not disabled.
pub(super) fn lint(rule: &Rule, spans: &RuleSpans, diagnostics: &mut Diagnostics) {
    if rule.mode == Mode::Disabled {
        return;
    }
    let firing = rule.on_firing.as_ref().map(|firing| &firing.action.change);
    let resolved = rule.on_resolved.as_ref().map(|resolved| &resolved.action.change);
    for (change, location) in [firing, resolved].into_iter().zip(&spans.amount) {
        let Some(change) = change else { continue };
        if let Some((key, units)) = units(change)
            && let Some(room) = room(rule)
            && units > room
        {
            let message = format!(
                "`{key}: {units}` of rule `{}` does not fit between its limits, which are {room} apart",
                rule.name
            );
            let help = format!("use at most {room}, or raise `max_capacity`");
            diagnostics.add_with_help(Code::AboveLimits, location, message, help);
        }
        if removes_all(change) && rule.limits.min_capacity.is_none() {
            let message = format!(
                "rule `{}` removes all capacity: `by_percent: 100` without a `min_capacity`",
                rule.name
            );
            let help = "set `limits: { min_capacity: 1 }`, or 0 if that is intended";
            diagnostics.add_with_help(Code::RemovesAll, location, message, help);
        }
    }
}

/// How far the limits are apart; without a minimum, from 0.
fn room(rule: &Rule) -> Option<u32> {
    let max = rule.limits.max_capacity?;
    Some(max.saturating_sub(rule.limits.min_capacity.unwrap_or(0)))
}

/// The largest number of units of a change, and its key.
fn units(change: &Change) -> Option<(&'static str, u32)> {
    let (Change::ScaleOut(amount) | Change::ScaleIn(amount)) = change else { return None };
    match amount {
        Amount::By(units) => Some(("by", units.get())),
        Amount::ByPercent { at_least, .. } => at_least.map(|units| ("at_least", units.get())),
        Amount::Steps(steps) => steps.units().max().map(|units| ("by", units)),
    }
}

fn removes_all(change: &Change) -> bool {
    matches!(change, Change::ScaleIn(Amount::ByPercent { percent, .. }) if percent.get() == 100)
}
