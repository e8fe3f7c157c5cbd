//! Events whose course a test determines.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::Events;
use super::order::Peek;
use crate::outcome::{Answer, Outcome};

/// What has not happened after this time never will, and the test would hang.
pub(super) const HANG: Duration = Duration::from_secs(90);

/// Answers `applied`, unless a test says something else of the id.
pub(super) struct Script {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    answers: HashMap<String, VecDeque<Outcome>>,
    held: HashSet<String>,
    panics: HashSet<String>,
    /// `+ID` where an event has begun, `-ID` where it has ended.
    log: Vec<String>,
}

impl Default for Script {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Script {
    /// The next answers of an event.
    pub(super) fn answer(&self, id: &str, outcomes: impl IntoIterator<Item = Outcome>) {
        self.state.lock().answers.insert(id.to_owned(), outcomes.into_iter().collect());
    }

    /// The event does not end until it may.
    pub(super) fn hold(&self, id: &str) {
        self.state.lock().held.insert(id.to_owned());
    }

    pub(super) fn let_go(&self, id: &str) {
        self.state.lock().held.remove(id);
        self.changed.send_replace(());
    }

    /// The next handling of the event panics.
    pub(super) fn panic(&self, id: &str) {
        self.state.lock().panics.insert(id.to_owned());
    }

    pub(super) fn log(&self) -> Vec<String> {
        self.state.lock().log.clone()
    }

    /// Waits for an entry of the log.
    pub(super) async fn until(&self, entry: &str) {
        let mut changed = self.changed.subscribe();
        let seen = async {
            while !self.log().iter().any(|seen| seen == entry) {
                changed.changed().await.unwrap();
            }
        };
        let seen = tokio::time::timeout(HANG, seen).await;
        assert!(seen.is_ok(), "no {entry} in {:?}", self.log());
    }

    /// The ids in the order in which they began.
    pub(super) fn begun(&self) -> Vec<String> {
        self.log().iter().filter_map(|entry| entry.strip_prefix('+')).map(str::to_owned).collect()
    }

    /// The maximum number of events that were handled at the same time.
    pub(super) fn most_at_once(&self) -> usize {
        let (mut now, mut most) = (0_usize, 0);
        for entry in self.log() {
            now = if entry.starts_with('+') { now + 1 } else { now - 1 };
            most = most.max(now);
        }
        most
    }

    fn note(&self, entry: String) {
        self.state.lock().log.push(entry);
        self.changed.send_replace(());
    }
}

impl Events for Script {
    async fn handle(&self, body: &str) -> Answer {
        let id = Peek::at(body).id.into_owned();
        let mut changed = self.changed.subscribe();
        self.note(format!("+{id}"));
        // Others get their turn, too.
        tokio::task::yield_now().await;
        while self.state.lock().held.contains(&id) {
            changed.changed().await.unwrap();
        }
        let panics = self.state.lock().panics.remove(&id);
        assert!(!panics, "as the test wants it");
        self.note(format!("-{id}"));
        let next = self.state.lock().answers.get_mut(&id).and_then(VecDeque::pop_front);
        let outcome = next.unwrap_or(Outcome::Applied);
        Answer { id, outcome, from: Some(2), to: Some(4), reason: "as scripted".to_owned() }
    }
}
