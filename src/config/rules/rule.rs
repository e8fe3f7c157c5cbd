//! Reader of a rule.

use super::super::decode::{Fields, Spanned, check_not_empty, spanned};
use super::super::diagnostic::{Diagnostics, Location};
use super::super::matchers::matchers;
use super::super::names::{names, rule_name};
use super::super::scalar::{flag, keyword};
use super::super::settings::Delivery;
use super::super::yaml::Node;
use super::body::SendTo;
use super::defaults::{Defaults, MODES};
use super::spans::RuleSpans;
use super::target::condition;
use super::{event_rule, hold};
use crate::domain::name::Name;
use crate::domain::rule::{Mode, Rule};
use crate::domain::size_limit::SizeLimit;
use crate::domain::template::Templates;

/// A rule before `semantics` checks it against sources and destinations. The valid parts are present even if
/// the rule as a whole is invalid.
pub(in crate::config) struct Draft {
    pub location: Location,
    pub name: Option<Spanned<Name>>,
    pub sources: Vec<Spanned<Name>>,
    pub mode: Mode,
    pub has_action: bool,
    /// `None` for a hold, which sends no events.
    pub send_to: Option<SendTo>,
    pub spans: RuleSpans,
    /// The rule, without the settings of its destinations.
    pub rule: Option<Rule>,
    /// Whether a part of it is invalid.
    pub is_faulty: bool,
}

pub(super) fn rule(
    node: &Node,
    defaults: &Defaults,
    templates: &mut Templates,
    diagnostics: &mut Diagnostics,
) -> Option<Draft> {
    let errors_before = diagnostics.errors();
    let mut fields = Fields::from_node(node, "rules.*", diagnostics)?;
    let name = fields.get_required("name", "name: unschedulable-pods", spanned(rule_name));
    let sources = fields.get("sources", sources);
    let matchers = fields.get("matchers", matchers("KubePodUnschedulable"));
    let when = fields.get("when", |node, diagnostics| condition(node, templates, diagnostics));
    let spans = RuleSpans::from_node(node);
    let (body, mut send_to) = if hold::is_hold(node) {
        (hold::body(&mut fields, templates), None)
    } else {
        let (body, send_to) = event_rule::body(&mut fields, defaults, &spans, templates);
        (body, Some(send_to))
    };
    let mode = fields.get("mode", keyword(&MODES)).or(defaults.mode).unwrap_or(Mode::Active);
    let continues = fields.get("continue", flag).unwrap_or(false);
    let has_action = fields.has("on_firing") || fields.has("on_resolved");
    let when_unread = fields.has("when") && when.is_none();
    let location = fields.location().clone();
    let fixes = fields.finish_with_fixes();
    // What an unknown key was meant to be is not missing.
    let has_action = has_action || fixes.suggest("on_firing") || fixes.suggest("on_resolved");
    if let Some(send_to) = &mut send_to {
        send_to.is_invalid |= fixes.suggest("send_to");
    }

    let sources_of = |names: &Vec<Spanned<Name>>| names.iter().map(|name| name.value.clone()).collect();
    let rule = || {
        let body = body.filter(|_| !when_unread)?;
        Some(Rule {
            name: name.as_ref()?.value.clone(),
            sources: sources.as_ref().map(sources_of),
            matchers: matchers.unwrap_or_default(),
            when,
            target: body.target,
            on_firing: body.on_firing,
            on_resolved: body.on_resolved,
            expires_after: body.expires_after,
            limits: body.limits,
            budget: body.budget,
            parameters: body.parameters,
            mode,
            acting: body.send_to.clone(),
            max_age: Delivery::DEFAULT_MAX_AGE,
            send_to: body.send_to,
            size_limit: SizeLimit::NONE,
            continues,
        })
    };
    let rule = rule();
    Some(Draft {
        location,
        name,
        sources: sources.unwrap_or_default(),
        mode,
        has_action,
        send_to,
        spans,
        rule,
        is_faulty: diagnostics.errors() > errors_before,
    })
}

fn sources(node: &Node, diagnostics: &mut Diagnostics) -> Option<Vec<Spanned<Name>>> {
    check_not_empty(node, "name a source, or remove `sources` to accept all sources", diagnostics);
    names(node, diagnostics)
}
