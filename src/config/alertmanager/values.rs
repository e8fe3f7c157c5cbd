//! Values of Alertmanager's configuration, as Go reads them: scalars are text as they are written.

use std::time::Duration;

use crate::config::decode::wrong_type;
use crate::config::diagnostic::{Code, Diagnostics};
use crate::config::yaml::{Kind, Node};

/// The units of Go's durations in nanoseconds; a longer name comes before its beginning.
const GO_UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// The items of a list; none if it is something else.
pub(super) fn items(node: Option<&Node>) -> &[Node] {
    match node.map(|node| &node.kind) {
        Some(Kind::List(items)) => items,
        _ => &[],
    }
}

/// The text of a scalar.
pub(super) fn text(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Text(text) => Some(text),
        _ => None,
    }
}

/// The text at `key`, if it is not empty.
pub(super) fn text_of<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    node.get(key).and_then(text).filter(|text| !text.is_empty())
}

/// Reads a boolean of YAML 1.1. Null is false.
pub(super) fn flag(node: &Node, diagnostics: &mut Diagnostics) -> Option<bool> {
    let text = match &node.kind {
        Kind::Null => return Some(false),
        Kind::Text(text) => text.as_str(),
        _ => return wrong_type(node, "true or false", diagnostics),
    };
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
        _ => wrong_type(node, "true or false", diagnostics),
    }
}

/// Reads a whole number, also with another base.
pub(super) fn count(node: &Node, diagnostics: &mut Diagnostics) -> Option<u64> {
    let text = match &node.kind {
        Kind::Null => return Some(0),
        Kind::Text(text) => text.replace('_', ""),
        _ => return wrong_type(node, "a whole number", diagnostics),
    };
    let radix = |prefix: &str, radix| u64::from_str_radix(text.strip_prefix(prefix)?, radix).ok();
    let number = text.parse().ok().or_else(|| radix("0x", 16)).or_else(|| radix("0b", 2));
    let number = number.or_else(|| radix("0o", 8));
    number.or_else(|| wrong_type(node, "a whole number", diagnostics))
}

/// Reads a duration of Go, such as `1.5h` or `1m30s`; zero if it is negative. A number without a unit is nanoseconds.
pub(super) fn go_duration(node: &Node, diagnostics: &mut Diagnostics) -> Option<Duration> {
    let written = match &node.kind {
        Kind::Null => return Some(Duration::ZERO),
        Kind::Text(text) => text,
        _ => return wrong_type(node, "a duration such as 10s", diagnostics),
    };
    let parsed = match written.parse::<i64>() {
        Ok(nanos) => Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))),
        Err(_) => parse_go_duration(written),
    };
    if parsed.is_none() {
        let message = format!("`{written}` is not a duration: write it as Go does, for example 10s or 1m30s");
        diagnostics.add(Code::Value, &node.location, message);
    }
    parsed
}

fn parse_go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim_start_matches(['-', '+']);
    if text.len() - rest.len() > 1 || rest.is_empty() {
        return None;
    }
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let (name, size) = GO_UNITS.iter().find(|(name, _)| rest[end..].starts_with(name))?;
        nanos += number * size;
        rest = &rest[end + name.len()..];
    }
    Duration::try_from_secs_f64(if text.starts_with('-') { 0.0 } else { nanos / 1e9 }).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::diagnostic::Location;

    fn read<T>(text: &str, reader: impl Fn(&Node, &mut Diagnostics) -> Option<T>) -> Option<T> {
        let location = Location::File { file: Path::new("a.yml").into(), line: 1, column: 1 };
        let mut diagnostics = Diagnostics::default();
        let value = reader(&Node { location, kind: Kind::Text(text.to_owned()) }, &mut diagnostics);
        assert_eq!(value.is_none(), diagnostics.has_errors(), "{text}");
        value
    }

    #[test]
    fn values_are_those_of_go() {
        assert_eq!(
            ["no", "Off", "yes", "on", "True"].map(|text| read(text, flag)),
            [Some(false), Some(false), Some(true), Some(true), Some(true)]
        );
        assert_eq!(["nO", "0", "maybe"].map(|text| read(text, flag)), [None; 3]);
        assert_eq!(["0", "12", "0x10", "1_000"].map(|text| read(text, count)), [0, 12, 16, 1000].map(Some));
        assert_eq!(["-1", "all", ""].map(|text| read(text, count)), [None; 3]);
        let millis = |text| read(text, go_duration).map(|duration| duration.as_millis());
        let read = ["1.5h", "1m30s", "500ms", "0", "-5s", "+1m", ".5s"].map(millis);
        assert_eq!(read, [5_400_000, 90_000, 500, 0, 0, 60_000, 500].map(Some));
        assert_eq!(
            ["1d", "5 minutes", "s", "", "1", "1.2.3s", "--1s"].map(millis),
            [None, None, None, None, Some(0), None, None]
        );
    }
}
