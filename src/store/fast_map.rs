//! Maps by the store's own numbers and by names of the configuration: nobody from outside chooses them, so
//! they are hashed fast.

use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;

pub(super) type Map<K, V> = HashMap<K, V, FixedState>;
pub(super) type Set<K> = HashSet<K, FixedState>;
