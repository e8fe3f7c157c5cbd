//! A rule that sends events about a target.

use super::super::decode::{Fields, entries, names};
use super::super::diagnostic::Diagnostics;
use super::super::scalar::time;
use super::super::yaml::Node;
use super::action::{self, Surroundings};
use super::defaults::{Defaults, budget, limits};
use super::rule::{Deed, SendTo};
use super::target::{target, template};
use crate::domain::rule::RuleTarget;
use crate::domain::template::{Template, Templates};

/// Reads what such a rule has beside what all rules have.
pub(super) fn deed(
    fields: &mut Fields<'_, '_>,
    defaults: &Defaults,
    templates: &mut Templates,
) -> (Option<Deed>, SendTo) {
    let example = "target: { platform: eks, kind: nodegroup, name: workers }";
    let target = fields.need("target", example, |node, faults| target(node, templates, faults));
    let limits = limits(fields, defaults.limits);
    let mut around = Surroundings { templates: &mut *templates, defaults, limits };
    let on_firing = fields.get("on_firing", |node, faults| action::firing(node, &mut around, faults));
    let on_resolved = fields.get("on_resolved", |node, faults| action::resolved(node, &mut around, faults));
    let expires_after = fields.get("expires_after", time).or(defaults.expires_after);
    let budget = fields.get("budget", budget).or(defaults.budget);
    let parameters = fields.get("parameters", |node, faults| parameters(node, templates, faults));
    let send_to = send_to(fields, defaults);

    let unread = (fields.has("on_firing") && on_firing.is_none())
        || (fields.has("on_resolved") && on_resolved.is_none());
    let deed = target.filter(|_| !unread).map(|target| Deed {
        target: RuleTarget::Target(target),
        on_firing,
        on_resolved,
        expires_after: expires_after.unwrap_or(Deed::EXPIRES_AFTER),
        limits,
        budget,
        parameters: parameters.unwrap_or_default(),
        send_to: send_to.names.iter().map(|name| name.value.clone()).collect(),
    });
    (deed, send_to)
}

fn send_to(fields: &mut Fields<'_, '_>, defaults: &Defaults) -> SendTo {
    let own = fields.get("send_to", names);
    SendTo {
        faulty: fields.has("send_to") && own.is_none(),
        names: own.or_else(|| defaults.send_to.clone()).unwrap_or_default(),
        place: fields.place_of("send_to").clone(),
    }
}

fn parameters(
    node: &Node,
    templates: &mut Templates,
    faults: &mut Diagnostics,
) -> Option<Vec<(String, Template)>> {
    let mut parameters = Vec::new();
    for (key, value) in entries(node, faults)? {
        if let Some(template) = template(value, templates, faults) {
            parameters.push((key.name.clone(), template));
        }
    }
    Some(parameters)
}
