//! Readers of times.

use super::super::diagnostic::{Code, Diagnostics};
use super::super::scalar::{any_text, duration, text};
use super::super::yaml::{Kind, Node};
use crate::domain::time::Time;

/// Reads a time in RFC 3339.
pub(super) fn timestamp(node: &Node, diagnostics: &mut Diagnostics) -> Option<Time> {
    let text = text(node, diagnostics)?;
    Time::parse(text).map_err(|error| diagnostics.add(Code::Value, &node.location, error.to_string())).ok()
}

/// Reads a time: RFC 3339, or a duration relative to the start, negative for earlier times.
pub(super) fn relative_time(start: Time) -> impl Fn(&Node, &mut Diagnostics) -> Option<Time> {
    move |node, diagnostics| {
        let text = any_text(node, diagnostics)?;
        if text.contains('T') {
            return timestamp(node, diagnostics);
        }
        let (is_before_start, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let length = duration(
            &Node { location: node.location.clone(), kind: Kind::Text(rest.to_owned()) },
            diagnostics,
        )?;
        let nanos = i64::try_from(length.as_nanos()).unwrap_or(i64::MAX);
        let nanos = if is_before_start {
            start.as_nanos().saturating_sub(nanos)
        } else {
            start.as_nanos().saturating_add(nanos)
        };
        Some(Time::from_nanos(nanos))
    }
}
