//! Readers of the names of sources, destinations and rules.

use super::decode::{Spanned, distinct, entries};
use super::diagnostic::{Code, Diagnostics};
use super::scalar::any_text;
use super::yaml::Node;
use crate::domain::name::Name;

/// Reads the name of a source, a destination or a rule.
pub(super) fn name(node: &Node, diagnostics: &mut Diagnostics) -> Option<Name> {
    let text = any_text(node, diagnostics)?;
    Name::new(text).map_err(|error| diagnostics.add(Code::Value, &node.location, error.to_string())).ok()
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
    let entries = entries(node, diagnostics).unwrap_or_default();
    let mut named = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        match Name::new(&key.name) {
            Ok(name) => named.push((Spanned { value: name, location: key.location.clone() }, value)),
            Err(error) => diagnostics.add(Code::Value, &key.location, error.to_string()),
        }
    }
    named
}
