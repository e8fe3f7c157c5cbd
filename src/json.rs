//! Encodes JSON, as serde_json does it, and the escapes that SQS requires besides. (And [`Object`], for parsing
//! JSON from outside.)

use serde::Serialize;
use serde::ser::Error as _;
use serde_json::{Error, Result};

#[cfg(feature = "server")]
mod informative;
mod lenient;
#[cfg(feature = "server")]
mod object;

#[cfg(feature = "server")]
pub(crate) use informative::informative;
pub(crate) use lenient::lenient;
#[cfg(feature = "server")]
pub(crate) use object::Object;

/// Serializes a value into a string with an initial capacity of `capacity` bytes.
///
/// # Errors
///
/// Errors of the value's `Serialize`; map keys that are not strings.
pub(crate) fn to_string<T: Serialize + ?Sized>(value: &T, capacity: usize) -> Result<String> {
    let mut json = Vec::with_capacity(capacity);
    serde_json::to_writer(&mut json, value)?;
    String::from_utf8(json).map_err(Error::custom)
}

/// Escapes the characters outside of XML's `Char`, which transports such as SQS reject. JSON already escapes
/// control characters, and surrogates cannot occur, but U+FFFE and U+FFFF are legal in JSON.
pub(crate) fn xml_safe(json: String) -> String {
    // 0xEF is rare: it is the first byte of U+F000 to U+FFFF. Such characters occur only in strings.
    if !json.as_bytes().contains(&0xEF) {
        return json;
    }
    json.replace('\u{FFFE}', "\\ufffe").replace('\u{FFFF}', "\\uffff")
}

/// The longest prefix of `text` that takes at most `max` bytes within a JSON string.
pub(crate) fn truncate_escaped(text: &str, max: usize) -> &str {
    let mut taken = 0;
    let end = text.char_indices().find(|&(_, c)| {
        taken += match c {
            '"' | '\\' => 2,
            '\0'..='\x1f' | '\u{FFFE}' | '\u{FFFF}' => 6,
            _ => c.len_utf8(),
        };
        taken > max
    });
    end.map_or(text, |(at, _)| &text[..at])
}
