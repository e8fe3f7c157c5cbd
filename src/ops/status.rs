//! The status of the bridge.

use super::Ops;
use super::api::Status;
use crate::store::DeliveryQueue as _;

impl Ops {
    /// The status of the bridge.
    pub(crate) fn status(&self) -> Status {
        let deps = &*self.0;
        let settings = deps.settings.load();
        let tally = deps.store.tally();
        let deferred = tally.deferred.iter().map(|(verdict, count)| (verdict.as_str().into(), *count));
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            phase: deps.lifecycle.phase().as_str().into(),
            refusing: self.refusal().map(|refusal| refusal.to_string()),
            now: deps.store.clock().wall.to_millis_string(),
            configuration: deps.configuration.load().as_ref().clone(),
            rules: settings.rules.rules().len(),
            sources: settings.sources.len(),
            destinations: settings.destinations.len(),
            failing: deps.statuses.failure_lines(|name| deps.store.undelivered_at(name)),
            undelivered: deps.store.undelivered(),
            pauses: self.pauses().active().len(),
            open_episodes: tally
                .open_episodes
                .iter()
                .map(|(rule, count)| (rule.to_string(), *count))
                .collect(),
            deferred: deferred.collect(),
            reception_gaps: self.reception_gaps(),
            auth_errors: deps.credentials.all_unreadable(),
            unreadable_rows: self.unreadable_rows(),
        }
    }
}
