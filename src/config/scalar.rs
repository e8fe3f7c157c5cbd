//! Readers of single values; see [`super::decode`] for the conventions.
//!
//! Environment variables are text, so numbers and booleans are parsed from text there. In files, quoted
//! numbers and booleans are errors.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::decode::{describe, wrong_type, wrong_type_with};
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
        _ => wrong_type_with(node, "true or false", flag_help(node), diagnostics),
    }
}

/// The fix for a boolean of YAML 1.1, or a quoted one.
fn flag_help(node: &Node) -> Option<String> {
    let text = match &node.kind {
        Kind::Text(text) => text.to_lowercase(),
        Kind::Int(number) => number.to_string(),
        _ => return None,
    };
    let word = match text.as_str() {
        "yes" | "on" | "y" | "true" | "1" | "enabled" => "true",
        "no" | "off" | "n" | "false" | "0" | "disabled" => "false",
        _ => return None,
    };
    Some(format!("use `{word}`, without quotes"))
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
            return wrong_type_with(node, "a whole number", number_help(node), diagnostics);
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

/// The fix for a number in another form.
fn number_help(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => {
            Some(format!("use `{number:.0}`"))
        }
        Kind::Float(number) if (0.0..1.0).contains(number) => {
            Some(format!("for a share, use `by_percent: {:.0}`", number * 100.0))
        }
        Kind::Text(text) => {
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let percent = text.trim().strip_suffix('%').map(str::trim_end).filter(|text| digits(text));
            if let Some(percent) = percent {
                return Some(format!("use `by_percent: {percent}`, without the percent sign"));
            }
            let plain = text.trim().trim_start_matches('+').replace(['_', ','], "");
            if digits(&plain) {
                return Some(format!(
                    "use `{}`",
                    plain.trim_start_matches('0').parse::<u64>().unwrap_or_default()
                ));
            }
            text.contains("{{").then(|| {
                "templates are possible in `target`, `parameters` and `metric` only; for an amount that depends on the \
                 alert, use `metric` with `steps`"
                    .to_owned()
            })
        }
        _ => None,
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
        .map_err(|error| match duration_help(&text) {
            Some(help) => diagnostics.add_with_help(Code::Value, &node.location, error.to_string(), help),
            None => diagnostics.add(Code::Value, &node.location, error.to_string()),
        })
        .ok()
}

/// The fix for a duration in another form: a number of seconds, `1.5h`, `5 minutes`, `PT5M`.
fn duration_help(text: &str) -> Option<String> {
    let lower = text.trim().to_lowercase();
    let lower = lower.strip_prefix("pt").or_else(|| lower.strip_prefix('p')).unwrap_or(&lower);
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let number: f64 = lower[..digits].parse().ok()?;
    let unit = match lower[digits..].trim() {
        "" | "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86400.0,
        "ms" | "millis" | "milliseconds" => 0.001,
        "w" | "week" | "weeks" => 604_800.0,
        _ => return None,
    };
    let duration =
        Duration::try_from_secs_f64(number * unit).ok().filter(|it| *it <= durations::MAX_DURATION)?;
    Some(format!("use `{}`", durations::format(duration)))
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
