//! Readers of maps and lists. Each reports its errors as diagnostics and does not stop the others.
//!
//! A reader that returns `None` has already added a diagnostic, so callers continue without reporting the
//! error again.

use std::fmt::Display;

use super::diagnostic::{Code, Diagnostics, Location};
use super::suggest::{did_you_mean, nearest};
use super::yaml::{Key, Kind, Node};
use super::{foreign, unsupported};

/// A value and its location, for diagnostics of later checks.
#[derive(Debug, Clone)]
pub(crate) struct Spanned<T> {
    pub value: T,
    pub location: Location,
}

/// A map that is being read, key by key.
pub(crate) struct Fields<'n, 'f> {
    path: &'static str,
    location: &'n Location,
    entries: &'n [(Key, Node)],
    known: Vec<&'static str>,
    missing: Vec<Missing>,
    pub diagnostics: &'f mut Diagnostics,
}

/// Keys of which one is required and none is present. Not an error of its own if an unknown key was meant to be one.
struct Missing {
    keys: Vec<&'static str>,
    code: Code,
    message: String,
    help: String,
}

/// The fixes of the unknown and unsupported keys of a map.
#[derive(Debug, Default)]
pub(super) struct KeyFixes(Vec<String>);

impl KeyFixes {
    /// Whether one of these keys was meant to be `key`.
    pub(super) fn suggest(&self, key: &str) -> bool {
        let names = |help: &str| {
            help.split('`').skip(1).step_by(2).any(|code| {
                code.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
            })
        };
        self.0.iter().any(|help| names(help))
    }
}

impl<'n, 'f> Fields<'n, 'f> {
    /// Starts reading a map. `path` is the name of the map in the list of [`unsupported`] keys. A map with
    /// all keys commented out is null in YAML and counts as empty.
    pub(crate) fn from_node(
        node: &'n Node,
        path: &'static str,
        diagnostics: &'f mut Diagnostics,
    ) -> Option<Self> {
        let entries = match &node.kind {
            Kind::Map(_) | Kind::Null => entries(node, diagnostics)?,
            _ => return wrong_type_with(node, "a map", foreign::map_help(path, node), diagnostics),
        };
        Some(Self {
            path,
            location: &node.location,
            entries,
            known: Vec::new(),
            missing: Vec::new(),
            diagnostics,
        })
    }

    /// The value of `key`, which counts as known from now on. Unsupported keys return `None`.
    pub(crate) fn lookup(&mut self, key: &'static str) -> Option<&'n Node> {
        self.known.push(key);
        let (_, node) = self.entries.iter().find(|(known, _)| known.name == key)?;
        unsupported::find(self.path, key).is_none().then_some(node)
    }

    /// The value of `key`, which is read later.
    pub(super) fn peek(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(known, _)| known.name == key).map(|(_, node)| node)
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
    pub(crate) fn require(&mut self, key: &'static str, example: &str) {
        if !self.has(key) {
            let (message, help) = (format!("`{key}` is missing"), format!("add `{example}`"));
            self.missing.push(Missing { keys: vec![key], code: Code::Missing, message, help });
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
                let (keys, help) = (keys.to_vec(), help.to_owned());
                self.missing.push(Missing { keys, code: Code::ExactlyOne, message, help });
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

    /// Reports unknown, unsupported and missing keys.
    pub(crate) fn finish(self) {
        self.finish_with_fixes();
    }

    /// Like [`Self::finish`]; returns the fixes of the unknown and unsupported keys, for what else is missing because of them.
    pub(super) fn finish_with_fixes(self) -> KeyFixes {
        let Self { path, location, entries, known, missing, diagnostics } = self;
        let mut fixes = KeyFixes::default();
        #[cfg(test)]
        known_keys::record(path, &known);
        for (key, node) in entries {
            if let Some(entry) = unsupported::find(path, &key.name) {
                entry.report(&key.location, diagnostics);
                fixes.0.push(entry.help().to_owned());
            } else if !known.contains(&key.name.as_str()) {
                let message = format!("unknown key `{}`", key.name);
                let near_unsupported = nearest(&key.name.to_lowercase(), unsupported::keys(path));
                let near_unsupported =
                    near_unsupported.filter(|near_unsupported| !known.contains(near_unsupported));
                let help = match (foreign::key_help(path, key, node), near_unsupported) {
                    (Some(help), _) => help,
                    (None, Some(near_unsupported)) => format!("did you mean `{near_unsupported}`?"),
                    (None, None) => did_you_mean(&key.name, &known),
                };
                diagnostics.add_with_help(Code::UnknownKey, &key.location, message, &help);
                fixes.0.push(help);
            }
        }
        for Missing { keys, code, message, help } in missing {
            if !keys.iter().any(|key| fixes.suggest(key)) {
                diagnostics.add_with_help(code, location, message, help);
            }
        }
        fixes
    }
}

/// The entries of a map with arbitrary keys.
pub(super) fn entries<'n>(node: &'n Node, diagnostics: &mut Diagnostics) -> Option<&'n [(Key, Node)]> {
    match &node.kind {
        Kind::Map(entries) => Some(entries),
        Kind::Null => Some(&[]),
        _ => wrong_type_with(node, "a map", foreign::map_help("", node), diagnostics),
    }
}

/// Reads each item of a list; invalid items are omitted. Null counts as an empty list.
pub(super) fn list<'n, T>(
    read: impl Fn(&'n Node, &mut Diagnostics) -> Option<T>,
) -> impl Fn(&'n Node, &mut Diagnostics) -> Option<Vec<T>> {
    move |node, diagnostics| match &node.kind {
        Kind::List(items) => Some(items.iter().filter_map(|item| read(item, diagnostics)).collect()),
        Kind::Null => Some(Vec::new()),
        _ => wrong_type_with(node, "a list", foreign::list_help(node), diagnostics),
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
pub(crate) fn distinct<'n, T: PartialEq + Display>(
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
    wrong_type_with(node, expected, None, diagnostics)
}

/// Like [`wrong_type`], with the fix.
pub(super) fn wrong_type_with<T>(
    node: &Node,
    expected: &str,
    help: Option<String>,
    diagnostics: &mut Diagnostics,
) -> Option<T> {
    let message = format!("expected {expected}, found {}", describe(node));
    match help {
        Some(help) => diagnostics.add_with_help(Code::Type, &node.location, message, help),
        None => diagnostics.add(Code::Type, &node.location, message),
    }
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
