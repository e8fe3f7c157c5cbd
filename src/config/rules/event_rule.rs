//! Reader of rules that send events about a target.

use super::super::decode::{Fields, entries};
use super::super::diagnostic::Diagnostics;
use super::super::names::names;
use super::super::scalar::positive_duration;
use super::super::yaml::{Kind, Node};
use super::action;
use super::body::{RuleBody, SendTo};
use super::context::ActionContext;
use super::defaults::{Defaults, budget, limits};
use super::pairing;
use super::spans::RuleSpans;
use super::target::{partial_target, target, template};
use crate::domain::rule::RuleTarget;
use crate::domain::template::{Template, Templates};

/// Reads the keys that only event rules have.
pub(super) fn body(
    fields: &mut Fields<'_, '_>,
    defaults: &Defaults,
    spans: &RuleSpans,
    templates: &mut Templates,
) -> (Option<RuleBody>, SendTo) {
    let example = "target: { platform: eks, kind: nodegroup, name: workers }";
    // The target of an action that is not known may be one of a hold, which is partial.
    let is_known = fields.peek("on_firing").is_none_or(action::is_known);
    let target = fields.get_required("target", example, |node, diagnostics| match is_known {
        true => target(node, templates, diagnostics),
        false => partial_target(node, templates, diagnostics).and(None),
    });
    let limits = limits(fields, defaults.limits);
    let mut context = ActionContext { templates: &mut *templates, defaults, limits };
    // An action that is not indented below `on_firing:` is an unknown key of the rule.
    let is_beside = |fields: &Fields<'_, '_>| action::ACTIONS.iter().any(|action| fields.has(action));
    let is_empty = fields.lookup("on_firing").is_some_and(|node| node.kind == Kind::Null);
    let on_firing = if is_empty && is_beside(fields) {
        None
    } else {
        fields.peek("on_firing").and_then(|node| action::firing(node, &mut context, fields.diagnostics))
    };
    let on_resolved =
        fields.get("on_resolved", |node, diagnostics| action::resolved(node, &mut context, diagnostics));
    let expires_after = fields.get("expires_after", positive_duration).or(defaults.expires_after);
    let budget = fields.get("budget", budget).or(defaults.budget);
    let parameters = fields.get("parameters", |node, diagnostics| parameters(node, templates, diagnostics));
    let send_to = send_to(fields, defaults);

    let is_firing_unread = fields.has("on_firing") && on_firing.is_none();
    if !is_firing_unread {
        pairing::check(on_firing.as_ref(), on_resolved.as_ref(), spans, fields.diagnostics);
    }
    let unread = is_firing_unread || (fields.has("on_resolved") && on_resolved.is_none());
    let body = target.filter(|_| !unread).map(|target| RuleBody {
        target: RuleTarget::Target(target),
        on_firing,
        on_resolved,
        expires_after: expires_after.unwrap_or(RuleBody::DEFAULT_EXPIRES_AFTER),
        limits,
        budget,
        parameters: parameters.unwrap_or_default(),
        send_to: send_to.names.iter().map(|name| name.value.clone()).collect(),
    });
    (body, send_to)
}

fn send_to(fields: &mut Fields<'_, '_>, defaults: &Defaults) -> SendTo {
    let own = fields.get("send_to", names);
    SendTo {
        is_invalid: fields.has("send_to") && own.is_none(),
        names: own.or_else(|| defaults.send_to.clone()).unwrap_or_default(),
        location: fields.location_of("send_to").clone(),
    }
}

fn parameters(
    node: &Node,
    templates: &mut Templates,
    diagnostics: &mut Diagnostics,
) -> Option<Vec<(String, Template)>> {
    let mut parameters = Vec::new();
    for (key, value) in entries(node, diagnostics)? {
        if let Some(template) = template(value, templates, diagnostics) {
            parameters.push((key.name.clone(), template));
        }
    }
    Some(parameters)
}
