//! The events that every destination must receive, and the check that it has received them.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::bridge::Bridge;

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

/// An event as the bridge's decisions name it.
#[derive(Debug)]
struct Emitted {
    id: String,
    action: String,
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
    /// The ids come from the bridge's decisions, which must be the expected ones. A scale-in may be missing only if
    /// the bridge says of this very delivery that it was superseded, and a scale-out of its target follows.
    pub(crate) async fn check(
        &self,
        bridge: &Bridge,
        destination: &str,
        got: &[Value],
    ) -> HashMap<String, usize> {
        let (copies, mut firsts) = first_copies(destination, got);
        let mut emitted = emitted_events(bridge).await;
        for (target, expected) in &self.targets {
            let emitted = emitted.remove(target).unwrap_or_default();
            let actions: Vec<&str> = emitted.iter().map(|event| event.action.as_str()).collect();
            let expected_actions: Vec<&str> = expected.iter().map(|event| event.action).collect();
            assert_eq!(actions, expected_actions, "the decisions about {target}");

            let received = firsts.remove(target.as_str()).unwrap_or_default();
            let order: Vec<u64> = received.iter().map(|event| sequence(event)).collect();
            assert!(order.is_sorted_by(|a, b| a < b), "{destination}: order of {target}: {order:?}");
            let mut received: HashMap<&str, &Value> =
                received.into_iter().map(|event| (id(event), event)).collect();
            for (at, (event, expected)) in emitted.iter().zip(expected).enumerate() {
                if let Some(received) = received.remove(event.id.as_str()) {
                    assert_eq!(Expected::read(received), *expected, "{destination}: {received}");
                    continue;
                }
                assert!(
                    event.action == "scale_in" && actions[at..].contains(&"scale_out"),
                    "{destination}: {target} never received {event:?}, and nothing can have superseded it"
                );
                assert_superseded(bridge, destination, &event.id).await;
            }
            assert!(received.is_empty(), "{destination}: no decision has emitted {received:?}");
        }
        assert!(firsts.is_empty(), "{destination}: unexpected events {firsts:?}");
        assert!(emitted.is_empty(), "decisions about unexpected targets: {emitted:?}");
        let duplicates = copies.into_iter().filter(|(_, count)| *count > 1);
        duplicates.map(|(id, count)| (id.to_owned(), count)).collect()
    }
}

/// The number of copies of each event, and the first copies by target in the order of arrival.
fn first_copies<'a>(
    destination: &str,
    got: &'a [Value],
) -> (HashMap<&'a str, usize>, BTreeMap<&'a str, Vec<&'a Value>>) {
    let mut copies: HashMap<&str, (usize, &Value)> = HashMap::new();
    let mut firsts: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for event in got {
        let (count, first) = copies.entry(id(event)).or_insert((0, event));
        *count += 1;
        assert_eq!(*first, event, "{destination}: two events with the id {}", id(event));
        if *count == 1 {
            let target = event["data"]["target"]["name"].as_str().expect("a name");
            firsts.entry(target).or_default().push(event);
        }
    }
    (copies.into_iter().map(|(id, (count, _))| (id, count)).collect(), firsts)
}

/// The events that the bridge has decided to emit, by the name of their target and in the order of the decisions.
async fn emitted_events(bridge: &Bridge) -> BTreeMap<String, Vec<Emitted>> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut emitted: BTreeMap<String, Vec<Emitted>> = BTreeMap::new();
    for decision in bridge.decisions("emitted").await.iter().rev() {
        let event = Emitted { id: text(&decision["event"]), action: text(&decision["action"]) };
        emitted.entry(text(&decision["target"]["name"])).or_default().push(event);
    }
    emitted
}

/// Panics unless the bridge says that this delivery was superseded.
pub(crate) async fn assert_superseded(bridge: &Bridge, destination: &str, id: &str) {
    let event = bridge.get_json(&format!("/api/v1/events/{id}")).await;
    let deliveries = event["deliveries"].as_array().expect("deliveries");
    let delivery = deliveries.iter().find(|delivery| delivery["destination"] == destination);
    assert!(
        delivery.is_some_and(|delivery| delivery["state"] == "superseded"),
        "{destination} never received {id}, and the bridge says {delivery:?}"
    );
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

fn id(event: &Value) -> &str {
    event["id"].as_str().expect("an id")
}

fn sequence(event: &Value) -> u64 {
    event["sequence"].as_str().and_then(|text| text.parse().ok()).expect("a number")
}
