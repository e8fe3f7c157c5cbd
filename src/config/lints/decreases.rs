//! Lints of actions that can decrease capacity.

use super::super::diagnostic::{Code, Diagnostics};
use super::super::rules::RuleSpans;
use crate::domain::duration::format;
use crate::domain::rule::{Action, Amount, Change, Mode, Repeat, Rule};
use crate::domain::source::Source;

/// Checks the actions of a rule that is not disabled.
pub(super) fn lint(rule: &Rule, spans: &RuleSpans, listening: &[&Source], diagnostics: &mut Diagnostics) {
    if rule.mode == Mode::Disabled {
        return;
    }
    lint_windows(rule, spans, listening, diagnostics);
    lint_drift(rule, spans, diagnostics);
    lint_never_lowers(rule, spans, diagnostics);
}

/// Reports decreases without a stabilization window, and those that a late copy of an alert cannot stop.
fn lint_windows(rule: &Rule, spans: &RuleSpans, listening: &[&Source], diagnostics: &mut Diagnostics) {
    let firing = rule.on_firing.as_ref().map(|firing| &firing.action);
    let resolved = rule.on_resolved.as_ref().map(|resolved| &resolved.action);
    for (action, location) in [firing, resolved].into_iter().zip(&spans.window) {
        let Some(action) = action.filter(|action| action.change.decreases_capacity()) else { continue };
        if action.stabilization_window.is_zero() {
            let message = format!("rule `{}` decreases capacity without a stabilization window", rule.name);
            let help = "set `stabilization_window`, for example 5m: otherwise a flapping alert or a restart of \
                        Prometheus removes capacity that is needed again moments later";
            diagnostics.add_with_help(Code::NoStabilization, location, message, help);
        } else if let Some(source) = listening.iter().find(|source| is_within_late_window(action, source))
            && rule.mode == Mode::Active
        {
            let message = format!(
                "the `stabilization_window` ({}) of rule `{}` is not above the `late_window` ({}) of source `{}`, \
                 which has no heartbeat",
                format(action.stabilization_window),
                rule.name,
                format(source.late_window),
                source.name
            );
            let help = "set a longer `stabilization_window`, or add a `heartbeat` to the source: otherwise capacity is \
                        decreased before a delayed notification shows that the alert fires again";
            diagnostics.add_with_help(Code::ShortWindow, location, message, help);
        }
    }
}

fn is_within_late_window(action: &Action, source: &Source) -> bool {
    source.heartbeat.is_none() && action.stabilization_window <= source.late_window
}

/// Reports a fixed `scale_in` that takes back less than `on_firing` can add until then.
fn lint_drift(rule: &Rule, spans: &RuleSpans, diagnostics: &mut Diagnostics) {
    let (Some(firing), Some(resolved)) = (&rule.on_firing, &rule.on_resolved) else { return };
    let Change::ScaleIn(_) = resolved.action.change else { return };
    if !firing.action.change.increases_capacity() {
        return;
    }
    let mut reasons = Vec::new();
    match firing.repeat {
        Repeat::Never => {}
        Repeat::OnGrowth => {
            reasons.push("`on_firing` acts again when the episode grows (`repeat: on_growth`)".to_owned());
        }
        Repeat::WhileFiring { .. } => {
            reasons
                .push("`on_firing` acts again while the episode is open (`repeat: while_firing`)".to_owned());
        }
    }
    let (window, cooldown) = (resolved.action.stabilization_window, firing.action.cooldown);
    if window > cooldown {
        reasons.push(format!(
            "an alert that fires again after the cooldown of `on_firing` ({}) withdraws a `scale_in` that waits for {}",
            format(cooldown),
            format(window)
        ));
    }
    if reasons.is_empty() {
        return;
    }
    let message = format!("the fixed `scale_in` of rule `{}` drifts: {}", rule.name, reasons.join(", and "));
    let help = match &firing.action.change {
        Change::ScaleOut(Amount::By(_) | Amount::Steps(_)) => {
            "use `scale_in: { revert: true }`: it takes back what the rule has added"
        }
        _ => {
            "use `scale_in: { revert: true }`, which takes back what the rule has added, and `by` or `steps` in the \
             `scale_out` of `on_firing`"
        }
    };
    diagnostics.add_with_help(Code::Drift, &spans.resolved_action, message, help);
}

/// Reports a `set_capacity` in `on_resolved` that follows an increase and cannot lower the capacity again.
fn lint_never_lowers(rule: &Rule, spans: &RuleSpans, diagnostics: &mut Diagnostics) {
    let Some(resolved) = &rule.on_resolved else { return };
    let Change::SetCapacity { to, allow_decrease: false } = resolved.action.change else { return };
    // After a decrease it restores the capacity.
    let follows_a_decrease =
        rule.on_firing.as_ref().is_some_and(|firing| firing.action.change.decreases_capacity());
    if follows_a_decrease {
        return;
    }
    let message =
        format!("`set_capacity` in `on_resolved` of rule `{}` never lowers the capacity", rule.name);
    let help = format!("set `set_capacity: {{ to: {to}, allow_decrease: true }}`, or remove it");
    diagnostics.add_with_help(Code::NeverLowers, &spans.resolved_action, message, help);
}
