//! Small readers of a tree. Each adds what it finds wrong and never stops the others.
//!
//! A reader gives `None` for what is faulty, and the fault is in the diagnostics by then. So whoever
//! gets a `None` goes on with what it has, and says nothing.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::diagnostic::{Code, Diagnostics, Place};
use super::unsupported;
use super::yaml::{Key, Kind, Node};
use crate::domain::duration as durations;
use crate::domain::name::Name;

/// A value that is looked at again in the pass of meaning.
#[derive(Debug, Clone)]
pub(super) struct Spot<T> {
    pub value: T,
    pub place: Place,
}

/// A map that is being read, key by key.
pub(super) struct Fields<'n, 'f> {
    at: &'static str,
    place: &'n Place,
    entries: &'n [(Key, Node)],
    known: Vec<&'static str>,
    pub faults: &'f mut Diagnostics,
}

impl<'n, 'f> Fields<'n, 'f> {
    /// `at` is the map's name in [`unsupported`]'s list. A map of which all keys are commented out is
    /// empty to YAML, and so it is here.
    pub fn of(node: &'n Node, at: &'static str, faults: &'f mut Diagnostics) -> Option<Self> {
        let entries = entries(node, faults)?;
        Some(Self { at, place: &node.place, entries, known: Vec::new(), faults })
    }

    /// The value of `key`, which is known from now on. What this version refuses is not given out.
    pub fn take(&mut self, key: &'static str) -> Option<&'n Node> {
        self.known.push(key);
        let (_, node) = self.entries.iter().find(|(known, _)| known.name == key)?;
        unsupported::refuses(self.at, key, node).is_none().then_some(node)
    }

    /// Reads an optional key.
    pub fn get<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'n Node, &mut Diagnostics) -> Option<T>,
    ) -> Option<T> {
        let node = self.take(key)?;
        read(node, self.faults)
    }

    /// Reads a key that has to be there.
    pub fn need<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&'n Node, &mut Diagnostics) -> Option<T>,
    ) -> Option<T> {
        let found = self.get(key, read);
        if !self.has(key) {
            self.faults.help(
                Code::Missing,
                self.place,
                format!("`{key}` is missing"),
                format!("add `{example}`"),
            );
        }
        found
    }

    /// The one of `keys` that is there.
    pub fn one_of(&mut self, keys: &'static [&'static str], help: &str) -> Option<(&'static str, &'n Node)> {
        let mut found = None;
        let given: Vec<&str> = keys.iter().copied().filter(|key| self.has(key)).collect();
        for key in keys {
            found = found.or(self.take(key).map(|node| (*key, node)));
        }
        match given[..] {
            [_] => found,
            [] => {
                let message = format!("one of {} is missing", quoted(keys));
                self.faults.help(Code::ExactlyOne, self.place, message, help);
                None
            }
            [_, second, ..] => {
                let message = format!("{} exclude each other", quoted(&given));
                self.faults.help(Code::ExactlyOne, self.key_place(second), message, "keep one of them");
                None
            }
        }
    }

    /// Whether the key is there, whatever its value.
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(known, _)| known.name == key)
    }

    /// Where the value of `key` stands, or the map if it does not have it.
    pub fn place_of(&self, key: &str) -> &'n Place {
        self.entries.iter().find(|(known, _)| known.name == key).map_or(self.place, |(_, node)| &node.place)
    }

    fn key_place(&self, key: &str) -> &'n Place {
        self.entries.iter().find(|(known, _)| known.name == key).map_or(self.place, |(key, _)| &key.place)
    }

    /// Where the map stands.
    pub fn place(&self) -> &'n Place {
        self.place
    }

    /// Says which keys are not known, and which are not supported.
    pub fn finish(self) {
        let Self { at, entries, mut known, faults, .. } = self;
        known.extend(unsupported::keys(at));
        for (key, value) in entries {
            if let Some(line) = unsupported::refuses(at, &key.name, value) {
                line.report(&key.place, value, faults);
            } else if !known.contains(&key.name.as_str()) {
                let message = format!("there is no key `{}` here", key.name);
                faults.help(Code::UnknownKey, &key.place, message, did_you_mean(&key.name, &known));
            }
        }
    }
}

/// The entries of a map whose keys are the user's own.
pub(super) fn entries<'n>(node: &'n Node, faults: &mut Diagnostics) -> Option<&'n [(Key, Node)]> {
    match &node.kind {
        Kind::Map(entries) => Some(entries),
        Kind::Null => Some(&[]),
        _ => wrong_type(node, "a map", faults),
    }
}

/// The entries of a map whose keys are names.
pub(super) fn named<'n>(node: &'n Node, faults: &mut Diagnostics) -> Vec<(Spot<Name>, &'n Node)> {
    let entries = entries(node, faults).unwrap_or_default();
    let mut named = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        match Name::new(&key.name) {
            Ok(name) => named.push((Spot { value: name, place: key.place.clone() }, value)),
            Err(error) => faults.add(Code::Value, &key.place, error.to_string()),
        }
    }
    named
}

/// Reads each item of a list; the faulty ones are left out. Nothing at all is an empty list.
pub(super) fn list<'n, T>(
    read: impl Fn(&'n Node, &mut Diagnostics) -> Option<T>,
) -> impl Fn(&'n Node, &mut Diagnostics) -> Option<Vec<T>> {
    move |node, faults| match &node.kind {
        Kind::List(items) => Some(items.iter().filter_map(|item| read(item, faults)).collect()),
        Kind::Null => Some(Vec::new()),
        _ => wrong_type(node, "a list", faults),
    }
}

/// A list of names, none of them twice.
pub(super) fn names(node: &Node, faults: &mut Diagnostics) -> Option<Vec<Spot<Name>>> {
    let mut names: Vec<Spot<Name>> = Vec::new();
    for one in list(spot(name))(node, faults)? {
        if names.iter().any(|known| known.value == one.value) {
            let message = format!("`{}` is listed twice", one.value);
            faults.add(Code::DuplicateName, &one.place, message);
        } else {
            names.push(one);
        }
    }
    Some(names)
}

/// Keeps the place of what `read` gives.
pub(super) fn spot<'n, T>(
    read: impl Fn(&'n Node, &mut Diagnostics) -> Option<T>,
) -> impl Fn(&'n Node, &mut Diagnostics) -> Option<Spot<T>> {
    move |node, faults| read(node, faults).map(|value| Spot { value, place: node.place.clone() })
}

/// Any text.
pub(super) fn any_text<'n>(node: &'n Node, faults: &mut Diagnostics) -> Option<&'n str> {
    match &node.kind {
        Kind::Text(text) => Some(text),
        Kind::Int(_) | Kind::Float(_) | Kind::Bool(_) => {
            let message = format!("expected text, found {}", found(node));
            faults.help(Code::Type, &node.place, message, "put it in quotes");
            None
        }
        _ => wrong_type(node, "text", faults),
    }
}

/// Text that says something.
pub(super) fn text<'n>(node: &'n Node, faults: &mut Diagnostics) -> Option<&'n str> {
    let text = any_text(node, faults)?;
    if text.trim().is_empty() {
        faults.add(Code::Range, &node.place, "this text must not be empty");
        return None;
    }
    Some(text)
}

/// [`text`] of one's own.
pub(super) fn owned(node: &Node, faults: &mut Diagnostics) -> Option<String> {
    text(node, faults).map(ToOwned::to_owned)
}

/// `true` or `false`, which the environment says as text.
pub(super) fn flag(node: &Node, faults: &mut Diagnostics) -> Option<bool> {
    match &node.kind {
        Kind::Bool(flag) => Some(*flag),
        Kind::Text(text) if from_environment(node) && text == "true" => Some(true),
        Kind::Text(text) if from_environment(node) && text == "false" => Some(false),
        _ => wrong_type(node, "true or false", faults),
    }
}

/// A whole number inside `range`, which the environment says as text.
pub(super) fn number<T: TryFrom<i64>>(
    range: RangeInclusive<i64>,
) -> impl Fn(&Node, &mut Diagnostics) -> Option<T> {
    move |node, faults| {
        let number = match &node.kind {
            Kind::Int(number) => Some(*number),
            Kind::Text(text) if from_environment(node) => text.parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            return wrong_type(node, "a whole number", faults);
        };
        let fits = range.contains(&number).then(|| T::try_from(number).ok()).flatten();
        if fits.is_none() {
            let bounds = match (range.start(), range.end()) {
                (least, &i64::MAX) => format!("at least {least}"),
                (least, most) => format!("between {least} and {most}"),
            };
            faults.add(Code::Range, &node.place, format!("{number} is out of range: it has to be {bounds}"));
        }
        fits
    }
}

/// Any finite number.
pub(super) fn float(node: &Node, faults: &mut Diagnostics) -> Option<f64> {
    match node.kind {
        Kind::Int(number) => Some(number as f64),
        Kind::Float(number) => Some(number),
        _ => wrong_type(node, "a number", faults),
    }
}

/// A Prometheus duration.
pub(super) fn duration(node: &Node, faults: &mut Diagnostics) -> Option<Duration> {
    let text = match &node.kind {
        Kind::Text(text) => text.clone(),
        Kind::Int(number) => number.to_string(),
        _ => return wrong_type(node, "a duration such as 90s or 1h30m", faults),
    };
    durations::parse(&text).map_err(|error| faults.add(Code::Value, &node.place, error.to_string())).ok()
}

/// A duration above zero.
pub(super) fn time(node: &Node, faults: &mut Diagnostics) -> Option<Duration> {
    let time = duration(node, faults)?;
    if time.is_zero() {
        faults.add(Code::Range, &node.place, "this duration has to be above zero");
        return None;
    }
    Some(time)
}

/// An address to listen on.
pub(super) fn address(node: &Node, faults: &mut Diagnostics) -> Option<SocketAddr> {
    let text = text(node, faults)?;
    let fault = |_| {
        faults.help(
            Code::Value,
            &node.place,
            format!("`{text}` is not an address to listen on"),
            "write an IP address and a port, for example \"127.0.0.1:9096\" or \"[::1]:9096\"",
        );
    };
    text.parse().map_err(fault).ok()
}

/// A name of a source, a destination or a rule.
pub(super) fn name(node: &Node, faults: &mut Diagnostics) -> Option<Name> {
    let text = any_text(node, faults)?;
    Name::new(text).map_err(|error| faults.add(Code::Value, &node.place, error.to_string())).ok()
}

/// One of a few words.
pub(super) fn word<T: Copy>(words: &[(&str, T)]) -> impl Fn(&Node, &mut Diagnostics) -> Option<T> {
    move |node, faults| {
        let text = any_text(node, faults)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let message = format!("`{text}` is not one of the words that can stand here");
            faults.help(Code::Value, &node.place, message, did_you_mean(text, &known));
        }
        found
    }
}

/// Says that `node` is something else than `expected`.
pub(super) fn wrong_type<T>(node: &Node, expected: &str, faults: &mut Diagnostics) -> Option<T> {
    faults.add(Code::Type, &node.place, format!("expected {expected}, found {}", found(node)));
    None
}

/// "did you mean" the nearest of `known`, or all of them.
pub(super) fn did_you_mean(text: &str, known: &[&str]) -> String {
    match (nearest(&text.to_lowercase(), known.iter().copied()), known) {
        (Some(word), _) => format!("did you mean `{word}`?"),
        (None, []) => "leave it out".to_owned(),
        (None, _) => format!("known here: {}", known.join(", ")),
    }
}

/// The one of `known` that `text` is most likely a slip of.
pub(super) fn nearest<'k>(text: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let typed: String = text.chars().take(128).collect();
    known
        .map(|word| (strsim::damerau_levenshtein(&typed, word), word))
        .filter(|(distance, word)| *distance <= word.len().max(typed.len()) / 3)
        .min()
        .map(|(_, word)| word)
}

fn from_environment(node: &Node) -> bool {
    matches!(node.place, Place::Env(_))
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn found(node: &Node) -> String {
    match &node.kind {
        Kind::Null => "nothing".to_owned(),
        Kind::Bool(flag) => flag.to_string(),
        Kind::Int(number) => format!("the number {number}"),
        Kind::Float(number) => format!("the number {number}"),
        Kind::Text(text) => format!("the text `{}`", text.chars().take(60).collect::<String>()),
        Kind::List(_) => "a list".to_owned(),
        Kind::Map(_) => "a map".to_owned(),
    }
}
