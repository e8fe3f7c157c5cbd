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
        "How the bridge stands",
        ResponseBody::Json(200, schema_of::<Status>),
        get(status),
    )]
}

/// How the bridge stands.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Status {
    /// The version of scalebridge.
    version: &'static str,
    /// `starting`, `ready` or `stopping`.
    phase: &'static str,
    /// The store's time, RFC 3339.
    now: String,
    /// How the configuration was read last.
    configuration: ConfigurationStatus,
    /// How many rules there are.
    rules: usize,
    /// How many sources there are.
    sources: usize,
    /// How many destinations there are.
    destinations: usize,
    /// Destinations that fail, and why, one line each.
    failing: Vec<String>,
    /// Deliveries that are neither settled nor given up.
    undelivered: u64,
    /// Pauses that are not over.
    pauses: usize,
    /// Open episodes by rule.
    open_episodes: BTreeMap<String, u64>,
    /// What waits, by the verdict that stops it.
    deferred: BTreeMap<&'static str, u64>,
}

/// How the configuration was read last.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ConfigurationStatus {
    /// When the one that is in use was loaded, RFC 3339.
    pub loaded_at: String,
    /// What was wrong with the last one, if it was refused: the one before goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// What was changed in the files and needs a restart.
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
