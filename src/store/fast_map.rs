//! Hash maps with a fast hash without protection against collision attacks: for keys that no sender can choose, such
//! as ids of the store and names of the configuration.

use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;

pub(super) type Map<K, V> = HashMap<K, V, FixedState>;
pub(super) type Set<K> = HashSet<K, FixedState>;
