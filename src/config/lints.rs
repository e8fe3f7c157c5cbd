//! Lints of valid rules: parts that never take effect, and actions that do not do what was probably intended.

mod amounts;
mod decreases;
mod distinct;
mod targets;

use std::collections::{BTreeMap, BTreeSet};

use super::diagnostic::{Code, Diagnostics, Location};
use super::rules::RuleSpans;
use super::yaml::{Kind, Node};
use crate::domain::matcher::{Matcher, implies, possible_values};
use crate::domain::name::Name;
use crate::domain::rule::{Mode, Rule, RuleTarget};
use crate::domain::source::Source;
use crate::domain::template::Template;

type LocatedRule = (Rule, Location, RuleSpans);

/// Checks each rule by itself and against the rules before it.
pub(super) fn lint_rules(
    rules: &[LocatedRule],
    sources: &BTreeMap<Name, Source>,
    diagnostics: &mut Diagnostics,
) {
    // An invalid source may be the one that reaches a rule.
    let is_valid = !diagnostics.has_errors();
    for (index, (rule, location, spans)) in rules.iter().enumerate() {
        let listening: Vec<&Source> = sources.values().filter(|source| rule.sees(source)).collect();
        if is_valid && !sources.is_empty() && listening.is_empty() {
            report_unreached(rule, location, diagnostics);
            continue;
        }
        if lint_never_matches(rule, spans, &listening, diagnostics)
            || lint_heartbeat_alerts(rule, spans, &listening, diagnostics)
        {
            continue;
        }
        if let Some((earlier, earlier_location, _)) =
            rules[..index].iter().find(|(earlier, ..)| matches_all_of(earlier, rule, sources))
        {
            let message = format!(
                "rule `{}` is unreachable: rule `{}` matches all of its alerts first",
                rule.name, earlier.name
            );
            let help = format!(
                "the other rule is at {earlier_location}: put the narrower rule first, or set `continue: true` in \
                 the other one"
            );
            diagnostics.add_with_help(Code::Unreachable, location, message, help);
        }
        lint_templates(rule, spans, &listening, diagnostics);
        decreases::lint(rule, spans, &listening, diagnostics);
        amounts::lint(rule, spans, diagnostics);
        distinct::lint(rule, spans, &listening, diagnostics);
        targets::lint_hold(rule, spans, diagnostics);
        targets::lint_kind(rule, spans, diagnostics);
    }
}

/// Reports destinations that no rule uses.
pub(super) fn lint_unused_destinations(rules: &[LocatedRule], root: &Node, diagnostics: &mut Diagnostics) {
    let used: BTreeSet<&str> = rules.iter().flat_map(|(rule, ..)| &rule.send_to).map(Name::as_str).collect();
    let Some(Kind::Map(destinations)) = root.get("destinations").map(|node| &node.kind) else { return };
    // An invalid rule may use the destination.
    if diagnostics.has_errors() {
        return;
    }
    for (key, _) in destinations.iter().filter(|(key, _)| !used.contains(key.name.as_str())) {
        let message = format!("no rule sends to destination `{}`", key.name);
        let help = "add it to the `send_to` of a rule, or remove it";
        diagnostics.add_with_help(Code::Unused, &key.location, message, help);
    }
}

/// Reports a rule that the `rules` of the sources exclude, of all those that its own `sources` allow.
fn report_unreached(rule: &Rule, location: &Location, diagnostics: &mut Diagnostics) {
    let sources = match &rule.sources {
        Some(names) => {
            names.iter().map(|name| format!("`sources.{name}.rules`")).collect::<Vec<_>>().join(", ")
        }
        None => "the `rules` of any source".to_owned(),
    };
    let message = format!("rule `{}` sees the alerts of no source: it is not listed in {sources}", rule.name);
    let help = "add it to the `rules` of a source that the `sources` of the rule allow, or remove the rule";
    diagnostics.add_with_help(Code::Unreached, location, message, help);
}

/// Whether `earlier` matches every alert that `rule` matches, and hides it. Shadow rules are evaluated apart: they see
/// every alert and hide none.
fn matches_all_of(earlier: &Rule, rule: &Rule, sources: &BTreeMap<Name, Source>) -> bool {
    let covered = match &rule.sources {
        // A rules file alone: the sources are not known.
        None if sources.is_empty() => earlier.sources.is_none(),
        Some(names) if sources.is_empty() => names.iter().all(|source| earlier.lists(source)),
        _ => sources.values().filter(|source| rule.sees(source)).all(|source| earlier.sees(source)),
    };
    let is_shadow = |rule: &Rule| rule.mode == Mode::Shadow;
    earlier.name != rule.name
        && !is_shadow(earlier)
        && !is_shadow(rule)
        && !earlier.continues
        && earlier.when.is_none()
        && covered
        && implies(&rule.matchers, &earlier.matchers)
}

fn labels_of(matchers: &[Matcher]) -> BTreeSet<&str> {
    matchers.iter().map(Matcher::label).collect()
}

/// The value of a label that the source sets for all of its alerts.
fn fixed_label<'s>(source: &'s Source, label: &str) -> Option<&'s str> {
    Some(source.labels.get(label)).filter(|value| !value.is_empty())
}

fn lint_never_matches(
    rule: &Rule,
    spans: &RuleSpans,
    listening: &[&Source],
    diagnostics: &mut Diagnostics,
) -> bool {
    let unsatisfiable = labels_of(&rule.matchers).into_iter().find(|label| {
        let is_unsatisfiable =
            |fixed| possible_values(label, &rule.matchers, fixed).is_some_and(|left| left.is_empty());
        if listening.is_empty() {
            is_unsatisfiable(None)
        } else {
            listening.iter().all(|source| is_unsatisfiable(fixed_label(source, label)))
        }
    });
    let Some(label) = unsatisfiable else { return false };
    let matchers: Vec<String> =
        rule.matchers.iter().filter(|one| one.label() == label).map(ToString::to_string).collect();
    let source_labels: Vec<String> = listening
        .iter()
        .filter_map(|source| Some(format!("{} = {:?}", source.name, fixed_label(source, label)?)))
        .collect();
    let mut message = format!(
        "rule `{}` never matches: no value of `{label}` satisfies {}",
        rule.name,
        matchers.join(" and ")
    );
    if !source_labels.is_empty() {
        message += &format!("; the label is set by the sources ({})", source_labels.join(", "));
    }
    diagnostics.add_with_help(
        Code::NeverMatches,
        &spans.matchers,
        message,
        "remove one of the matchers, or list the values in one: `=~ \"a|b\"`",
    );
    true
}

/// Reports a rule all of whose alerts are heartbeats.
fn lint_heartbeat_alerts(
    rule: &Rule,
    spans: &RuleSpans,
    listening: &[&Source],
    diagnostics: &mut Diagnostics,
) -> bool {
    let is_heartbeat = |source: &&Source| {
        source.heartbeat.as_ref().is_some_and(|heartbeat| {
            !heartbeat.matchers.is_empty() && implies(&rule.matchers, &heartbeat.matchers)
        })
    };
    let Some(first) = listening.first().filter(|_| listening.iter().all(is_heartbeat)) else { return false };
    let message = format!(
        "rule `{}` never matches: its alerts are the heartbeat of source `{}`, which rules do not see",
        rule.name, first.name
    );
    let help = "remove the rule, or change the `heartbeat` of the source";
    diagnostics.add_with_help(Code::NeverMatches, &spans.matchers, message, help);
    true
}

fn lint_templates(rule: &Rule, spans: &RuleSpans, listening: &[&Source], diagnostics: &mut Diagnostics) {
    for (key, template) in templates(rule) {
        for required in template.required_names() {
            let is_absent = |source: &Source| match required.split_once('.') {
                Some(("labels", label)) => possible_values(label, &rule.matchers, fixed_label(source, label))
                    .is_some_and(|left| left.iter().all(|value| value.is_empty())),
                Some(("source", field)) => {
                    field.strip_prefix("labels.").is_some_and(|label| fixed_label(source, label).is_none())
                }
                _ => false,
            };
            if listening.is_empty() || !listening.iter().all(|source| is_absent(source)) {
                continue;
            }
            let message = format!(
                "`{key}` of rule `{}` can never be rendered: none of its alerts has `{required}`",
                rule.name
            );
            let help = match required.starts_with("source.") {
                true => "set that label in the source's `labels`, or use another one",
                false => {
                    "the rule's matchers require alerts without that label: use another label, or change the \
                     matchers"
                }
            };
            diagnostics.add_with_help(Code::NeverRenders, &spans.target, message, help);
        }
    }
}

/// The templates of a rule with their keys.
fn templates(rule: &Rule) -> Vec<(String, &Template)> {
    let mut found = Vec::new();
    match &rule.target {
        RuleTarget::Target(target) => {
            found.extend([("kind", &target.kind), ("name", &target.name)].map(|(key, one)| (key, Some(one))));
            found.extend([
                ("account", target.account.as_ref()),
                ("cluster", target.cluster.as_ref()),
                ("namespace", target.namespace.as_ref()),
                ("region", target.region.as_ref()),
            ]);
        }
        RuleTarget::Hold(hold) => found.extend([
            ("kind", hold.covers.kind.as_ref()),
            ("name", hold.covers.name.as_ref()),
            ("account", hold.covers.account.as_ref()),
            ("cluster", hold.covers.cluster.as_ref()),
            ("namespace", hold.covers.namespace.as_ref()),
            ("region", hold.covers.region.as_ref()),
        ]),
    }
    let target = found.into_iter().filter_map(|(key, one)| Some((format!("target.{key}"), one?)));
    let parameters = rule.parameters.iter().map(|(name, one)| (format!("parameters.{name}"), one));
    let steps = rule.on_firing.as_ref().and_then(|firing| firing.action.change.steps());
    target.chain(parameters).chain(steps.map(|steps| ("metric".to_owned(), &steps.metric))).collect()
}
