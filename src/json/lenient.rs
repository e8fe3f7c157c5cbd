//! Optional fields whose values a newer program may have extended.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads an optional field; a value that this version cannot read is like an absent one.
///
/// # Errors
/// The input is not valid.
pub(crate) fn lenient<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: DeserializeOwned,
{
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}
