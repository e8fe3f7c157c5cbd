//! Rules files -> drafts of rules, which the pass of meaning makes rules of.

mod action;
mod amount;
mod defaults;
mod hold;
mod rule;
mod sends;
mod target;

use super::decode::{Fields, list};
use super::diagnostic::{Code, Diagnostics};
use super::yaml::Node;
use crate::domain::template::Templates;

use defaults::Defaults;
pub(super) use rule::{Draft, SendTo, Spots};

/// The rules of one file, in its order.
pub(super) fn file(node: &Node, templates: &mut Templates, faults: &mut Diagnostics) -> Vec<Draft> {
    let Some(mut fields) = Fields::of(node, "rules", faults) else { return Vec::new() };
    let defaults = fields.get("defaults", defaults::defaults).unwrap_or_default();
    let drafts = fields.get("rules", |node, faults| rules(node, &defaults, templates, faults));
    fields.finish();
    drafts.unwrap_or_default()
}

fn rules(
    node: &Node,
    defaults: &Defaults,
    templates: &mut Templates,
    faults: &mut Diagnostics,
) -> Option<Vec<Draft>> {
    // By hand: the templates are written to by each of them.
    let nodes = list(|node, _| Some(node))(node, faults)?;
    Some(nodes.into_iter().filter_map(|node| rule::rule(node, defaults, templates, faults)).collect())
}

/// What a configuration without a rule is told.
pub(super) fn none(place: &super::diagnostic::Place, faults: &mut Diagnostics) {
    let help = "name a rules file: `rules: [rules.yaml]`, and put a rule there: `rules: [{ name: pods, matchers: \
                [alertname = KubePodUnschedulable], target: { platform: eks, kind: nodegroup, name: workers }, \
                on_firing: { scale_out: { by: 1 } }, send_to: [journal] }]`";
    faults.help(Code::Empty, place, "there is no rule", help);
}
