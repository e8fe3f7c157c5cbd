//! Readers of maps and lists. Each reports its errors as diagnostics and does not stop the others.
//!
//! A reader that returns `None` has already added a diagnostic, so callers continue without reporting the
//! error again.

use std::fmt::Display;

use super::diagnostic::{Code, Diagnostics, Location};
use super::suggest::{did_you_mean, nearest};
use super::unsupported;
use super::yaml::{Key, Kind, Node};

/// A value and its location, for diagnostics of later checks.
#[derive(Debug, Clone)]
pub(super) struct Spanned<T> {
    pub value: T,
    pub location: Location,
}

/// A map that is being read, key by key.
pub(crate) struct Fields<'n, 'f> {
    path: &'static str,
    location: &'n Location,
    entries: &'n [(Key, Node)],
    known: Vec<&'static str>,
    pub diagnostics: &'f mut Diagnostics,
}

impl<'n, 'f> Fields<'n, 'f> {
    /// Starts reading a map. `path` is the name of the map in the list of [`unsupported`] keys. A map with
    /// all keys commented out is null in YAML and counts as empty.
    pub(crate) fn from_node(
        node: &'n Node,
        path: &'static str,
        diagnostics: &'f mut Diagnostics,
    ) -> Option<Self> {
        let entries = entries(node, diagnostics)?;
        Some(Self { path, location: &node.location, entries, known: Vec::new(), diagnostics })
    }

    /// The value of `key`, which counts as known from now on. Unsupported keys return `None`.
    pub(crate) fn lookup(&mut self, key: &'static str) -> Option<&'n Node> {
        self.known.push(key);
        let (_, node) = self.entries.iter().find(|(known, _)| known.name == key)?;
        unsupported::find(self.path, key).is_none().then_some(node)
    }

    /// Reads an optional key.
    pub(crate) fn get<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'n Node, &mut Diagnostics) -> Option<T>,
    ) -> Option<T> {
        let node = self.lookup(key)?;
        read(node, self.diagnostics)
    }

    /// Reads a required key.
    pub(crate) fn get_required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&'n Node, &mut Diagnostics) -> Option<T>,
    ) -> Option<T> {
        let found = self.get(key, read);
        self.require(key, example);
        found
    }

    /// Reports `key` if it is missing.
    pub(crate) fn require(&mut self, key: &str, example: &str) {
        if !self.has(key) {
            let message = format!("`{key}` is missing");
            self.diagnostics.add_with_help(Code::Missing, self.location, message, format!("add `{example}`"));
        }
    }

    /// Reports each of `keys` that is present; `why` completes the sentence that begins with the key.
    pub(crate) fn reject(&mut self, keys: &[&'static str], why: &str, help: &str) {
        for key in keys {
            self.known.push(key);
            if self.has(key) {
                let message = format!("`{key}` {why}");
                self.diagnostics.add_with_help(Code::Contradiction, self.key_location(key), message, help);
            }
        }
    }

    /// Reads `keys`, of which exactly one must be present.
    pub(crate) fn one_of(&mut self, keys: &[&'static str], help: &str) -> Option<(&'static str, &'n Node)> {
        let mut found = None;
        let given: Vec<&str> = keys.iter().copied().filter(|key| self.has(key)).collect();
        for key in keys {
            found = found.or(self.lookup(key).map(|node| (*key, node)));
        }
        match given[..] {
            [_] => found,
            [] => {
                let message = format!("exactly one of {} is required", quoted(keys));
                self.diagnostics.add_with_help(Code::ExactlyOne, self.location, message, help);
                None
            }
            [_, second, ..] => {
                let message = format!("{} are mutually exclusive", quoted(&given));
                self.diagnostics.add_with_help(
                    Code::ExactlyOne,
                    self.key_location(second),
                    message,
                    "keep only one of them",
                );
                None
            }
        }
    }

    /// Whether the key is present, even with an invalid value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(known, _)| known.name == key)
    }

    /// The location of the value of `key`, or that of the map if the key is absent.
    pub(crate) fn location_of(&self, key: &str) -> &'n Location {
        self.entries
            .iter()
            .find(|(known, _)| known.name == key)
            .map_or(self.location, |(_, node)| &node.location)
    }

    fn key_location(&self, key: &str) -> &'n Location {
        self.entries
            .iter()
            .find(|(known, _)| known.name == key)
            .map_or(self.location, |(key, _)| &key.location)
    }

    /// The location of the map.
    pub(crate) fn location(&self) -> &'n Location {
        self.location
    }

    /// Reports unknown and unsupported keys.
    pub(crate) fn finish(self) {
        let Self { path, entries, known, diagnostics, .. } = self;
        #[cfg(test)]
        known_keys::record(path, &known);
        for (key, _) in entries {
            if let Some(entry) = unsupported::find(path, &key.name) {
                entry.report(&key.location, diagnostics);
            } else if !known.contains(&key.name.as_str()) {
                let message = format!("unknown key `{}`", key.name);
                let near_unsupported = nearest(&key.name.to_lowercase(), unsupported::keys(path));
                let help = match near_unsupported.filter(|near_unsupported| !known.contains(near_unsupported))
                {
                    Some(near_unsupported) => format!("did you mean `{near_unsupported}`?"),
                    None => did_you_mean(&key.name, &known),
                };
                diagnostics.add_with_help(Code::UnknownKey, &key.location, message, help);
            }
        }
    }
}

/// The entries of a map with arbitrary keys.
pub(super) fn entries<'n>(node: &'n Node, diagnostics: &mut Diagnostics) -> Option<&'n [(Key, Node)]> {
    match &node.kind {
        Kind::Map(entries) => Some(entries),
        Kind::Null => Some(&[]),
        _ => wrong_type(node, "a map", diagnostics),
    }
}

/// Reads each item of a list; invalid items are omitted. Null counts as an empty list.
pub(super) fn list<'n, T>(
    read: impl Fn(&'n Node, &mut Diagnostics) -> Option<T>,
) -> impl Fn(&'n Node, &mut Diagnostics) -> Option<Vec<T>> {
    move |node, diagnostics| match &node.kind {
        Kind::List(items) => Some(items.iter().filter_map(|item| read(item, diagnostics)).collect()),
        Kind::Null => Some(Vec::new()),
        _ => wrong_type(node, "a list", diagnostics),
    }
}

/// Reports an empty list.
pub(super) fn check_not_empty(node: &Node, help: &str, diagnostics: &mut Diagnostics) {
    let empty = match &node.kind {
        Kind::Null => true,
        Kind::List(items) => items.is_empty(),
        _ => false,
    };
    if empty {
        diagnostics.add_with_help(Code::Range, &node.location, "list must not be empty", help);
    }
}

/// Reads a list without duplicates.
pub(super) fn distinct<'n, T: PartialEq + Display>(
    read: impl Fn(&'n Node, &mut Diagnostics) -> Option<T>,
) -> impl Fn(&'n Node, &mut Diagnostics) -> Option<Vec<Spanned<T>>> {
    let read = list(spanned(read));
    move |node, diagnostics| {
        let mut items: Vec<Spanned<T>> = Vec::new();
        for one in read(node, diagnostics)? {
            if items.iter().any(|known| known.value == one.value) {
                let message = format!("`{}` is listed more than once", one.value);
                diagnostics.add(Code::DuplicateName, &one.location, message);
            } else {
                items.push(one);
            }
        }
        Some(items)
    }
}

/// Adds the location to the value that `read` returns.
pub(super) fn spanned<'n, T>(
    read: impl Fn(&'n Node, &mut Diagnostics) -> Option<T>,
) -> impl Fn(&'n Node, &mut Diagnostics) -> Option<Spanned<T>> {
    move |node, diagnostics| {
        read(node, diagnostics).map(|value| Spanned { value, location: node.location.clone() })
    }
}

/// Reports that the type of `node` is not `expected`.
pub(super) fn wrong_type<T>(node: &Node, expected: &str, diagnostics: &mut Diagnostics) -> Option<T> {
    diagnostics.add(Code::Type, &node.location, format!("expected {expected}, found {}", describe(node)));
    None
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Describes `node` for a message.
pub(super) fn describe(node: &Node) -> String {
    match &node.kind {
        Kind::Null => "nothing".to_owned(),
        Kind::Bool(flag) => flag.to_string(),
        Kind::Int(number) => format!("the number {number}"),
        Kind::Float(number) => format!("the number {number:?}"),
        Kind::Text(text) => format!("the text `{}`", text.chars().take(60).collect::<String>()),
        Kind::List(_) => "a list".to_owned(),
        Kind::Map(_) => "a map".to_owned(),
    }
}

/// Records the keys that the readers know, for the test that compares them with the JSON Schemas.
#[cfg(test)]
pub(super) mod known_keys {
    use std::cell::RefCell;
    use std::collections::{BTreeMap, BTreeSet};

    type KnownKeys = BTreeMap<&'static str, BTreeSet<&'static str>>;

    thread_local! {
        static KNOWN_KEYS: RefCell<KnownKeys> = const { RefCell::new(BTreeMap::new()) };
    }

    pub(crate) fn record(path: &'static str, known: &[&'static str]) {
        KNOWN_KEYS.with_borrow_mut(|keys| keys.entry(path).or_default().extend(known));
    }

    /// Returns and clears the keys recorded on this thread.
    pub(crate) fn take() -> KnownKeys {
        KNOWN_KEYS.take()
    }
}
