//! Reader of matcher lists: those of rules and of heartbeats.

use super::decode::{list, wrong_type};
use super::diagnostic::{Code, Diagnostics};
use super::scalar::text;
use super::yaml::{Kind, Node};
use crate::domain::matcher::Matcher;

/// Reads a list of matchers, which may be empty. `example` is an alert name for the help text.
pub(super) fn matchers(example: &str) -> impl Fn(&Node, &mut Diagnostics) -> Option<Vec<Matcher>> {
    move |node, diagnostics| {
        let one = |node: &Node, diagnostics: &mut Diagnostics| {
            if matches!(node.kind, Kind::Map(_)) {
                let help = format!("write a matcher as text: `- alertname = {example}`");
                diagnostics.add_with_help(Code::Type, &node.location, "expected text, found a map", help);
                return None;
            }
            let text = text(node, diagnostics)?;
            Matcher::parse_list(text)
                .map_err(|error| diagnostics.add(Code::Matcher, &node.location, error.to_string()))
                .ok()
        };
        match &node.kind {
            Kind::Text(_) => {
                wrong_type(node, &format!("a list such as [alertname = {example}]"), diagnostics)
            }
            _ => Some(list(one)(node, diagnostics)?.into_iter().flatten().collect()),
        }
    }
}
