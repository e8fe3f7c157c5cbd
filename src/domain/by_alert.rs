//! Things that are kept by the alert that they are about, at most one for each.
//!
//! Most often there is one, or a few; but a group can have many thousands of alerts about one target, and
//! each notification speaks of all of them, so nothing here may look at every alert for every alert. A few
//! are a sorted list, many a tree. Written as a list.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::state::AlertKey;

/// What a [`ByAlert`] keeps.
pub trait OfAlert {
    /// The alert that it is about.
    fn alert(&self) -> &AlertKey;
}

/// So many are a list.
const FEW: usize = 32;

/// Things by their alerts, in the order of the alerts.
#[derive(Debug, Clone)]
pub struct ByAlert<T>(Kept<T>);

#[derive(Debug, Clone)]
enum Kept<T> {
    Few(Vec<T>),
    Many(BTreeMap<AlertKey, Box<T>>),
}

impl<T> Default for ByAlert<T> {
    fn default() -> Self {
        Self(Kept::Few(Vec::new()))
    }
}

impl<T> ByAlert<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Kept::Few(list) => list.len(),
            Kept::Many(tree) => tree.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All, by alert.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let (few, many) = match &self.0 {
            Kept::Few(list) => (list.as_slice(), None),
            Kept::Many(tree) => (&[][..], Some(tree.values())),
        };
        few.iter().chain(many.into_iter().flatten().map(|item| &**item))
    }
}

/// Where an alert is in a list, or would be.
fn find<T: OfAlert>(list: &[T], alert: &AlertKey) -> Result<usize, usize> {
    list.binary_search_by(|item| item.alert().cmp(alert))
}

impl<T: OfAlert> ByAlert<T> {
    /// What is kept for an alert.
    pub fn get(&self, alert: &AlertKey) -> Option<&T> {
        match &self.0 {
            Kept::Few(list) => find(list, alert).ok().map(|at| &list[at]),
            Kept::Many(tree) => tree.get(alert).map(|item| &**item),
        }
    }

    /// What is kept for an alert, to change it.
    pub fn get_mut(&mut self, alert: &AlertKey) -> Option<&mut T> {
        match &mut self.0 {
            Kept::Few(list) => find(list, alert).ok().map(|at| &mut list[at]),
            Kept::Many(tree) => tree.get_mut(alert).map(|item| &mut **item),
        }
    }

    /// Whether anything is kept for an alert.
    pub fn has(&self, alert: &AlertKey) -> bool {
        self.get(alert).is_some()
    }

    /// Keeps it, in the place of what was kept for its alert.
    pub fn put(&mut self, item: T) {
        match &mut self.0 {
            Kept::Few(list) => match find(list, item.alert()) {
                Ok(at) => list[at] = item,
                Err(at) if list.len() < FEW => {
                    if list.is_empty() {
                        list.reserve_exact(1);
                    }
                    list.insert(at, item);
                }
                Err(_) => {
                    let all = std::mem::take(list).into_iter().chain([item]);
                    self.0 = Kept::Many(all.map(|item| (item.alert().clone(), Box::new(item))).collect());
                }
            },
            Kept::Many(tree) => drop(tree.insert(item.alert().clone(), Box::new(item))),
        }
    }

    /// Takes out what is kept for an alert.
    pub fn take(&mut self, alert: &AlertKey) -> Option<T> {
        match &mut self.0 {
            Kept::Few(list) => find(list, alert).ok().map(|at| list.remove(at)),
            Kept::Many(tree) => tree.remove(alert).map(|item| *item),
        }
    }

    /// Takes out all for which `leaves` holds.
    pub fn take_if(&mut self, mut leaves: impl FnMut(&T) -> bool) -> Vec<T> {
        match &mut self.0 {
            Kept::Few(list) => list.extract_if(.., |item| leaves(item)).collect(),
            Kept::Many(tree) => tree.extract_if(.., |_, item| leaves(item)).map(|(_, item)| *item).collect(),
        }
    }
}

/// Whatever each of them is kept in.
impl<T: PartialEq> PartialEq for ByAlert<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<T: OfAlert> FromIterator<T> for ByAlert<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut all = Self::default();
        items.into_iter().for_each(|item| all.put(item));
        all
    }
}

impl<T> IntoIterator for ByAlert<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        let list = match self.0 {
            Kept::Few(list) => list,
            Kept::Many(tree) => tree.into_values().map(|item| *item).collect(),
        };
        list.into_iter()
    }
}

impl<T: Serialize> Serialize for ByAlert<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de, T: OfAlert + Deserialize<'de>> Deserialize<'de> for ByAlert<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<T>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::name::Name;

    impl OfAlert for AlertKey {
        fn alert(&self) -> &AlertKey {
            self
        }
    }

    fn key(number: usize) -> AlertKey {
        AlertKey { source: Name::new("prod").unwrap(), fingerprint: format!("{number:04}").into() }
    }

    #[test]
    fn few_and_many_are_the_same_to_whoever_asks() {
        let mut many: ByAlert<AlertKey> = (0..100).rev().map(key).collect();
        assert!((0..100).all(|number| many.get(&key(number)) == Some(&key(number))));
        assert_eq!(many.iter().cloned().collect::<Vec<_>>(), (0..100).map(key).collect::<Vec<_>>());
        let gone = many.take_if(|alert| *alert >= key(3));
        assert_eq!(gone.len(), 97);
        let few: ByAlert<AlertKey> = [2, 0, 1].map(key).into_iter().collect();
        assert_eq!(few, many, "one was many, and the other never was");
        assert_eq!(many.take(&key(1)), Some(key(1)));
        assert_ne!(few, many);
        assert_eq!(few.into_iter().collect::<Vec<_>>(), [0, 1, 2].map(key));
    }
}
