//! Which emitted events are not sent for now.

use std::fmt;
use std::sync::Arc;

use crate::domain::header::EventHeader;
use crate::domain::time::Time;

/// Tells whether a pause or hold withholds an event. Asked right before each call, so it has to be cheap. Clones are
/// the same.
#[derive(Clone)]
pub(crate) struct Withholding(Arc<Covers>);

type Covers = dyn Fn(&EventHeader, Time) -> bool + Send + Sync;

impl Withholding {
    /// `covers` gets the event and the store's time.
    pub(crate) fn new(covers: impl Fn(&EventHeader, Time) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(covers))
    }

    pub(super) fn covers(&self, event: &EventHeader, now: Time) -> bool {
        (self.0)(event, now)
    }
}

/// Withholds nothing.
impl Default for Withholding {
    fn default() -> Self {
        Self::new(|_, _| false)
    }
}

impl fmt::Debug for Withholding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Withholding")
    }
}
