//! Reload: replaces the configuration of a running bridge atomically.
//!
//! All steps that can fail come first: reading and checking the files, connecting new destinations, adding
//! them to the store. Then the rules are exchanged in one step; transactions in progress finish with the
//! old ones. Removed destinations come last: they are retired in the background (`dispatch/retirement`).

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use super::configuration_number::configuration_number;
use super::reconciliation::Reconcilers;
use super::{Origin, access_in_force, credential_changes, wall_clock};
use crate::bridge::Bridge;
use crate::config::access::ListenerAccess;
use crate::config::diagnostic::{Diagnostics, Severity};
use crate::config::{Admin, OwnFiles, Server};
use crate::dispatch::Workers;
use crate::domain::name::Name;
use crate::http::Access;
use crate::intake::Pollers;
use crate::kinds::{self, Settings};
use crate::ops::api::{ConfigurationStatus, ReloadReport};
use crate::ops::{Initiator, ReloadError, ReloadTrail};
use crate::store::Store;
use crate::telemetry::Metrics;

/// The parts of the bridge that a reload changes.
pub(super) struct Reloader {
    pub origin: Origin,
    pub settings: Arc<ArcSwap<Settings>>,
    pub configuration: Arc<ArcSwap<ConfigurationStatus>>,
    pub bridge: Bridge,
    pub store: Store,
    pub trail: ReloadTrail,
    pub metrics: Metrics,
    pub access: Arc<Access>,
    pub reconcilers: Reconcilers,
}

impl Reloader {
    /// Reads and applies the configuration, or changes nothing and returns the errors. Both are logged and recorded in
    /// the audit trail. If `stop` is cancelled before the first change, the reload is abandoned: a file or a destination
    /// that hangs does not hold up the stop.
    pub(super) async fn reload(
        &mut self,
        by: &Initiator,
        workers: &mut Workers,
        pollers: &mut Pollers,
        stop: &CancellationToken,
    ) -> Result<ReloadReport, ReloadError> {
        let (author, given_reason) = (by.actor.as_str(), by.reason_text());
        let reloaded = self.try_reload(workers, pollers, stop).await;
        if reloaded == Err(ReloadError::Unavailable) {
            tracing::info!(author, reason = given_reason, "reload abandoned, stopping");
            return reloaded;
        }
        self.trail.record(by, &reloaded).await;
        match &reloaded {
            Ok(reloaded) => {
                let loaded_at = wall_clock().to_millis_string();
                let needs_restart = reloaded.needs_restart.clone();
                self.configuration.store(Arc::new(ConfigurationStatus {
                    loaded_at,
                    last_error: None,
                    needs_restart,
                }));
                self.metrics.record_config_load(SystemTime::now().duration_since(UNIX_EPOCH).ok());
                for warning in &reloaded.warnings {
                    tracing::warn!(%warning, "configuration warning");
                }
                let (changed, restart) = (reloaded.changed.join("; "), reloaded.needs_restart.join(", "));
                tracing::info!(
                    changed,
                    needs_restart = restart,
                    author,
                    reason = given_reason,
                    "configuration reloaded"
                );
            }
            Err(error) => {
                let error = error.lines().join("\n");
                let before = self.configuration.load();
                self.configuration.store(Arc::new(ConfigurationStatus {
                    last_error: Some(error.clone()),
                    ..(**before).clone()
                }));
                self.metrics.record_config_load(None);
                tracing::error!(
                    error,
                    author,
                    reason = given_reason,
                    "configuration rejected, the running one stays active"
                );
            }
        }
        reloaded
    }

    async fn try_reload(
        &mut self,
        workers: &mut Workers,
        pollers: &mut Pollers,
        stop: &CancellationToken,
    ) -> Result<ReloadReport, ReloadError> {
        let failed = |reason: String| ReloadError::Failed(reason);
        let origin = self.origin.clone();
        let loading = tokio::task::spawn_blocking(move || kinds::load(&origin.path, origin.environment));
        let loaded = stop.run_until_cancelled(loading).await.ok_or(ReloadError::Unavailable)?;
        let loaded = loaded.map_err(|error| failed(error.to_string()))?;
        let loaded = loaded.map_err(|faults| {
            let lines = errors_first(&faults);
            if faults.are_incomplete() { failed(lines.join("\n")) } else { ReloadError::Invalid(lines) }
        })?;
        // Secrets and certificates that the running configuration has, and the new one would not have.
        if loaded.warnings.are_incomplete() {
            return Err(failed(errors_first(&loaded.warnings).join("\n")));
        }
        let before = self.settings.load_full();
        let (settings, needs_restart) = merge_settings(&before, loaded.settings);
        let faults = access_in_force::faults(&settings);
        if !faults.is_empty() {
            return Err(ReloadError::Invalid(faults));
        }
        let retired = stop.run_until_cancelled(workers.wait_retired(settings.destinations.keys())).await;
        let retired = retired.ok_or(ReloadError::Unavailable)?;
        retired.map_err(|still_retiring| failed(still_retiring.to_string()))?;
        let prepared = stop.run_until_cancelled(workers.prepare(&settings.destinations)).await;
        let prepared = prepared.ok_or(ReloadError::Unavailable)?;
        let prepared = prepared.map_err(|error| failed(format!("{error:#}")))?;
        let polling = stop.run_until_cancelled(pollers.prepare(&settings)).await;
        let polling =
            polling.ok_or(ReloadError::Unavailable)?.map_err(|error| failed(format!("{error:#}")))?;
        let names: Vec<Name> = settings.destinations.keys().cloned().collect();
        // All of them or none. A failure leaves nothing behind that the running bridge uses.
        self.store.add_destinations(&names).await.map_err(|error| failed(error.to_string()))?;
        for (name, destination) in &settings.destinations {
            // Fails only for unknown destinations.
            self.store
                .set_max_backlog(name, destination.max_backlog)
                .map_err(|error| failed(error.to_string()))?;
        }
        let changed = describe_changes(&before, &settings);
        let settings = Arc::new(settings);
        // From here on, no step makes the reload fail.
        workers.protect(OwnFiles::new(&settings, &loaded.files));
        prepared.into_iter().for_each(|prepared| workers.start(prepared));
        // Other replicas keep what they do not know of it.
        if let Err(error) = self.store.adopt_configuration(configuration_number(&settings)).await {
            tracing::warn!(%error, "other replicas do not know that the configuration has changed");
        }
        // First, so that no source is known whose credentials are not.
        self.access.reload(&settings);
        let (rules, sources) = (settings.rules.clone(), settings.sources.clone());
        let (retired_rules, rechecks) = self.bridge.reload(rules, sources, settings.policy()).await;
        if let Err(error) = rechecks {
            tracing::warn!(%error, "recheck of deferred actions failed, they wait until they are due");
        }
        self.reconcilers.apply(&settings);
        self.settings.store(settings.clone());
        // A queue that is new has a reception gap before its alerts can be decided.
        pollers.begin_gaps(&polling);
        pollers.stop_removed(&settings);
        polling.into_iter().for_each(|poller| pollers.start(poller));
        *self.origin.files.lock() = loaded.files;
        let removed = workers.names().into_iter().filter(|name| !settings.destinations.contains_key(name));
        removed.for_each(|name| workers.retire(&name, Box::pin(retired_rules.released())));
        let warnings = loaded.warnings.iter().map(ToString::to_string).collect();
        Ok(ReloadReport { changed, needs_restart, warnings })
    }
}

/// The diagnostics as texts: what rejects the configuration before what only warns.
fn errors_first(faults: &Diagnostics) -> Vec<String> {
    let (errors, others): (Vec<_>, Vec<_>) =
        faults.iter().partition(|fault| fault.code.severity() == Severity::Error);
    errors.into_iter().chain(others).map(ToString::to_string).collect()
}

/// The new settings with the old values of those that only a restart changes, and the changed keys among
/// these.
fn merge_settings(before: &Settings, new: Settings) -> (Settings, Vec<String>) {
    let mut needs_restart = Vec::new();
    let mut compare = |key: &str, changed: bool| {
        if changed {
            needs_restart.push(key.to_owned());
        }
    };
    // Users and headers of a `web_config_file` are replaced with the other credentials.
    let with_web_config = |access: &ListenerAccess, new: &ListenerAccess| ListenerAccess {
        web_config: new.web_config.clone(),
        ..access.clone()
    };
    let server = Server {
        access: with_web_config(&before.server.access, &new.server.access),
        ..before.server.clone()
    };
    let admin = Admin {
        access: with_web_config(&before.admin.access, &new.admin.access),
        auth: new.admin.auth.clone(),
        ..before.admin.clone()
    };
    compare("server", new.server != server);
    compare("admin", new.admin != admin);
    compare("store", new.store != before.store);
    compare("log", new.log != before.log);
    let store = before.store.clone();
    (Settings { server, admin, store, log: before.log, ..new }, needs_restart)
}

/// Describes the differences, one line per change.
fn describe_changes(before: &Settings, new: &Settings) -> Vec<String> {
    let rules = |settings: &Settings| -> BTreeMap<Name, String> {
        let rules = settings.rules.rules().iter();
        rules.map(|rule| (rule.name.clone(), format!("{rule:?}"))).collect()
    };
    let sources = |settings: &Settings| -> BTreeMap<Name, String> {
        let text = |name: &Name, source| {
            debug_text(&(source, settings.source_kinds.get(name), settings.alertmanagers.get(name)))
        };
        settings.sources.iter().map(|(name, source)| (name.clone(), text(name, source))).collect()
    };
    let destinations = |settings: &Settings| -> BTreeMap<Name, String> {
        settings.destinations.iter().map(|(name, value)| (name.clone(), debug_text(value))).collect()
    };
    let order = |settings: &Settings| -> Vec<Name> {
        settings.rules.rules().iter().map(|rule| rule.name.clone()).collect()
    };
    let mut lines = Vec::new();
    let (old_rules, new_rules) = (rules(before), rules(new));
    push_differences("rule", &old_rules, &new_rules, &mut lines);
    if old_rules.keys().eq(new_rules.keys()) && order(before) != order(new) {
        lines.push("order of the rules changed".to_owned());
    }
    push_differences("source", &sources(before), &sources(new), &mut lines);
    push_differences("destination", &destinations(before), &destinations(new), &mut lines);
    for (key, changed) in [
        ("engine", before.engine != new.engine),
        ("retention", before.retention != new.retention),
        ("delivery.max_backlog", before.max_backlog != new.max_backlog),
    ] {
        if changed {
            lines.push(format!("{key} changed"));
        }
    }
    lines.extend(credential_changes::describe(before, new));
    lines
}

fn debug_text(value: &impl Debug) -> String {
    format!("{value:?}")
}

fn push_differences(
    kind: &str,
    before: &BTreeMap<Name, String>,
    new: &BTreeMap<Name, String>,
    lines: &mut Vec<String>,
) {
    for (name, text) in new {
        match before.get(name) {
            None => lines.push(format!("{kind} {name} added")),
            Some(old) if old != text => lines.push(format!("{kind} {name} changed")),
            Some(_) => {}
        }
    }
    for name in before.keys().filter(|name| !new.contains_key(*name)) {
        lines.push(format!("{kind} {name} removed"));
    }
}
