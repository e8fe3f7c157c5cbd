//! The status of the bridge.

use super::Ops;
use super::api::{FleetStatus, HoldView, ReplicaView, Status};
use crate::domain::control::Hold;
use crate::domain::name::Name;
use crate::store::{DeliveryQueue as _, Replica};

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
            refusing: self.not_ready().map(|cause| cause.to_string()),
            now: deps.store.clock().wall.to_millis_string(),
            configuration: deps.configuration.load().as_ref().clone(),
            rules: settings.rules.rules().len(),
            sources: settings.sources.len(),
            destinations: settings.destinations.len(),
            failing: deps.statuses.failure_lines(|name| deps.store.undelivered_at(name)),
            undelivered: deps.store.undelivered(),
            pauses: self.pauses().active().len(),
            holds: self.holds(),
            open_episodes: tally
                .open_episodes
                .iter()
                .map(|(rule, count)| (rule.to_string(), *count))
                .collect(),
            deferred: deferred.collect(),
            reception_gaps: self.reception_gaps(),
            auth_errors: deps.credentials.all_unreadable(),
            unreadable_rows: self.unreadable_rows(),
            fleet: self.fleet(),
        }
    }

    fn fleet(&self) -> Option<FleetStatus> {
        let replicas = self.0.store.replicas()?;
        Some(FleetStatus {
            schema_step: replicas.schema_step,
            read_at: replicas.read_at.to_millis_string(),
            replicas: replicas.all.iter().map(replica_view).collect(),
        })
    }

    fn holds(&self) -> Vec<HoldView> {
        let clock = self.0.store.clock();
        let controls = self.0.bridge.controls();
        let view = |(rule, hold): (&Name, &Hold)| HoldView {
            rule: rule.to_string(),
            covers: Some(hold.covers.clone()),
            since: clock.show(hold.since),
            until: hold.until.map(|until| clock.show(until)),
            unreadable: hold.is_unreadable,
            within: hold.within.as_ref().map(|within| within.iter().map(ToString::to_string).collect()),
        };
        controls.holds().map(view).collect()
    }
}

fn replica_view(replica: &Replica) -> ReplicaView {
    let status = match (replica.is_alive, replica.is_ready) {
        (false, _) => "lost",
        (true, false) => "not_ready",
        (true, true) => "ready",
    };
    ReplicaView {
        id: format!("{:016x}", replica.id),
        name: replica.name.clone(),
        answers: replica.is_own,
        version: replica.version.clone().into(),
        schema_step: replica.schema_step,
        status: status.into(),
        started_at: replica.started.to_millis_string(),
        last_seen_at: replica.seen.to_millis_string(),
        clock_offset_seconds: replica.clock_offset.map(|nanos| nanos as f64 / 1e9),
    }
}
