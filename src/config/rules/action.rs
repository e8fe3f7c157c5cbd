//! Readers of `on_firing` and `on_resolved`.

use std::num::NonZeroU32;

use super::super::decode::Fields;
use super::super::diagnostic::{Code, Diagnostics};
use super::super::scalar::{duration, flag, keyword, number};
use super::super::yaml::{Kind, Node};
use super::amount::{amount, scale_in};
use super::context::{ActionContext, Phase};
use crate::domain::rule::{Action, Change, FiringAction, Limits, Repeat, ResolvedAction};

/// Upper bound for `max_emissions`; larger adjustments are the task of an autoscaler.
const MAX_EMISSIONS_PER_EPISODE: i64 = 1000;
/// The actions of `on_firing`.
pub(super) const ACTIONS: [&str; 5] = ["scale_out", "scale_in", "set_capacity", "notify", "hold"];
const ONE_ACTION: &str = "add one action, for example `scale_out: { by: 1 }`";

/// Whether a map has an action, or at least no key that could be a misspelled one.
pub(super) fn is_known(firing: &Node) -> bool {
    let Kind::Map(entries) = &firing.kind else { return true };
    const OTHERS: [&str; 4] = ["cooldown", "stabilization_window", "repeat", "max_emissions"];
    let is_unknown = |key: &str| !OTHERS.contains(&key);
    ACTIONS.iter().any(|action| firing.get(action).is_some())
        || !entries.iter().any(|(key, _)| is_unknown(&key.name))
}

pub(super) fn firing(
    node: &Node,
    context: &mut ActionContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<FiringAction> {
    let mut fields = Fields::from_node(node, "rules.*.on_firing", diagnostics)?;
    let max_emissions =
        fields.get("max_emissions", number::<u32>(1..=MAX_EMISSIONS_PER_EPISODE)).and_then(NonZeroU32::new);
    let while_firing =
        Repeat::WhileFiring { max_emissions: max_emissions.unwrap_or(Repeat::DEFAULT_MAX_EMISSIONS) };
    let repeats = [("never", Repeat::Never), ("on_growth", Repeat::OnGrowth), ("while_firing", while_firing)];
    let repeat = fields.get("repeat", keyword(&repeats)).unwrap_or(Repeat::OnGrowth);
    // A rule with only a `hold` is read by `hold`; here `hold` is an additional action, which is an error.
    let action = fields.one_of(&ACTIONS, ONE_ACTION);
    let action = action_with_guards(action, Phase::Firing, &mut fields, context);
    if let Some(action) = &action {
        check_repeat(action, repeat, &mut fields);
    }
    fields.finish();
    Some(FiringAction { action: action?, repeat })
}

/// Checks that `while_firing` has a cooldown, and that `max_emissions` has `while_firing`.
fn check_repeat(action: &Action, repeat: Repeat, fields: &mut Fields<'_, '_>) {
    match repeat {
        Repeat::WhileFiring { .. } if action.cooldown.is_zero() => {
            let message =
                "`repeat: while_firing` acts once per cooldown, so `cooldown` must be greater than zero";
            let location = fields.location_of("repeat");
            fields.diagnostics.add_with_help(
                Code::Contradiction,
                location,
                message,
                "set `cooldown`, for example 5m",
            );
        }
        Repeat::Never | Repeat::OnGrowth if fields.has("max_emissions") => {
            let message = "`max_emissions` requires `repeat: while_firing`";
            let location = fields.location_of("max_emissions");
            fields.diagnostics.add_with_help(
                Code::Contradiction,
                location,
                message,
                "remove it, or set `repeat: while_firing`",
            );
        }
        _ => {}
    }
}

pub(super) fn resolved(
    node: &Node,
    context: &mut ActionContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<ResolvedAction> {
    let mut fields = Fields::from_node(node, "rules.*.on_resolved", diagnostics)?;
    let action = fields.one_of(&["scale_out", "scale_in", "set_capacity", "notify"], ONE_ACTION);
    let action = action_with_guards(action, Phase::Resolved, &mut fields, context);
    fields.finish();
    Some(ResolvedAction { action: action? })
}

fn action_with_guards(
    action: Option<(&'static str, &Node)>,
    phase: Phase,
    fields: &mut Fields<'_, '_>,
    context: &mut ActionContext<'_>,
) -> Option<Action> {
    // Both are read before the first return, so that all errors are reported.
    let cooldown = fields.get("cooldown", duration).or(context.defaults.cooldown);
    let window = fields.get("stabilization_window", duration);
    let (name, node) = action?;
    let change = match name {
        "scale_out" => {
            amount(node, false, phase, context.templates, fields.diagnostics).map(Change::ScaleOut)
        }
        "scale_in" => scale_in(node, phase, context.templates, fields.diagnostics),
        "set_capacity" => set_capacity(node, context.limits, fields.diagnostics),
        _ => notify(node, fields.diagnostics),
    }?;
    let common = context.defaults.stabilization_window.filter(|_| change.decreases_capacity());
    let stabilization_window =
        window.or(common).unwrap_or_else(|| Action::default_stabilization_window(&change));
    Some(Action { change, cooldown: cooldown.unwrap_or(Action::DEFAULT_COOLDOWN), stabilization_window })
}

fn set_capacity(node: &Node, limits: Limits, diagnostics: &mut Diagnostics) -> Option<Change> {
    let mut fields = Fields::from_node(node, "rules.*.set_capacity", diagnostics)?;
    let to = fields.get_required("to", "to: 4", number::<u32>(0..=i64::from(u32::MAX)));
    let allow_decrease = fields.get("allow_decrease", flag).unwrap_or(false);
    if let Some(to) = to
        && limits.clamp(to) != to
    {
        let message = format!("`to: {to}` is outside the rule's `limits`");
        let location = fields.location_of("to");
        fields.diagnostics.add_with_help(
            Code::Contradiction,
            location,
            message,
            "use a value within the limits, or widen them",
        );
    }
    fields.finish();
    Some(Change::SetCapacity { to: to?, allow_decrease })
}

fn notify(node: &Node, diagnostics: &mut Diagnostics) -> Option<Change> {
    Fields::from_node(node, "rules.*.notify", diagnostics)?.finish();
    Some(Change::Notify)
}
