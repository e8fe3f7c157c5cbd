//! Reader of matcher lists: those of rules and of heartbeats.

use super::decode::{list, wrong_type_with};
use super::diagnostic::{Code, Diagnostics};
use super::foreign;
use super::scalar::text;
use super::yaml::{Kind, Node};
use crate::domain::matcher::Matcher;

/// Reads a list of matchers, which may be empty. `example` is an alert name for the help text.
pub(super) fn matchers(example: &str) -> impl Fn(&Node, &mut Diagnostics) -> Option<Vec<Matcher>> {
    move |node, diagnostics| {
        let one = |node: &Node, diagnostics: &mut Diagnostics| {
            if matches!(node.kind, Kind::Map(_)) {
                let help = foreign::matchers_help(node, true);
                diagnostics.add_with_help(Code::Type, &node.location, "expected text, found a map", help);
                return None;
            }
            let text = text(node, diagnostics)?;
            let parsed = Matcher::parse_list(text);
            parsed.iter().flatten().for_each(|matcher| warn_about_pattern(matcher, node, diagnostics));
            parsed
                .map_err(|error| match help(text) {
                    Some(help) => {
                        diagnostics.add_with_help(Code::Matcher, &node.location, error.to_string(), help);
                    }
                    None => diagnostics.add(Code::Matcher, &node.location, error.to_string()),
                })
                .ok()
        };
        match &node.kind {
            Kind::Text(_) => {
                let expected = format!("a list such as [alertname = {example}]");
                wrong_type_with(node, &expected, foreign::list_help(node), diagnostics)
            }
            Kind::Map(_) => {
                wrong_type_with(node, "a list", Some(foreign::matchers_help(node, false)), diagnostics)
            }
            _ => Some(list(one)(node, diagnostics)?.into_iter().flatten().collect()),
        }
    }
}

/// The fix for a matcher in the syntax of another language: `alertname: X`, `alertname == X`, `alertname in (A, B)`.
fn help(text: &str) -> Option<String> {
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    let valid = |matcher: String| Matcher::parse_list(&matcher).is_ok().then(|| format!("use `{matcher}`"));
    if let Some((name, value)) = text.split_once(':')
        && is_name(name.trim())
    {
        return valid(format!("{} = {}", name.trim(), value.trim()));
    }
    if let Some((name, values)) = text.split_once(" in ")
        && is_name(name.trim())
    {
        let values = values.trim().trim_matches(['(', ')', '[', ']']);
        let words: Vec<&str> = values.split(',').map(|word| word.trim().trim_matches(['"', '\''])).collect();
        return valid(format!("{} =~ \"{}\"", name.trim(), words.join("|")));
    }
    if let Some((metric, selector)) = text.split_once('{')
        && is_name(metric.trim())
        && let Some(fix) = valid(format!("{{{selector}"))
    {
        return Some(format!("matchers compare labels of alerts, and a metric is not one: {fix}"));
    }
    if ["(?!", "(?=", "(?<"].iter().any(|group| text.contains(group)) {
        return Some("use two matchers, one with `=~` and one with `!~`: all of them must hold".to_owned());
    }
    if is_name(text.trim()) && text.trim().starts_with(char::is_uppercase) {
        return valid(format!("alertname = {}", text.trim()));
    }
    if is_name(text.trim()) {
        return Some(format!(
            "compare the label with a value: `{} = VALUE`, or `!= \"\"` if any is accepted",
            text.trim()
        ));
    }
    if let Some(name) = text.trim().strip_prefix('!')
        && is_name(name)
    {
        return valid(format!("{name} = \"\""));
    }
    if text.contains(" - ") {
        return Some("write each matcher on a line of its own, with the dashes in one column".to_owned());
    }
    if text.matches('"').count() == 1
        && let Some((at, operator)) = ["=~", "!~", "!=", "="].iter().find_map(|it| Some((text.find(it)?, it)))
    {
        let value = text[at + operator.len()..].trim().trim_matches('"');
        return valid(format!("{} {operator} \"{value}\"", text[..at].trim()));
    }
    let rewrites = [("==", "="), ("~=", "=~"), ("<>", "!="), ("'", "\""), ("`", "\"")];
    rewrites
        .into_iter()
        .filter(|(other, _)| text.contains(other))
        .find_map(|(other, ours)| valid(text.replace(other, ours)))
}

/// Warns about a regular expression or a wildcard that is compared as text.
fn warn_about_pattern(matcher: &Matcher, node: &Node, diagnostics: &mut Diagnostics) {
    let Some(value) = matcher.compared_value() else { return };
    let is_regex = [".*", ".+", "|", "\\d", "\\w", "[0-9]", "[a-z]"].iter().any(|mark| value.contains(mark))
        || value.starts_with('^')
        || (value.ends_with('$') && value.len() > 1);
    let pattern = match () {
        () if is_regex => value.trim_start_matches('^').trim_end_matches('$').to_owned(),
        () if value.contains('*') => value.replace('.', "\\.").replace('*', ".*"),
        () => return,
    };
    let text = matcher.to_string();
    let is_negated = text.ends_with(&format!("!={value:?}"));
    let message = format!("`{text}` compares with the text `{value}`, not with a pattern");
    let operator = if is_negated { "!~" } else { "=~" };
    let pattern = format!("{} {operator} {pattern:?}", matcher.label());
    let help = format!("for a regular expression, use `'{}'`", pattern.replace('\'', "''"));
    diagnostics.add_with_help(Code::PatternInEquality, &node.location, message, help);
}
