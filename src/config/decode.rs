//! Readers of maps and lists. Each adds what it finds wrong and never stops the others.
//!
//! A reader gives `None` for what is faulty, and the fault is in the diagnostics by then. So whoever
//! gets a `None` goes on with what it has, and says nothing.

use std::fmt::Display;

use super::diagnostic::{Code, Diagnostics, Location};
use super::suggest::{did_you_mean, nearest};
use super::unsupported;
use super::yaml::{Key, Kind, Node};

/// A value that is looked at again in the pass of meaning.
#[derive(Debug, Clone)]
pub(super) struct Spanned<T> {
    pub value: T,
    pub location: Location,
}

/// A map that is being read, key by key.
pub(super) struct Fields<'n, 'f> {
    path: &'static str,
    location: &'n Location,
    entries: &'n [(Key, Node)],
    known: Vec<&'static str>,
    pub diagnostics: &'f mut Diagnostics,
}

impl<'n, 'f> Fields<'n, 'f> {
    /// `at` is the map's name in [`unsupported`]'s list. A map of which all keys are commented out is
    /// empty to YAML, and so it is here.
    pub(super) fn from_node(
        node: &'n Node,
        path: &'static str,
        diagnostics: &'f mut Diagnostics,
    ) -> Option<Self> {
        let entries = entries(node, diagnostics)?;
        Some(Self { path, location: &node.location, entries, known: Vec::new(), diagnostics })
    }

    /// The value of `key`, which is known from now on. What this version refuses is not given out.
    pub(super) fn lookup(&mut self, key: &'static str) -> Option<&'n Node> {
        self.known.push(key);
        let (_, node) = self.entries.iter().find(|(known, _)| known.name == key)?;
        unsupported::find(self.path, key).is_none().then_some(node)
    }

    /// Reads an optional key.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'n Node, &mut Diagnostics) -> Option<T>,
    ) -> Option<T> {
        let node = self.lookup(key)?;
        read(node, self.diagnostics)
    }

    /// Reads a key that has to be there.
    pub(super) fn get_required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&'n Node, &mut Diagnostics) -> Option<T>,
    ) -> Option<T> {
        let found = self.get(key, read);
        self.require(key, example);
        found
    }

    /// Says that a key is missing, if it is.
    pub(super) fn require(&mut self, key: &str, example: &str) {
        if !self.has(key) {
            let message = format!("`{key}` is missing");
            self.diagnostics.add_with_help(Code::Missing, self.location, message, format!("add `{example}`"));
        }
    }

    /// Says of those of `keys` that are there that they do not belong here, and reads none.
    pub(super) fn reject(&mut self, keys: &[&'static str], why: &str, help: &str) {
        for key in keys {
            self.known.push(key);
            if self.has(key) {
                let message = format!("`{key}` {why}");
                self.diagnostics.add_with_help(Code::Contradiction, self.key_location(key), message, help);
            }
        }
    }

    /// The one of `keys` that is there.
    pub(super) fn one_of(
        &mut self,
        keys: &'static [&'static str],
        help: &str,
    ) -> Option<(&'static str, &'n Node)> {
        let mut found = None;
        let given: Vec<&str> = keys.iter().copied().filter(|key| self.has(key)).collect();
        for key in keys {
            found = found.or(self.lookup(key).map(|node| (*key, node)));
        }
        match given[..] {
            [_] => found,
            [] => {
                let message = format!("one of {} is missing", quoted(keys));
                self.diagnostics.add_with_help(Code::ExactlyOne, self.location, message, help);
                None
            }
            [_, second, ..] => {
                let message = format!("{} exclude each other", quoted(&given));
                self.diagnostics.add_with_help(
                    Code::ExactlyOne,
                    self.key_location(second),
                    message,
                    "keep one of them",
                );
                None
            }
        }
    }

    /// Whether the key is there, whatever its value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(known, _)| known.name == key)
    }

    /// Where the value of `key` stands, or the map if it does not have it.
    pub(super) fn location_of(&self, key: &str) -> &'n Location {
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

    /// Where the map stands.
    pub(super) fn location(&self) -> &'n Location {
        self.location
    }

    /// Says which keys are not known, and which are not supported.
    pub(super) fn finish(self) {
        let Self { path, entries, known, diagnostics, .. } = self;
        #[cfg(test)]
        known_keys::record(path, &known);
        for (key, _) in entries {
            if let Some(entry) = unsupported::find(path, &key.name) {
                entry.report(&key.location, diagnostics);
            } else if !known.contains(&key.name.as_str()) {
                let message = format!("there is no key `{}` here", key.name);
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

/// The entries of a map whose keys are the user's own.
pub(super) fn entries<'n>(node: &'n Node, diagnostics: &mut Diagnostics) -> Option<&'n [(Key, Node)]> {
    match &node.kind {
        Kind::Map(entries) => Some(entries),
        Kind::Null => Some(&[]),
        _ => wrong_type(node, "a map", diagnostics),
    }
}

/// Reads each item of a list; the faulty ones are left out. Nothing at all is an empty list.
pub(super) fn list<'n, T>(
    read: impl Fn(&'n Node, &mut Diagnostics) -> Option<T>,
) -> impl Fn(&'n Node, &mut Diagnostics) -> Option<Vec<T>> {
    move |node, diagnostics| match &node.kind {
        Kind::List(items) => Some(items.iter().filter_map(|item| read(item, diagnostics)).collect()),
        Kind::Null => Some(Vec::new()),
        _ => wrong_type(node, "a list", diagnostics),
    }
}

/// Says that a list is empty, if it is.
pub(super) fn check_not_empty(node: &Node, help: &str, diagnostics: &mut Diagnostics) {
    let empty = match &node.kind {
        Kind::Null => true,
        Kind::List(items) => items.is_empty(),
        _ => false,
    };
    if empty {
        diagnostics.add_with_help(Code::Range, &node.location, "this list must not be empty", help);
    }
}

/// A list, nothing of it twice.
pub(super) fn distinct<'n, T: PartialEq + Display>(
    read: impl Fn(&'n Node, &mut Diagnostics) -> Option<T>,
) -> impl Fn(&'n Node, &mut Diagnostics) -> Option<Vec<Spanned<T>>> {
    let read = list(spanned(read));
    move |node, diagnostics| {
        let mut items: Vec<Spanned<T>> = Vec::new();
        for one in read(node, diagnostics)? {
            if items.iter().any(|known| known.value == one.value) {
                let message = format!("`{}` is listed twice", one.value);
                diagnostics.add(Code::DuplicateName, &one.location, message);
            } else {
                items.push(one);
            }
        }
        Some(items)
    }
}

/// Keeps the place of what `read` gives.
pub(super) fn spanned<'n, T>(
    read: impl Fn(&'n Node, &mut Diagnostics) -> Option<T>,
) -> impl Fn(&'n Node, &mut Diagnostics) -> Option<Spanned<T>> {
    move |node, diagnostics| {
        read(node, diagnostics).map(|value| Spanned { value, location: node.location.clone() })
    }
}

/// Says that `node` is something else than `expected`.
pub(super) fn wrong_type<T>(node: &Node, expected: &str, diagnostics: &mut Diagnostics) -> Option<T> {
    diagnostics.add(Code::Type, &node.location, format!("expected {expected}, found {}", describe(node)));
    None
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// What `node` is, in words.
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

/// Which keys the readers know, for the test that holds the published schemas to them.
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

    /// All that was noted on this thread.
    pub(crate) fn take() -> KnownKeys {
        KNOWN_KEYS.take()
    }
}
