//! Label and annotation sets.
//!
//! A notification has thousands of small texts in them, which are read once, compared a few times and
//! written again: so a set is one text, and where in it each name and value ends.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names and values in the order of the names, each name once.
///
/// An absent label and an empty one are the same to Prometheus; [`Labels::get`] gives both as `""`.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Labels {
    /// Each name and, right after it, its value.
    text: String,
    /// Where in `text` each name and each value ends.
    ends: Vec<(usize, usize)>,
}

impl Labels {
    fn with_capacity(bytes: usize, pairs: usize) -> Self {
        Self { text: String::with_capacity(bytes), ends: Vec::with_capacity(pairs) }
    }

    /// Where the pair at this place begins.
    fn begin(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| self.ends[before].1)
    }

    fn pair(&self, at: usize) -> (&str, &str) {
        let (name, value) = self.ends[at];
        (&self.text[self.begin(at)..name], &self.text[name..value])
    }

    /// Puts a pair at the end; its name has to come after all others.
    fn push(&mut self, name: &str, value: &str) {
        self.text.push_str(name);
        let end = self.text.len();
        self.text.push_str(value);
        self.ends.push((end, self.text.len()));
    }

    /// The value, `""` where there is none.
    pub fn get(&self, name: &str) -> &str {
        // There are few, and most differ in length.
        (0..self.ends.len())
            .map(|at| self.pair(at))
            .find(|(known, _)| *known == name)
            .map_or("", |(_, value)| value)
    }

    /// Sets `name`, over what it was.
    pub fn set(&mut self, name: &str, value: &str) {
        let mut one = Self::default();
        one.push(name, value);
        self.lay_over(&one);
    }

    /// Sets all that `other` names, over what was there.
    pub fn lay_over(&mut self, other: &Self) {
        // An empty value looks like none.
        if !other.iter().all(|(name, value)| !value.is_empty() && self.get(name) == value) {
            *self = self.under(other);
        }
    }

    fn under(&self, other: &Self) -> Self {
        let mut both =
            Self::with_capacity(self.text.len() + other.text.len(), self.ends.len() + other.ends.len());
        let (mut below, mut above) = (self.iter().peekable(), other.iter().peekable());
        loop {
            let order = match (below.peek(), above.peek()) {
                (Some((a, _)), Some((b, _))) => a.cmp(b),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            let below = if order.is_le() { below.next() } else { None };
            let above = if order.is_ge() { above.next() } else { None };
            above.or(below).into_iter().for_each(|(name, value)| both.push(name, value));
        }
        both
    }

    /// All names and values in the order of the names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        (0..self.ends.len()).map(|at| self.pair(at))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Labels {
    /// Of a name that comes twice the last value stays.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut labels = Self::default();
        for (name, value) in pairs {
            labels.set(&name.into(), &value.into());
        }
        labels
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.ends.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A text that is borrowed where it stands in the body as it is.
#[derive(Deserialize)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Text<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings to strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut pairs: Vec<(Cow<'de, str>, Cow<'de, str>)> =
                    Vec::with_capacity(map.size_hint().unwrap_or(8).min(64));
                while let Some((Text(name), Text(value))) = map.next_entry()? {
                    pairs.push((name, value));
                }
                // Alertmanager sends them sorted, so this is a look, not a sort.
                pairs.sort_by(|a, b| a.0.cmp(&b.0));
                if let Some(twice) = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                    let name: String = twice[0].0.chars().take(80).collect();
                    return Err(serde::de::Error::custom(format!("`{name}` is given twice")));
                }
                let bytes = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
                let mut labels = Labels::with_capacity(bytes, pairs.len());
                pairs.iter().for_each(|(name, value)| labels.push(name, value));
                Ok(labels)
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn texts() -> impl Strategy<Value = BTreeMap<String, String>> {
        prop::collection::btree_map("[a-c]{0,2}", "[a-c\"\\\\é]{0,3}", 0..6)
    }

    proptest! {
        /// As maps of texts are, which they stand for.
        #[test]
        fn labels_are_a_map(below in texts(), above in texts()) {
            let labels: Labels = below.clone().into_iter().collect();
            let json = serde_json::to_string(&below).unwrap();
            prop_assert_eq!(&serde_json::to_string(&labels).unwrap(), &json);
            prop_assert_eq!(&serde_json::from_str::<Labels>(&json).unwrap(), &labels);
            let value = serde_json::from_str::<serde_json::Value>(&json).unwrap();
            prop_assert_eq!(&serde_json::from_value::<Labels>(value).unwrap(), &labels);
            for name in ["", "a", "ab", "b", "cc"] {
                prop_assert_eq!(labels.get(name), below.get(name).map_or("", String::as_str));
            }
            let mut both = labels;
            both.lay_over(&above.clone().into_iter().collect());
            let mut expected = below;
            expected.extend(above);
            prop_assert_eq!(both, expected.into_iter().collect());
        }
    }

    #[test]
    fn a_name_that_is_given_twice_is_refused() {
        let error = serde_json::from_str::<Labels>(r#"{"b":"1","a":"2","b":"3"}"#).unwrap_err();
        assert!(error.to_string().starts_with("`b` is given twice"), "{error}");
    }
}
