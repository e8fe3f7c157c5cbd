//! A map from alerts to values that contain their own key.
//!
//! Usually there are few entries; but a group can have many thousands of alerts about one target, and each
//! notification contains all of them, so no operation may be linear in the number of alerts. Up to
//! `MAX_LIST_LEN` entries are a sorted list, more are a tree. Serialized as a list.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::alert_key::AlertKey;

/// A value of an [`AlertMap`].
pub trait HasAlertKey {
    /// The alert that the value belongs to.
    fn alert(&self) -> &AlertKey;
}

/// With more entries the map becomes a tree.
const MAX_LIST_LEN: usize = 32;

/// Values in the order of their alerts, at most one per alert.
#[derive(Debug, Clone)]
pub struct AlertMap<T>(Repr<T>);

#[derive(Debug, Clone)]
enum Repr<T> {
    List(Vec<T>),
    Tree(BTreeMap<AlertKey, Box<T>>),
}

impl<T> Default for AlertMap<T> {
    fn default() -> Self {
        Self(Repr::List(Vec::new()))
    }
}

impl<T> AlertMap<T> {
    /// The number of values.
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::List(list) => list.len(),
            Repr::Tree(tree) => tree.len(),
        }
    }

    /// Whether the map has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All values, ordered by alert.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let (few, many) = match &self.0 {
            Repr::List(list) => (list.as_slice(), None),
            Repr::Tree(tree) => (&[][..], Some(tree.values())),
        };
        few.iter().chain(many.into_iter().flatten().map(|item| &**item))
    }

    /// The same, mutable. The alert of a value must not change.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let (few, many) = match &mut self.0 {
            Repr::List(list) => (list.as_mut_slice(), None),
            Repr::Tree(tree) => (&mut [][..], Some(tree.values_mut())),
        };
        few.iter_mut().chain(many.into_iter().flatten().map(|item| &mut **item))
    }
}

/// The index of an alert in a sorted list, or the index at which it would be inserted.
fn find<T: HasAlertKey>(list: &[T], alert: &AlertKey) -> Result<usize, usize> {
    list.binary_search_by(|item| item.alert().cmp(alert))
}

impl<T: HasAlertKey> AlertMap<T> {
    /// The value of an alert.
    pub fn get(&self, alert: &AlertKey) -> Option<&T> {
        match &self.0 {
            Repr::List(list) => find(list, alert).ok().map(|at| &list[at]),
            Repr::Tree(tree) => tree.get(alert).map(|item| &**item),
        }
    }

    /// The value of an alert, mutable.
    pub fn get_mut(&mut self, alert: &AlertKey) -> Option<&mut T> {
        match &mut self.0 {
            Repr::List(list) => find(list, alert).ok().map(|at| &mut list[at]),
            Repr::Tree(tree) => tree.get_mut(alert).map(|item| &mut **item),
        }
    }

    /// Whether the map has a value for an alert.
    pub fn contains(&self, alert: &AlertKey) -> bool {
        self.get(alert).is_some()
    }

    /// Inserts a value. A value with the same alert is replaced.
    pub fn insert(&mut self, item: T) {
        match &mut self.0 {
            Repr::List(list) => match find(list, item.alert()) {
                Ok(at) => list[at] = item,
                Err(at) if list.len() < MAX_LIST_LEN => {
                    if list.is_empty() {
                        list.reserve_exact(1);
                    }
                    list.insert(at, item);
                }
                Err(_) => {
                    let all = std::mem::take(list).into_iter().chain([item]);
                    self.0 = Repr::Tree(all.map(|item| (item.alert().clone(), Box::new(item))).collect());
                }
            },
            Repr::Tree(tree) => drop(tree.insert(item.alert().clone(), Box::new(item))),
        }
    }

    /// Removes and returns the value of an alert.
    pub fn remove(&mut self, alert: &AlertKey) -> Option<T> {
        match &mut self.0 {
            Repr::List(list) => find(list, alert).ok().map(|at| list.remove(at)),
            Repr::Tree(tree) => tree.remove(alert).map(|item| *item),
        }
    }

    /// Removes and returns all values for which `predicate` returns true.
    pub fn extract_if(&mut self, mut predicate: impl FnMut(&T) -> bool) -> Vec<T> {
        match &mut self.0 {
            Repr::List(list) => list.extract_if(.., |item| predicate(item)).collect(),
            Repr::Tree(tree) => {
                tree.extract_if(.., |_, item| predicate(item)).map(|(_, item)| *item).collect()
            }
        }
    }
}

/// A list and a tree with the same values are equal.
impl<T: PartialEq> PartialEq for AlertMap<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<T: HasAlertKey> FromIterator<T> for AlertMap<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut all = Self::default();
        items.into_iter().for_each(|item| all.insert(item));
        all
    }
}

impl<T> IntoIterator for AlertMap<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        let list = match self.0 {
            Repr::List(list) => list,
            Repr::Tree(tree) => tree.into_values().map(|item| *item).collect(),
        };
        list.into_iter()
    }
}

impl<T: Serialize> Serialize for AlertMap<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de, T: HasAlertKey + Deserialize<'de>> Deserialize<'de> for AlertMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<T>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::name::Name;

    impl HasAlertKey for AlertKey {
        fn alert(&self) -> &AlertKey {
            self
        }
    }

    fn key(number: usize) -> AlertKey {
        AlertKey { source: Name::new("prod").unwrap(), fingerprint: format!("{number:04}").into() }
    }

    #[test]
    fn a_list_and_a_tree_behave_the_same() {
        let mut many: AlertMap<AlertKey> = (0..100).rev().map(key).collect();
        assert!((0..100).all(|number| many.get(&key(number)) == Some(&key(number))));
        assert_eq!(many.iter().cloned().collect::<Vec<_>>(), (0..100).map(key).collect::<Vec<_>>());
        let gone = many.extract_if(|alert| *alert >= key(3));
        assert_eq!(gone.len(), 97);
        let few: AlertMap<AlertKey> = [2, 0, 1].map(key).into_iter().collect();
        assert_eq!(few, many, "one was a tree before, the other always a list");
        assert_eq!(many.remove(&key(1)), Some(key(1)));
        assert_ne!(few, many);
        assert_eq!(few.into_iter().collect::<Vec<_>>(), [0, 1, 2].map(key));
    }
}
