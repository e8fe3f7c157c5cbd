//! Semantic checks: whether the parts of a configuration are consistent with each other.

use std::collections::{BTreeMap, HashMap};

use super::decode::Spanned;
use super::diagnostic::{Code, Diagnostics, Location};
use super::kinds::DestinationSettings;
use super::names;
use super::own_files::{file_location, resolve, store_files};
use super::rules::{Draft, RuleSpans, SendTo};
use super::settings::{Destination, Retention, Store};
use super::suggest::did_you_mean;
use super::yaml::{Kind, Node};
use crate::domain::duration::format;
use crate::domain::name::Name;
use crate::domain::rule::{Change, Mode, Rule};
use crate::domain::size_limit::SizeLimit;
use crate::domain::source::Source;

/// The names that rules can refer to. A list is `None` if the section is invalid, and then any name is
/// accepted.
pub(super) struct KnownNames {
    pub sources: Option<Vec<Name>>,
    pub destinations: Option<Vec<Name>>,
}

/// Reports a required section that is absent or empty.
pub(super) fn check_section(root: &Node, key: &str, example: &str, diagnostics: &mut Diagnostics) {
    let node = root.get(key);
    let empty = match node.map(|node| &node.kind) {
        None | Some(Kind::Null) => true,
        Some(Kind::Map(entries)) => entries.is_empty(),
        Some(_) => false,
    };
    if empty {
        let location = &node.unwrap_or(root).location;
        diagnostics.add_with_help(
            Code::Empty,
            location,
            format!("no {key} configured"),
            format!("add one, for example `{example}`"),
        );
    }
}

/// Checks that closed alerts are retained for as long as a late copy may arrive.
pub(super) fn check_retention<'s>(
    retention: &Retention,
    sources: impl Iterator<Item = &'s Source>,
    root: &Node,
    diagnostics: &mut Diagnostics,
) {
    for source in sources.filter(|source| source.late_window > retention.closed) {
        let closed = root.get("retention").and_then(|retention| retention.get("closed"));
        let closed = closed.map(|closed| &closed.location).filter(|location| **location != Location::Default);
        let late = root.get("sources").and_then(|sources| sources.get(source.name.as_str()));
        let late = late.map(|source| &source.get("late_window").unwrap_or(source).location);
        let message = format!(
            "`retention.closed` ({}) is below the `late_window` ({}) of source `{}`",
            format(retention.closed),
            format(source.late_window),
            source.name
        );
        let help = "raise `retention.closed`: otherwise a closed alert is removed before a late copy of it can \
                    arrive";
        diagnostics.add_with_help(
            Code::Contradiction,
            closed.or(late).unwrap_or(&root.location),
            message,
            help,
        );
    }
}

/// Reports files with more than one writer, which would lose lines or corrupt the store.
pub(super) fn check_files<D: DestinationSettings>(
    store: Option<&Store>,
    destinations: &BTreeMap<Name, Destination<D>>,
    root: &Node,
    diagnostics: &mut Diagnostics,
) {
    let mut owners = HashMap::new();
    let store_files = store.into_iter().flat_map(store_files);
    owners.extend(store_files.map(|path| (resolve(&path), "the store".to_owned())));
    for (name, destination) in destinations {
        let Some((key, path)) = destination.settings.exclusive_file() else { continue };
        if let Some(owner) = owners.insert(resolve(path), format!("destination `{name}`")) {
            let message = format!("`{}` is already written by {owner}", path.display());
            let location = file_location::<D>(root, name, key);
            diagnostics.add_with_help(Code::Contradiction, location, message, "use a different file");
        }
    }
}

/// Checks the drafts. Returns the valid rules with the locations of their parts.
pub(super) fn check_rules<D: DestinationSettings>(
    drafts: Vec<Draft>,
    names: &KnownNames,
    destinations: &BTreeMap<Name, Destination<D>>,
    diagnostics: &mut Diagnostics,
) -> Vec<(Rule, Location, RuleSpans)> {
    check_unique_names(&drafts, diagnostics);
    for draft in &drafts {
        check_known_names(&draft.sources, names.sources.as_deref(), "source", diagnostics);
        let send_to = draft.send_to.iter().flat_map(|send_to| &send_to.names);
        check_known_names(send_to, names.destinations.as_deref(), "destination", diagnostics);
        check_actions(draft, destinations, diagnostics);
        if names.destinations.is_some() {
            check_revert(draft, destinations, diagnostics);
        }
    }
    let with_destinations = |draft: Draft| {
        // Warnings about a faulty rule may only follow from the errors in it.
        let mut rule = draft.rule.filter(|_| !draft.is_faulty)?;
        let known = |name: &&Name| destinations.get(*name);
        let limits = rule.send_to.iter().filter_map(|name| known(&name));
        let limits = limits.map(|destination| destination.settings.size_limit());
        rule.size_limit = limits.fold(SizeLimit::NONE, SizeLimit::and);
        rule.acting = acting(&rule.send_to, destinations);
        let max_ages = rule.acting.iter().filter_map(|name| known(&name)).map(|it| it.delivery.max_age);
        rule.max_age = max_ages.max().unwrap_or(super::settings::Delivery::DEFAULT_MAX_AGE);
        Some((rule, draft.location, draft.spans))
    };
    drafts.into_iter().filter_map(with_destinations).collect()
}

/// The destinations of `send_to` whose consumers change capacity; all of them if none does.
fn acting<D>(send_to: &[Name], destinations: &BTreeMap<Name, Destination<D>>) -> Vec<Name> {
    let is_acting = |name: &&Name| destinations.get(*name).is_none_or(|destination| destination.acting);
    let acting: Vec<Name> = send_to.iter().filter(is_acting).cloned().collect();
    if acting.is_empty() { send_to.to_vec() } else { acting }
}

/// Checks that a rule with `revert` has one acting destination: what two consumers have added is not known as one sum.
fn check_revert<D>(
    draft: &Draft,
    destinations: &BTreeMap<Name, Destination<D>>,
    diagnostics: &mut Diagnostics,
) {
    let Some(rule) = draft.rule.as_ref().filter(|rule| rule.mode != Mode::Disabled) else { return };
    let is_revert = rule.on_resolved.as_ref().is_some_and(|it| matches!(it.action.change, Change::Revert));
    // Unknown names are reported by themselves.
    if !is_revert || !rule.send_to.iter().all(|name| destinations.contains_key(name)) {
        return;
    }
    if let [first, second, ..] = &acting(&rule.send_to, destinations)[..] {
        let message = format!(
            "`revert` needs exactly one acting destination, but both `{first}` and `{second}` get this rule's events"
        );
        let help = "keep one of them in `send_to`, or use `scale_in` with `by` or `by_percent`";
        diagnostics.add_with_help(Code::Contradiction, &draft.spans.revert, message, help);
    }
}

/// Checks that the rules that sources list exist. `known` is `None` if not all rules could be read.
pub(super) fn check_source_rules(
    sources: Option<&Node>,
    known: Option<&[Name]>,
    diagnostics: &mut Diagnostics,
) {
    let Some(Kind::Map(sources)) = sources.map(|node| &node.kind) else { return };
    for list in sources.iter().filter_map(|(_, source)| source.get("rules")) {
        // What is not a name has been reported.
        let mut ignored = Diagnostics::default();
        let names = names::names(list, &mut ignored).unwrap_or_default();
        check_known_names(&names, known, "rule", diagnostics);
    }
}

/// Warns about sources without a heartbeat whose alerts can decrease capacity. `valid` are the sources without errors.
pub(super) fn check_heartbeats(
    rules: &[Rule],
    valid: &BTreeMap<Name, Source>,
    root: &Node,
    diagnostics: &mut Diagnostics,
) {
    let Some(Kind::Map(sources)) = root.get("sources").map(|sources| &sources.kind) else { return };
    let decreasing: Vec<&Rule> = rules.iter().filter(|rule| may_decrease_capacity(rule)).collect();
    // In a faulty source the heartbeat may be what is misspelled.
    let is_faulty = |source: &Node| source.any(&mut |location| diagnostics.has_error_at(location));
    let without =
        sources.iter().filter(|(_, source)| source.get("heartbeat").is_none() && !is_faulty(source));
    let without: Vec<_> = without.map(|(source, _)| source).collect();
    for source in without {
        let Some(valid) = Name::new(&source.name).ok().and_then(|name| valid.get(&name)) else { continue };
        let Some(rule) = decreasing.iter().find(|rule| rule.sees(valid)) else { continue };
        let message = format!(
            "source `{}` has no `heartbeat`, but its alerts can decrease capacity (rule `{}`)",
            source.name, rule.name
        );
        let help = "add `heartbeat: ['alertname = \"Watchdog\"']`, an alert that always fires: if Prometheus fails, \
                    Alertmanager resolves all alerts, which otherwise looks like recovery";
        diagnostics.add_with_help(Code::NoHeartbeat, &source.location, message, help);
    }
}

/// Whether an active rule has an action that can decrease capacity.
fn may_decrease_capacity(rule: &Rule) -> bool {
    let firing = rule.on_firing.as_ref().map(|firing| &firing.action);
    let resolved = rule.on_resolved.as_ref().map(|resolved| &resolved.action);
    rule.mode == Mode::Active
        && firing.into_iter().chain(resolved).any(|action| action.change.decreases_capacity())
}

fn check_unique_names(drafts: &[Draft], diagnostics: &mut Diagnostics) {
    let mut first: HashMap<&Name, &Location> = HashMap::new();
    for name in drafts.iter().filter_map(|draft| draft.name.as_ref()) {
        if let Some(first) = first.get(&name.value) {
            let message = format!("duplicate rule name `{}`", name.value);
            let help =
                format!("first defined at {first}; a rule is identified by its name, so use a different one");
            diagnostics.add_with_help(Code::DuplicateName, &name.location, message, help);
        } else {
            first.insert(&name.value, &name.location);
        }
    }
}

fn check_known_names<'d>(
    names: impl IntoIterator<Item = &'d Spanned<Name>>,
    known: Option<&[Name]>,
    what: &str,
    diagnostics: &mut Diagnostics,
) {
    let Some(known) = known.filter(|known| !known.is_empty()) else { return };
    for name in names.into_iter().filter(|name| !known.contains(&name.value)) {
        let message = format!("unknown {what} `{}`", name.value);
        let known: Vec<&str> = known.iter().map(Name::as_str).collect();
        let help = did_you_mean(name.value.as_str(), &known);
        diagnostics.add_with_help(Code::UnknownName, &name.location, message, help);
    }
}

/// Checks that a rule has an action and a destination, and at most one acting destination unless it is in
/// shadow mode.
fn check_actions<D: DestinationSettings>(
    draft: &Draft,
    destinations: &BTreeMap<Name, Destination<D>>,
    diagnostics: &mut Diagnostics,
) {
    if draft.mode == Mode::Disabled {
        return;
    }
    if !draft.has_action {
        let help = "add `on_firing` or `on_resolved`, or set `mode: disabled` if the rule is meant to match alerts \
                    without acting";
        diagnostics.add_with_help(Code::DoesNothing, &draft.location, "rule has no action", help);
        return;
    }
    let Some(SendTo { names, location, is_invalid }) = &draft.send_to else { return };
    if names.is_empty() && !is_invalid {
        let help = "add `send_to: [NAME]` here or under `defaults:` at the top of the file";
        diagnostics.add_with_help(Code::NoDestination, location, "rule has no destination", help);
    }
    let acting = |name: &&Spanned<Name>| destinations.get(&name.value).is_some_and(|found| found.acting);
    let mut acting = names.iter().filter(acting);
    if let (Mode::Active, Some(first), Some(second)) = (draft.mode, acting.next(), acting.next()) {
        let message = format!(
            "destinations `{}` and `{}` would both act on this rule's events",
            first.value, second.value
        );
        let recording: Vec<String> =
            D::KINDS.iter().filter(|kind| !kind.acting).map(|kind| format!("`{}`", kind.key)).collect();
        let help = format!(
            "use one acting destination; an additional {} destination only records the events",
            recording.join(" or ")
        );
        diagnostics.add_with_help(Code::DuplicateActing, location, message, help);
    }
}
