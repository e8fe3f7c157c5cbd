//! Reads rules files into drafts, which `semantics` turns into rules.

mod action;
mod amount;
mod body;
mod context;
mod defaults;
mod event_rule;
mod hold;
mod pairing;
mod rule;
mod spans;
mod target;
mod template_help;

use super::decode::{Fields, list};
use super::diagnostic::{Code, Diagnostics};
use super::yaml::Node;
use crate::domain::template::Templates;

pub(super) use body::SendTo;
use defaults::Defaults;
pub(super) use rule::Draft;
pub(super) use spans::RuleSpans;

/// Reads the rules of one file in order.
pub(super) fn file(node: &Node, templates: &mut Templates, diagnostics: &mut Diagnostics) -> Vec<Draft> {
    let Some(mut fields) = Fields::from_node(node, "rules", diagnostics) else { return Vec::new() };
    let defaults = fields.get("defaults", defaults::defaults).unwrap_or_default();
    let drafts = fields.get("rules", |node, diagnostics| rules(node, &defaults, templates, diagnostics));
    fields.finish();
    drafts.unwrap_or_default()
}

fn rules(
    node: &Node,
    defaults: &Defaults,
    templates: &mut Templates,
    diagnostics: &mut Diagnostics,
) -> Option<Vec<Draft>> {
    // Not with `list(rule)`, since each call needs `&mut templates`.
    let nodes = list(|node, _| Some(node))(node, diagnostics)?;
    Some(nodes.into_iter().filter_map(|node| rule::rule(node, defaults, templates, diagnostics)).collect())
}

/// Reports a configuration without rules.
pub(super) fn report_no_rules(location: &super::diagnostic::Location, diagnostics: &mut Diagnostics) {
    let help = "list a rules file: `rules: [rules.yaml]`, and add a rule to it: `rules: [{ name: pods, matchers: \
                [alertname = KubePodUnschedulable], target: { platform: eks, kind: nodegroup, name: workers }, \
                on_firing: { scale_out: { by: 1 } }, send_to: [journal] }]`";
    diagnostics.add_with_help(Code::Empty, location, "no rules configured", help);
}
