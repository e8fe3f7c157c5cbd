//! Follows the decisions of a rule about one target beside the changes of its alerts, and accepts only what they justify.

use std::collections::HashSet;

use serde_json::{Value, json};

const SCALE_OUT: &str = "scale_out";
const SCALE_IN: &str = "scale_in";

/// What a notification changes about the alerts of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// More alerts fire; `open` are open now.
    Fire { open: usize },
    /// Some resolve, `open` still fire.
    Shrink { open: usize },
    /// All that were open resolve.
    Close { resolved: usize },
}

/// An event that a decision has emitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Emitted {
    pub id: String,
    pub action: &'static str,
    pub alerts: usize,
}

/// The state of a rule with `scale_out`, repeated on growth, and a fixed `scale_in`, both without window and cooldown.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// The number of open alerts.
    open: usize,
    /// The largest number of open alerts at an emission of this episode.
    growth_mark: Option<usize>,
    /// The number of alerts whose resolve closed the last episode.
    resolved: usize,
    /// The actions that wait for the delivery of an earlier event.
    deferred: HashSet<&'static str>,
    owes: Owes,
    events: Vec<Emitted>,
    superseded: HashSet<String>,
    /// The bridge reports that notifications could not be stored.
    store_failed: bool,
}

/// Whether the rule owes a decrease.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Owes {
    #[default]
    No,
    Yes,
    /// A scale-in was superseded: it counts as delivered if the outcome of a call is unknown.
    Unknown,
}

impl Replay {
    pub(crate) fn new(store_failed: bool) -> Self {
        Self { store_failed, ..Self::default() }
    }

    /// Follows the decisions of one transaction; `change` is what its notification changes when it is decided for the
    /// first time. Panics if a decision is missing or not justified.
    pub(crate) fn transaction(&mut self, change: Option<Change>, decisions: &[Value]) {
        let mut requested = change.and_then(|change| self.apply(change));
        for decision in decisions {
            self.decision(decision, &mut requested);
        }
        assert_eq!(requested, None, "{change:?} is not answered by {decisions:?}");
        let outlived = if self.open > 0 { SCALE_IN } else { SCALE_OUT };
        assert!(
            !self.deferred.contains(outlived),
            "a deferred {outlived} outlives {change:?}: {decisions:?}"
        );
    }

    /// Panics if an action still waits. Returns the emitted events in their order and the ids of the superseded ones.
    pub(crate) fn end(self) -> (Vec<Emitted>, HashSet<String>) {
        assert!(self.deferred.is_empty(), "never emitted: {:?}", self.deferred);
        (self.events, self.superseded)
    }

    /// Returns the action that the change requests.
    fn apply(&mut self, change: Change) -> Option<&'static str> {
        match change {
            Change::Fire { open } => {
                if self.open == 0 {
                    self.growth_mark = None;
                }
                self.open = open;
                self.needs_scale_out().then_some(SCALE_OUT)
            }
            Change::Shrink { open } => {
                self.open = open;
                None
            }
            Change::Close { resolved } => {
                (self.open, self.resolved) = (0, resolved);
                Some(SCALE_IN)
            }
        }
    }

    fn needs_scale_out(&self) -> bool {
        self.open > 0 && self.growth_mark.is_none_or(|mark| self.open > mark)
    }

    fn decision(&mut self, decision: &Value, requested: &mut Option<&'static str>) {
        let verdict = decision["verdict"].as_str().expect("a verdict");
        if let "duplicate" | "still_open" | "no_action" = verdict {
            return;
        }
        let action = match decision["action"].as_str() {
            Some(SCALE_OUT) => SCALE_OUT,
            // A rule that owes nothing requests nothing.
            Some(SCALE_IN) | None => SCALE_IN,
            other => panic!("{other:?}: {decision}"),
        };
        let is_requested = *requested == Some(action);
        let is_pending = is_requested || self.deferred.contains(action);
        match verdict {
            "emitted" => {
                assert!(is_pending, "not requested: {decision}");
                self.emit(action, decision);
            }
            "cooling_down" => {
                assert!(is_pending, "not requested: {decision}");
                self.assert_waits_for_delivery(action, decision);
                self.deferred.insert(action);
            }
            "stabilizing" => {
                assert!(action == SCALE_IN && is_pending, "not requested: {decision}");
                self.assert_waits_for_stored_gap(decision);
                self.deferred.insert(action);
            }
            "withdrawn" => {
                assert!(self.deferred.remove(action), "not deferred: {decision}");
                let is_over = if action == SCALE_IN { self.open > 0 } else { !self.needs_scale_out() };
                // The newest request replaces the deferred action, and is decided in the same transaction.
                assert!(is_over || is_requested, "still needed: {decision}");
                return;
            }
            "superseded" => return self.supersede(action, decision),
            "no_evidence" => {
                assert!(action == SCALE_IN && is_requested && self.owes != Owes::Yes, "{decision}");
            }
            _ => panic!("unexpected: {decision}"),
        }
        *requested = requested.filter(|requested| *requested != action);
    }

    fn emit(&mut self, action: &'static str, decision: &Value) {
        self.deferred.remove(action);
        let alerts = if action == SCALE_OUT {
            assert!(self.needs_scale_out(), "no growth: {decision}");
            (self.growth_mark, self.owes) = (Some(self.open), Owes::Yes);
            self.open
        } else {
            assert!(self.open == 0 && self.owes != Owes::No, "not owed: {decision}");
            self.owes = Owes::No;
            self.resolved
        };
        let id = decision["event"].as_str().expect("an id").to_owned();
        self.events.push(Emitted { id, action, alerts });
    }

    /// The bridge names the event, which must be an earlier one of the target; an increase waits for increases only.
    fn assert_waits_for_delivery(&self, action: &str, decision: &Value) {
        let detail = decision["detail"].as_str().unwrap_or_default();
        let mut blocking = self.events.iter().filter(|event| action == SCALE_IN || event.action == SCALE_OUT);
        assert!(blocking.any(|event| detail.contains(&event.id)), "waits for no event: {decision}");
        assert_eq!(decision["until"], Value::Null, "{decision}");
    }

    /// A decrease waits until the reception gap that a failed commit has left is stored, even without a late window.
    fn assert_waits_for_stored_gap(&self, decision: &Value) {
        let blocked_by = &decision["blocked_by"];
        assert!(self.store_failed, "the store never failed: {decision}");
        assert_eq!((&blocked_by["kind"], &blocked_by["cause"]), (&json!("reception_gap"), &json!("store")));
    }

    /// An opening ends the emitted scale-in that no answer has confirmed.
    fn supersede(&mut self, action: &str, decision: &Value) {
        let last = self.events.last().filter(|event| event.action == SCALE_IN).expect("a scale-in");
        let detail = decision["detail"].as_str().unwrap_or_default();
        assert!(action == SCALE_IN && self.open > 0 && detail.contains(&last.id), "{decision}");
        self.superseded.insert(last.id.clone());
        self.owes = Owes::Unknown;
    }
}
