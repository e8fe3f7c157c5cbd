//! Which events are handled one after the other.
//!
//! Those of one message group of a FIFO queue, since the queue promises their order. Elsewhere those of one target, where
//! several of it are here at the same time: the ledger lets only one of them act, and the others would have to come again.
//!
//! After one that is to be tried again, the later ones of its lane wait for it: otherwise a decrease would be applied
//! before the increase that it takes back. A standard queue keeps that order only as far as it delivers in it.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;

/// What is read of an event before it is handled. What cannot be read is empty.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Peek<'a> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    #[serde(borrow)]
    pub subject: Cow<'a, str>,
}

impl<'a> Peek<'a> {
    pub(super) fn at(body: &'a str) -> Self {
        serde_json::from_str(body).unwrap_or_default()
    }
}

/// What the events of one lane have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A message group of a FIFO queue.
    Group(String),
    /// A target.
    Target(String),
    /// Nothing: it is the only one of its lane. The text is different for each.
    Own(String),
}

impl Key {
    /// `group` is `None` unless the queue is a FIFO queue. `own` is different for each.
    pub(super) fn of(group: Option<&str>, body: &str, own: impl ToString) -> Self {
        match (group, &*Peek::at(body).subject) {
            (Some(group), _) => Self::Group(group.to_owned()),
            (None, "") => Self::Own(own.to_string()),
            (None, target) => Self::Target(target.to_owned()),
        }
    }
}

/// The positions of the keys by lane: lanes in the order of their first one, each in its order.
pub(super) fn lanes(keys: &[Key]) -> Vec<Vec<usize>> {
    let mut lanes: Vec<Vec<usize>> = Vec::new();
    let mut by_key: HashMap<&Key, usize> = HashMap::new();
    for (position, key) in keys.iter().enumerate() {
        let lane = *by_key.entry(key).or_insert(lanes.len());
        if lane == lanes.len() {
            lanes.push(Vec::new());
        }
        lanes[lane].push(position);
    }
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_a_lane_and_elsewhere_a_target_is() {
        let web = r#"{"subject":"ecs/web","id":"1","data":{"subject":7}}"#;
        let keys = [
            Key::of(Some("a"), web, 0),
            Key::of(Some("b"), "", 1),
            Key::of(None, web, 2),
            Key::of(Some("a"), "{", 3),
            Key::of(None, "not json", 4),
            Key::of(None, "not json", 5),
            Key::of(None, r#"{"subject":"ecs\/web"}"#, 6),
            Key::of(None, r#"{"subject":7}"#, 7),
        ];
        assert_eq!(lanes(&keys), [vec![0, 3], vec![1], vec![2, 6], vec![4], vec![5], vec![7]]);
        assert!(lanes(&[]).is_empty());
    }
}
