//! The configured rules, sources and destinations.

use std::collections::BTreeMap;

use super::Ops;
use super::api::{
    ActionView, AlertmanagerView, DestinationView, QueueView, ReceptionGapView, RuleView, SourceView,
    SuppressedAlertView, Word,
};
use super::credentials::kinds_of_source;
use crate::domain::control::{Controls, ReceptionGap};
use crate::domain::duration::format;
use crate::domain::rule::{Action, Amount, Change, Mode, Repeat, Rule, RuleTarget};
use crate::domain::source::Source;
use crate::domain::template::Template;
use crate::domain::time::Time;
use crate::intake::QueueStatus;
use crate::kinds::Settings;
use crate::sources::{SourceKind, sqs};
use crate::store::Replicas;

impl Ops {
    /// Lists rules in evaluation order.
    pub(crate) fn rules(&self) -> Vec<RuleView> {
        let settings = self.0.settings.load();
        let tally = self.0.store.tally();
        let rule = |rule: &Rule| rule_view(rule, tally.open_episodes.get(&rule.name).copied().unwrap_or(0));
        settings.rules.rules().iter().map(rule).collect()
    }

    /// Lists sources.
    pub(crate) fn sources(&self) -> Vec<SourceView> {
        let all = self.0.settings.load();
        let (controls, clock) = (self.0.bridge.controls(), self.0.store.clock());
        let sources = all.sources.values().map(|source| {
            let heartbeat = controls.heartbeat_of_source(&source.name);
            let settings = source.heartbeat.as_ref();
            let permissions = &source.permissions;
            let kind = all.source_kinds.get(&source.name);
            SourceView {
                name: source.name.to_string(),
                kind: kind.map_or_else(Word::default, |kind| kind.key().into()),
                queue: kind.and_then(SourceKind::queue).map(|queue| self.queue_view(source, queue)),
                auth: kinds_of_source(&all, &source.name).into_iter().map(Into::into).collect(),
                auth_error: self.0.credentials.unreadable(&source.name),
                labels: source
                    .labels
                    .iter()
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
                heartbeat: settings
                    .iter()
                    .flat_map(|heartbeat| &heartbeat.matchers)
                    .map(ToString::to_string)
                    .collect(),
                heartbeat_equal: settings.map(|heartbeat| heartbeat.equal.clone()).unwrap_or_default(),
                heartbeat_timeout: settings.and_then(|heartbeat| heartbeat.timeout).map(format),
                heartbeat_grace: settings.map(|heartbeat| format(heartbeat.grace)),
                ignore_labels: source.ignore_labels.clone(),
                rules: permissions.rules.as_ref().map(|it| it.iter().map(ToString::to_string).collect()),
                targets: permissions.targets.as_ref().map(|it| it.iter().map(ToString::to_string).collect()),
                heartbeat_open_since: heartbeat.open_since.map(|at| clock.show(at)),
                heartbeat_ended_at: heartbeat.lost_at.map(|at| clock.show(at)),
                last_notification_at: self.0.bridge.last_heard(&source.name).map(Time::to_millis_string),
                late_window: format(source.late_window),
                occurrence_ttl: format(source.occurrence_ttl),
                last_gap: last_gap(&controls, source),
                alertmanager: self.alertmanager(&all, source),
            }
        });
        sources.collect()
    }

    /// The Alertmanagers of a source that are asked what fires, if any are configured.
    fn alertmanager(&self, settings: &Settings, source: &Source) -> Option<AlertmanagerView> {
        let configured = settings.alertmanagers.get(&source.name)?;
        let knowledge = self.0.bridge.reconciliation(source.name.as_str()).unwrap_or_default();
        let receivers = match configured.receivers.is_empty() {
            true => self.0.bridge.known_receivers(&source.name),
            false => configured.receivers.clone(),
        };
        let suppressed = knowledge.suppressed.iter().map(|(fingerprint, alert)| SuppressedAlertView {
            fingerprint: fingerprint.to_string(),
            labels: alert.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            starts_at: alert.starts_at.to_string(),
            suppressed_by: alert.by.clone(),
        });
        Some(AlertmanagerView {
            urls: configured.urls.clone(),
            receivers: receivers.into_iter().collect(),
            last_success: knowledge.answered_at.map(Time::to_millis_string),
            last_error: knowledge.last_error.clone(),
            suppressed_total: knowledge.suppressed_total as u64,
            suppressed: suppressed.collect(),
        })
    }

    fn queue_view(&self, source: &Source, queue: &sqs::Settings) -> QueueView {
        let status = self.0.queues.get(&source.name).unwrap_or_default();
        let QueueStatus { is_current, last_error } = status;
        QueueView { address: queue.queue_url.clone(), is_current, last_error }
    }

    /// The last reception gap of each source that had one.
    pub(super) fn reception_gaps(&self) -> BTreeMap<String, ReceptionGapView> {
        let settings = self.0.settings.load();
        let controls = self.0.bridge.controls();
        let sources = settings.sources.values();
        sources.filter_map(|source| Some((source.name.to_string(), last_gap(&controls, source)?))).collect()
    }

    /// Lists destinations with their backlog.
    pub(crate) fn destinations(&self) -> Vec<DestinationView> {
        let settings = self.0.settings.load();
        let store = &self.0.store;
        let now = store.now();
        let own = |replicas: Replicas| Some(replicas.all.into_iter().find(|it| it.is_own)?.name);
        let replica = store.replicas().and_then(own);
        let destinations = settings.destinations.values().map(|destination| {
            let stats = store.stats(&destination.name);
            let condition = self.0.statuses.condition(&destination.name, stats.undelivered);
            let (backlog, oldest) = (stats.backlog, stats.oldest_unsettled);
            DestinationView {
                name: destination.name.to_string(),
                kind: destination.settings.kind().into(),
                address: destination.settings.address(),
                failing: condition.failing(),
                idle_since: condition.idle_since().map(Time::to_millis_string),
                last_error: condition.last_error(),
                pending: backlog.pending,
                retrying: backlog.retrying,
                dead_letters: backlog.dead,
                oldest_seconds: oldest.map_or(0.0, |at| now.since(at).as_secs_f64()),
                replica: replica.clone(),
            }
        });
        destinations.collect()
    }
}

fn last_gap(controls: &Controls, source: &Source) -> Option<ReceptionGapView> {
    let gaps = controls.reception_gaps(&source.name)?;
    let ReceptionGap { from, until, cause } = gaps.last;
    let reconciled_at = gaps.reconciled_at.filter(|_| gaps.is_reconciled());
    let waits_until = until.after(source.late_window);
    let no_decrease_before = reconciled_at.map_or(waits_until, |at| at.min(waits_until)).to_millis_string();
    let (from, until) = (from.to_millis_string(), until.to_millis_string());
    let reconciled_at = reconciled_at.map(Time::to_millis_string);
    Some(ReceptionGapView { from, until, cause, no_decrease_before, reconciled_at })
}

fn rule_view(rule: &Rule, open_episodes: u64) -> RuleView {
    let (target, holds, max_duration) = match &rule.target {
        RuleTarget::Target(target) => {
            let optional = [
                ("account", &target.account),
                ("cluster", &target.cluster),
                ("namespace", &target.namespace),
                ("region", &target.region),
            ];
            let mut fields: BTreeMap<Word, String> = fields(&optional);
            fields.insert("platform".into(), target.platform.as_str().to_owned());
            fields.insert("kind".into(), target.kind.source().to_owned());
            fields.insert("name".into(), target.name.source().to_owned());
            (fields, Vec::new(), None)
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
            fields.extend(covers.platform.map(|platform| ("platform".into(), platform.as_str().to_owned())));
            let blocks = hold.blocks.iter().map(|direction| direction.as_str().into()).collect();
            (fields, blocks, hold.max_duration.map(format))
        }
    };
    let repeat = |repeat| match repeat {
        Repeat::Never => "never",
        Repeat::OnGrowth => "on_growth",
        Repeat::WhileFiring { .. } => "while_firing",
    };
    let mode = match rule.mode {
        Mode::Active => "active",
        Mode::Shadow => "shadow",
        Mode::Disabled => "disabled",
    };
    RuleView {
        name: rule.name.to_string(),
        mode: mode.into(),
        sources: rule.sources.as_ref().map(|names| names.iter().map(ToString::to_string).collect()),
        matchers: rule.matchers.iter().map(ToString::to_string).collect(),
        when: rule.when.as_ref().map(|when| when.source().to_owned()),
        target,
        on_firing: rule.on_firing.as_ref().map(|firing| ActionView {
            repeat: Some(repeat(firing.repeat).into()),
            ..action_view(&firing.action)
        }),
        on_resolved: rule.on_resolved.as_ref().map(|resolved| action_view(&resolved.action)),
        holds,
        max_duration,
        send_to: rule.send_to.iter().map(ToString::to_string).collect(),
        continues: rule.continues,
        open_episodes,
    }
}

fn fields(templates: &[(&'static str, &Option<Template>)]) -> BTreeMap<Word, String> {
    let sources =
        templates.iter().filter_map(|(key, one)| Some(((*key).into(), one.as_ref()?.source().to_owned())));
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
        Change::Revert => "what is owed".to_owned(),
        Change::Notify => "none".to_owned(),
    };
    ActionView {
        action: action.change.action().into(),
        amount,
        cooldown: format(action.cooldown),
        stabilization_window: format(action.stabilization_window),
        repeat: None,
    }
}
