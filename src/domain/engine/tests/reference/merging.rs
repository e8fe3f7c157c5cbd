//! Tells whether two histories have led to the same state, so that only one of them has to be continued.
//!
//! Two states are the same if the engine's state, what is known of deliveries, what was heard, and what can be seen of
//! the model are the same relative to the present, apart from ids and counters.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::super::*;
use super::world::World;

/// Times above this many nanoseconds since 1970 are times, other numbers are not.
const FIRST_TIME: i64 = 1_000_000_000_000_000_000;
/// Counters, and what only events show.
const IGNORED: [&str; 6] = ["version", "wakes", "next_pause", "sequence", "cause", "id"];

struct Text {
    now: i64,
    /// Ids in the order in which they are met.
    ids: BTreeMap<String, usize>,
    text: String,
}

impl Text {
    fn add(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields.iter().filter(|(name, _)| !IGNORED.contains(&name.as_str())) {
                    self.text.push_str(name);
                    self.add(field);
                }
            }
            Value::Array(list) => {
                self.text.push('[');
                list.iter().for_each(|item| self.add(item));
                self.text.push(']');
            }
            Value::Number(number) => {
                let number = number.as_i64().unwrap_or_default();
                let is_time = number > FIRST_TIME;
                self.number(if is_time { number - self.now } else { number });
            }
            Value::String(text) if text.len() == 32 => self.id(text),
            other => {
                let _ = write!(self.text, "{other}");
            }
        }
    }

    fn number(&mut self, number: i64) {
        let _ = write!(self.text, " {number}");
    }

    fn id(&mut self, id: &str) {
        let next = self.ids.len();
        let number = *self.ids.entry(id.to_owned()).or_insert(next);
        let _ = write!(self.text, "#{number}");
    }

    fn deliveries(&mut self, world: &World) {
        let known: BTreeSet<String> = self.ids.keys().cloned().collect();
        let mut arrived = [0; 4];
        for sent in &world.bridge.ledger {
            if sent.arrived_at.is_some() {
                arrived[sent.rule] += sent.value;
            }
            if sent.delivery.is_pending || known.contains(&*sent.id) {
                self.id(&sent.id);
                self.id(&sent.episode);
                let times = sent.times().map(|time| time.as_nanos() - self.now);
                let _ = write!(self.text, "{:?}{:?}", sent.marks(), times);
            }
        }
        let _ = write!(self.text, "{arrived:?}");
    }

    fn heard(&mut self, world: &World) {
        let now = world.now;
        let words: Vec<_> = world.words.iter().map(|(alert, (word, at))| (alert, *word, at - now)).collect();
        let starts: Vec<_> = world.starts().map(|(alert, start)| (alert, start - now)).collect();
        let ends: Vec<_> = world.ends.iter().map(|(alert, end)| (alert, end - now)).collect();
        let old = |time: i64| (time - now).max(-900);
        let calm: Vec<_> = world.calm_from.iter().map(|(alert, end)| (alert, old(*end))).collect();
        let controls = (old(world.gap_end), world.is_paused, world.heartbeat.map(old), &world.truncated);
        let _ = write!(self.text, "{words:?}{starts:?}{ends:?}{calm:?}{controls:?}");
    }

    fn model(&mut self, world: &World) {
        let model = &world.model;
        for rule in 0..world.config().rules.len() {
            let deferred: Vec<_> = model.deferred(rule).into_iter().collect();
            let deferred: Vec<_> = deferred
                .iter()
                .map(|(phase, verdict, until)| (phase, verdict, until.map(|until| until - world.now)))
                .collect();
            let seen = (model.open(rule), model.owed(rule).len(), deferred, model.last_close_was_clean(rule));
            let _ = write!(self.text, "{seen:?}{:?}", model.calm_until(rule).map(|until| until - world.now));
        }
        let rest = (model.outstanding(), model.late_firing_waits(), model.invalid_firing_stands());
        let _ = write!(self.text, "{rest:?}");
    }
}

/// A hash that is the same for states that are the same.
pub(crate) fn state_hash(world: &World) -> u128 {
    let mut text =
        Text { now: world.bridge.now.as_nanos(), ids: BTreeMap::new(), text: String::with_capacity(8192) };
    for (key, state) in &world.bridge.states {
        text.text.push_str(key.as_str());
        text.add(&serde_json::to_value(&**state).unwrap());
    }
    text.add(&serde_json::to_value(&world.bridge.controls).unwrap());
    let waits = text.text.contains("wait");
    let success = world.bridge.last_success().filter(|_| waits).map(|at| at.as_nanos() - text.now);
    let _ = write!(text.text, "{success:?}{:?}", world.bridge.destination);
    text.deliveries(world);
    text.heard(world);
    text.model(world);
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        (seed, &text.text).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    (half(0) << 64) | half(1)
}
