//! Label and annotation sets.
//!
//! A notification has thousands of small texts in them, which are read once, compared a few times and
//! written again: so a set is one text, and where in it each name and value ends.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::json::{self, Raw};

/// Names and values in the order of the names, each name once.
///
/// An absent label and an empty one are the same to Prometheus; [`Labels::get`] gives both as `""`.
///
/// Each set is written three times (into the event, the state and the record), so it is encoded when it
/// comes in, and copied from then on.
#[derive(Clone)]
pub struct Labels {
    /// The set as JSON, in a form that any queue takes.
    json: String,
    /// Each name and, right after it, its value, if they do not stand in `json` as they are.
    plain: Option<Box<str>>,
    /// Where in the text each name and each value ends.
    ends: Box<[(u32, u32)]>,
}

impl Labels {
    /// From pairs in the order of their names, each name once.
    fn from_sorted_pairs(pairs: &[(Cow<'_, str>, Cow<'_, str>)]) -> Self {
        let plain_bytes: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        // Beside the texts: brackets, to each pair four quotation marks and a colon, and commas between them.
        let plain_json = plain_bytes + 2 + 5 * pairs.len() + pairs.len().saturating_sub(1);
        let json = encode(pairs, plain_json);
        let as_they_are = json.len() == plain_json;
        let plain = (!as_they_are && !pairs.is_empty()).then(|| {
            let texts = pairs.iter().flat_map(|(name, value)| [&**name, &**value]);
            texts.collect::<String>().into_boxed_str()
        });
        let mut labels = Self { json, plain, ends: Box::default() };
        let (mut at, gap) = (labels.first_offset(), labels.separator_len());
        let ends = pairs.iter().map(|(name, value)| {
            let name_end = at + name.len();
            let value_end = name_end + gap + value.len();
            at = value_end + gap;
            // A body is bounded far below.
            (u32::try_from(name_end).unwrap_or(u32::MAX), u32::try_from(value_end).unwrap_or(u32::MAX))
        });
        labels.ends = ends.collect();
        labels
    }

    fn text(&self) -> &str {
        self.plain.as_deref().unwrap_or_else(|| &self.json)
    }

    /// Where in the text the first name begins: in JSON after `{"`.
    const fn first_offset(&self) -> usize {
        if self.plain.is_some() { 0 } else { 2 }
    }

    /// What stands between two texts: in JSON `":"` and `","`.
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
        self.overlay(&Self::from_sorted_pairs(&[(name.into(), value.into())]));
    }

    /// Sets all that `other` names, over what was there.
    pub fn overlay(&mut self, other: &Self) {
        // An empty value looks like none.
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

    /// All names and values in the order of the names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        (0..self.ends.len()).map(|at| self.pair(at))
    }
}

/// The set as JSON, with room for so many bytes. SQS refuses U+FFFE and U+FFFF, which JSON lets through, so they
/// are escaped.
fn encode(pairs: &[(Cow<'_, str>, Cow<'_, str>)], room: usize) -> String {
    // The last texts are written eight bytes at a time.
    let mut json = Vec::with_capacity(room + 8);
    json.push(b'{');
    for (at, (name, value)) in pairs.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        json::push_string(&mut json, name);
        json.push(b':');
        json::push_string(&mut json, value);
    }
    json.push(b'}');
    json::for_sqs(json::into_string(json))
}

impl Default for Labels {
    fn default() -> Self {
        Self::from_sorted_pairs(&[])
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        // A set has one form.
        self.json == other.json
    }
}

impl Eq for Labels {}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Labels {
    /// Of a name that comes twice the last value stays.
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
        Raw(&self.json).serialize(serializer)
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
                Ok(Labels::from_sorted_pairs(&pairs))
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
        prop::collection::btree_map("[a-c]{0,2}", "[a-c\"\\\\é\u{fffe}]{0,3}", 0..6)
    }

    proptest! {
        /// As maps of texts are, which they stand for.
        #[test]
        fn labels_are_a_map(below in texts(), above in texts()) {
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
    fn a_name_that_is_given_twice_is_refused() {
        let error = serde_json::from_str::<Labels>(r#"{"b":"1","a":"2","b":"3"}"#).unwrap_err();
        assert!(error.to_string().starts_with("`b` is given twice"), "{error}");
    }
}
