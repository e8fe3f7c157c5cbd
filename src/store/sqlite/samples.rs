//! What the states of a rule have in common is kept once: the first one is a sample, and those after it are
//! packed with it as their dictionary, so that a row has little but what is its own.
//!
//! Samples are few and never change or go, so whoever has read a row finds its sample.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, params};

use super::pack::{self, Kept};
use crate::domain::name::Name;
use crate::domain::state::TargetState;
use crate::store::numbers::Map;

/// Shorter states are kept as they are.
const AT_LEAST: usize = 400;
/// So many states in a row that a sample makes no shorter than half ask for another one.
const MISSES: u32 = 64;
/// No more samples are taken, whatever rules come and go.
const AT_MOST: i64 = 256;

/// A text that others are like.
#[derive(Debug)]
struct Sample {
    id: i64,
    text: String,
    misses: AtomicU32,
}

/// The newest sample of each rule.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    rules: Map<Name, Arc<Sample>>,
    last: i64,
}

/// A state as it is kept.
#[derive(Debug)]
pub struct KeptState {
    pub text: Kept,
    /// The sample that it is packed with.
    pub sample: Option<i64>,
    /// Whose sample it would be.
    wanted: Option<Wanted>,
}

/// The rule that wants a sample, and the one that it has.
#[derive(Debug)]
struct Wanted {
    rule: Name,
    instead_of: Option<i64>,
}

impl KeptState {
    /// Whether it would be a good sample.
    pub const fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }
}

impl Samples {
    /// Reads them when the store is opened.
    pub fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut samples = Self::default();
        let mut read = connection.prepare("SELECT id, rule, text FROM samples ORDER BY id")?;
        let mut rows = read.query([])?;
        while let Some(row) = rows.next()? {
            samples.last = row.get(0)?;
            // One whose rule has a name that is none any more is still found by its number.
            if let Ok(rule) = Name::new(row.get_ref(1)?.as_str()?) {
                samples.set(rule, row.get(0)?, row.get(2)?);
            }
        }
        Ok(samples)
    }

    fn set(&mut self, rule: Name, id: i64, text: String) {
        self.last = id;
        self.rules.insert(rule, Arc::new(Sample { id, text, misses: AtomicU32::new(0) }));
    }

    /// How a state is kept that is this text.
    pub fn keep(&self, state: &TargetState, text: String) -> KeptState {
        let is_middling = (AT_LEAST..pack::AT_LEAST).contains(&text.len());
        let Some((rule, _)) = state.rules.iter().next().filter(|_| is_middling) else {
            return KeptState { text: Kept::of(text), sample: None, wanted: None };
        };
        let sample = self.rules.get(rule);
        if let Some(sample) = sample
            && let Some(packed) = pack::pack_like(&text, &sample.text)
        {
            sample.misses.store(0, Ordering::Relaxed);
            return KeptState { text: Kept::Packed(packed), sample: Some(sample.id), wanted: None };
        }
        let is_wanted = self.last < AT_MOST
            && sample.is_none_or(|sample| sample.misses.fetch_add(1, Ordering::Relaxed) >= MISSES);
        let wanted = Wanted { rule: rule.clone(), instead_of: sample.map(|sample| sample.id) };
        KeptState { text: Kept::Text(text), sample: None, wanted: Some(wanted).filter(|_| is_wanted) }
    }

    /// Takes a state as a sample, if it is wanted as one and no other was taken meanwhile. The samples with it.
    pub fn take(&self, connection: &Connection, state: &KeptState) -> rusqlite::Result<Option<Self>> {
        let KeptState { text: Kept::Text(text), wanted: Some(Wanted { rule, instead_of }), .. } = state
        else {
            return Ok(None);
        };
        if self.rules.get(rule).map(|sample| sample.id) != *instead_of || self.last >= AT_MOST {
            return Ok(None);
        }
        let id = self.last + 1;
        let mut put = connection.prepare_cached("INSERT INTO samples VALUES (?1, ?2, ?3)")?;
        put.execute(params![id, rule.as_str(), text])?;
        let mut samples = self.clone();
        samples.set(rule.clone(), id, text.clone());
        Ok(Some(samples))
    }
}

/// The text of a state, from its row and, if it has one, its sample's.
///
/// # Errors
/// If the state is damaged, or its sample is missing.
pub fn text<'a>(state: ValueRef<'a>, sample: ValueRef<'_>) -> FromSqlResult<Cow<'a, str>> {
    pack::text_like(state, sample.as_str_or_null()?).map_err(|error| {
        let told = format!("a target's state cannot be unpacked; it or its sample is damaged: {error}");
        FromSqlError::Other(told.into())
    })
}
