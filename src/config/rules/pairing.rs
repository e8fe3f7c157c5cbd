//! Checks `on_firing` and `on_resolved` of a rule against each other.

use super::super::diagnostic::{Code, Diagnostics};
use super::rule::RuleSpans;
use crate::domain::rule::{Amount, Change, FiringAction, ResolvedAction};

/// Reports an `on_resolved` that decreases capacity where `on_firing` adds nothing that it could take back.
pub(super) fn check(
    on_firing: Option<&FiringAction>,
    on_resolved: Option<&ResolvedAction>,
    spans: &RuleSpans,
    diagnostics: &mut Diagnostics,
) {
    let increase = on_firing.map(|firing| &firing.action.change).filter(|change| change.increases_capacity());
    let Some(decrease) =
        on_resolved.map(|resolved| &resolved.action.change).filter(|change| change.decreases_capacity())
    else {
        return;
    };
    match (decrease, increase) {
        (Change::Revert, Some(Change::ScaleOut(Amount::By(_) | Amount::Steps(_)))) => {}
        (Change::Revert, _) => {
            let message = "`revert` needs `on_firing` with `scale_out` and `by` or `steps`: only a known number of units \
                           can be taken back";
            let help = "set `on_firing: { scale_out: { by: 1 } }`; if `on_firing` increases in another way, use \
                        `scale_in` with `by` or `by_percent`";
            diagnostics.add_with_help(Code::Contradiction, &spans.revert, message, help);
        }
        (_, None) => {
            let message = "`on_resolved` decreases capacity, but `on_firing` does not increase it: nothing would ever \
                           be owed";
            let help = "add `on_firing: { scale_out: { by: 1 } }`; to decrease capacity because of an alert, move the \
                        action to `on_firing`";
            diagnostics.add_with_help(Code::Contradiction, &spans.resolved_action, message, help);
        }
        _ => {}
    }
}
