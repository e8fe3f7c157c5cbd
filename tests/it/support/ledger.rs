//! The events that every destination must receive, and the check that it has received them.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

/// An event that a decision has emitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    pub action: &'static str,
    pub alerts: usize,
}

/// The events of each target, in the order of their decisions.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    targets: BTreeMap<String, Vec<Expected>>,
}

impl Ledger {
    pub(crate) fn expect(&mut self, target: &str, event: Expected) {
        self.targets.entry(target.to_owned()).or_default().push(event);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.targets.extend(other.targets);
    }

    pub(crate) fn events(&self) -> usize {
        self.targets.values().map(Vec::len).sum()
    }

    /// Checks the events that a destination has received, in the order of arrival: no event is missing,
    /// none is unexpected, the first copies of each target are in order, and duplicates are identical.
    /// Returns the ids that were received more than once, with their number of copies.
    ///
    /// Only a scale-in may be missing that was undelivered when the next scale-out of its target was
    /// decided: it is superseded.
    pub(crate) fn check(&self, destination: &str, got: &[Value]) -> HashMap<String, usize> {
        let mut copies: HashMap<&str, (usize, &Value)> = HashMap::new();
        let mut firsts: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for event in got {
            let id = event["id"].as_str().expect("an id");
            let (count, first) = copies.entry(id).or_insert((0, event));
            *count += 1;
            assert_eq!(*first, event, "{destination}: two events with the id {id}");
            if *count == 1 {
                let target = event["data"]["target"]["name"].as_str().expect("a name");
                firsts.entry(target).or_default().push(event);
            }
        }
        for (target, expected) in &self.targets {
            let received = firsts.remove(target.as_str()).unwrap_or_default();
            let order: Vec<u64> = received.iter().map(|event| sequence(event)).collect();
            assert!(order.is_sorted_by(|a, b| a < b), "{destination}: order of {target}: {order:?}");
            let received: Vec<Expected> = received.iter().map(|event| Expected::read(event)).collect();
            assert!(
                matches_unless_superseded(expected, &received),
                "{destination}: {target} received\n{received:?}\nexpected\n{expected:?}"
            );
        }
        assert!(firsts.is_empty(), "{destination}: unexpected events {firsts:?}");
        let duplicates = copies.into_iter().filter(|(_, (count, _))| *count > 1);
        duplicates.map(|(id, (count, _))| (id.to_owned(), count)).collect()
    }
}

impl Expected {
    fn read(event: &Value) -> Self {
        let action = match event["data"]["action"].as_str() {
            Some("scale_out") => "scale_out",
            Some("scale_in") => "scale_in",
            other => panic!("{other:?}"),
        };
        let alerts = event["data"]["alerts_total"].as_u64().and_then(|count| usize::try_from(count).ok());
        Self { action, alerts: alerts.expect("a count") }
    }
}

fn sequence(event: &Value) -> u64 {
    event["sequence"].as_str().and_then(|text| text.parse().ok()).expect("a number")
}

/// Whether `received` equals `expected`, except for missing scale-ins that precede a scale-out.
fn matches_unless_superseded(expected: &[Expected], received: &[Expected]) -> bool {
    match (expected, received) {
        ([], []) => true,
        ([next, rest @ ..], received) => {
            let arrived = received.first() == Some(next) && matches_unless_superseded(rest, &received[1..]);
            let superseded =
                next.action == "scale_in" && rest.first().is_some_and(|next| next.action == "scale_out");
            arrived || superseded && matches_unless_superseded(rest, received)
        }
        ([], _) => false,
    }
}
