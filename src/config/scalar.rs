//! Readers of single values; see [`super::decode`] for the conventions.
//!
//! Environment variables are text, so numbers and booleans are parsed from text there. In files, quoted
//! numbers and booleans are errors.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::decode::{describe, wrong_type};
use super::diagnostic::{Code, Diagnostics, Location};
use super::suggest::did_you_mean;
use super::yaml::{Kind, Node};
use crate::domain::duration as durations;

/// Reads a text, which may be empty.
pub(super) fn any_text<'n>(node: &'n Node, diagnostics: &mut Diagnostics) -> Option<&'n str> {
    match &node.kind {
        Kind::Text(text) => Some(text),
        Kind::Int(_) | Kind::Float(_) | Kind::Bool(_) => {
            let message = format!("expected text, found {}", describe(node));
            diagnostics.add_with_help(Code::Type, &node.location, message, "quote it");
            None
        }
        _ => wrong_type(node, "text", diagnostics),
    }
}

/// Reads a text that is not blank.
pub(crate) fn text<'n>(node: &'n Node, diagnostics: &mut Diagnostics) -> Option<&'n str> {
    let text = any_text(node, diagnostics)?;
    if text.trim().is_empty() {
        diagnostics.add(Code::Range, &node.location, "text must not be empty");
        return None;
    }
    Some(text)
}

/// Like [`text`], but returns an owned string.
pub(crate) fn owned_text(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    text(node, diagnostics).map(ToOwned::to_owned)
}

/// Reads a boolean; in the environment from text.
pub(crate) fn flag(node: &Node, diagnostics: &mut Diagnostics) -> Option<bool> {
    match &node.kind {
        Kind::Bool(flag) => Some(*flag),
        Kind::Text(text) if is_from_environment(node) && text == "true" => Some(true),
        Kind::Text(text) if is_from_environment(node) && text == "false" => Some(false),
        _ => wrong_type(node, "true or false", diagnostics),
    }
}

/// Reads an integer in `range`; in the environment from text.
pub(crate) fn number<T: TryFrom<i64>>(
    range: RangeInclusive<i64>,
) -> impl Fn(&Node, &mut Diagnostics) -> Option<T> {
    move |node, diagnostics| {
        if matches!(&node.kind, Kind::Text(text) if !is_from_environment(node) && text.parse::<i64>().is_ok())
        {
            let message = format!("expected a whole number, found {}", describe(node));
            diagnostics.add_with_help(Code::Type, &node.location, message, "remove the quotes");
            return None;
        }
        let number = match &node.kind {
            Kind::Int(number) => Some(*number),
            Kind::Text(text) if is_from_environment(node) => text.parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            return wrong_type(node, "a whole number", diagnostics);
        };
        let in_range = range.contains(&number).then(|| T::try_from(number).ok()).flatten();
        if in_range.is_none() {
            let bounds = match (range.start(), range.end()) {
                (only, max) if only == max => only.to_string(),
                (min, &i64::MAX) => format!("at least {min}"),
                (min, max) => format!("between {min} and {max}"),
            };
            diagnostics.add(
                Code::Range,
                &node.location,
                format!("{number} is out of range: it must be {bounds}"),
            );
        }
        in_range
    }
}

/// Reads a finite number.
pub(super) fn float(node: &Node, diagnostics: &mut Diagnostics) -> Option<f64> {
    match node.kind {
        Kind::Int(number) => Some(number as f64),
        Kind::Float(number) => Some(number),
        _ => wrong_type(node, "a number", diagnostics),
    }
}

/// Reads a duration in Prometheus' format.
pub(super) fn duration(node: &Node, diagnostics: &mut Diagnostics) -> Option<Duration> {
    let text = match &node.kind {
        Kind::Text(text) => text.clone(),
        Kind::Int(number) => number.to_string(),
        _ => return wrong_type(node, "a duration such as 90s or 1h30m", diagnostics),
    };
    durations::parse(&text)
        .map_err(|error| diagnostics.add(Code::Value, &node.location, error.to_string()))
        .ok()
}

/// Reads a duration, or `off`, which is zero.
pub(super) fn duration_or_off(node: &Node, diagnostics: &mut Diagnostics) -> Option<Duration> {
    match &node.kind {
        Kind::Text(text) if text == "off" => Some(Duration::ZERO),
        _ => duration(node, diagnostics),
    }
}

/// Reads a duration greater than zero.
pub(super) fn positive_duration(node: &Node, diagnostics: &mut Diagnostics) -> Option<Duration> {
    let time = duration(node, diagnostics)?;
    if time.is_zero() {
        diagnostics.add(Code::Range, &node.location, "duration must be greater than zero");
        return None;
    }
    Some(time)
}

/// Reads a listen address.
pub(super) fn address(node: &Node, diagnostics: &mut Diagnostics) -> Option<SocketAddr> {
    let address = match &node.kind {
        Kind::Text(text) => text.parse().ok(),
        _ => None,
    };
    if address.is_none() {
        let message = format!("expected a listen address, found {}", describe(node));
        let help = "use an IP address and a port, for example \"127.0.0.1:9096\" or \"[::1]:9096\"";
        diagnostics.add_with_help(Code::Value, &node.location, message, help);
    }
    address
}

/// Reads one of a set of keywords.
pub(crate) fn keyword<T: Copy>(words: &[(&str, T)]) -> impl Fn(&Node, &mut Diagnostics) -> Option<T> {
    move |node, diagnostics| {
        let text = any_text(node, diagnostics)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let message = format!("invalid value `{text}`");
            diagnostics.add_with_help(Code::Value, &node.location, message, did_you_mean(text, &known));
        }
        found
    }
}

fn is_from_environment(node: &Node) -> bool {
    matches!(node.location, Location::Env(_))
}
