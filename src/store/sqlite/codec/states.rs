//! The stored form of states: JSON, compressed with a dictionary that is part of this program. A state is short, and
//! has little repetition of its own; most of it are the names of fields and labels.
//!
//! A dictionary is never changed, because stored states need it. Another one would get the next id.

use std::borrow::Cow;

use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};

use super::compression::{self, Encoded};

/// The dictionaries by id, from 1.
const DICTIONARIES: [&str; 1] = [include_str!("state-dictionary-1.json")];
/// The id of the dictionary of new states.
const CURRENT: i64 = DICTIONARIES.len() as i64;
/// Shorter states are stored uncompressed.
const MIN_STATE_BYTES: usize = 400;

/// A state in its stored form.
#[derive(Debug)]
pub(crate) struct EncodedState {
    pub text: Encoded,
    /// The dictionary that it is compressed with.
    pub dictionary: Option<i64>,
}

/// Encodes a state, given as JSON.
pub(crate) fn encode(text: String) -> EncodedState {
    let dictionary = DICTIONARIES[DICTIONARIES.len() - 1];
    let compressed = (text.len() >= MIN_STATE_BYTES)
        .then(|| compression::compress_with_dictionary(&text, dictionary))
        .flatten();
    match compressed {
        Some(compressed) => EncodedState { text: Encoded::Compressed(compressed), dictionary: Some(CURRENT) },
        None => EncodedState { text: Encoded::Plain(text), dictionary: None },
    }
}

/// Decodes a state, from its column and the id of its dictionary.
///
/// # Errors
/// If the state is damaged, or its dictionary is not known.
pub(crate) fn decode(state: ValueRef<'_>, dictionary: Option<i64>) -> FromSqlResult<Cow<'_, str>> {
    let find = |id: i64| {
        let index = usize::try_from(id).ok()?.checked_sub(1)?;
        DICTIONARIES.get(index).copied()
    };
    let unknown = |id: i64| FromSqlError::Other(format!("unknown dictionary {id} of a state").into());
    let text = dictionary.map(|id| find(id).ok_or_else(|| unknown(id))).transpose()?;
    compression::decode_with_dictionary(state, text).map_err(|error| {
        FromSqlError::Other(format!("cannot decompress the state, it is damaged: {error}").into())
    })
}

#[cfg(test)]
mod tests {
    use rusqlite::ToSql;

    use super::*;

    /// Stored states need the dictionary: if it has to be changed, add another one instead.
    #[test]
    fn a_dictionary_is_never_changed() {
        let hashes = DICTIONARIES.map(|text| {
            let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, fnv))
        });
        insta::assert_snapshot!(hashes.join("\n"));
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for length in [0, MIN_STATE_BYTES - 1, MIN_STATE_BYTES, 100_000] {
            let text = format!("{{\"sequence\":1764321215655448,\"rules\":\"{}\"}}", "x".repeat(length));
            let EncodedState { text: encoded, dictionary } = encode(text.clone());
            assert_eq!(dictionary.is_some(), text.len() >= MIN_STATE_BYTES);
            let column = encoded.to_sql().unwrap();
            let rusqlite::types::ToSqlOutput::Borrowed(column) = column else { panic!("{column:?}") };
            assert_eq!(decode(column, dictionary).unwrap(), text);
        }
    }

    #[test]
    fn an_unknown_dictionary_is_an_error() {
        for id in [0, -1, CURRENT + 1, i64::MAX] {
            let error = decode(ValueRef::Blob(&[1, 0, 0, 0, 16, 97]), Some(id)).unwrap_err().to_string();
            assert!(error.contains("unknown dictionary"), "{error}");
        }
    }
}
