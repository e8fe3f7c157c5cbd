//! The rule table: finds the rules that match an alert and renders their templates. Pure, without any state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::episode_scope::EpisodeScope;
use super::event::check_fixed_bytes;
use super::matcher::Matcher;
use super::name::Name;
use super::notification::Alert;
use super::rule::{Mode, PartialTemplate, Rule, RuleTarget, TargetTemplate};
use super::source::{Source, SourcePermissions};
use super::target::{PartialTarget, Target, TargetKey};
use super::template::{Scope, Template, Templates};
use super::verdict::Verdict;

/// The maximum size of a rendered field of a target. Names in AWS and Kubernetes have at most 255 bytes; an
/// ARN fits too.
pub const MAX_TARGET_FIELD_BYTES: usize = 512;

/// All rules in order, with their compiled templates.
///
/// The keys of its hash maps come from the configuration, so a fast hasher without protection against
/// collisions is sufficient.
#[derive(Debug)]
pub struct RuleTable {
    rules: Vec<Rule>,
    templates: Templates,
    by_name: HashMap<Name, usize, FixedState>,
    /// For each `alertname` that a rule requires: all rules that can match such an alert, in order.
    by_alertname: HashMap<String, Vec<usize>, FixedState>,
    /// The rules that require no particular `alertname`, in order.
    others: Vec<usize>,
}

/// The evaluation of one firing alert.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Evaluation {
    /// The rules that matched, with their rendered values.
    pub matches: Vec<RuleMatch>,
    /// Why no rule matched, or why a matching rule cannot use the alert.
    pub not_matched: Option<NotMatched>,
    /// What the alert would be about, if it could be read.
    pub unreadable: Vec<UnreadableMatch>,
    /// The rules in `mode: shadow` that match the alert, but cannot use it.
    pub unreadable_by_shadows: Vec<NotMatched>,
}

/// A rule that matches an alert whose `when` or a template fails, or a hold below such a rule.
#[derive(Debug, Clone, PartialEq)]
pub struct UnreadableMatch {
    /// The index of the rule in [`RuleTable::rules`].
    pub rule_index: usize,
    /// The key of the target, if it can be rendered. That of a hold without the fields that cannot be rendered, so that
    /// it covers at least the targets that it would.
    pub key: TargetKey,
}

/// A rule that matched an alert.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleMatch {
    /// The index of the rule in [`RuleTable::rules`].
    pub rule_index: usize,
    /// The rendered target or hold.
    pub scope: EpisodeScope,
    /// The key of `scope`.
    pub key: TargetKey,
    /// The rendered parameters.
    pub parameters: BTreeMap<String, String>,
    /// The metric for step adjustments; finite and not below the lowest step.
    pub metric: Option<f64>,
}

/// Why no rule matched an alert, or why a matching rule cannot use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotMatched {
    /// `unmatched`, `condition_false`, `disabled` or `invalid`.
    pub verdict: Verdict,
    /// The rule that determined the verdict, if any.
    pub rule: Option<Name>,
    /// An explanation.
    pub detail: Option<String>,
}

impl NotMatched {
    fn new(verdict: Verdict, rule: &Rule, detail: Option<String>) -> Self {
        Self { verdict, rule: Some(rule.name.clone()), detail }
    }
}

/// The result of evaluating one rule for an alert: the first check that fails, or a match.
#[derive(Debug, Clone)]
pub enum MatchResult<'a> {
    /// The rule does not apply to the alert's source.
    OtherSource,
    /// The `rules` of the alert's source do not list the rule.
    NotPermitted,
    /// This matcher does not match.
    NoMatch(&'a Matcher),
    /// The matchers match, but `when` is false.
    ConditionFalse,
    /// The rule matches, but evaluating `when` or a template failed.
    Invalid(String),
    /// The rule matches, but is disabled.
    Disabled,
    /// The rule matches.
    Matched(RuleMatch),
    /// This earlier rule has ended the evaluation, so the rule was not evaluated.
    Skipped(&'a Name),
}

/// Fails if the `targets` of a source do not allow its alerts to be about this. The error is for users.
fn check_permitted(
    scope: &EpisodeScope,
    permissions: &SourcePermissions,
    source: &Name,
) -> Result<(), String> {
    if permissions.targets.is_none() {
        return Ok(());
    }
    match scope {
        EpisodeScope::Target(target) => {
            let key = target.key();
            let is_allowed = permissions.allow_target(&key);
            is_allowed
                .then_some(())
                .ok_or_else(|| format!("target {key} is beyond `sources.{source}.targets`"))
        }
        EpisodeScope::Hold(covers) => permissions.allow_hold(covers).then_some(()).ok_or_else(|| {
            format!("the hold covers {}, which is beyond `sources.{source}.targets`", covers.key_pattern())
        }),
        EpisodeScope::Heartbeat(_) => Ok(()),
    }
}

impl RuleTable {
    /// Builds the table from rules in order and the set in which their templates were compiled. Names must be
    /// unique, as checked by `config`.
    pub fn new(rules: Vec<Rule>, templates: Templates) -> Self {
        let by_name = rules.iter().enumerate().map(|(at, rule)| (rule.name.clone(), at)).collect();
        let required_names = |rule: &Rule| {
            let mut named = rule.matchers.iter().filter(|matcher| matcher.label() == "alertname");
            let names = named.find_map(Matcher::one_of)?;
            Some(names.into_iter().map(str::to_owned).collect::<BTreeSet<String>>())
        };
        let required: Vec<Option<BTreeSet<String>>> = rules.iter().map(required_names).collect();
        let names = required.iter().flatten().flatten();
        let mut by_alertname: HashMap<String, Vec<usize>, FixedState> =
            names.map(|name| (name.clone(), Vec::new())).collect();
        let mut others = Vec::new();
        for (at, names) in required.iter().enumerate() {
            match names {
                Some(names) => {
                    for name in names {
                        by_alertname.entry(name.clone()).or_default().push(at);
                    }
                }
                None => {
                    others.push(at);
                    by_alertname.values_mut().for_each(|list| list.push(at));
                }
            }
        }
        Self { rules, templates, by_name, by_alertname, others }
    }

    /// The rules in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The position of the rule with this name.
    pub fn row(&self, name: &Name) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The rule with this name.
    pub fn rule(&self, name: &Name) -> Option<&Rule> {
        self.by_name.get(name).map(|&at| &self.rules[at])
    }

    /// Evaluates the rules for one firing alert, whose labels have already been overridden by those of the source. The
    /// first rule whose sources, matchers and `when` match ends the evaluation, unless it has `continue`. An error in
    /// `when` or a template makes the alert invalid and ends the evaluation, except for holds. Rules in `mode: shadow`
    /// are evaluated apart: each sees every alert, and takes it from no other rule.
    pub fn evaluate_alert(&self, source: &Source, alert: &Alert) -> Evaluation {
        let scope = Scope { source: &source.name, source_labels: &source.labels, alert };
        let alertname = alert.labels.get("alertname");
        let candidates = self.by_alertname.get(alertname).unwrap_or(&self.others);
        let candidates = || candidates.iter().map(|&at| (at, &self.rules[at]));
        let mut evaluation = Evaluation::default();
        let active = candidates().filter(|(_, rule)| rule.mode != Mode::Shadow);
        let condition_false = self.evaluate_active(active, source, &scope, &mut evaluation);
        for (at, rule) in candidates().filter(|(_, rule)| rule.mode == Mode::Shadow) {
            match self.evaluate(at, rule, source, &scope) {
                MatchResult::Matched(matched) => evaluation.matches.push(matched),
                MatchResult::Invalid(error) => {
                    evaluation.unreadable_by_shadows.push(NotMatched::new(
                        Verdict::Invalid,
                        rule,
                        Some(error),
                    ));
                }
                _ => {}
            }
        }
        let is_shadowed = !evaluation.matches.is_empty() || !evaluation.unreadable_by_shadows.is_empty();
        if !is_shadowed && evaluation.not_matched.is_none() {
            let unmatched = || NotMatched { verdict: Verdict::Unmatched, rule: None, detail: None };
            evaluation.not_matched = Some(condition_false.unwrap_or_else(unmatched));
        }
        evaluation
    }

    /// Evaluates the rules that are not in `mode: shadow`. Returns the first one whose `when` is false.
    fn evaluate_active<'r>(
        &'r self,
        candidates: impl Iterator<Item = (usize, &'r Rule)>,
        source: &Source,
        scope: &Scope<'_>,
        evaluation: &mut Evaluation,
    ) -> Option<NotMatched> {
        let mut condition_false = None;
        let mut is_invalid = false;
        for (at, rule) in candidates {
            let is_hold = matches!(rule.target, RuleTarget::Hold(_));
            // No later rule sees an invalid alert, except holds.
            if is_invalid && (!is_hold || rule.mode == Mode::Disabled) {
                continue;
            }
            match self.evaluate(at, rule, source, scope) {
                MatchResult::OtherSource
                | MatchResult::NotPermitted
                | MatchResult::NoMatch(_)
                | MatchResult::Skipped(_) => continue,
                MatchResult::ConditionFalse => {
                    condition_false
                        .get_or_insert_with(|| NotMatched::new(Verdict::ConditionFalse, rule, None));
                    continue;
                }
                MatchResult::Invalid(error) => {
                    let invalid = || NotMatched::new(Verdict::Invalid, rule, Some(error));
                    evaluation.not_matched = evaluation.not_matched.take().filter(|_| is_invalid);
                    evaluation.not_matched.get_or_insert_with(invalid);
                    is_invalid = true;
                    if rule.mode != Mode::Disabled {
                        evaluation.unreadable.extend(self.unreadable_match(at, rule, source, scope));
                    }
                }
                MatchResult::Matched(RuleMatch { rule_index, key, .. }) if is_invalid => {
                    evaluation.unreadable.push(UnreadableMatch { rule_index, key });
                }
                MatchResult::Disabled => {
                    evaluation.not_matched = Some(NotMatched::new(Verdict::Disabled, rule, None));
                    if !rule.continues {
                        break;
                    }
                }
                MatchResult::Matched(matched) => {
                    evaluation.matches.push(matched);
                    if !rule.continues {
                        break;
                    }
                }
            }
        }
        condition_false
    }

    fn unreadable_match(
        &self,
        at: usize,
        rule: &Rule,
        source: &Source,
        scope: &Scope<'_>,
    ) -> Option<UnreadableMatch> {
        let scope = match &rule.target {
            RuleTarget::Target(templates) => {
                let target = EpisodeScope::Target(Arc::new(self.target(templates, scope).ok()?));
                // A source does not block what its alerts must not be about, either.
                check_permitted(&target, &source.permissions, &source.name).ok()?;
                target
            }
            // The engine limits it to the source's `targets`.
            RuleTarget::Hold(hold) => EpisodeScope::Hold(self.readable_part(&hold.covers, scope)),
        };
        Some(UnreadableMatch { rule_index: at, key: scope.key() })
    }

    /// The result of every rule for an alert, in order, as [`RuleTable::evaluate_alert`] evaluates them.
    pub fn trace(&self, source: &Source, alert: &Alert) -> Vec<(&Rule, MatchResult<'_>)> {
        let scope = Scope { source: &source.name, source_labels: &source.labels, alert };
        let mut ended_by = None;
        let result = |(at, rule): (usize, &Rule)| {
            let is_shadow = rule.mode == Mode::Shadow;
            let result = self.evaluate(at, &self.rules[at], source, &scope);
            if is_shadow {
                return result;
            }
            if let Some(by) = ended_by {
                return match result {
                    MatchResult::OtherSource
                    | MatchResult::NotPermitted
                    | MatchResult::NoMatch(_)
                    | MatchResult::ConditionFalse => result,
                    _ => MatchResult::Skipped(by),
                };
            }
            let ends = match &result {
                MatchResult::Invalid(_) => true,
                MatchResult::Disabled | MatchResult::Matched(_) => !rule.continues,
                _ => false,
            };
            ended_by = Some(&self.rules[at].name).filter(|_| ends);
            result
        };
        let results: Vec<MatchResult<'_>> = self.rules.iter().enumerate().map(result).collect();
        self.rules.iter().zip(results).collect()
    }

    fn evaluate<'a>(
        &'a self,
        at: usize,
        rule: &'a Rule,
        source: &Source,
        scope: &Scope<'_>,
    ) -> MatchResult<'a> {
        if !rule.lists(&source.name) {
            return MatchResult::OtherSource;
        }
        if !source.permissions.allow_rule(&rule.name) {
            return MatchResult::NotPermitted;
        }
        if let Some(matcher) = rule.matchers.iter().find(|matcher| !matcher.matches(&scope.alert.labels)) {
            return MatchResult::NoMatch(matcher);
        }
        match rule.when.as_ref().map(|when| self.templates.is_true(when, scope)) {
            None | Some(Ok(true)) => {}
            Some(Ok(false)) => return MatchResult::ConditionFalse,
            Some(Err(error)) => return MatchResult::Invalid(format!("when: {error}")),
        }
        if rule.mode == Mode::Disabled {
            return MatchResult::Disabled;
        }
        let matched = self.render_match(at, rule, &source.permissions, scope);
        matched.map_or_else(MatchResult::Invalid, MatchResult::Matched)
    }

    fn render_match(
        &self,
        at: usize,
        rule: &Rule,
        permissions: &SourcePermissions,
        scope: &Scope<'_>,
    ) -> Result<RuleMatch, String> {
        let episode_scope = match &rule.target {
            RuleTarget::Target(templates) => EpisodeScope::Target(Arc::new(self.target(templates, scope)?)),
            RuleTarget::Hold(hold) => EpisodeScope::Hold(self.partial(&hold.covers, scope)?),
        };
        check_permitted(&episode_scope, permissions, scope.source)?;
        let mut parameters = BTreeMap::new();
        for (name, template) in &rule.parameters {
            let value = self.templates.render(template, scope);
            let value = value.map_err(|error| format!("parameters.{name}: {error}"))?;
            parameters.insert(name.clone(), value);
        }
        if let Some(target) = episode_scope.target() {
            let max_bytes = rule.size_limit.bytes;
            let bytes = check_fixed_bytes(target, &parameters, rule.size_limit);
            bytes.map_err(|bytes| {
                format!(
                    "the event would have {bytes} bytes without any alert; the destinations accept {max_bytes}"
                )
            })?;
        }
        let metric = self.metric(rule, scope)?;
        Ok(RuleMatch { rule_index: at, key: episode_scope.key(), scope: episode_scope, parameters, metric })
    }

    /// Renders a field of a target, which must not be empty or too long.
    fn field(&self, name: &str, template: &Template, scope: &Scope<'_>) -> Result<String, String> {
        let text = self.templates.render(template, scope);
        let text = text.map_err(|error| format!("target.{name}: {error}"))?;
        if text.is_empty() {
            return Err(format!("target.{name} is empty"));
        }
        if text.len() > MAX_TARGET_FIELD_BYTES {
            return Err(format!(
                "target.{name} has {} bytes, more than {MAX_TARGET_FIELD_BYTES}",
                text.len()
            ));
        }
        Ok(text)
    }

    fn optional(
        &self,
        name: &str,
        template: Option<&Template>,
        scope: &Scope<'_>,
    ) -> Result<Option<String>, String> {
        template.map(|template| self.field(name, template, scope)).transpose()
    }

    fn partial(&self, templates: &PartialTemplate, scope: &Scope<'_>) -> Result<PartialTarget, String> {
        let PartialTemplate { platform, kind, name, account, cluster, namespace, region } = templates;
        let field = |name, template: &Option<Template>| self.optional(name, template.as_ref(), scope);
        Ok(PartialTarget {
            platform: *platform,
            kind: field("kind", kind)?,
            name: field("name", name)?,
            account: field("account", account)?,
            cluster: field("cluster", cluster)?,
            namespace: field("namespace", namespace)?,
            region: field("region", region)?,
        })
    }

    /// The fields that can be rendered.
    fn readable_part(&self, templates: &PartialTemplate, scope: &Scope<'_>) -> PartialTarget {
        let PartialTemplate { platform, kind, name, account, cluster, namespace, region } = templates;
        let field =
            |name, template: &Option<Template>| self.optional(name, template.as_ref(), scope).ok().flatten();
        PartialTarget {
            platform: *platform,
            kind: field("kind", kind),
            name: field("name", name),
            account: field("account", account),
            cluster: field("cluster", cluster),
            namespace: field("namespace", namespace),
            region: field("region", region),
        }
    }

    fn target(&self, templates: &TargetTemplate, scope: &Scope<'_>) -> Result<Target, String> {
        let TargetTemplate { platform, kind, name, account, cluster, namespace, region } = templates;
        let field = |name, template: &Option<Template>| self.optional(name, template.as_ref(), scope);
        Ok(Target {
            platform: *platform,
            kind: self.field("kind", kind, scope)?,
            name: self.field("name", name, scope)?,
            account: field("account", account)?,
            cluster: field("cluster", cluster)?,
            namespace: field("namespace", namespace)?,
            region: field("region", region)?,
        })
    }

    fn metric(&self, rule: &Rule, scope: &Scope<'_>) -> Result<Option<f64>, String> {
        let Some(steps) = rule.on_firing.as_ref().and_then(|firing| firing.action.change.steps()) else {
            return Ok(None);
        };
        let text = self.templates.render(&steps.metric, scope).map_err(|error| format!("metric: {error}"))?;
        let shown = || text.chars().take(40).collect::<String>();
        match text.trim().parse::<f64>() {
            Ok(metric) if steps.step_for(metric).is_some() => Ok(Some(metric)),
            Ok(metric) if metric.is_finite() => {
                Err(format!("metric: {metric} is below the lowest step, {}", steps.lowest()))
            }
            _ => Err(format!("metric: `{}` is not a finite number", shown())),
        }
    }
}
