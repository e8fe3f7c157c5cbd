//! Lint of rules for several sources, in each of which there can be a target of the same name.

use std::collections::BTreeMap;

use super::super::diagnostic::{Code, Diagnostics};
use super::super::rules::RuleSpans;
use super::fixed_label;
use crate::domain::rule::{Mode, Rule, RuleTarget, TargetTemplate};
use crate::domain::source::Source;
use crate::domain::target::Platform;
use crate::domain::template::Template;

/// Parts of the names of labels that tell clusters apart.
const CLUSTER_WORDS: [&str; 8] =
    ["cluster", "region", "account", "env", "datacenter", "dc", "site", "tenant"];

/// Reports a target that does not say of which source it is.
pub(super) fn lint(rule: &Rule, spans: &RuleSpans, listening: &[&Source], diagnostics: &mut Diagnostics) {
    let RuleTarget::Target(target) = &rule.target else { return };
    // A consumer of one's own may have targets that no cluster has.
    if rule.mode == Mode::Disabled || target.platform == Platform::Custom {
        return;
    }
    if names_its_cluster(target) {
        return;
    }
    let Some((first, second)) = indistinct(target, listening) else { return };
    let message = format!(
        "the targets of sources `{}` and `{}` cannot be told apart: what has the same name in both is one target of \
         rule `{}`",
        first.name, second.name, rule.name
    );
    let value = match fixed_label(first, "cluster").and(fixed_label(second, "cluster")) {
        Some(_) => "labels.cluster",
        None => "source.name",
    };
    let help = match target.platform {
        Platform::Ec2 => {
            "add `region` or `account` to the target, for example `region: \"{{ labels.region }}\"`"
                .to_owned()
        }
        _ => format!(
            "add the cluster to the target: `cluster: \"{{{{ {value} }}}}\"`, or restrict the rule to one source: `sources: [{}]`",
            first.name
        ),
    };
    diagnostics.add_with_help(Code::IndistinctTargets, &spans.target, message, help);
}

/// Whether a field is given that says where the target is, be it one place for all sources.
fn names_its_cluster(target: &TargetTemplate) -> bool {
    target.cluster.is_some()
        || target.account.is_some()
        || (target.platform == Platform::Ec2 && target.region.is_some())
}

fn fields(target: &TargetTemplate) -> impl Iterator<Item = &Template> {
    let TargetTemplate { kind, name, region, namespace, .. } = target;
    [Some(kind), Some(name), region.as_ref(), namespace.as_ref()].into_iter().flatten()
}

/// Two sources whose targets are the same, as far as the configuration shows.
fn indistinct<'s>(target: &TargetTemplate, listening: &[&'s Source]) -> Option<(&'s Source, &'s Source)> {
    let mut labels = Vec::new();
    for name in fields(target).flat_map(Template::names) {
        // A field of the source tells them apart, and a label whose name is not known may do so.
        let ("labels", label) = name.split_once('.')? else { return None };
        labels.push(label.to_owned());
    }
    let mut known: BTreeMap<Vec<Option<&str>>, &Source> = BTreeMap::new();
    for source in listening {
        let values: Vec<_> = labels.iter().map(|label| fixed_label(source, label)).collect();
        let is_of_cluster =
            labels.iter().zip(&values).any(|(label, value)| value.is_none() && is_cluster_label(label));
        if is_of_cluster {
            continue;
        }
        if let Some(first) = known.insert(values, source) {
            return Some((first, source));
        }
    }
    None
}

/// Whether the values of a label, from its name, are different in each cluster.
fn is_cluster_label(label: &str) -> bool {
    let label = label.to_lowercase();
    label.split(['_', '-']).any(|part| CLUSTER_WORDS.contains(&part))
}
