//! The configured rules, sources and destinations.

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
use crate::domain::duration::format;
use crate::domain::rule::{Action, Amount, Change, Mode, Repeat, Rule, RuleTarget};
use crate::domain::template::Template;
use crate::domain::time::Time;
use crate::http::HttpState;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            Method::GET,
            "/rules",
            "listRules",
            "List rules in evaluation order",
            ResponseBody::Json(200, schema_of::<Vec<RuleView>>),
            get(rules),
        ),
        Operation::new(
            Method::GET,
            "/sources",
            "listSources",
            "List sources",
            ResponseBody::Json(200, schema_of::<Vec<SourceView>>),
            get(sources),
        ),
        Operation::new(
            Method::GET,
            "/destinations",
            "listDestinations",
            "List destinations with their backlog",
            ResponseBody::Json(200, schema_of::<Vec<DestinationView>>),
            get(destinations),
        ),
    ]
}

/// A rule of the rule table.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RuleView {
    /// Its name.
    name: String,
    /// `active`, `shadow` or `disabled`.
    mode: &'static str,
    /// The sources whose alerts it evaluates; null means all.
    sources: Option<Vec<String>>,
    /// Matchers in Alertmanager's syntax; all must match.
    matchers: Vec<String>,
    /// The condition that must also be true.
    #[serde(skip_serializing_if = "Option::is_none")]
    when: Option<String>,
    /// The templates of the target's fields; empty for a hold on all targets.
    target: BTreeMap<&'static str, String>,
    /// The action when an episode opens or grows.
    #[serde(skip_serializing_if = "Option::is_none")]
    on_firing: Option<ActionView>,
    /// The action when an episode closes.
    #[serde(skip_serializing_if = "Option::is_none")]
    on_resolved: Option<ActionView>,
    /// The directions that it blocks, if it is a hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    holds: Vec<&'static str>,
    /// The destinations of its events.
    send_to: Vec<String>,
    /// Whether later rules evaluate its alerts too.
    #[serde(rename = "continue")]
    continues: bool,
    /// The number of its open episodes.
    open_episodes: u64,
}

/// An action of a rule.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ActionView {
    /// `scale_out`, `scale_in`, `set_capacity` or `notify`.
    action: &'static str,
    /// The size of the change, as text.
    amount: String,
    /// How long an emitted event blocks later ones.
    cooldown: String,
    /// How long the situation must be unchanged before it is emitted.
    stabilization_window: String,
    /// `never`, `on_growth` or `while_firing`; only for `on_firing`.
    #[serde(skip_serializing_if = "Option::is_none")]
    repeat: Option<&'static str>,
}

async fn rules(State(shared): State<HttpState>) -> Result<Json<Vec<RuleView>>, Problem> {
    let services = services(&shared)?;
    let settings = services.settings.load();
    let tally = services.store.tally();
    let rule = |rule: &Rule| rule_view(rule, tally.open_episodes.get(&rule.name).copied().unwrap_or(0));
    Ok(Json(settings.rules.rules().iter().map(rule).collect()))
}

fn rule_view(rule: &Rule, open_episodes: u64) -> RuleView {
    let (target, holds) = match &rule.target {
        RuleTarget::Target(target) => {
            let optional = [
                ("account", &target.account),
                ("cluster", &target.cluster),
                ("namespace", &target.namespace),
                ("region", &target.region),
            ];
            let mut fields: BTreeMap<&'static str, String> = fields(&optional);
            fields.insert("platform", target.platform.as_str().to_owned());
            fields.insert("kind", target.kind.source().to_owned());
            fields.insert("name", target.name.source().to_owned());
            (fields, Vec::new())
        }
        RuleTarget::Hold(hold) => {
            let covers = &hold.covers;
            let mut fields = fields(&[
                ("kind", &covers.kind),
                ("name", &covers.name),
                ("account", &covers.account),
                ("cluster", &covers.cluster),
                ("namespace", &covers.namespace),
                ("region", &covers.region),
            ]);
            fields.extend(covers.platform.map(|platform| ("platform", platform.as_str().to_owned())));
            (fields, hold.blocks.iter().map(|direction| direction.as_str()).collect())
        }
    };
    let repeat = |repeat| match repeat {
        Repeat::Never => "never",
        Repeat::OnGrowth => "on_growth",
        Repeat::WhileFiring { .. } => "while_firing",
    };
    RuleView {
        name: rule.name.to_string(),
        mode: match rule.mode {
            Mode::Active => "active",
            Mode::Shadow => "shadow",
            Mode::Disabled => "disabled",
        },
        sources: rule.sources.as_ref().map(|names| names.iter().map(ToString::to_string).collect()),
        matchers: rule.matchers.iter().map(ToString::to_string).collect(),
        when: rule.when.as_ref().map(|when| when.source().to_owned()),
        target,
        on_firing: rule
            .on_firing
            .as_ref()
            .map(|firing| ActionView { repeat: Some(repeat(firing.repeat)), ..action_view(&firing.action) }),
        on_resolved: rule.on_resolved.as_ref().map(|resolved| action_view(&resolved.action)),
        holds,
        send_to: rule.send_to.iter().map(ToString::to_string).collect(),
        continues: rule.continues,
        open_episodes,
    }
}

fn fields(templates: &[(&'static str, &Option<Template>)]) -> BTreeMap<&'static str, String> {
    let sources = templates.iter().filter_map(|(key, one)| Some((*key, one.as_ref()?.source().to_owned())));
    sources.collect()
}

fn action_view(action: &Action) -> ActionView {
    let amount = match &action.change {
        Change::ScaleOut(amount) | Change::ScaleIn(amount) => match amount {
            Amount::By(units) => units.to_string(),
            Amount::ByPercent { percent, at_least: Some(units) } => format!("{percent} %, at least {units}"),
            Amount::ByPercent { percent, at_least: None } => format!("{percent} %"),
            Amount::Steps(steps) => format!("by steps of {}", steps.metric.source()),
        },
        Change::SetCapacity { to, allow_decrease: true } => format!("to {to}"),
        Change::SetCapacity { to, allow_decrease: false } => format!("up to {to}"),
        Change::Notify => "none".to_owned(),
    };
    ActionView {
        action: action.change.action(),
        amount,
        cooldown: format(action.cooldown),
        stabilization_window: format(action.stabilization_window),
        repeat: None,
    }
}

/// A source of notifications.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SourceView {
    /// Its name, the last part of the webhook's path.
    name: String,
    /// Labels that override those of its alerts.
    labels: BTreeMap<String, String>,
    /// The matchers of its heartbeat; empty if none is configured.
    heartbeat: Vec<String>,
    /// When the heartbeat was last opened, RFC 3339; null if it is not open. While it is not open, alerts of a source
    /// with a heartbeat do not decrease capacity.
    heartbeat_open_since: Option<String>,
    /// When the heartbeat was last lost, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    heartbeat_ended_at: Option<String>,
    /// How long a late firing is deferred in case its resolve arrives.
    late_window: String,
    /// How long an alert stays open without a notification that mentions it.
    occurrence_ttl: String,
}

async fn sources(State(shared): State<HttpState>) -> Result<Json<Vec<SourceView>>, Problem> {
    let services = services(&shared)?;
    let settings = services.settings.load();
    let controls = services.store.controls();
    let sources = settings.sources.values().map(|source| {
        let heartbeat = controls.heartbeat(&source.name);
        SourceView {
            name: source.name.to_string(),
            labels: source.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            heartbeat: source.heartbeat.iter().map(ToString::to_string).collect(),
            heartbeat_open_since: heartbeat.open_since.map(Time::to_millis_string),
            heartbeat_ended_at: heartbeat.lost_at.map(Time::to_millis_string),
            late_window: format(source.late_window),
            occurrence_ttl: format(source.occurrence_ttl),
        }
    });
    Ok(Json(sources.collect()))
}

/// A destination of events.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DestinationView {
    /// Its name.
    name: String,
    /// `sqs`, `lambda` or `file`.
    kind: &'static str,
    /// The queue's URL, the function's name or the file's path.
    address: String,
    /// Why it fails, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    failing: Option<String>,
    /// Deliveries that have not been attempted or are in flight.
    pending: u64,
    /// Deliveries that failed and will be retried.
    retrying: u64,
    /// Dead letters.
    dead_letters: u64,
    /// The age of the oldest unsettled delivery in seconds.
    oldest_seconds: f64,
}

async fn destinations(State(shared): State<HttpState>) -> Result<Json<Vec<DestinationView>>, Problem> {
    let services = services(&shared)?;
    let settings = services.settings.load();
    let now = services.store.now();
    let destinations = settings.destinations.values().map(|destination| {
        let backlog = services.store.backlog(&destination.name);
        let oldest = services.store.oldest_unsettled(&destination.name);
        DestinationView {
            name: destination.name.to_string(),
            kind: destination.settings.kind(),
            address: destination.settings.address(),
            failing: services.statuses.failure_of(&destination.name),
            pending: backlog.pending,
            retrying: backlog.retrying,
            dead_letters: backlog.dead,
            oldest_seconds: oldest.map_or(0.0, |at| now.since(at).as_secs_f64()),
        }
    });
    Ok(Json(destinations.collect()))
}
