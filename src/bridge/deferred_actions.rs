//! What deferred actions wait for now.

use std::collections::BTreeMap;

use super::Bridge;
use crate::domain::engine::{self, DeferredAction};
use crate::domain::target::TargetKey;
use crate::store::{self, Changes, Keys};

impl Bridge {
    /// The deferred actions of some targets, with what blocks them now. Nothing is written.
    ///
    /// # Errors
    /// The store could not be read.
    pub(crate) async fn deferred_actions(
        &self,
        targets: Vec<TargetKey>,
    ) -> Result<BTreeMap<TargetKey, Vec<DeferredAction>>, store::Error> {
        if targets.is_empty() {
            return Ok(BTreeMap::new());
        }
        let snapshot = self.0.snapshot.load_full();
        let (rates, gaps) = (self.0.rates.clone(), self.0.gaps.clone());
        let keys = Keys { targets, alerts: Vec::new() };
        let found = self.0.store.transact(keys, move |view| {
            let rates = rates.load();
            let folded = gaps.fold(&view.controls, view.now);
            let controls = folded.as_ref().map_or(&*view.controls, |folded| &folded.controls);
            let context = snapshot.context(view, controls, &rates);
            let of_target =
                |(key, state): (&TargetKey, _)| (key.clone(), engine::deferred_actions(&context, key, state));
            let states = view.states.targets.iter().map(|(key, state)| (key, &**state));
            (Changes::default(), states.map(of_target).collect())
        });
        found.await
    }
}
