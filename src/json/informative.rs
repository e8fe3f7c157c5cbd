//! Optional texts of notifications that nothing is decided by.

use std::fmt;

use serde::Deserializer;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Reads an optional text that only informs; a value of another type is like an absent one.
///
/// # Errors
/// The input is not valid.
pub(crate) fn informative<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    deserializer.deserialize_any(InformativeVisitor)
}

struct InformativeVisitor;

impl<'de> Visitor<'de> for InformativeVisitor {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Body {
        #[serde(default, deserialize_with = "informative")]
        text: Option<String>,
    }

    #[test]
    fn a_value_of_another_type_is_like_an_absent_one() {
        let read = |json: &str| serde_json::from_str::<Body>(json).map(|read| read.text);
        assert_eq!(read(r#"{ "text": "a\nb" }"#).unwrap().as_deref(), Some("a\nb"));
        assert_eq!(read("{}").unwrap(), None);
        for other in ["null", "true", "-1", "1", "1.5", "[[1], {}]", r#"{ "a": { "b": [2] } }"#] {
            let read = read(&format!("{{ \"text\": {other} }}"));
            assert!(matches!(read, Ok(None)), "{other}: {read:?}");
        }
        read(r#"{ "text": [1, }"#).unwrap_err();
    }
}
