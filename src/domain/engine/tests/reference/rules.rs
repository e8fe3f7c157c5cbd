//! The rules, the source and the alerts of a [`Config`](super::model::Config) as the engine takes them.

use super::super::*;
use super::model;
use crate::domain::direction::Direction;
use crate::domain::rule::{HoldTemplate, PartialTemplate};
use crate::domain::source::HeartbeatSettings;

/// The fingerprint of the heartbeat.
pub(crate) const BEAT: model::Fingerprint = 99;
/// The label without which a rule cannot read its alert.
const READABLE: (&str, &str) = ("zone", "workers");

/// What does not change during a history.
pub(crate) struct Settings {
    pub config: model::Config,
    pub rules: RuleTable,
    pub source: Arc<Source>,
    pub sources: BTreeMap<Name, Arc<Source>>,
}

impl Settings {
    /// `is_matched` is whether a rule matches the alerts of a rule.
    pub(crate) fn new(
        config: model::Config,
        is_matched: impl Fn(model::RuleId, model::RuleId) -> bool,
    ) -> Self {
        let mut templates = known_templates();
        let count = config.rules.len();
        let rules = config.rules.iter().enumerate().map(|(id, rule)| {
            let names: Vec<String> =
                (0..count).filter(|other| is_matched(id, *other)).map(|other| format!("A{other}")).collect();
            rule_of(&config, rule, &names, &mut templates)
        });
        let rules = rules.collect();
        let heartbeat = config.heartbeat.map(|heartbeat| HeartbeatSettings {
            timeout: heartbeat.timeout.map(seconds),
            grace: seconds(heartbeat.grace),
            ..HeartbeatSettings::new(Matcher::parse_list("alertname = Watchdog").unwrap())
        });
        let source = Arc::new(Source {
            name: name("prod"),
            labels: Arc::new([("cluster", "prod-eu")].into_iter().collect()),
            late_window: seconds(config.late_window),
            occurrence_ttl: seconds(config.occurrence_ttl),
            heartbeat,
            ignore_labels: Vec::new(),
            permissions: crate::domain::source::SourcePermissions::default(),
        });
        let sources = BTreeMap::from([(source.name.clone(), source.clone())]);
        Self { config, rules: RuleTable::new(rules, templates), source, sources }
    }
}

pub(crate) fn seconds(seconds: model::Time) -> Duration {
    Duration::from_secs(seconds.unsigned_abs())
}

fn amount(units: i64) -> Amount {
    by(u32::try_from(units).unwrap())
}

fn rule_of(config: &model::Config, rule: &model::Rule, names: &[String], templates: &mut Templates) -> Rule {
    let base = Setup::default().table(Templates::new()).rules()[0].clone();
    let matchers = format!("alertname =~ \"{}\"", names.join("|"));
    let action = |phase: model::Phase, change: Change| Action {
        cooldown: seconds(rule.cooldown[phase as usize]),
        stabilization_window: rule.window[phase as usize]
            .map_or_else(|| Action::default_stabilization_window(&change), seconds),
        change,
    };
    let repeat = match rule.repeat {
        model::Repeat::Never => Repeat::Never,
        model::Repeat::OnGrowth => Repeat::OnGrowth,
        model::Repeat::WhileFiring { max_emissions } => {
            let max_emissions = NonZeroU32::new(u32::try_from(max_emissions).unwrap()).unwrap();
            Repeat::WhileFiring { max_emissions }
        }
    };
    let firing = change_on_firing(&rule.on_firing, templates);
    let resolved = match &rule.on_resolved {
        model::OnResolved::None => None,
        model::OnResolved::DecreaseBy(by) => Some(Change::ScaleIn(amount(*by))),
        model::OnResolved::Revert => Some(Change::Revert),
        model::OnResolved::Notify => Some(Change::Notify),
    };
    let target = match rule.on_firing {
        model::OnFiring::Hold { blocks_increases } => hold(blocks_increases, templates),
        _ => base.target.clone(),
    };
    Rule {
        name: name(rule.name),
        matchers: Matcher::parse_list(&matchers).unwrap(),
        target,
        on_firing: firing.map(|change| FiringAction { action: action(model::Phase::Firing, change), repeat }),
        on_resolved: resolved.map(|change| ResolvedAction { action: action(model::Phase::Resolved, change) }),
        mode: if rule.mode == model::Mode::Shadow { Mode::Shadow } else { Mode::Active },
        parameters: vec![(READABLE.0.into(), templates.template("{{ labels.zone }}").unwrap())],
        expires_after: seconds(rule.expires_after),
        max_age: seconds(config.max_age),
        ..base
    }
}

fn change_on_firing(on_firing: &model::OnFiring, templates: &mut Templates) -> Option<Change> {
    Some(match on_firing {
        model::OnFiring::IncreaseBy(by) => Change::ScaleOut(amount(*by)),
        model::OnFiring::DecreaseBy(by) => Change::ScaleIn(amount(*by)),
        model::OnFiring::Steps(steps) => {
            let metric = templates.template("{{ annotations.value }}").unwrap();
            let step = |(from, by): &(i64, i64)| RuleStep {
                from: f64::from(i32::try_from(*from).unwrap()),
                by: NonZeroU32::new(u32::try_from(*by).unwrap()).unwrap(),
            };
            let steps = Steps::new(metric, steps.iter().map(step).collect()).unwrap();
            Change::ScaleOut(Amount::Steps(steps))
        }
        model::OnFiring::SetCapacity { to, allow_decrease } => {
            Change::SetCapacity { to: u32::try_from(*to).unwrap(), allow_decrease: *allow_decrease }
        }
        model::OnFiring::Notify => Change::Notify,
        model::OnFiring::Hold { .. } => return None,
    })
}

fn hold(blocks_increases: bool, templates: &mut Templates) -> RuleTarget {
    let name = Some(templates.template("{{ labels.zone }}").unwrap());
    let blocks = if blocks_increases { Direction::ALL.to_vec() } else { vec![Direction::ScaleIn] };
    RuleTarget::Hold(HoldTemplate {
        covers: PartialTemplate { name, ..PartialTemplate::default() },
        blocks,
        max_duration: None,
    })
}

/// The alert as the engine reads it. An invalid firing that no rule takes cannot be read itself; of another one its
/// target is known.
pub(crate) fn alert_of(alert: &model::Alert) -> Result<Alert, InvalidAlert> {
    let fingerprint: Arc<str> = format!("fp-{}", alert.fingerprint).into();
    let is_invalid = alert.status == model::Status::InvalidFiring;
    if is_invalid && alert.rules.is_empty() {
        return Err(InvalidAlert {
            error: "labels.pod: not a string".to_owned(),
            fingerprint: Some(fingerprint.to_string()),
            status: Some(Status::Firing),
            starts_at: Some(at(alert.starts_at)),
        });
    }
    let alertname = match alert.heartbeat {
        true => "Watchdog".to_owned(),
        false => format!("A{}", alert.fingerprint % 2),
    };
    let pod = fingerprint.to_string();
    let mut labels = vec![("alertname", alertname.as_str()), ("nodegroup", "workers"), ("pod", pod.as_str())];
    if !is_invalid {
        labels.push(READABLE);
    }
    let value = alert.metric.unwrap_or(0).to_string();
    let is_resolved = alert.status == model::Status::Resolved;
    Ok(Alert {
        status: if is_resolved { Status::Resolved } else { Status::Firing },
        labels: Arc::new(labels.into_iter().collect()),
        annotations: Arc::new([("value", value.as_str())].into_iter().collect()),
        starts_at: at(alert.starts_at),
        ends_at: is_resolved.then(|| at(alert.ends_at)),
        valid_until: alert.valid_until.map(at),
        absence: (is_resolved && alert.is_absence).then(|| "MissingSeries".into()),
        generator_url: "".into(),
        fingerprint,
    })
}
