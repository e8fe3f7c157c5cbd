//! Parses YAML into a tree with the location of each key and value.
//!
//! This is the only module that uses `serde-saphyr`. It does not interpret keys and reports only errors of
//! YAML itself: invalid syntax, duplicate keys, and documents that expand beyond the parser's budget.

mod syntax;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{
    DuplicateKeyPolicy, Location as YamlLocation, MessageFormatter, Spanned, UserMessageFormatter,
};

use super::diagnostic::{Code, Diagnostics, Location};

/// A value and its location.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub location: Location,
    pub kind: Kind,
}

/// The type and content of a value. Quoted scalars are always [`Kind::Text`]; plain ones are typed as in the
/// core schema of YAML 1.2: only `true`, `false`, `null` and numbers are not text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In document order, without duplicate keys.
    Map(Vec<(Key, Node)>),
}

/// A key of a map and its location.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    pub name: String,
    pub location: Location,
}

impl Node {
    /// The value of `key`, if this is a map that contains it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|(known, _)| known.name == key).map(|(_, node)| node),
            _ => None,
        }
    }
}

impl Node {
    /// Whether `test` holds at the location of this value, or of a key or value within it.
    pub(super) fn any(&self, test: &mut impl FnMut(&Location) -> bool) -> bool {
        test(&self.location)
            || match &self.kind {
                Kind::List(items) => items.iter().any(|item| item.any(test)),
                Kind::Map(entries) => entries.iter().any(|(key, node)| test(&key.location) || node.any(test)),
                _ => false,
            }
    }
}

impl From<&Node> for serde_json::Value {
    fn from(node: &Node) -> Self {
        match &node.kind {
            Kind::Null => Self::Null,
            Kind::Bool(flag) => Self::from(*flag),
            Kind::Int(number) => Self::from(*number),
            Kind::Float(number) => Self::from(*number),
            Kind::Text(text) => Self::from(text.as_str()),
            Kind::List(items) => items.iter().map(Self::from).collect(),
            Kind::Map(entries) => {
                entries.iter().map(|(key, node)| (key.name.clone(), Self::from(node))).collect()
            }
        }
    }
}

/// Parses the single document in `text`. After a syntax error there is no tree; duplicate keys are reported
/// and the first one is used.
pub(super) fn parse(text: &str, origin: &Origin, diagnostics: &mut Diagnostics) -> Option<Node> {
    parse_as(text, Scalars::Typed, origin, diagnostics)
}

/// Parses the first document in `text`, as Go's parser does. Plain scalars but null are text as they are written, since
/// what `no`, `0x1` and `1_0` are depends on the version of YAML and on the type that the reader wants.
pub(super) fn parse_untyped(text: &str, origin: &Origin, diagnostics: &mut Diagnostics) -> Option<Node> {
    parse_as(first_document(text), Scalars::AsWritten, origin, diagnostics)
}

/// What plain scalars are.
#[derive(Clone, Copy)]
enum Scalars {
    Typed,
    AsWritten,
}

/// The text before the second document.
fn first_document(text: &str) -> &str {
    let is_marker = |line: &str, marker: &str| {
        line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
    };
    let (mut at, mut has_begun) = (0, false);
    for line in text.split_inclusive('\n') {
        let is_start = is_marker(line, "---");
        if has_begun && (is_start || is_marker(line, "...")) {
            return &text[..at];
        }
        let is_content =
            !line.trim_start_matches('\u{feff}').trim().is_empty() && !line.starts_with(['#', '%']);
        has_begun |= is_content && !line.trim_start().starts_with('#');
        at += line.len();
    }
    text
}

fn parse_as(text: &str, scalars: Scalars, origin: &Origin, diagnostics: &mut Diagnostics) -> Option<Node> {
    let mut options = serde_saphyr::Options::default();
    // Duplicate keys are reported below, all of them.
    options.duplicate_keys = DuplicateKeyPolicy::PassThrough;
    // `yes`, `0755`, `1_000` and `.inf` are text: their meaning differs between YAML versions.
    options.strict_booleans = true;
    options.leading_zero_numbers_as_strings = true;
    options.underscored_numbers_as_strings = true;
    options.non_finite_float_policy = serde_saphyr::NonFiniteFloatPolicy::AsString;
    options.reject_unsupported_tags = true;
    options.with_snippet = false;
    // Nothing reads them, and a file with 33 lines of them in a row would be refused.
    options.emit_comments = false;
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(mut raw) => {
            if matches!(scalars, Scalars::AsWritten) {
                as_written(&mut raw, text);
            }
            Some(origin.node(raw, diagnostics))
        }
        Err(serde_saphyr::Error::Eof { .. }) => {
            Some(Node { location: origin.location(YamlLocation::UNKNOWN), kind: Kind::Null })
        }
        Err(error) => {
            let at = error.location().unwrap_or(YamlLocation::UNKNOWN);
            let message = UserMessageFormatter.format_message(error.without_snippet()).into_owned();
            origin.report_syntax(text, at, &message, diagnostics);
            None
        }
    }
}

/// The origin of a document.
pub(super) enum Origin {
    File(Arc<Path>),
    Defaults,
}

impl Origin {
    fn location(&self, location: YamlLocation) -> Location {
        let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).max(1);
        match self {
            Self::File(file) => {
                let (line, column) = (number(location.line()), number(location.column()));
                Location::File { file: file.clone(), line, column }
            }
            Self::Defaults => Location::Default,
        }
    }

    /// Reports a syntax error, where its cause is known at that place and with its fix.
    fn report_syntax(&self, text: &str, at: YamlLocation, message: &str, diagnostics: &mut Diagnostics) {
        let mut location = self.location(at);
        let Location::File { line, column, .. } = &mut location else {
            return diagnostics.add(Code::Syntax, &location, format!("invalid YAML: {message}"));
        };
        let Some(cause) = syntax::cause(text, (*line as usize, *column as usize), message) else {
            return diagnostics.add(Code::Syntax, &location, format!("invalid YAML: {message}"));
        };
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        (*line, *column) = (number(cause.at.0), number(cause.at.1));
        let message = cause.message.unwrap_or_else(|| message.to_owned());
        diagnostics.add_with_help(Code::Syntax, &location, format!("invalid YAML: {message}"), cause.help);
    }

    /// The recursion depth is bounded by the parser's budget.
    fn node(&self, raw: Spanned<Raw>, diagnostics: &mut Diagnostics) -> Node {
        let kind = match raw.value {
            Raw::Scalar(kind) => kind,
            Raw::List(items) => {
                Kind::List(items.into_iter().map(|item| self.node(item, diagnostics)).collect())
            }
            Raw::Map(entries) => Kind::Map(self.entries(entries, diagnostics)),
        };
        Node { location: self.location(raw.referenced), kind }
    }

    fn entries(
        &self,
        raw: Vec<(Spanned<String>, Spanned<Raw>)>,
        diagnostics: &mut Diagnostics,
    ) -> Vec<(Key, Node)> {
        let mut known = std::collections::HashMap::new();
        let mut entries: Vec<(Key, Node)> = Vec::with_capacity(raw.len());
        for (key, value) in raw {
            let key = Key { name: key.value, location: self.location(key.referenced) };
            let value = self.node(value, diagnostics);
            match known.get(&key.name) {
                None => {
                    known.insert(key.name.clone(), key.location.clone());
                    entries.push((key, value));
                }
                Some(first) => diagnostics.add_with_help(
                    Code::DuplicateKey,
                    &key.location,
                    format!("duplicate key `{}`", key.name),
                    format!("first defined at {first}; keep only one of them"),
                ),
            }
        }
        entries
    }
}

/// Replaces booleans and numbers by their text.
fn as_written(raw: &mut Spanned<Raw>, text: &str) {
    let span = raw.defined.span();
    match &mut raw.value {
        Raw::List(items) => items.iter_mut().for_each(|item| as_written(item, text)),
        Raw::Map(entries) => entries.iter_mut().for_each(|(_, value)| as_written(value, text)),
        Raw::Scalar(kind @ (Kind::Bool(_) | Kind::Int(_) | Kind::Float(_))) => {
            let range = span.byte_offset().zip(span.byte_len());
            let written = range.and_then(|(start, len)| text.get(start as usize..(start + len) as usize));
            if let Some(written) = written {
                *kind = Kind::Text(written.trim().to_owned());
            }
        }
        Raw::Scalar(_) => {}
    }
}

/// A value as deserialized.
enum Raw {
    Scalar(Kind),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Null))
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Int(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        // A value above `i64::MAX` is out of range for every setting, so a float is precise enough.
        Ok(Raw::Scalar(i64::try_from(value).map_or(Kind::Float(value as f64), Kind::Int)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Text(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

#[cfg(test)]
mod tests;
