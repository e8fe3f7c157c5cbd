//! Things that are kept by the alert that they are about, at most one for each.
//!
//! A group can have many thousands of alerts about one target, and each notification speaks of all of
//! them, so nothing here may look at every alert for every alert. Written as a list.

use std::collections::{BTreeMap, btree_map};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::state::AlertKey;

/// Something that is about one alert.
pub trait OfAlert {
    /// Which.
    fn alert(&self) -> &AlertKey;
}

/// At most one `T` for each alert, in the order of the alerts' keys. Boxed, because a map's node has room
/// for eleven, and most targets have one or two.
#[derive(Debug, Clone, PartialEq)]
pub struct ByAlert<T>(BTreeMap<AlertKey, Box<T>>);

impl<T> Default for ByAlert<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: OfAlert> ByAlert<T> {
    /// What there is about an alert.
    pub fn get(&self, alert: &AlertKey) -> Option<&T> {
        self.0.get(alert).map(|item| &**item)
    }

    /// What there is about an alert.
    pub fn get_mut(&mut self, alert: &AlertKey) -> Option<&mut T> {
        self.0.get_mut(alert).map(|item| &mut **item)
    }

    /// Whether there is anything about an alert.
    pub fn has(&self, alert: &AlertKey) -> bool {
        self.0.contains_key(alert)
    }

    /// Puts it in the place of what there was about the same alert.
    pub fn put(&mut self, item: T) {
        self.0.insert(item.alert().clone(), Box::new(item));
    }

    /// Takes out what there is about an alert.
    pub fn take(&mut self, alert: &AlertKey) -> Option<T> {
        self.0.remove(alert).map(|item| *item)
    }

    /// Takes out all that `leaves`.
    pub fn take_if(&mut self, mut leaves: impl FnMut(&T) -> bool) -> Vec<T> {
        self.0.extract_if(.., |_, item| leaves(item)).map(|(_, item)| *item).collect()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.values().map(|item| &**item)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: OfAlert> FromIterator<T> for ByAlert<T> {
    /// Of what is about the same alert the last stays.
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self(items.into_iter().map(|item| (item.alert().clone(), Box::new(item))).collect())
    }
}

impl<T> IntoIterator for ByAlert<T> {
    type Item = T;
    type IntoIter = std::iter::Map<btree_map::IntoValues<AlertKey, Box<T>>, fn(Box<T>) -> T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_values().map(|item| *item)
    }
}

impl<T: Serialize> Serialize for ByAlert<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.values())
    }
}

impl<'de, T: OfAlert + Deserialize<'de>> Deserialize<'de> for ByAlert<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<T>::deserialize(deserializer)?.into_iter().collect())
    }
}
