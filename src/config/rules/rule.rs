//! One rule.

use std::time::Duration;

use super::super::decode::{Fields, Spot, names, not_empty, spot};
use super::super::diagnostic::{Diagnostics, Place};
use super::super::matchers::matchers;
use super::super::scalar::{flag, name, word};
use super::super::yaml::Node;
use super::defaults::{Defaults, MODES};
use super::target::condition;
use super::{hold, sends};
use crate::domain::name::Name;
use crate::domain::rule::{
    Budget, FiringAction, HoldTemplate, Limits, Mode, ResolvedAction, Rule, RuleTarget,
};
use crate::domain::template::{Template, Templates};

/// A rule before the pass of meaning, which knows sources and destinations. What could be read is here
/// even where the rule as a whole is faulty.
pub(in crate::config) struct Draft {
    /// Where the rule stands.
    pub place: Place,
    pub name: Option<Spot<Name>>,
    pub sources: Vec<Spot<Name>>,
    pub mode: Mode,
    pub has_action: bool,
    /// None for a hold, which sends nothing.
    pub send_to: Option<SendTo>,
    pub spots: Spots,
    /// The rule, without its `max_event_bytes`.
    pub rule: Option<Rule>,
}

/// Where the parts of a rule stand that the pass of meaning may have to point at; where one is not given, the
/// part that it would stand in.
pub(in crate::config) struct Spots {
    pub matchers: Place,
    pub target: Place,
    /// Of `on_firing` and of `on_resolved`.
    pub window: [Place; 2],
}

impl Spots {
    fn of(rule: &Node) -> Self {
        let at = |[outer, inner]: [&str; 2]| {
            let outer = rule.get(outer).unwrap_or(rule);
            outer.get(inner).unwrap_or(outer).place.clone()
        };
        Self {
            matchers: at(["matchers", ""]),
            target: at(["target", ""]),
            window: ["on_firing", "on_resolved"].map(|phase| at([phase, "stabilization_window"])),
        }
    }
}

/// Where a rule sends its events.
pub(in crate::config) struct SendTo {
    pub names: Vec<Spot<Name>>,
    /// Where `send_to` or its absence is to be seen.
    pub place: Place,
    /// Whether it is there and could not be read.
    pub faulty: bool,
}

/// What a rule does, and with what: the part in which those that send events and those that hold differ.
pub(super) struct Deed {
    pub target: RuleTarget,
    pub on_firing: Option<FiringAction>,
    pub on_resolved: Option<ResolvedAction>,
    pub expires_after: Duration,
    pub limits: Limits,
    pub budget: Option<Budget>,
    pub parameters: Vec<(String, Template)>,
    pub send_to: Vec<Name>,
}

impl Deed {
    pub const EXPIRES_AFTER: Duration = Duration::from_hours(1);

    /// A hold, which has none of what belongs to events.
    pub fn hold(hold: HoldTemplate) -> Self {
        Self {
            target: RuleTarget::Hold(hold),
            on_firing: None,
            on_resolved: None,
            expires_after: Self::EXPIRES_AFTER,
            limits: Limits::default(),
            budget: None,
            parameters: Vec::new(),
            send_to: Vec::new(),
        }
    }
}

pub(super) fn rule(
    node: &Node,
    defaults: &Defaults,
    templates: &mut Templates,
    faults: &mut Diagnostics,
) -> Option<Draft> {
    let mut fields = Fields::of(node, "rules.*", faults)?;
    let name = fields.need("name", "name: unschedulable-pods", spot(name));
    let sources = fields.get("sources", sources);
    let matchers = fields.get("matchers", matchers("KubePodUnschedulable"));
    let when = fields.get("when", |node, faults| condition(node, templates, faults));
    let (deed, send_to) = if hold::is_one(node) {
        (hold::deed(&mut fields, templates), None)
    } else {
        let (deed, send_to) = sends::deed(&mut fields, defaults, templates);
        (deed, Some(send_to))
    };
    let mode = fields.get("mode", word(&MODES)).or(defaults.mode).unwrap_or(Mode::Active);
    let continues = fields.get("continue", flag).unwrap_or(false);
    let has_action = fields.has("on_firing") || fields.has("on_resolved");
    let when_unread = fields.has("when") && when.is_none();
    let place = fields.place().clone();
    fields.finish();

    let sources_of = |names: &Vec<Spot<Name>>| names.iter().map(|name| name.value.clone()).collect();
    let rule = || {
        let deed = deed.filter(|_| !when_unread)?;
        Some(Rule {
            name: name.as_ref()?.value.clone(),
            sources: sources.as_ref().map(sources_of),
            matchers: matchers.unwrap_or_default(),
            when,
            target: deed.target,
            on_firing: deed.on_firing,
            on_resolved: deed.on_resolved,
            expires_after: deed.expires_after,
            limits: deed.limits,
            budget: deed.budget,
            parameters: deed.parameters,
            mode,
            send_to: deed.send_to,
            max_event_bytes: usize::MAX,
            continues,
        })
    };
    let rule = rule();
    let spots = Spots::of(node);
    Some(Draft { place, name, sources: sources.unwrap_or_default(), mode, has_action, send_to, spots, rule })
}

fn sources(node: &Node, faults: &mut Diagnostics) -> Option<Vec<Spot<Name>>> {
    not_empty(node, "name a source, or leave `sources` out for all of them", faults);
    names(node, faults)
}
