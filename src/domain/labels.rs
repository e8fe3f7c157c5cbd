//! Label and annotation sets.
//!
//! A notification contains thousands of short strings, which are read once, compared a few times and written
//! again. Therefore a set is stored as one string and the offsets of the names and values in it.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::json;

/// A set of labels or annotations, sorted by name, each name once.
///
/// As in Prometheus, an absent label equals an empty one; [`Labels::get`] returns `""` for both.
///
/// Each set is written three times (to event, state and record), so it is encoded once and copied from then
/// on.
#[derive(Clone)]
pub struct Labels {
    /// The set as JSON that SQS accepts.
    json: Box<RawValue>,
    /// Names and values, concatenated in pairs, if some of them are escaped in `json`.
    plain: Option<Box<str>>,
    /// The end offsets of each name and value in [`Labels::text`].
    ends: Box<[(u32, u32)]>,
}

impl Labels {
    /// Builds a set from pairs that are sorted by name, each name once.
    fn from_sorted_pairs(pairs: &[(Cow<'_, str>, Cow<'_, str>)]) -> Self {
        let plain_bytes: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        // Besides the strings: the braces, four quotation marks and a colon per pair, and commas between
        // pairs.
        let plain_json = plain_bytes + 2 + 5 * pairs.len() + pairs.len().saturating_sub(1);
        let json = encode(pairs, plain_json);
        let is_plain = json.get().len() == plain_json;
        let plain = (!is_plain && !pairs.is_empty()).then(|| {
            let texts = pairs.iter().flat_map(|(name, value)| [&**name, &**value]);
            texts.collect::<String>().into_boxed_str()
        });
        let mut labels = Self { json, plain, ends: Box::default() };
        let (mut at, separator_len) = (labels.first_offset(), labels.separator_len());
        let ends = pairs.iter().map(|(name, value)| {
            let name_end = at + name.len();
            let value_end = name_end + separator_len + value.len();
            at = value_end + separator_len;
            // The size of a body is limited far below `u32::MAX`.
            (u32::try_from(name_end).unwrap_or(u32::MAX), u32::try_from(value_end).unwrap_or(u32::MAX))
        });
        labels.ends = ends.collect();
        labels
    }

    fn text(&self) -> &str {
        self.plain.as_deref().unwrap_or_else(|| self.json.get())
    }

    /// The offset of the first name: in JSON after `{"`.
    const fn first_offset(&self) -> usize {
        if self.plain.is_some() { 0 } else { 2 }
    }

    /// The length of what separates two strings: `":"` or `","` in JSON.
    const fn separator_len(&self) -> usize {
        if self.plain.is_some() { 0 } else { 3 }
    }

    fn pair(&self, at: usize) -> (&str, &str) {
        let (name_end, value_end) = self.ends[at];
        let (name_end, value_end) = (name_end as usize, value_end as usize);
        let begin = at
            .checked_sub(1)
            .map_or(self.first_offset(), |before| self.ends[before].1 as usize + self.separator_len());
        let text = self.text();
        (&text[begin..name_end], &text[name_end + self.separator_len()..value_end])
    }

    /// The value of a label, `""` if absent.
    pub fn get(&self, name: &str) -> &str {
        // A linear search: sets are small, and most names differ in length.
        (0..self.ends.len())
            .map(|at| self.pair(at))
            .find(|(known, _)| *known == name)
            .map_or("", |(_, value)| value)
    }

    /// Sets `name`, replacing its value.
    pub fn set(&mut self, name: &str, value: &str) {
        self.overlay(&Self::from_sorted_pairs(&[(name.into(), value.into())]));
    }

    /// Sets all labels of `other`, replacing existing values.
    pub fn overlay(&mut self, other: &Self) {
        // An empty value is indistinguishable from an absent one, so it needs the merge.
        if !other.iter().all(|(name, value)| !value.is_empty() && self.get(name) == value) {
            *self = self.merged_with(other);
        }
    }

    fn merged_with(&self, other: &Self) -> Self {
        let mut both = Vec::with_capacity(self.ends.len() + other.ends.len());
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
            both.extend(above.or(below).map(|(name, value)| (name.into(), value.into())));
        }
        Self::from_sorted_pairs(&both)
    }

    /// All names and values, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        (0..self.ends.len()).map(|at| self.pair(at))
    }
}

/// Encodes pairs as JSON, for which `room` bytes are allocated. U+FFFE and U+FFFF are escaped, since
/// XML does not allow them.
#[expect(clippy::expect_used, reason = "all keys are strings")]
fn encode(pairs: &[(Cow<'_, str>, Cow<'_, str>)], room: usize) -> Box<RawValue> {
    let encoded = json::to_string(&SortedMap(pairs), room).map(json::xml_safe);
    encoded.and_then(RawValue::from_string).expect("all keys are strings")
}

struct SortedMap<'a>(&'a [(Cow<'a, str>, Cow<'a, str>)]);

impl Serialize for SortedMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::from_sorted_pairs(&[])
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        // The encoding of a set is canonical.
        self.json.get() == other.json.get()
    }
}

impl Eq for Labels {}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Labels {
    /// The last value of a duplicate name wins.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let sorted: BTreeMap<String, String> =
            pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let pairs: Vec<_> = sorted.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self::from_sorted_pairs(&pairs)
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

/// A string that borrows from the input if it contains no escapes.
#[derive(Deserialize)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Text<'_> {
    /// The unescaped string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LabelsVisitor;
        impl<'de> Visitor<'de> for LabelsVisitor {
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
                // Alertmanager sends labels sorted, so this is a single pass.
                pairs.sort_by(|a, b| a.0.cmp(&b.0));
                if let Some(duplicate) = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                    let name: String = duplicate[0].0.chars().take(80).collect();
                    return Err(serde::de::Error::custom(format!("`{name}` is given twice")));
                }
                Ok(Labels::from_sorted_pairs(&pairs))
            }
        }
        deserializer.deserialize_map(LabelsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn string_maps() -> impl Strategy<Value = BTreeMap<String, String>> {
        prop::collection::btree_map("[a-c]{0,2}", "[a-c\"\\\\é\u{fffe}]{0,3}", 0..6)
    }

    proptest! {
        /// A set behaves as a map of strings.
        #[test]
        fn labels_behave_as_a_map(below in string_maps(), above in string_maps()) {
            let labels: Labels = below.clone().into_iter().collect();
            let json = serde_json::to_string(&below).unwrap();
            prop_assert_eq!(&serde_json::to_string(&labels).unwrap(), &json.replace('\u{fffe}', "\\ufffe"));
            prop_assert_eq!(&serde_json::from_str::<Labels>(&json).unwrap(), &labels);
            let value = serde_json::from_str::<serde_json::Value>(&json).unwrap();
            prop_assert_eq!(&serde_json::from_value::<Labels>(value).unwrap(), &labels);
            for name in ["", "a", "ab", "b", "cc"] {
                prop_assert_eq!(labels.get(name), below.get(name).map_or("", String::as_str));
            }
            let mut both = labels;
            both.overlay(&above.clone().into_iter().collect());
            let mut expected = below;
            expected.extend(above);
            prop_assert_eq!(both, expected.into_iter().collect());
        }
    }

    #[test]
    fn a_duplicate_name_is_rejected() {
        let error = serde_json::from_str::<Labels>(r#"{"b":"1","a":"2","b":"3"}"#).unwrap_err();
        assert!(error.to_string().starts_with("`b` is given twice"), "{error}");
    }
}
