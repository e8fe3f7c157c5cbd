//! Rules: which alerts concern which target, and the actions that follow.
//!
//! All values are valid; `config` parses the text and reports errors.

use std::num::NonZeroU32;
use std::time::Duration;

use super::direction::Direction;
use super::matcher::Matcher;
use super::name::Name;
use super::size_limit::SizeLimit;
use super::source::Source;
use super::target::Platform;
use super::template::{Condition, Template};

/// A row of the rule table.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The identity of the rule, also across restarts and reloads.
    pub name: Name,
    /// The sources whose alerts the rule matches; `None` matches all.
    pub sources: Option<Vec<Name>>,
    /// Matchers, all of which must match.
    pub matchers: Vec<Matcher>,
    /// An additional condition.
    pub when: Option<Condition>,
    /// What the rule acts on.
    pub target: RuleTarget,
    /// The action when an episode opens or grows.
    pub on_firing: Option<FiringAction>,
    /// The action when an episode closes.
    pub on_resolved: Option<ResolvedAction>,
    /// How long consumers may act on an event.
    pub expires_after: Duration,
    /// Bounds of the target's capacity, for the consumer.
    pub limits: Limits,
    /// The maximum number of events per target in a span of time.
    pub budget: Option<Budget>,
    /// Templates of texts for the consumer.
    pub parameters: Vec<(String, Template)>,
    /// Whether the rule sends events.
    pub mode: Mode,
    /// The destinations of its events; never empty in an active rule, without duplicates.
    pub send_to: Vec<Name>,
    /// Those of `send_to` whose consumers change capacity; all of `send_to` if none does.
    pub acting: Vec<Name>,
    /// How long an event is tried at the acting destinations.
    pub max_age: Duration,
    /// The maximum size of an event, for all destinations in `send_to`.
    pub size_limit: SizeLimit,
    /// Whether later rules are evaluated after a match.
    pub continues: bool,
}

/// A limit on the events of one rule about one target, over a sliding window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The maximum number of events.
    pub events: NonZeroU32,
    /// The length of the window.
    pub per: Duration,
}

/// What a rule acts on.
#[derive(Debug, Clone)]
pub enum RuleTarget {
    /// The rule changes the capacity of a target.
    Target(TargetTemplate),
    /// The rule holds targets while its alerts fire, and emits no events.
    Hold(HoldTemplate),
}

/// The targets and directions that a rule with `hold` blocks.
#[derive(Debug, Clone)]
pub struct HoldTemplate {
    /// Templates of the fields in which targets have to match; none for `hold: { all: true }`.
    pub covers: PartialTemplate,
    /// The blocked directions, at least one.
    pub blocks: Vec<Direction>,
    /// How long a hold lasts at most, if it is limited.
    pub max_duration: Option<Duration>,
}

/// Templates of some fields of a target.
#[derive(Debug, Clone, Default)]
pub struct PartialTemplate {
    /// The platform.
    pub platform: Option<Platform>,
    /// The kind of resource.
    pub kind: Option<Template>,
    /// The name.
    pub name: Option<Template>,
    /// The AWS account.
    pub account: Option<Template>,
    /// The cluster.
    pub cluster: Option<Template>,
    /// The namespace.
    pub namespace: Option<Template>,
    /// The AWS region.
    pub region: Option<Template>,
}

impl Rule {
    /// Whether the rule sees the alerts of a source: neither its `sources` nor the source's `rules` exclude it.
    pub fn sees(&self, source: &Source) -> bool {
        self.lists(&source.name) && source.permissions.allow_rule(&self.name)
    }

    /// Whether the rule's own `sources` allow this one.
    pub fn lists(&self, source: &Name) -> bool {
        self.sources.as_ref().is_none_or(|names| names.contains(source))
    }
}

impl PartialTemplate {
    /// Whether no field is set, so that every target matches.
    pub const fn is_empty(&self) -> bool {
        let Self { platform, kind, name, account, cluster, namespace, region } = self;
        platform.is_none()
            && kind.is_none()
            && name.is_none()
            && account.is_none()
            && cluster.is_none()
            && namespace.is_none()
            && region.is_none()
    }
}

/// Templates of the fields of a target.
#[derive(Debug, Clone)]
pub struct TargetTemplate {
    /// The platform.
    pub platform: Platform,
    /// The kind of resource.
    pub kind: Template,
    /// The name.
    pub name: Template,
    /// The AWS account.
    pub account: Option<Template>,
    /// The cluster.
    pub cluster: Option<Template>,
    /// The namespace.
    pub namespace: Option<Template>,
    /// The AWS region.
    pub region: Option<Template>,
}

/// Whether a rule sends events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The rule sends events.
    Active,
    /// The rule decides as if it were active, but sends nothing and blocks no other rule.
    Shadow,
    /// The rule matches alerts without any action.
    Disabled,
}

/// A change and its guards.
#[derive(Debug, Clone)]
pub struct Action {
    /// The requested change.
    pub change: Change,
    /// How long an emission blocks later ones about the same target.
    pub cooldown: Duration,
    /// How long the action has to remain justified before it is emitted.
    pub stabilization_window: Duration,
}

impl Action {
    /// The default cooldown.
    pub const DEFAULT_COOLDOWN: Duration = Duration::from_secs(5 * 60);

    /// The default stabilization window: five minutes for decreases, none for other changes.
    pub const fn default_stabilization_window(change: &Change) -> Duration {
        if change.decreases_capacity() { Duration::from_secs(5 * 60) } else { Duration::ZERO }
    }
}

/// The action when an episode opens or grows.
#[derive(Debug, Clone)]
pub struct FiringAction {
    /// The change and its guards.
    pub action: Action,
    /// When the action is repeated.
    pub repeat: Repeat,
}

/// The action when an episode closes. Never uses [`Amount::Steps`]: when the last alert has resolved, there
/// are no metrics.
#[derive(Debug, Clone)]
pub struct ResolvedAction {
    /// The change and its guards.
    pub action: Action,
}

/// When the firing action of an open episode is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Once per episode.
    Never,
    /// Whenever more alerts are open than at any earlier emission.
    OnGrowth,
    /// Once per cooldown while the episode is open, independent of notifications.
    WhileFiring {
        /// The maximum number of events per episode, including the first.
        max_emissions: NonZeroU32,
    },
}

impl Repeat {
    /// The default of `max_emissions`.
    pub const DEFAULT_MAX_EMISSIONS: NonZeroU32 = NonZeroU32::new(5).unwrap();
}

/// A change of capacity.
#[derive(Debug, Clone)]
pub enum Change {
    /// Increases capacity.
    ScaleOut(Amount),
    /// Decreases capacity.
    ScaleIn(Amount),
    /// Takes back what the rule has added to the target and not yet taken back. Only in `on_resolved`.
    Revert,
    /// Sets capacity. Guards treat it as an increase, and with `allow_decrease` also as a decrease.
    SetCapacity {
        /// The new capacity, within the rule's limits.
        to: u32,
        /// Whether the consumer may decrease capacity to reach it.
        allow_decrease: bool,
    },
    /// Notifies the consumer without a change.
    Notify,
}

/// The amount of a change.
#[derive(Debug, Clone)]
pub enum Amount {
    /// A number of units.
    By(NonZeroU32),
    /// A percentage of the current capacity.
    ByPercent {
        /// The percentage.
        percent: NonZeroU32,
        /// The minimum number of units.
        at_least: Option<NonZeroU32>,
    },
    /// A number of units determined by the highest metric among the open occurrences.
    Steps(Steps),
}

/// The steps of a step adjustment.
#[derive(Debug, Clone)]
pub struct Steps {
    /// The template of the metric.
    pub metric: Template,
    /// Never empty, strictly increasing in `from`.
    steps: Vec<Step>,
}

/// A step: the number of units from a value of the metric up to the next step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// The lowest value of the metric to which the step applies.
    pub from: f64,
    /// The number of units.
    pub by: NonZeroU32,
}

/// Why a list of steps is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StepsError {
    /// The list is empty.
    #[error("no steps: specify at least `{{ from: 0, by: 1 }}`")]
    Empty,
    /// `from` is not a finite number, or does not increase.
    #[error(
        "the steps are not in ascending order: each `from` must be a finite number above the previous one"
    )]
    NotRising,
}

impl Steps {
    /// Checks that there is a step and that `from` is finite and strictly increasing.
    pub fn new(metric: Template, steps: Vec<Step>) -> Result<Self, StepsError> {
        if steps.is_empty() {
            return Err(StepsError::Empty);
        }
        let is_rising = steps.windows(2).all(|pair| pair[0].from < pair[1].from);
        if !is_rising || steps.iter().any(|step| !step.from.is_finite()) {
            return Err(StepsError::NotRising);
        }
        Ok(Self { metric, steps })
    }

    /// The step that applies to `metric`; `None` if it is below the lowest step or not finite.
    pub fn step_for(&self, metric: f64) -> Option<Step> {
        if !metric.is_finite() {
            return None;
        }
        self.steps.iter().rev().find(|step| metric >= step.from).copied()
    }

    /// The number of units of each step.
    pub fn units(&self) -> impl Iterator<Item = u32> {
        self.steps.iter().map(|step| step.by.get())
    }

    /// The lowest value to which a step applies.
    pub fn lowest(&self) -> f64 {
        self.steps[0].from
    }
}

/// Bounds of a target's capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, schemars::JsonSchema)]
pub struct Limits {
    /// The minimum capacity.
    pub min_capacity: Option<u32>,
    /// The maximum capacity.
    pub max_capacity: Option<u32>,
}

impl Limits {
    /// Limits `capacity` to the bounds.
    pub fn clamp(&self, capacity: u32) -> u32 {
        let raised = capacity.max(self.min_capacity.unwrap_or(0));
        raised.min(self.max_capacity.unwrap_or(u32::MAX))
    }
}

impl Change {
    /// The name of the action in events and metrics.
    pub const fn action(&self) -> &'static str {
        match self {
            Self::ScaleOut(_) => "scale_out",
            Self::ScaleIn(_) | Self::Revert => "scale_in",
            Self::SetCapacity { .. } => "set_capacity",
            Self::Notify => "notify",
        }
    }

    /// Whether the change can decrease capacity.
    pub const fn decreases_capacity(&self) -> bool {
        matches!(self, Self::ScaleIn(_) | Self::Revert | Self::SetCapacity { allow_decrease: true, .. })
    }

    /// Whether the change can increase capacity.
    pub const fn increases_capacity(&self) -> bool {
        matches!(self, Self::ScaleOut(_) | Self::SetCapacity { .. })
    }

    /// Whether the change has `direction`. A `set_capacity` with `allow_decrease` has both.
    pub const fn has_direction(&self, direction: Direction) -> bool {
        match direction {
            Direction::ScaleOut => self.increases_capacity(),
            Direction::ScaleIn => self.decreases_capacity(),
        }
    }

    /// The steps, if the amount is determined by steps.
    pub const fn steps(&self) -> Option<&Steps> {
        match self {
            Self::ScaleOut(Amount::Steps(steps)) | Self::ScaleIn(Amount::Steps(steps)) => Some(steps),
            _ => None,
        }
    }
}
