//! One rule.

use std::time::Duration;

use super::super::decode::{Fields, Spot, entries, names, not_empty, spot};
use super::super::diagnostic::{Diagnostics, Place};
use super::super::matchers::matchers;
use super::super::scalar::{flag, name, time, word};
use super::super::yaml::Node;
use super::action::{self, Surroundings};
use super::defaults::{Defaults, MODES, budget, limits};
use super::target::{condition, target, template};
use crate::domain::name::Name;
use crate::domain::rule::{Mode, Rule};
use crate::domain::template::{Template, Templates};

const EXPIRES_AFTER: Duration = Duration::from_hours(1);

/// A rule before the pass of meaning, which knows sources and destinations. What could be read is here
/// even where the rule as a whole is faulty.
pub(in crate::config) struct Draft {
    /// Where the rule stands.
    pub place: Place,
    pub name: Option<Spot<Name>>,
    pub sources: Vec<Spot<Name>>,
    pub send_to: Vec<Spot<Name>>,
    /// Where `send_to` or its absence is to be seen.
    pub send_to_place: Place,
    /// Whether `send_to` is there and could not be read.
    pub send_to_faulty: bool,
    /// Whether it has an action, and whether it may do it.
    pub has_action: bool,
    pub active: bool,
    /// The rule, without its `max_event_bytes`.
    pub rule: Option<Rule>,
}

pub(super) fn rule(
    node: &Node,
    defaults: &Defaults,
    templates: &mut Templates,
    faults: &mut Diagnostics,
) -> Option<Draft> {
    let mut fields = Fields::of(node, "rules.*", faults)?;
    let name = fields.need("name", "name: unschedulable-pods", spot(name));
    let sources = fields.get("sources", sources);
    let matchers = fields.get("matchers", matchers("KubePodUnschedulable"));
    let when = fields.get("when", |node, faults| condition(node, templates, faults));
    let holds = node.get("on_firing").is_some_and(|action| action.get("hold").is_some());
    let target =
        fields.need("target", "target: { platform: eks, kind: nodegroup, name: workers }", |node, faults| {
            target(node, templates, holds, faults)
        });
    let limits = limits(&mut fields, defaults.limits);
    let mut around = Surroundings { templates: &mut *templates, defaults, limits };
    let on_firing = fields.get("on_firing", |node, faults| action::firing(node, &mut around, faults));
    let on_resolved = fields.get("on_resolved", |node, faults| action::resolved(node, &mut around, faults));
    let expires_after = fields.get("expires_after", time).or(defaults.expires_after);
    let budget = fields.get("budget", budget).or(defaults.budget);
    let parameters = fields.get("parameters", |node, faults| parameters(node, templates, faults));
    let mode = fields.get("mode", word(&MODES)).or(defaults.mode).unwrap_or(Mode::Active);
    let own_send_to = fields.get("send_to", names);
    let continues = fields.get("continue", flag).unwrap_or(false);

    let has_action = fields.has("on_firing") || fields.has("on_resolved");
    let unread = (fields.has("when") && when.is_none())
        || (fields.has("on_firing") && on_firing.is_none())
        || (fields.has("on_resolved") && on_resolved.is_none());
    let send_to_faulty = fields.has("send_to") && own_send_to.is_none();
    let send_to = own_send_to.or_else(|| defaults.send_to.clone()).unwrap_or_default();
    let sources_given = sources.is_some();
    let sources = sources.unwrap_or_default();
    let (place, send_to_place) = (fields.place().clone(), fields.place_of("send_to").clone());
    fields.finish();

    let values = |names: &[Spot<Name>]| names.iter().map(|name| name.value.clone()).collect::<Vec<_>>();
    let rule = || {
        Some(Rule {
            name: name.as_ref()?.value.clone(),
            sources: sources_given.then(|| values(&sources)),
            matchers: matchers.unwrap_or_default(),
            when,
            target: crate::domain::rule::Aim::Target(target?),
            on_firing,
            on_resolved,
            expires_after: expires_after.unwrap_or(EXPIRES_AFTER),
            limits,
            budget,
            parameters: parameters.unwrap_or_default(),
            mode,
            send_to: values(&send_to),
            max_event_bytes: usize::MAX,
            continues,
        })
    };
    let rule = if unread { None } else { rule() };
    // A hold sends nothing.
    let active = mode == Mode::Active && !holds;
    Some(Draft { place, name, sources, send_to, send_to_place, send_to_faulty, has_action, active, rule })
}

fn sources(node: &Node, faults: &mut Diagnostics) -> Option<Vec<Spot<Name>>> {
    not_empty(node, "name a source, or leave `sources` out for all of them", faults);
    names(node, faults)
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
