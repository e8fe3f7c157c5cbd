//! A rule with `hold`: while its alerts fire it stops what other rules would do, and it sends nothing.

use super::super::decode::{Fields, check_not_empty, distinct};
use super::super::diagnostic::{Code, Diagnostics};
use super::super::scalar::{flag, keyword};
use super::super::yaml::Node;
use super::action::ACTIONS;
use super::rule::RuleBody;
use super::target::partial_target;
use crate::domain::direction::Direction;
use crate::domain::rule::{HoldTemplate, PartialTemplate};
use crate::domain::template::Templates;

/// What only events have.
const EVENT_KEYS: [&str; 5] = ["expires_after", "limits", "budget", "parameters", "send_to"];
/// What only actions have.
const ACTION_KEYS: [&str; 4] = ["cooldown", "stabilization_window", "repeat", "max_emissions"];
const COVERS_HELP: &str = "say what it holds, for example `target: { cluster: \"{{ labels.cluster }}\" }`; every target \
                     is held by `hold: { all: true }`";

/// What stands behind `hold:`.
struct Hold {
    all: bool,
    blocks: Vec<Direction>,
}

/// Whether a rule's action is `hold` and no other. Who gives several is told so by the reader of the others.
pub(super) fn is_hold(rule: &Node) -> bool {
    let given = |key: &&&str| rule.get("on_firing").is_some_and(|action| action.get(key).is_some());
    ACTIONS.iter().filter(given).eq(&["hold"])
}

/// Reads what a rule with `hold` has beside what all rules have.
pub(super) fn body(fields: &mut Fields<'_, '_>, templates: &mut Templates) -> Option<RuleBody> {
    let hold = fields.get("on_firing", on_firing);
    let covers = covers(hold.as_ref(), fields, templates);
    let why = "means nothing in a rule with `hold`";
    fields.reject(&EVENT_KEYS, why, "leave it out: a hold sends no event");
    let help = "leave it out: a hold ends with its alerts, and what it has stopped is decided again then";
    fields.reject(&["on_resolved"], why, help);
    Some(RuleBody::for_hold(HoldTemplate { covers: covers?, blocks: hold?.blocks }))
}

fn on_firing(node: &Node, diagnostics: &mut Diagnostics) -> Option<Hold> {
    let mut fields = Fields::from_node(node, "rules.*.on_firing", diagnostics)?;
    let hold = fields.get("hold", hold);
    let help = "leave it out: a hold begins at once and lasts while its alerts fire";
    fields.reject(&ACTION_KEYS, "means nothing beside `hold`", help);
    fields.finish();
    hold
}

fn hold(node: &Node, diagnostics: &mut Diagnostics) -> Option<Hold> {
    let before = diagnostics.len();
    let mut fields = Fields::from_node(node, "rules.*.on_firing.hold", diagnostics)?;
    let blocks = fields.get("blocks", blocks).unwrap_or_else(|| Direction::ALL.to_vec());
    let all = fields.get("all", flag).unwrap_or(false);
    fields.finish();
    (diagnostics.len() == before).then_some(Hold { all, blocks })
}

fn blocks(node: &Node, diagnostics: &mut Diagnostics) -> Option<Vec<Direction>> {
    let words = Direction::ALL.map(|direction| (direction.as_str(), direction));
    check_not_empty(node, "name a direction, or leave `blocks` out for both", diagnostics);
    let blocks = distinct(keyword(&words))(node, diagnostics)?;
    Some(blocks.into_iter().map(|direction| direction.value).collect())
}

/// The targets that are held. All of them only where `all` says so, never because a field was forgotten.
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
            let message = "`hold: { all: true }` holds every target, and this `target` names some";
            let help = "leave `all` out to hold these, or leave `target` out to hold every one";
            fields.diagnostics.add_with_help(Code::Contradiction, location, message, help);
        }
        Some(_) => fields.diagnostics.add_with_help(
            Code::Missing,
            location,
            "a hold needs a field of `target`",
            COVERS_HELP,
        ),
        None if fields.has("target") => {}
        None if all => return Some(PartialTemplate::default()),
        None => fields.diagnostics.add_with_help(Code::Missing, location, "`target` is missing", COVERS_HELP),
    }
    None
}
