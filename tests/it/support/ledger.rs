//! What was sent about each target, and the check that every destination has received the events that follow.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::bridge::Bridge;
use super::replay::{Change, Emitted, Replay};

/// The rule of [`super::bridge::RULES`].
pub(crate) const RULE: &str = "unschedulable-pods";

/// The changes of each target in their order, each with the key of its notification's group.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    targets: BTreeMap<String, Vec<(String, Change)>>,
}

/// The decisions of one transaction about a target.
#[derive(Debug)]
struct Transaction {
    record: String,
    /// The key of the notification's group; `None` if the target was due.
    group: Option<String>,
    decisions: Vec<Value>,
}

impl Ledger {
    /// Records what an accepted notification changes. No other one about the target has the same group key.
    pub(crate) fn record(&mut self, target: &str, group: &str, change: Change) {
        self.targets.entry(target.to_owned()).or_default().push((group.to_owned(), change));
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.targets.extend(other.targets);
    }

    /// [`Ledger::check_rule`] of the rule [`RULE`].
    pub(crate) async fn check(
        &self,
        bridge: &Bridge,
        destination: &str,
        got: &[Value],
    ) -> HashMap<String, usize> {
        self.check_rule(RULE, bridge, destination, got).await
    }

    /// Checks the events that a destination of a rule has received, in the order of arrival: no event is missing,
    /// none is unexpected, the first copies of each target are in order, and duplicates are identical.
    /// Returns the ids that were received more than once, with their number of copies.
    ///
    /// The events are those of the bridge's decisions, which must answer each change as the rule says. A scale-in may
    /// be missing only if the bridge says that it was superseded, by its decisions and of this very delivery.
    pub(crate) async fn check_rule(
        &self,
        rule: &str,
        bridge: &Bridge,
        destination: &str,
        got: &[Value],
    ) -> HashMap<String, usize> {
        let (copies, mut firsts) = first_copies(destination, got);
        let mut decided = transactions(bridge, rule).await;
        let store_failed = has_store_gap(bridge).await;
        for (target, changes) in &self.targets {
            let decided = decided.remove(target).unwrap_or_default();
            let (emitted, superseded) = replay(target, changes, decided, store_failed);
            let received = firsts.remove(target.as_str()).unwrap_or_default();
            let order: Vec<u64> = received.iter().map(|event| sequence(event)).collect();
            assert!(order.is_sorted_by(|a, b| a < b), "{destination}: order of {target}: {order:?}");
            let mut received: HashMap<&str, &Value> =
                received.into_iter().map(|event| (id(event), event)).collect();
            for event in &emitted {
                if let Some(received) = received.remove(event.id.as_str()) {
                    assert_eq!(content(received), (event.action, event.alerts), "{destination}: {received}");
                    continue;
                }
                assert!(
                    superseded.contains(&event.id),
                    "{destination}: {target} never received {event:?}, and nothing has superseded it"
                );
                assert_superseded(bridge, destination, &event.id).await;
            }
            assert!(received.is_empty(), "{destination}: no decision has emitted {received:?}");
        }
        assert!(firsts.is_empty(), "{destination}: unexpected events {firsts:?}");
        assert!(decided.is_empty(), "decisions about unexpected targets: {decided:?}");
        let duplicates = copies.into_iter().filter(|(_, count)| *count > 1);
        duplicates.map(|(id, count)| (id.to_owned(), count)).collect()
    }
}

/// Follows the decisions about a target. Every change must be decided, in the order in which it was sent.
fn replay(
    target: &str,
    changes: &[(String, Change)],
    decided: Vec<Transaction>,
    store_failed: bool,
) -> (Vec<Emitted>, HashSet<String>) {
    let mut replay = Replay::new(store_failed);
    let mut next = 0;
    for Transaction { group, decisions, .. } in decided {
        let at =
            group.map(|group| changes.iter().position(|(known, _)| *known == group).expect("a known group"));
        let is_new = at == Some(next);
        // Earlier ones are repeated.
        assert!(is_new || at < Some(next), "{target}: {decisions:?} is decided before {:?}", changes[next]);
        replay.transaction(is_new.then(|| changes[next].1), &decisions);
        next += usize::from(is_new);
    }
    assert_eq!(changes.get(next), None, "{target}: never decided");
    replay.end()
}

/// Whether the last reception gap of a source was a failure of the store.
async fn has_store_gap(bridge: &Bridge) -> bool {
    let status = bridge.get_json("/api/v1/status").await;
    let gaps = status["reception_gaps"].as_object().expect("gaps by source");
    gaps.values().any(|gap| gap["cause"] == "store")
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

/// The decisions of a rule, by the name of their target and in the order of the transactions.
async fn transactions(bridge: &Bridge, rule: &str) -> BTreeMap<String, Vec<Transaction>> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut all: BTreeMap<String, Vec<Transaction>> = BTreeMap::new();
    for decision in bridge.all_decisions().await.into_iter().filter(|decision| decision["rule"] == rule) {
        let of_target = all.entry(text(&decision["target"]["name"])).or_default();
        let id = text(&decision["id"]);
        let (record, _) = id.rsplit_once('.').expect("a record and an index");
        match of_target.last_mut() {
            Some(last) if last.record == record => last.decisions.push(decision),
            _ => of_target.push(Transaction {
                record: record.to_owned(),
                group: decision["notification"]["group_key"].as_str().map(str::to_owned),
                decisions: vec![decision],
            }),
        }
    }
    // The newest transaction comes first, its decisions in their order. With PostgreSQL, a transaction that has waited for the
    // lock of a target can have an older id than the one that it has waited for.
    let at = |transaction: &Transaction| {
        transaction.decisions.first().and_then(|decision| decision["at"].as_str()).map(str::to_owned)
    };
    for transactions in all.values_mut() {
        transactions.reverse();
        transactions.sort_by_key(at);
    }
    all
}

/// Panics unless the bridge says that this delivery, of a scale-in, was superseded.
pub(crate) async fn assert_superseded(bridge: &Bridge, destination: &str, id: &str) {
    let event = bridge.get_json(&format!("/api/v1/events/{id}")).await;
    let deliveries = event["deliveries"].as_array().expect("deliveries");
    let delivery = deliveries.iter().find(|delivery| delivery["destination"] == destination);
    assert!(
        delivery.is_some_and(|delivery| delivery["state"] == "superseded"),
        "{destination} never received {id}, and the bridge says {delivery:?}"
    );
    assert_eq!(event["event"]["data"]["action"], "scale_in", "{event}");
}

/// The action and the number of alerts of an event.
fn content(event: &Value) -> (&str, usize) {
    let alerts = event["data"]["alerts_total"].as_u64().and_then(|count| usize::try_from(count).ok());
    (event["data"]["action"].as_str().expect("an action"), alerts.expect("a count"))
}

fn id(event: &Value) -> &str {
    event["id"].as_str().expect("an id")
}

fn sequence(event: &Value) -> u64 {
    event["sequence"].as_str().and_then(|text| text.parse().ok()).expect("a number")
}
