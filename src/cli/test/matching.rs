//! What was expected against what was decided. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::domain::verdict::Verdict;

/// What differs between what was expected and what was decided.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Difference {
    /// Expectations that no decision meets, by their place in the list, each with the decision that comes
    /// nearest among those that meet none.
    pub missing: Vec<(usize, Option<usize>)>,
    /// Decisions that nobody expected, by their place in the list.
    pub unexpected: Vec<usize>,
}

impl Difference {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty()
    }
}

fn verdict_of(value: &Value) -> Option<Verdict> {
    value.get("verdict").and_then(Value::as_str).and_then(Verdict::parse)
}

/// Compares. Each expectation is met by another decision, in any order. A decision with a quiet verdict that no
/// expectation names needs none.
pub(super) fn compare(expected: &[Value], decided: &[Value]) -> Difference {
    let meets: Vec<Vec<usize>> = expected
        .iter()
        .map(|wanted| (0..decided.len()).filter(|&at| mismatches(wanted, &decided[at]).is_empty()).collect())
        .collect();
    let mut taken_by: Vec<Option<usize>> = vec![None; decided.len()];
    for wanted in 0..expected.len() {
        assign(wanted, &meets, &mut taken_by, &mut vec![false; decided.len()]);
    }
    let met: BTreeSet<usize> = taken_by.iter().flatten().copied().collect();
    let named: BTreeSet<Verdict> = expected.iter().filter_map(verdict_of).collect();
    let counts = |at: &usize| {
        taken_by[*at].is_none()
            && verdict_of(&decided[*at]).is_none_or(|verdict| !verdict.is_quiet() || named.contains(&verdict))
    };
    let unexpected: Vec<usize> = (0..decided.len()).filter(counts).collect();
    let missing = (0..expected.len()).filter(|wanted| !met.contains(wanted));
    let nearest = |wanted: usize| {
        let free = (0..decided.len()).filter(|&at| taken_by[at].is_none());
        free.min_by_key(|&at| distance(&expected[wanted], &decided[at]))
    };
    Difference { missing: missing.map(|wanted| (wanted, nearest(wanted))).collect(), unexpected }
}

/// Finds a decision for an expectation, and another one for whoever has it if need be: a maximum matching.
fn assign(wanted: usize, meets: &[Vec<usize>], taken_by: &mut [Option<usize>], tried: &mut [bool]) -> bool {
    for &at in &meets[wanted] {
        if std::mem::replace(&mut tried[at], true) {
            continue;
        }
        let is_free = taken_by[at].is_none_or(|other| assign(other, meets, taken_by, tried));
        if is_free {
            taken_by[at] = Some(wanted);
            return true;
        }
    }
    false
}

/// What differs counts, and which rule and verdict it is counts more.
fn distance(wanted: &Value, decided: &Value) -> usize {
    let weight = |path: &str| match path {
        "rule" => 100,
        "verdict" => 10,
        _ => 1,
    };
    mismatches(wanted, decided).iter().map(|mismatch| weight(&mismatch.path)).sum()
}

/// One field that is not as it was expected.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FieldMismatch {
    /// `target.name`.
    pub path: String,
    /// JSON.
    pub expected: String,
    /// JSON, or `nothing`.
    pub found: String,
}

/// The fields of `wanted` that are not so in `found`. What `wanted` does not name may be anything.
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
        // `alerts: 3` counts them.
        (Value::Number(count), Some(Value::Array(items))) => count.as_u64() == Some(items.len() as u64),
        (Value::Number(one), Some(Value::Number(other))) => one.as_f64() == other.as_f64(),
        // An alert is named by its fingerprint.
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
    fn each_expectation_is_met_by_a_decision_of_its_own() {
        let decided = [
            json!({ "rule": "a", "verdict": "emitted", "target": { "name": "x" } }),
            json!({ "rule": "a", "verdict": "emitted", "target": { "name": "y" } }),
        ];
        // The first fits both, the second one only the first.
        let expected = [json!({ "rule": "a" }), json!({ "target": { "name": "x" } })];
        assert!(compare(&expected, &decided).is_empty());
        let twice = [json!({ "target": { "name": "x" } }), json!({ "target": { "name": "x" } })];
        let difference = compare(&twice, &decided);
        assert_eq!(difference, Difference { missing: vec![(1, Some(1))], unexpected: vec![1] });
    }

    #[test]
    fn what_is_quiet_counts_where_it_is_named() {
        let decided = [json!({ "verdict": "duplicate" }), json!({ "verdict": "still_open" })];
        assert!(compare(&[], &decided).is_empty());
        assert!(compare(&[json!({ "verdict": "duplicate" })], &decided).is_empty());
        let both = [decided[0].clone(), decided[0].clone()];
        assert_eq!(compare(&[json!({ "verdict": "duplicate" })], &both).unexpected, [1]);
        assert_eq!(compare(&[], &[json!({ "verdict": "cooling_down" })]).unexpected, [0]);
    }

    #[test]
    fn fields_are_compared_as_far_as_they_are_given() {
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
