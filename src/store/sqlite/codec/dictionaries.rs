//! Per-rule compression dictionaries for target states: the first state of a rule, at most 256 in all. Later
//! states of the rule are compressed with it, so that a row has little more than its own part.
//!
//! Dictionaries are never changed or deleted, so the dictionary of a row always exists.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, params};

use super::compression::{self, Encoded};
use crate::domain::name::Name;
use crate::domain::state::TargetState;
use crate::store::fast_map::Map;

/// Shorter states are stored uncompressed.
const MIN_STATE_BYTES: usize = 400;
/// After this number of consecutive states that a dictionary does not compress to half, the rule gets a new
/// one.
const MAX_CONSECUTIVE_MISSES: u32 = 64;
/// Maximum number of dictionaries, including those of removed rules.
const MAX_DICTIONARIES: i64 = 256;

/// A compression dictionary.
#[derive(Debug)]
struct Dictionary {
    id: i64,
    text: String,
    misses: AtomicU32,
}

/// The newest dictionary of each rule.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dictionaries {
    rules: Map<Name, Arc<Dictionary>>,
    last: i64,
}

/// A state in its stored form.
#[derive(Debug)]
pub(crate) struct EncodedState {
    pub text: Encoded,
    /// The dictionary that it is compressed with.
    pub dictionary: Option<i64>,
    /// Set if the state may become a dictionary.
    candidate: Option<DictionaryCandidate>,
}

/// The rule that needs a dictionary, and its current one.
#[derive(Debug)]
struct DictionaryCandidate {
    rule: Name,
    replaces: Option<i64>,
}

impl EncodedState {
    /// Whether the state may become a dictionary.
    pub(crate) const fn is_candidate(&self) -> bool {
        self.candidate.is_some()
    }
}

impl Dictionaries {
    /// Reads the dictionaries when the store is opened.
    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut dictionaries = Self::default();
        let mut read = connection.prepare("SELECT id, rule, text FROM dictionaries ORDER BY id")?;
        let mut rows = read.query([])?;
        while let Some(row) = rows.next()? {
            dictionaries.last = row.get(0)?;
            // A dictionary whose rule name is not valid any more is still found by its id.
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

    /// Encodes a state, given as JSON.
    pub(crate) fn encode(&self, state: &TargetState, text: String) -> EncodedState {
        let is_dictionary_size = (MIN_STATE_BYTES..compression::MIN_COMPRESS_BYTES).contains(&text.len());
        let Some((rule, _)) = state.rules.iter().next().filter(|_| is_dictionary_size) else {
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

    /// Stores a candidate as the dictionary of its rule, unless the rule got another one meanwhile. Returns
    /// the dictionaries with it.
    pub(crate) fn add_candidate(
        &self,
        connection: &Connection,
        state: &EncodedState,
    ) -> rusqlite::Result<Option<Self>> {
        let EncodedState {
            text: Encoded::Plain(text),
            candidate: Some(DictionaryCandidate { rule, replaces }),
            ..
        } = state
        else {
            return Ok(None);
        };
        if self.rules.get(rule).map(|dictionary| dictionary.id) != *replaces || self.last >= MAX_DICTIONARIES
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

/// Decodes a state, from its row and the text of its dictionary.
///
/// # Errors
/// If the state is damaged, or its dictionary is damaged or missing.
pub(crate) fn decode_state<'a>(state: ValueRef<'a>, dictionary: ValueRef<'_>) -> FromSqlResult<Cow<'a, str>> {
    compression::decode_with_dictionary(state, dictionary.as_str_or_null()?).map_err(|error| {
        let message = format!("cannot decompress the state; it or its dictionary is damaged: {error}");
        FromSqlError::Other(message.into())
    })
}
