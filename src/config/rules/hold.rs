//! Reader of rules with `hold`, which block actions of other rules while their alerts fire, and send no
//! events.

use std::time::Duration;

use super::super::decode::{Fields, check_not_empty, distinct};
use super::super::diagnostic::{Code, Diagnostics};
use super::super::scalar::{flag, keyword, positive_duration};
use super::super::yaml::Node;
use super::action::ACTIONS;
use super::body::RuleBody;
use super::target::partial_target;
use crate::domain::direction::Direction;
use crate::domain::rule::{HoldTemplate, PartialTemplate};
use crate::domain::template::Templates;

/// Keys that only event rules have.
const EVENT_KEYS: [&str; 5] = ["expires_after", "limits", "budget", "parameters", "send_to"];
/// Keys that only actions other than `hold` have.
const ACTION_KEYS: [&str; 4] = ["cooldown", "stabilization_window", "repeat", "max_emissions"];
const COVERS_HELP: &str = "name the targets to hold, for example `target: { cluster: \"{{ labels.cluster }}\" }`; \
                           to hold every target, use `hold: { all: true }`";

/// The settings of `hold`.
struct Hold {
    all: bool,
    blocks: Vec<Direction>,
    max_duration: Option<Duration>,
}

/// Whether `hold` is the only action of a rule. The reader of event rules reports several actions.
pub(super) fn is_hold(rule: &Node) -> bool {
    let given = |key: &&&str| rule.get("on_firing").is_some_and(|action| action.get(key).is_some());
    ACTIONS.iter().filter(given).eq(&["hold"])
}

/// Reads the keys of a rule with `hold`, except those that all rules have.
pub(super) fn body(fields: &mut Fields<'_, '_>, templates: &mut Templates) -> Option<RuleBody> {
    let hold = fields.get("on_firing", on_firing);
    let covers = covers(hold.as_ref(), fields, templates);
    let why = "is not allowed in a rule with `hold`";
    fields.reject(&EVENT_KEYS, why, "remove it: a hold sends no events");
    let help = "remove it: a hold ends with its alerts, and deferred actions are then re-evaluated";
    fields.reject(&["on_resolved"], why, help);
    let Hold { blocks, max_duration, .. } = hold?;
    Some(RuleBody::for_hold(HoldTemplate { covers: covers?, blocks, max_duration }))
}

fn on_firing(node: &Node, diagnostics: &mut Diagnostics) -> Option<Hold> {
    let mut fields = Fields::from_node(node, "rules.*.on_firing", diagnostics)?;
    let hold = fields.get("hold", hold);
    let help = "remove it: a hold starts immediately and lasts while its alerts fire";
    fields.reject(&ACTION_KEYS, "is not allowed with `hold`", help);
    fields.finish();
    hold
}

fn hold(node: &Node, diagnostics: &mut Diagnostics) -> Option<Hold> {
    let before = diagnostics.len();
    let mut fields = Fields::from_node(node, "rules.*.on_firing.hold", diagnostics)?;
    let blocks = fields.get("blocks", blocks).unwrap_or_else(|| Direction::ALL.to_vec());
    let all = fields.get("all", flag).unwrap_or(false);
    let max_duration = fields.get("max_duration", positive_duration);
    fields.finish();
    (diagnostics.len() == before).then_some(Hold { all, blocks, max_duration })
}

fn blocks(node: &Node, diagnostics: &mut Diagnostics) -> Option<Vec<Direction>> {
    let words = Direction::ALL.map(|direction| (direction.as_str(), direction));
    check_not_empty(node, "name a direction, or remove `blocks` to block both", diagnostics);
    let blocks = distinct(keyword(&words))(node, diagnostics)?;
    Some(blocks.into_iter().map(|direction| direction.value).collect())
}

/// Reads the targets to hold. Only `all` selects every target; an omitted `target` is an error.
fn covers(
    hold: Option<&Hold>,
    fields: &mut Fields<'_, '_>,
    templates: &mut Templates,
) -> Option<PartialTemplate> {
    let target = fields.get("target", |node, diagnostics| partial_target(node, templates, diagnostics));
    let all = hold?.all;
    let location = fields.location_of("target");
    match target {
        Some(target) if target.is_empty() == all => return Some(target),
        Some(_) if all => {
            let message = "`hold: { all: true }` holds every target, but `target` restricts the hold";
            let help = "remove `all` to hold these targets only, or remove `target` to hold every target";
            fields.diagnostics.add_with_help(Code::Contradiction, location, message, help);
        }
        Some(_) => fields.diagnostics.add_with_help(
            Code::Missing,
            location,
            "`target` of a hold must have at least one field",
            COVERS_HELP,
        ),
        None if fields.has("target") => {}
        None if all => return Some(PartialTemplate::default()),
        None => fields.diagnostics.add_with_help(Code::Missing, location, "`target` is missing", COVERS_HELP),
    }
    None
}
