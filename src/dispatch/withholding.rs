//! Which emitted events are not sent for now.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use crate::domain::header::EventHeader;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::store;

/// What decisions say about events right before their calls. Clones are the same.
#[derive(Clone)]
pub(crate) struct Withholding {
    covers: Arc<Covers>,
    recheck: Arc<Recheck>,
}

type Covers = dyn Fn(&EventHeader, Time) -> bool + Send + Sync;
type Recheck = dyn Fn(Vec<TargetKey>) -> Rechecked + Send + Sync;
type Rechecked = Pin<Box<dyn Future<Output = Result<(), store::Error>> + Send>>;

impl Withholding {
    /// `covers` gets the event and the store's time, and tells whether a pause or hold withholds it. It is asked before
    /// each call, so it has to be cheap.
    pub(crate) fn new(covers: impl Fn(&EventHeader, Time) -> bool + Send + Sync + 'static) -> Self {
        Self { covers: Arc::new(covers), recheck: Arc::new(|_| Box::pin(std::future::ready(Ok(())))) }
    }

    /// `recheck` gets the targets of decreases that are about to be called, and takes back those that something blocks
    /// which their last decisions have not seen.
    pub(crate) fn with_recheck<F>(
        mut self,
        recheck: impl Fn(Vec<TargetKey>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), store::Error>> + Send + 'static,
    {
        self.recheck = Arc::new(move |targets| Box::pin(recheck(targets)));
        self
    }

    pub(super) fn covers(&self, event: &EventHeader, now: Time) -> bool {
        (self.covers)(event, now)
    }

    /// Takes back what must not be called any more.
    ///
    /// # Errors
    /// The store could not read or write: it is not known which decreases may be called.
    pub(super) async fn recheck(&self, targets: Vec<TargetKey>) -> Result<(), store::Error> {
        (self.recheck)(targets).await
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
