//! Readers of the names of sources, destinations and rules.

use super::decode::{Spanned, distinct, entries, wrong_type_with};
use super::diagnostic::{Code, Diagnostics, Location};
use super::foreign;
use super::scalar::any_text;
use super::yaml::{Kind, Node};
use crate::domain::name::{Name, NameError};

/// Reads the name of a source, a destination or a rule.
pub(super) fn name(node: &Node, diagnostics: &mut Diagnostics) -> Option<Name> {
    let text = any_text(node, diagnostics)?;
    Name::new(text).map_err(|error| report(text, &error, &node.location, diagnostics)).ok()
}

fn report(text: &str, error: &NameError, location: &Location, diagnostics: &mut Diagnostics) {
    match similar(text) {
        Some(similar) => {
            let help = format!("use `{similar}`");
            diagnostics.add_with_help(Code::Value, location, error.to_string(), help);
        }
        None => diagnostics.add(Code::Value, location, error.to_string()),
    }
}

/// The valid name that is most like `text`: `unschedulable-pods` for `Unschedulable Pods`.
fn similar(text: &str) -> Option<Name> {
    let plain = text.to_lowercase();
    let words = plain.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    let joined = words.collect::<Vec<_>>().join("-");
    Name::new(joined.trim_start_matches('_')).ok()
}

/// Reads the name of a rule. Decisions about heartbeats have a name of their own instead.
pub(super) fn rule_name(node: &Node, diagnostics: &mut Diagnostics) -> Option<Name> {
    let name = name(node, diagnostics)?;
    if name == Name::for_heartbeat() {
        let message =
            format!("`{name}` is reserved: decisions about heartbeats are recorded under this name");
        diagnostics.add_with_help(Code::Value, &node.location, message, "use a different name");
        return None;
    }
    Some(name)
}

/// Reads a list of names without duplicates.
pub(super) fn names(node: &Node, diagnostics: &mut Diagnostics) -> Option<Vec<Spanned<Name>>> {
    distinct(name)(node, diagnostics)
}

/// Reads the keys of a map as names; entries with an invalid name are omitted.
pub(super) fn named_entries<'n>(
    node: &'n Node,
    diagnostics: &mut Diagnostics,
) -> Vec<(Spanned<Name>, &'n Node)> {
    if let Kind::List(_) = node.kind {
        let _: Option<()> = wrong_type_with(node, "a map", foreign::named_help(node), diagnostics);
        return Vec::new();
    }
    let entries = entries(node, diagnostics).unwrap_or_default();
    let mut named = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        match Name::new(&key.name) {
            Ok(name) => named.push((Spanned { value: name, location: key.location.clone() }, value)),
            Err(error) => report(&key.name, &error, &key.location, diagnostics),
        }
    }
    named
}
