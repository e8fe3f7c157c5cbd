//! Parses JSON objects from outside.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Deserializes a JSON object only. A struct with derived `Deserialize` also accepts an array of its fields
/// in order, which is not valid in any format that is parsed here.
pub(crate) struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Pair<'a> {
        #[serde(borrow)]
        one: &'a str,
        other: Option<u8>,
    }

    #[test]
    fn the_fields_of_an_object_are_read_by_their_names_only() {
        let Object(Pair { one, other }) = serde_json::from_str(r#"{"other":2,"one":"1"}"#).unwrap();
        assert_eq!((one, other), ("1", Some(2)));
        let error = |text| serde_json::from_str::<Object<Pair<'_>>>(text).err().unwrap().to_string();
        assert!(error(r#"["1",2]"#).starts_with("invalid type: sequence, expected a JSON object"));
        assert!(error("null").starts_with("invalid type: null, expected a JSON object"));
        assert_eq!(error(r#"{"other":2}"#), "missing field `one` at line 1 column 11", "as without it");
    }
}
