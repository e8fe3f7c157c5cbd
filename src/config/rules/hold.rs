//! A rule with `hold`: while its alerts fire it stops what other rules would do, and it sends nothing.

use super::super::decode::{Fields, distinct, not_empty};
use super::super::diagnostic::{Code, Diagnostics};
use super::super::scalar::{flag, word};
use super::super::yaml::Node;
use super::action::ACTIONS;
use super::rule::Deed;
use super::target::partial;
use crate::domain::control::Direction;
use crate::domain::rule::{HoldTemplate, PartialTemplate};
use crate::domain::template::Templates;

/// What only events have.
const OF_EVENTS: [&str; 5] = ["expires_after", "limits", "budget", "parameters", "send_to"];
/// What only actions have.
const OF_ACTIONS: [&str; 4] = ["cooldown", "stabilization_window", "repeat", "max_emissions"];
const COVER: &str = "say what it holds, for example `target: { cluster: \"{{ labels.cluster }}\" }`; every target \
                     is held by `hold: { all: true }`";

/// What stands behind `hold:`.
struct Hold {
    all: bool,
    blocks: Vec<Direction>,
}

/// Whether a rule's action is `hold` and no other. Who gives several is told so by the reader of the others.
pub(super) fn is_one(rule: &Node) -> bool {
    let given = |key: &&&str| rule.get("on_firing").is_some_and(|action| action.get(key).is_some());
    ACTIONS.iter().filter(given).eq(&["hold"])
}

/// Reads what a rule with `hold` has beside what all rules have.
pub(super) fn deed(fields: &mut Fields<'_, '_>, templates: &mut Templates) -> Option<Deed> {
    let hold = fields.get("on_firing", on_firing);
    let covers = covers(hold.as_ref(), fields, templates);
    let why = "means nothing in a rule with `hold`";
    fields.refuse(&OF_EVENTS, why, "leave it out: a hold sends no event");
    let help = "leave it out: a hold ends with its alerts, and what it has stopped is decided again then";
    fields.refuse(&["on_resolved"], why, help);
    Some(Deed::hold(HoldTemplate { covers: covers?, blocks: hold?.blocks }))
}

fn on_firing(node: &Node, faults: &mut Diagnostics) -> Option<Hold> {
    let mut fields = Fields::of(node, "rules.*.on_firing", faults)?;
    let hold = fields.get("hold", hold);
    let help = "leave it out: a hold begins at once and lasts while its alerts fire";
    fields.refuse(&OF_ACTIONS, "means nothing beside `hold`", help);
    fields.finish();
    hold
}

fn hold(node: &Node, faults: &mut Diagnostics) -> Option<Hold> {
    let before = faults.len();
    let mut fields = Fields::of(node, "rules.*.on_firing.hold", faults)?;
    let blocks = fields.get("blocks", blocks).unwrap_or_else(|| Direction::ALL.to_vec());
    let all = fields.get("all", flag).unwrap_or(false);
    fields.finish();
    (faults.len() == before).then_some(Hold { all, blocks })
}

fn blocks(node: &Node, faults: &mut Diagnostics) -> Option<Vec<Direction>> {
    let words = Direction::ALL.map(|direction| (direction.as_str(), direction));
    not_empty(node, "name a direction, or leave `blocks` out for both", faults);
    let blocks = distinct(word(&words))(node, faults)?;
    Some(blocks.into_iter().map(|direction| direction.value).collect())
}

/// The targets that are held. All of them only where `all` says so, never because a field was forgotten.
fn covers(
    hold: Option<&Hold>,
    fields: &mut Fields<'_, '_>,
    templates: &mut Templates,
) -> Option<PartialTemplate> {
    let target = fields.get("target", |node, faults| partial(node, templates, faults));
    let all = hold?.all;
    let place = fields.place_of("target");
    match target {
        Some(target) if target.is_empty() == all => return Some(target),
        Some(_) if all => {
            let message = "`hold: { all: true }` holds every target, and this `target` names some";
            let help = "leave `all` out to hold these, or leave `target` out to hold every one";
            fields.faults.help(Code::Contradiction, place, message, help);
        }
        Some(_) => fields.faults.help(Code::Missing, place, "a hold needs a field of `target`", COVER),
        None if fields.has("target") => {}
        None if all => return Some(PartialTemplate::default()),
        None => fields.faults.help(Code::Missing, place, "`target` is missing", COVER),
    }
    None
}
