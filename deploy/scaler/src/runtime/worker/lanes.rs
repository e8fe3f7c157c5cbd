//! The messages that the worker holds, and which of them it handles.
//!
//! A lane has the messages of one key, in the order in which they were received. Its first one is being handled; the
//! others wait for it.

use std::collections::{HashMap, VecDeque};

use super::queue::{MAX_BATCH, Received};
use crate::runtime::order::Key;

/// Messages that are held for each one that may be handled: a batch can be of one message group.
const MAX_HELD: usize = MAX_BATCH;

#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// None is empty.
    lanes: HashMap<Key, VecDeque<Received>>,
    held: usize,
}

impl Lanes {
    /// Takes a message over. `Some`: it is to be handled now.
    pub(super) fn add(&mut self, message: Received) -> Option<Received> {
        self.held += 1;
        let lane = self.lanes.entry(message.key.clone()).or_default();
        lane.push_back(message);
        if lane.len() == 1 { lane.front().cloned() } else { None }
    }

    /// The first message of a lane was handled. Returns the next one, which is to be handled now.
    pub(super) fn end(&mut self, key: &Key) -> Option<Received> {
        let lane = self.lanes.get_mut(key)?;
        self.held -= usize::from(lane.pop_front().is_some());
        let next = lane.front().cloned();
        if next.is_none() {
            self.lanes.remove(key);
        }
        next
    }

    /// Takes out those that wait for the first message of a lane, since it will be received again.
    pub(super) fn give_back_behind(&mut self, key: &Key) -> Vec<String> {
        let behind: Vec<_> =
            self.lanes.get_mut(key).map(|lane| lane.drain(1..).collect()).unwrap_or_default();
        self.given_back(behind)
    }

    /// Takes out all that wait.
    pub(super) fn give_back_waiting(&mut self) -> Vec<String> {
        let mut waiting = Vec::new();
        for lane in self.lanes.values_mut() {
            waiting.extend(lane.drain(1..));
        }
        self.given_back(waiting)
    }

    /// The receipt handles.
    fn given_back(&mut self, messages: Vec<Received>) -> Vec<String> {
        self.held -= messages.len();
        messages.into_iter().map(|message| message.receipt).collect()
    }

    /// The receipt handles of all messages that are held.
    pub(super) fn receipts(&self) -> Vec<String> {
        self.lanes.values().flatten().map(|message| message.receipt.clone()).collect()
    }

    /// The number of messages to ask the queue for, if up to `concurrency` are to be handled at the same time.
    pub(super) fn room(&self, concurrency: usize) -> usize {
        let lanes = concurrency.saturating_sub(self.lanes.len());
        let messages = concurrency.saturating_mul(MAX_HELD).saturating_sub(self.held);
        lanes.min(messages).min(MAX_BATCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u32, group: &str) -> Received {
        let key = Key::Group(group.to_owned());
        Received { receipt: format!("r{number}"), body: String::new(), key, receives: 1 }
    }

    fn receipts(messages: impl IntoIterator<Item = Received>) -> Vec<String> {
        messages.into_iter().map(|message| message.receipt).collect()
    }

    #[test]
    fn messages_of_a_group_begin_one_after_the_other() {
        let mut lanes = Lanes::default();
        let added = [(1, "a"), (2, "a"), (3, "b"), (4, "a")].map(|(number, group)| message(number, group));
        let begun: Vec<_> = added.into_iter().filter_map(|message| lanes.add(message)).collect();
        assert_eq!(receipts(begun), ["r1", "r3"]);
        let (a, b) = (Key::Group("a".into()), Key::Group("b".into()));
        assert_eq!(receipts(lanes.end(&a)), ["r2"]);
        assert_eq!(receipts(lanes.end(&b)), [""; 0]);
        // What is added while one is handled waits.
        assert_eq!(lanes.add(message(5, "a")), None);
        assert_eq!(receipts(lanes.end(&a)), ["r4"]);
        assert_eq!(receipts(lanes.end(&a)), ["r5"]);
        assert_eq!(receipts(lanes.end(&a)), [""; 0]);
        assert_eq!(lanes.receipts(), [""; 0]);
        assert_eq!(receipts(lanes.add(message(6, "a"))), ["r6"]);
    }

    #[test]
    fn a_message_is_given_back_with_those_behind_it_only() {
        let mut lanes = Lanes::default();
        for (number, group) in [(1, "a"), (2, "b"), (3, "a"), (4, "b"), (5, "a")] {
            lanes.add(message(number, group));
        }
        lanes.end(&Key::Group("a".into()));
        let a = Key::Group("a".into());
        assert_eq!(lanes.give_back_behind(&a), ["r5"]);
        assert_eq!(lanes.give_back_behind(&a), [""; 0]);
        assert_eq!(receipts(lanes.end(&a)), [""; 0]);
        assert_eq!(lanes.give_back_waiting(), ["r4"]);
        assert_eq!(lanes.receipts(), ["r2"]);
        assert_eq!(receipts(lanes.add(message(6, "a"))), ["r6"]);
    }

    #[test]
    fn as_many_are_asked_for_as_can_begin() {
        let mut lanes = Lanes::default();
        assert_eq!((lanes.room(3), lanes.room(64)), (3, 10));
        lanes.add(message(1, "a"));
        lanes.add(message(2, "b"));
        assert_eq!(lanes.room(3), 1);
        // Messages that only wait do not take the places of others, up to a number.
        for number in 3..=29 {
            lanes.add(message(number, "a"));
        }
        assert_eq!(lanes.room(3), 1);
        lanes.add(message(30, "a"));
        assert_eq!(lanes.room(3), 0);
        lanes.end(&Key::Group("a".into()));
        assert_eq!(lanes.room(3), 1);
        lanes.add(message(31, "c"));
        assert_eq!(lanes.room(3), 0);
    }
}
