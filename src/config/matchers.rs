//! Lists of matchers: a rule's, and a source's heartbeat.

use super::decode::{list, wrong_type};
use super::diagnostic::{Code, Diagnostics};
use super::scalar::text;
use super::yaml::{Kind, Node};
use crate::domain::matcher::Matcher;

/// Reads a list of matchers, which may be empty. `example` is the alert that a help names.
pub(super) fn matchers(example: &str) -> impl Fn(&Node, &mut Diagnostics) -> Option<Vec<Matcher>> {
    move |node, faults| {
        let one = |node: &Node, faults: &mut Diagnostics| {
            if matches!(node.kind, Kind::Map(_)) {
                let help = format!("write a matcher as text: `- alertname = {example}`");
                faults.help(Code::Type, &node.place, "expected text, found a map", help);
                return None;
            }
            let text = text(node, faults)?;
            Matcher::parse_list(text)
                .map_err(|error| faults.add(Code::Matcher, &node.place, error.to_string()))
                .ok()
        };
        match &node.kind {
            Kind::Text(_) => wrong_type(node, &format!("a list such as [alertname = {example}]"), faults),
            _ => Some(list(one)(node, faults)?.into_iter().flatten().collect()),
        }
    }
}
