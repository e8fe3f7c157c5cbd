//! What the states of a rule have in common is kept once: the first one is a sample, and those after it are
//! packed with it as their dictionary, so that a row has little but what is its own.
//!
//! Samples are few and never change or go, so whoever has read a row finds its sample.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, params};

use super::compression::{self, Encoded};
use crate::domain::name::Name;
use crate::domain::state::TargetState;
use crate::store::fast_map::Map;

/// Shorter states are kept as they are.
const MIN_STATE_BYTES: usize = 400;
/// So many states in a row that a sample makes no shorter than half ask for another one.
const MAX_CONSECUTIVE_MISSES: u32 = 64;
/// No more samples are taken, whatever rules come and go.
const MAX_DICTIONARIES: i64 = 256;

/// A text that others are like.
#[derive(Debug)]
struct Dictionary {
    id: i64,
    text: String,
    misses: AtomicU32,
}

/// The newest sample of each rule.
#[derive(Debug, Clone, Default)]
pub(super) struct Dictionaries {
    rules: Map<Name, Arc<Dictionary>>,
    last: i64,
}

/// A state as it is kept.
#[derive(Debug)]
pub(super) struct EncodedState {
    pub text: Encoded,
    /// The sample that it is packed with.
    pub dictionary: Option<i64>,
    /// Whose sample it would be.
    candidate: Option<DictionaryCandidate>,
}

/// The rule that wants a sample, and the one that it has.
#[derive(Debug)]
struct DictionaryCandidate {
    rule: Name,
    replaces: Option<i64>,
}

impl EncodedState {
    /// Whether it would be a good sample.
    pub(super) const fn is_candidate(&self) -> bool {
        self.candidate.is_some()
    }
}

impl Dictionaries {
    /// Reads them when the store is opened.
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut dictionaries = Self::default();
        let mut read = connection.prepare("SELECT id, rule, text FROM dictionaries ORDER BY id")?;
        let mut rows = read.query([])?;
        while let Some(row) = rows.next()? {
            dictionaries.last = row.get(0)?;
            // One whose rule has a name that is none any more is still found by its number.
            if let Ok(rule) = Name::new(row.get_ref(1)?.as_str()?) {
                dictionaries.set(rule, row.get(0)?, row.get(2)?);
            }
        }
        Ok(dictionaries)
    }

    fn set(&mut self, rule: Name, id: i64, text: String) {
        self.last = id;
        self.rules.insert(rule, Arc::new(Dictionary { id, text, misses: AtomicU32::new(0) }));
    }

    /// How a state is kept that is this text.
    pub(super) fn encode(&self, state: &TargetState, text: String) -> EncodedState {
        let is_middling = (MIN_STATE_BYTES..compression::MIN_COMPRESS_BYTES).contains(&text.len());
        let Some((rule, _)) = state.rules.iter().next().filter(|_| is_middling) else {
            return EncodedState { text: Encoded::from_text(text), dictionary: None, candidate: None };
        };
        let dictionary = self.rules.get(rule);
        if let Some(dictionary) = dictionary
            && let Some(compressed) = compression::compress_with_dictionary(&text, &dictionary.text)
        {
            dictionary.misses.store(0, Ordering::Relaxed);
            return EncodedState {
                text: Encoded::Compressed(compressed),
                dictionary: Some(dictionary.id),
                candidate: None,
            };
        }
        let is_candidate = self.last < MAX_DICTIONARIES
            && dictionary.is_none_or(|dictionary| {
                dictionary.misses.fetch_add(1, Ordering::Relaxed) >= MAX_CONSECUTIVE_MISSES
            });
        let candidate =
            DictionaryCandidate { rule: rule.clone(), replaces: dictionary.map(|dictionary| dictionary.id) };
        EncodedState {
            text: Encoded::Plain(text),
            dictionary: None,
            candidate: Some(candidate).filter(|_| is_candidate),
        }
    }

    /// Takes a state as a sample, if it is wanted as one and no other was taken meanwhile. The samples with it.
    pub(super) fn add_candidate(
        &self,
        connection: &Connection,
        state: &EncodedState,
    ) -> rusqlite::Result<Option<Self>> {
        let EncodedState {
            text: Encoded::Plain(text),
            candidate: Some(DictionaryCandidate { rule, replaces: instead_of }),
            ..
        } = state
        else {
            return Ok(None);
        };
        if self.rules.get(rule).map(|dictionary| dictionary.id) != *instead_of
            || self.last >= MAX_DICTIONARIES
        {
            return Ok(None);
        }
        let id = self.last + 1;
        let mut put = connection.prepare_cached("INSERT INTO dictionaries VALUES (?1, ?2, ?3)")?;
        put.execute(params![id, rule.as_str(), text])?;
        let mut dictionaries = self.clone();
        dictionaries.set(rule.clone(), id, text.clone());
        Ok(Some(dictionaries))
    }
}

/// The text of a state, from its row and, if it has one, its sample's.
///
/// # Errors
/// If the state is damaged, or its sample is missing.
pub(super) fn decode_state<'a>(state: ValueRef<'a>, dictionary: ValueRef<'_>) -> FromSqlResult<Cow<'a, str>> {
    compression::decode_with_dictionary(state, dictionary.as_str_or_null()?).map_err(|error| {
        let message = format!("a target's state cannot be unpacked; it or its sample is damaged: {error}");
        FromSqlError::Other(message.into())
    })
}
