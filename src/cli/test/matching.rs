//! Compares expected with actual decisions. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::domain::verdict::Verdict;

/// The difference between expected and actual decisions, as indexes into both lists.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Difference {
    /// Expectations without a matching decision, each with the most similar decision that matches no expectation.
    pub missing: Vec<(usize, Option<usize>)>,
    /// Decisions without an expectation.
    pub unexpected: Vec<usize>,
}

impl Difference {
    pub(super) fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty()
    }
}

fn verdict_of(value: &Value) -> Option<Verdict> {
    value.get("verdict").and_then(Value::as_str).and_then(Verdict::parse)
}

/// Matches each expectation to a different decision, in any order. A decision with a quiet verdict is ignored unless an
/// expectation names that verdict.
pub(super) fn compare(expected: &[Value], decided: &[Value]) -> Difference {
    let candidates: Vec<Vec<usize>> = expected
        .iter()
        .map(|wanted| (0..decided.len()).filter(|&at| mismatches(wanted, &decided[at]).is_empty()).collect())
        .collect();
    let mut assigned_to: Vec<Option<usize>> = vec![None; decided.len()];
    for wanted in 0..expected.len() {
        assign(wanted, &candidates, &mut assigned_to, &mut vec![false; decided.len()]);
    }
    let met: BTreeSet<usize> = assigned_to.iter().flatten().copied().collect();
    let named: BTreeSet<Verdict> = expected.iter().filter_map(verdict_of).collect();
    let counts = |at: &usize| {
        assigned_to[*at].is_none()
            && verdict_of(&decided[*at]).is_none_or(|verdict| !verdict.is_quiet() || named.contains(&verdict))
    };
    let unexpected: Vec<usize> = (0..decided.len()).filter(counts).collect();
    let missing = (0..expected.len()).filter(|wanted| !met.contains(wanted));
    let nearest = |wanted: usize| {
        let free = (0..decided.len()).filter(|&at| assigned_to[at].is_none());
        free.min_by_key(|&at| distance(&expected[wanted], &decided[at]))
    };
    Difference { missing: missing.map(|wanted| (wanted, nearest(wanted))).collect(), unexpected }
}

/// Assigns a decision to an expectation, reassigning other expectations if necessary: one step of the augmenting path
/// algorithm for maximum bipartite matching.
fn assign(
    wanted: usize,
    candidates: &[Vec<usize>],
    assigned_to: &mut [Option<usize>],
    tried: &mut [bool],
) -> bool {
    for &at in &candidates[wanted] {
        if std::mem::replace(&mut tried[at], true) {
            continue;
        }
        let is_free = assigned_to[at].is_none_or(|other| assign(other, candidates, assigned_to, tried));
        if is_free {
            assigned_to[at] = Some(wanted);
            return true;
        }
    }
    false
}

/// The number of mismatches, with a higher weight for rule and verdict.
fn distance(wanted: &Value, decided: &Value) -> usize {
    let weight = |path: &str| match path {
        "rule" => 100,
        "verdict" => 10,
        _ => 1,
    };
    mismatches(wanted, decided).iter().map(|mismatch| weight(&mismatch.path)).sum()
}

/// A field whose value differs from the expected one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FieldMismatch {
    /// The path of the field, such as `target.name`.
    pub path: String,
    /// The expected value as JSON.
    pub expected: String,
    /// The actual value as JSON, or `nothing`.
    pub found: String,
}

/// The fields of `wanted` that have another value in `found`. Fields that `wanted` does not contain are ignored.
pub(crate) fn mismatches(wanted: &Value, found: &Value) -> Vec<FieldMismatch> {
    let mut mismatches = Vec::new();
    compare_at("", wanted, Some(found), &mut mismatches);
    mismatches
}

fn compare_at(path: &str, wanted: &Value, found: Option<&Value>, mismatches: &mut Vec<FieldMismatch>) {
    let same = match (wanted, found) {
        (Value::Object(fields), Some(found @ Value::Object(_))) => {
            for (key, wanted) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare_at(&path, wanted, found.get(key), mismatches);
            }
            return;
        }
        (Value::Array(items), Some(Value::Array(others))) if items.len() == others.len() => {
            for (at, (wanted, found)) in items.iter().zip(others).enumerate() {
                compare_at(&format!("{path}[{at}]"), wanted, Some(found), mismatches);
            }
            return;
        }
        // `alerts: 3` is the number of alerts.
        (Value::Number(count), Some(Value::Array(items))) => count.as_u64() == Some(items.len() as u64),
        (Value::Number(one), Some(Value::Number(other))) => one.as_f64() == other.as_f64(),
        // A string is compared with the fingerprint of the alert.
        (Value::String(text), Some(Value::Object(fields))) => {
            fields.get("fingerprint").and_then(Value::as_str) == Some(text)
        }
        (Value::String(text), Some(Value::String(other))) if path == "detail" => other.contains(text),
        (Value::Null, None) => true,
        (wanted, Some(found)) => wanted == found,
        (_, None) => false,
    };
    if !same {
        let found = found.map_or_else(|| "nothing".to_owned(), ToString::to_string);
        mismatches.push(FieldMismatch { path: path.to_owned(), expected: wanted.to_string(), found });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_expectation_is_matched_by_a_different_decision() {
        let decided = [
            json!({ "rule": "a", "verdict": "emitted", "target": { "name": "x" } }),
            json!({ "rule": "a", "verdict": "emitted", "target": { "name": "y" } }),
        ];
        // The first expectation matches both decisions, the second one only the first decision.
        let expected = [json!({ "rule": "a" }), json!({ "target": { "name": "x" } })];
        assert!(compare(&expected, &decided).is_empty());
        let twice = [json!({ "target": { "name": "x" } }), json!({ "target": { "name": "x" } })];
        let difference = compare(&twice, &decided);
        assert_eq!(difference, Difference { missing: vec![(1, Some(1))], unexpected: vec![1] });
    }

    #[test]
    fn quiet_verdicts_count_only_if_an_expectation_names_them() {
        let decided = [json!({ "verdict": "duplicate" }), json!({ "verdict": "still_open" })];
        assert!(compare(&[], &decided).is_empty());
        assert!(compare(&[json!({ "verdict": "duplicate" })], &decided).is_empty());
        let both = [decided[0].clone(), decided[0].clone()];
        assert_eq!(compare(&[json!({ "verdict": "duplicate" })], &both).unexpected, [1]);
        assert_eq!(compare(&[], &[json!({ "verdict": "cooling_down" })]).unexpected, [0]);
    }

    #[test]
    fn only_fields_of_the_expectation_are_compared() {
        let found = json!({
            "detail": "held by rule freeze", "alerts": [{ "fingerprint": "f", "labels": {} }, { "fingerprint": "g" }],
            "event": { "data": { "adjustment": { "value": 2 } } },
        });
        for wanted in [
            json!({ "detail": "freeze" }),
            json!({ "alerts": 2 }),
            json!({ "alerts": ["f", "g"] }),
            json!({ "event": { "data": { "adjustment": { "value": 2.0 } } } }),
            json!({ "until": null }),
        ] {
            assert_eq!(mismatches(&wanted, &found), []);
        }
        let mismatch = &mismatches(&json!({ "event": { "data": { "rule": "x" } } }), &found)[0];
        assert_eq!((mismatch.path.as_str(), mismatch.found.as_str()), ("event.data.rule", "nothing"));
        assert_eq!(mismatches(&json!({ "alerts": ["f"] }), &found).len(), 1);
    }
}
