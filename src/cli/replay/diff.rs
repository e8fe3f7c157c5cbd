//! The difference between the decisions of two rule tables.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::bridge::decision_view::ExplainedDecision;
use crate::cli::decision;
use crate::cli::test::{FieldMismatch, mismatches};

/// Compares decisions line by line: common lines are marked with a space, others with `-` or `+`. If only the event
/// differs, its differing fields are listed.
pub(super) fn diff_lines(old: &[ExplainedDecision], new: &[ExplainedDecision]) -> Vec<(char, String)> {
    let mut unmatched: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for one in old.iter().rev() {
        unmatched.entry(decision::explained_line(one)).or_default().push(decision::comparable_fields(one));
    }
    let mut lines: Vec<(char, String)> = Vec::new();
    for one in new {
        let (line, fields) = (decision::explained_line(one), decision::comparable_fields(one));
        let before = unmatched.get_mut(&line);
        let same = before.and_then(|before| {
            let at =
                before.iter().position(|before| *before == fields).or_else(|| before.len().checked_sub(1))?;
            Some(before.remove(at))
        });
        match same {
            Some(before) if before == fields => lines.push((' ', line)),
            Some(before) => {
                let both = mismatches(&before, &fields).into_iter().chain(
                    mismatches(&fields, &before).into_iter().map(|mismatch| FieldMismatch {
                        expected: mismatch.found,
                        found: mismatch.expected,
                        ..mismatch
                    }),
                );
                let mut named: Vec<String> = both
                    .map(|mismatch| format!("{} {} -> {}", mismatch.path, mismatch.expected, mismatch.found))
                    .collect();
                named.sort();
                named.dedup();
                lines.push(('-', line.clone()));
                lines.push(('+', format!("{line}; in the event: {}", named.join(", "))));
            }
            None => lines.push(('+', line)),
        }
    }
    let removed = unmatched.into_iter().flat_map(|(line, rest)| std::iter::repeat_n(('-', line), rest.len()));
    removed.chain(lines).collect()
}

/// The number of decisions that differ: one that was changed is one, and so is one that only one side has made.
pub(super) fn count(lines: &[(char, String)]) -> usize {
    let marked = |mark: char| lines.iter().filter(|(of_line, _)| *of_line == mark).count();
    marked('-').max(marked('+'))
}
