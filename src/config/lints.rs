//! What is odd about rules that can be used: they say something that never comes about, or take capacity away
//! without the care that this asks for.

use std::collections::{BTreeMap, BTreeSet};

use super::diagnostic::{Code, Diagnostics, Location};
use super::rules::RuleSpans;
use super::yaml::{Kind, Node};
use crate::domain::matcher::{Matcher, implies, possible_values};
use crate::domain::name::Name;
use crate::domain::rule::{Change, Mode, Rule, RuleTarget};
use crate::domain::source::Source;
use crate::domain::template::Template;

type LocatedRule = (Rule, Location, RuleSpans);

/// Judges each rule, by itself and after those before it.
pub(super) fn lint_rules(
    rules: &[LocatedRule],
    sources: &BTreeMap<Name, Source>,
    diagnostics: &mut Diagnostics,
) {
    for (index, (rule, location, spans)) in rules.iter().enumerate() {
        let listening: Vec<&Source> = sources.values().filter(|source| listens(rule, &source.name)).collect();
        if lint_never_matches(rule, spans, &listening, diagnostics) {
            continue;
        }
        if let Some((earlier, earlier_location, _)) =
            rules[..index].iter().find(|(earlier, ..)| matches_all_of(earlier, rule, sources))
        {
            let message =
                format!("rule `{}` never sees an alert: rule `{}` takes them all", rule.name, earlier.name);
            let help = format!(
                "that one stands at {earlier_location} and matches at least as much: put the narrower rule first, or say \
                 `continue: true` in the other"
            );
            diagnostics.add_with_help(Code::Unreachable, location, message, help);
        }
        lint_templates(rule, spans, &listening, diagnostics);
        lint_stabilization(rule, spans, diagnostics);
    }
}

/// Says which destinations no rule sends to.
pub(super) fn lint_unused_destinations(rules: &[LocatedRule], root: &Node, diagnostics: &mut Diagnostics) {
    let used: BTreeSet<&str> = rules.iter().flat_map(|(rule, ..)| &rule.send_to).map(Name::as_str).collect();
    let Some(Kind::Map(destinations)) = root.get("destinations").map(|node| &node.kind) else { return };
    // Where a rule could not be read, nobody knows what it would have used.
    if diagnostics.has_errors() {
        return;
    }
    for (key, _) in destinations.iter().filter(|(key, _)| !used.contains(key.name.as_str())) {
        let message = format!("no rule sends to destination `{}`", key.name);
        let help = "name it in a rule's `send_to`, or take it out";
        diagnostics.add_with_help(Code::Unused, &key.location, message, help);
    }
}

fn listens(rule: &Rule, source: &Name) -> bool {
    rule.sources.as_ref().is_none_or(|names| names.contains(source))
}

/// Whether `earlier` takes every alert that `rule` would match.
fn matches_all_of(earlier: &Rule, rule: &Rule, sources: &BTreeMap<Name, Source>) -> bool {
    let covered =
        sources.keys().filter(|source| listens(rule, source)).all(|source| listens(earlier, source));
    earlier.name != rule.name
        && !earlier.continues
        && earlier.when.is_none()
        && covered
        && implies(&rule.matchers, &earlier.matchers)
}

fn labels_of(matchers: &[Matcher]) -> BTreeSet<&str> {
    matchers.iter().map(Matcher::label).collect()
}

/// What a source lays over a label of its alerts, where it does.
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
    let mut message =
        format!("rule `{}` never matches: no value of `{label}` meets {}", rule.name, matchers.join(" and "));
    if !source_labels.is_empty() {
        message += &format!("; its sources set that label themselves ({})", source_labels.join(", "));
    }
    diagnostics.add_with_help(
        Code::NeverMatches,
        &spans.matchers,
        message,
        "leave one of them out, or list the values: `=~ \"a|b\"`",
    );
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
                "`{key}` of rule `{}` can never be rendered: no alert of it has `{required}`",
                rule.name
            );
            let help = match required.starts_with("source.") {
                true => "set that label in the source's `labels`, or ask for another one",
                false => {
                    "the rule's own matchers ask for alerts without that label: ask for another one, or change them"
                }
            };
            diagnostics.add_with_help(Code::NeverRenders, &spans.target, message, help);
        }
    }
}

/// A rule that takes capacity away the moment it hears of calm.
fn lint_stabilization(rule: &Rule, spans: &RuleSpans, diagnostics: &mut Diagnostics) {
    let firing = rule.on_firing.as_ref().map(|firing| &firing.action);
    let resolved = rule.on_resolved.as_ref().map(|resolved| &resolved.action);
    for (action, location) in [firing, resolved].into_iter().zip(&spans.window) {
        let Some(action) = action.filter(|_| rule.mode != Mode::Disabled) else { continue };
        if matches!(action.change, Change::ScaleIn(_)) && action.stabilization_window.is_zero() {
            let message = format!("rule `{}` takes capacity away without waiting for calm", rule.name);
            let help = "give it a `stabilization_window`, for example 5m: an alert that flaps, or a Prometheus that \
                        restarts, would take capacity away that is needed a moment later";
            diagnostics.add_with_help(Code::NoStabilization, location, message, help);
        }
    }
}

/// All templates of a rule, each with the key that it stands at.
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
