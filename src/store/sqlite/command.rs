//! What the writer can be asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::foresee::Foreseen;
use super::index::{Fingerprint, Known};
use crate::domain::name::Name;
use crate::domain::state::AlertKey;
use crate::domain::target::TargetKey;
use crate::store::outlets::Outlet;
use crate::store::{Decide, Error, EventSeq, Keys, LetterError, Place, Redrive, Settlement};

/// What the writer is asked for. Every reply follows the commit.
pub enum Command {
    Transact {
        keys: Keys,
        decide: Decide,
        /// What was decided already, beside the writer.
        foreseen: Option<Box<Foreseen>>,
        reply: Reply<Rest>,
    },
    Settle {
        outlet: Arc<Outlet>,
        settled: Vec<(EventSeq, Settlement)>,
        reply: Reply<()>,
    },
    Due {
        max: usize,
        reply: Reply<Vec<TargetKey>>,
    },
    Locate {
        keys: Keys,
        reply: Reply<BTreeMap<AlertKey, Vec<TargetKey>>>,
    },
    Number {
        hash: Fingerprint,
        reply: Reply<Option<i64>>,
    },
    Redrive {
        outlet: Arc<Outlet>,
        seq: EventSeq,
        redrive: Redrive,
        reply: Reply<Result<(), LetterError>>,
    },
    Discard {
        place: Place,
        reply: Reply<Result<(), LetterError>>,
    },
    /// Opens an outlet for a destination, if it has none.
    Attach {
        destination: Name,
        reply: Reply<()>,
    },
    /// Closes the outlet of a destination, which is sent nothing more.
    Detach {
        destination: Name,
        reply: Reply<()>,
    },
    Prune {
        decisions: Duration,
        delivered: Duration,
        reply: Reply<bool>,
    },
    #[cfg(test)]
    Pragma {
        name: &'static str,
        value: i64,
        reply: Reply<()>,
    },
    Close,
}

impl Command {
    /// Whether nobody waits for it: what was sent is sent, and only a crash would send it again.
    pub const fn can_linger(&self) -> bool {
        matches!(self, Self::Settle { .. })
    }

    pub fn weight(&self) -> usize {
        match self {
            Self::Transact { keys, .. } => keys.targets.len() + keys.alerts.len(),
            Self::Settle { settled, .. } => settled.len(),
            _ => 1,
        }
    }
}

pub type Reply<R> = oneshot::Sender<Result<R, Error>>;

/// What a transaction has left over: some thousand small pieces of memory. They are freed by whoever asked
/// for it, since everybody waits for the writer.
pub struct Rest {
    _keys: Keys,
    _decide: Decide,
    _states: Vec<Arc<Known>>,
}

impl Rest {
    pub fn new(keys: Keys, decide: Decide, states: Vec<Arc<Known>>) -> Self {
        Self { _keys: keys, _decide: decide, _states: states }
    }
}
