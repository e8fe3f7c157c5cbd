//! The status of the bridge.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::get;
use schemars::JsonSchema;
use serde::Serialize;

use super::extract::services;
use super::operation::{Operation, ResponseBody, schema_of};
use super::problem::Problem;
use crate::http::{HttpState, LifecyclePhase};

pub(super) fn operations() -> Vec<Operation> {
    vec![Operation::new(
        Method::GET,
        "/status",
        "getStatus",
        "Show the status of the bridge",
        ResponseBody::Json(200, schema_of::<Status>),
        get(status),
    )]
}

/// The status of the bridge.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Status {
    /// The version of scalebridge.
    version: &'static str,
    /// `starting`, `ready` or `stopping`.
    phase: &'static str,
    /// The store's time, RFC 3339.
    now: String,
    /// The active configuration, and the result of the last reload.
    configuration: ConfigurationStatus,
    /// Number of rules.
    rules: usize,
    /// Number of sources.
    sources: usize,
    /// Number of destinations.
    destinations: usize,
    /// Failing destinations with the cause, one line each.
    failing: Vec<String>,
    /// Deliveries that are neither settled nor dead-lettered.
    undelivered: u64,
    /// Number of active pauses.
    pauses: usize,
    /// Number of open episodes by rule.
    open_episodes: BTreeMap<String, u64>,
    /// Number of deferred actions and late firings by blocking verdict.
    deferred: BTreeMap<&'static str, u64>,
}

/// The active configuration, and the result of the last reload.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ConfigurationStatus {
    /// When the active configuration was loaded, RFC 3339.
    pub loaded_at: String,
    /// Why the last reload was rejected, if it was; the configuration loaded before it is still active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Sections that have changed in the files and need a restart to take effect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needs_restart: Vec<String>,
}

async fn status(State(shared): State<HttpState>) -> Result<Json<Status>, Problem> {
    let services = services(&shared)?;
    let settings = services.settings.load();
    let tally = services.store.tally();
    let phase = match shared.lifecycle.phase() {
        LifecyclePhase::Starting => "starting",
        LifecyclePhase::Ready => "ready",
        LifecyclePhase::Stopping => "stopping",
    };
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        phase,
        now: services.store.now().to_millis_string(),
        configuration: services.configuration.load().as_ref().clone(),
        rules: settings.rules.rules().len(),
        sources: settings.sources.len(),
        destinations: settings.destinations.len(),
        failing: services.statuses.failure_lines(),
        undelivered: services.store.undelivered(),
        pauses: services.bridge.pauses().len(),
        open_episodes: tally.open_episodes.iter().map(|(rule, count)| (rule.to_string(), *count)).collect(),
        deferred: tally.deferred.iter().map(|(verdict, count)| (verdict.as_str(), *count)).collect(),
    }))
}
