//! Readers of single values, as those of [`super::decode`].
//!
//! The environment says everything as text, so numbers and flags are read from text there. A file can
//! say what it means, so there they are not.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::decode::{found, wrong_type};
use super::diagnostic::{Code, Diagnostics, Place};
use super::slip::did_you_mean;
use super::yaml::{Kind, Node};
use crate::domain::duration as durations;
use crate::domain::name::Name;

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
        if matches!(&node.kind, Kind::Text(text) if !from_environment(node) && text.parse::<i64>().is_ok()) {
            let message = format!("expected a whole number, found {}", found(node));
            faults.help(Code::Type, &node.place, message, "write it without quotes");
            return None;
        }
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
                (only, most) if only == most => only.to_string(),
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
    let address = match &node.kind {
        Kind::Text(text) => text.parse().ok(),
        _ => None,
    };
    if address.is_none() {
        let message = format!("expected an address to listen on, found {}", found(node));
        let help = "write an IP address and a port, for example \"127.0.0.1:9096\" or \"[::1]:9096\"";
        faults.help(Code::Value, &node.place, message, help);
    }
    address
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

fn from_environment(node: &Node) -> bool {
    matches!(node.place, Place::Env(_))
}
