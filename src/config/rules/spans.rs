//! Locations of parts of a rule.

use super::super::diagnostic::Location;
use super::super::yaml::Node;
use super::action::ACTIONS;

/// Locations of parts of a rule, for later diagnostics. For an absent part it is the location of the
/// enclosing one.
pub(in crate::config) struct RuleSpans {
    pub matchers: Location,
    pub target: Location,
    pub kind: Location,
    pub hold: Location,
    /// The action of `on_resolved`.
    pub resolved_action: Location,
    /// The key `revert` of the `scale_in` of `on_resolved`.
    pub revert: Location,
    /// The amounts of the actions of `on_firing` and `on_resolved`.
    pub amount: [Location; 2],
    /// The stabilization windows of `on_firing` and `on_resolved`.
    pub window: [Location; 2],
}

impl RuleSpans {
    pub(super) fn from_node(rule: &Node) -> Self {
        let at = |[outer, inner]: [&str; 2]| {
            let outer = rule.get(outer).unwrap_or(rule);
            outer.get(inner).unwrap_or(outer).location.clone()
        };
        let resolved = rule.get("on_resolved").unwrap_or(rule);
        let actions = ACTIONS.iter().find_map(|action| resolved.get(action));
        let scale_in = resolved.get("scale_in").unwrap_or(resolved);
        Self {
            matchers: at(["matchers", ""]),
            target: at(["target", ""]),
            kind: at(["target", "kind"]),
            hold: at(["on_firing", "hold"]),
            resolved_action: actions.unwrap_or(resolved).location.clone(),
            revert: scale_in.get("revert").unwrap_or(scale_in).location.clone(),
            amount: ["on_firing", "on_resolved"].map(|phase| amount(rule.get(phase).unwrap_or(rule))),
            window: ["on_firing", "on_resolved"].map(|phase| at([phase, "stabilization_window"])),
        }
    }
}

/// The location of the amount of an action, or of the action.
fn amount(phase: &Node) -> Location {
    let action = ACTIONS.iter().find_map(|action| phase.get(action)).unwrap_or(phase);
    let amount = ["steps", "by", "by_percent", "to"].iter().find_map(|key| action.get(key));
    amount.unwrap_or(action).location.clone()
}
