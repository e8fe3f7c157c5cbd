//! Whether notifications would be accepted.

use std::fmt;

use super::Ops;
use crate::kinds::Settings;
use crate::store::{Outage, Store};

/// Why notifications are refused although the bridge runs. It is over when the cause is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The store refuses changes.
    Store(Outage),
    /// There are as many unsettled deliveries as are allowed.
    Backlog { undelivered: u64, max_backlog: u64 },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(outage) => outage.fmt(f),
            Self::Backlog { undelivered, max_backlog } => {
                write!(
                    f,
                    "too many unsettled deliveries: {undelivered}, delivery.max_backlog is {max_backlog}"
                )
            }
        }
    }
}

impl Refusal {
    /// Why notifications are refused now.
    pub(crate) fn find(store: &Store, settings: &Settings) -> Option<Self> {
        let backlog = || {
            let (undelivered, max_backlog) = (store.undelivered(), settings.max_backlog);
            (undelivered >= max_backlog).then_some(Self::Backlog { undelivered, max_backlog })
        };
        store.outage().map(Self::Store).or_else(backlog)
    }
}

impl Ops {
    /// Why notifications are refused now, although the bridge runs.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        Refusal::find(&self.0.store, &self.0.settings.load())
    }
}
