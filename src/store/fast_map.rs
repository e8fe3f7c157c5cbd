//! Maps by the store's own numbers and by names of the configuration: nobody from outside chooses them, so
//! they are hashed fast.

use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;

pub type Map<K, V> = HashMap<K, V, FixedState>;
pub type Set<K> = HashSet<K, FixedState>;
