//! Rules: which alerts concern which target, and what is to happen then.
//!
//! Everything here is already checked; `config` reads the text and finds the faults.

use std::num::NonZeroU32;
use std::time::Duration;

use super::direction::Direction;
use super::matcher::Matcher;
use super::name::Name;
use super::target::Platform;
use super::template::{Condition, Template};

/// A row of the rule table.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The rule's identity, also across restarts and reloads.
    pub name: Name,
    /// The sources it listens to; `None` is all.
    pub sources: Option<Vec<Name>>,
    /// All must hold.
    pub matchers: Vec<Matcher>,
    /// Must hold too, if there is one.
    pub when: Option<Condition>,
    /// What it is about.
    pub target: RuleTarget,
    /// When an episode opens or grows.
    pub on_firing: Option<FiringAction>,
    /// When an episode closes.
    pub on_resolved: Option<ResolvedAction>,
    /// How long an event may be acted on.
    pub expires_after: Duration,
    /// Bounds for whoever carries the adjustment out.
    pub limits: Limits,
    /// The most events about one target in a span of time.
    pub budget: Option<Budget>,
    /// Free text for the consumer.
    pub parameters: Vec<(String, Template)>,
    /// Whether it acts.
    pub mode: Mode,
    /// Where its events go; never empty in a rule that acts, and without doubles.
    pub send_to: Vec<Name>,
    /// The most bytes that one of its events may have: the smallest limit among `send_to`.
    pub max_event_bytes: usize,
    /// Whether later rules see the alert too.
    pub continues: bool,
}

/// A sliding bound for one rule at one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Events.
    pub events: NonZeroU32,
    /// In any span of this length.
    pub per: Duration,
}

/// What a rule is about, and with that what kind of rule it is.
#[derive(Debug, Clone)]
pub enum RuleTarget {
    /// It changes a target's capacity.
    Target(TargetTemplate),
    /// It holds targets while its alerts fire, and sends nothing.
    Hold(HoldTemplate),
}

/// What a rule with `hold` holds.
#[derive(Debug, Clone)]
pub struct HoldTemplate {
    /// Templates of the fields that a target has to agree in; none of them is `hold: { all: true }`.
    pub covers: PartialTemplate,
    /// The directions that it stops, at least one.
    pub blocks: Vec<Direction>,
}

/// Templates of some of a target's fields.
#[derive(Debug, Clone, Default)]
pub struct PartialTemplate {
    /// Where it lives.
    pub platform: Option<Platform>,
    /// What it is there.
    pub kind: Option<Template>,
    /// Its name.
    pub name: Option<Template>,
    /// AWS account.
    pub account: Option<Template>,
    /// Cluster.
    pub cluster: Option<Template>,
    /// Namespace.
    pub namespace: Option<Template>,
    /// AWS region.
    pub region: Option<Template>,
}

impl PartialTemplate {
    /// Whether no field is given, so that every target agrees.
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

/// Templates of a target's fields.
#[derive(Debug, Clone)]
pub struct TargetTemplate {
    /// Where it lives.
    pub platform: Platform,
    /// What it is there.
    pub kind: Template,
    /// Its name.
    pub name: Template,
    /// AWS account.
    pub account: Option<Template>,
    /// Cluster.
    pub cluster: Option<Template>,
    /// Namespace.
    pub namespace: Option<Template>,
    /// AWS region.
    pub region: Option<Template>,
}

/// Whether a rule acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It acts.
    Active,
    /// It decides as if it acted, sends nothing and stops nobody.
    Shadow,
    /// It takes its alerts and does nothing.
    Disabled,
}

/// A change and what guards it.
#[derive(Debug, Clone)]
pub struct Action {
    /// The change that is asked for.
    pub change: Change,
    /// How long its emission blocks later ones about the same target.
    pub cooldown: Duration,
    /// How long it has to stay supported before it is emitted.
    pub stabilization_window: Duration,
}

impl Action {
    /// The cooldown where none is given.
    pub const DEFAULT_COOLDOWN: Duration = Duration::from_secs(5 * 60);

    /// The stabilization window where none is given: five minutes for what takes capacity away, none for
    /// the rest.
    pub const fn default_stabilization_window(change: &Change) -> Duration {
        if change.decreases_capacity() { Duration::from_secs(5 * 60) } else { Duration::ZERO }
    }
}

/// What happens when an episode opens, and again when it grows.
#[derive(Debug, Clone)]
pub struct FiringAction {
    /// The change, guarded.
    pub action: Action,
    /// Whether growth acts again.
    pub repeat: Repeat,
}

/// What happens when an episode closes. It never holds [`Amount::Steps`]: when the last alert has
/// resolved there is no metric to read.
#[derive(Debug, Clone)]
pub struct ResolvedAction {
    /// The change, guarded.
    pub action: Action,
}

/// When the firing action of an open episode acts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Once an episode.
    Never,
    /// When more alerts are open than at any earlier emission.
    OnGrowth,
    /// By our own clock, once for each cooldown, while the episode is open. Notifications do not count.
    WhileFiring {
        /// The most events of one episode, the first one included.
        max_emissions: NonZeroU32,
    },
}

impl Repeat {
    /// `max_emissions` where none is given.
    pub const DEFAULT_MAX_EMISSIONS: NonZeroU32 = NonZeroU32::new(5).unwrap();
}

/// A change of capacity.
#[derive(Debug, Clone)]
pub enum Change {
    /// Add capacity.
    ScaleOut(Amount),
    /// Take capacity away.
    ScaleIn(Amount),
    /// Go to a number. Both directions for every guard.
    SetCapacity {
        /// The number, inside the rule's limits.
        to: u32,
        /// Whether a consumer may lower capacity with it.
        allow_decrease: bool,
    },
    /// Tell, and change nothing.
    Notify,
}

/// By how much.
#[derive(Debug, Clone)]
pub enum Amount {
    /// By a number of units.
    By(NonZeroU32),
    /// By a share of what is there.
    ByPercent {
        /// Percent.
        percent: NonZeroU32,
        /// At least this many units.
        at_least: Option<NonZeroU32>,
    },
    /// By the highest metric among the open occurrences.
    Steps(Steps),
}

/// The steps of a step adjustment.
#[derive(Debug, Clone)]
pub struct Steps {
    /// Gives the number.
    pub metric: Template,
    /// Never empty, `from` rising strictly.
    steps: Vec<Step>,
}

/// From this value of the metric on, by that many units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// The lowest value that this step serves.
    pub from: f64,
    /// Units.
    pub by: NonZeroU32,
}

/// Why a list of steps makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StepsError {
    /// None at all.
    #[error("there is no step: give at least `{{ from: 0, by: 1 }}`")]
    Empty,
    /// `from` is not a finite number, or does not rise.
    #[error("the steps do not rise: each `from` has to be a finite number above the one before")]
    NotRising,
}

impl Steps {
    /// Checks that there is a step and that `from` rises.
    pub fn new(metric: Template, steps: Vec<Step>) -> Result<Self, StepsError> {
        if steps.is_empty() {
            return Err(StepsError::Empty);
        }
        let rises = steps.windows(2).all(|pair| pair[0].from < pair[1].from);
        if !rises || steps.iter().any(|step| !step.from.is_finite()) {
            return Err(StepsError::NotRising);
        }
        Ok(Self { metric, steps })
    }

    /// The step that serves `metric`; `None` below the lowest and for what is no finite number.
    pub fn step_for(&self, metric: f64) -> Option<Step> {
        if !metric.is_finite() {
            return None;
        }
        self.steps.iter().rev().find(|step| metric >= step.from).copied()
    }

    /// The lowest value that is served.
    pub fn lowest(&self) -> f64 {
        self.steps[0].from
    }
}

/// Bounds of a target's capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, schemars::JsonSchema)]
pub struct Limits {
    /// Not below.
    pub min_capacity: Option<u32>,
    /// Not above.
    pub max_capacity: Option<u32>,
}

impl Limits {
    /// `capacity` held inside the bounds.
    pub fn clamp(&self, capacity: u32) -> u32 {
        let raised = capacity.max(self.min_capacity.unwrap_or(0));
        raised.min(self.max_capacity.unwrap_or(u32::MAX))
    }
}

impl Change {
    /// The word in events and metrics.
    pub const fn action(&self) -> &'static str {
        match self {
            Self::ScaleOut(_) => "scale_out",
            Self::ScaleIn(_) => "scale_in",
            Self::SetCapacity { .. } => "set_capacity",
            Self::Notify => "notify",
        }
    }

    /// Whether capacity could become less by it. A `set_capacity` counts in both directions.
    pub const fn decreases_capacity(&self) -> bool {
        matches!(self, Self::ScaleIn(_) | Self::SetCapacity { .. })
    }

    /// Whether whoever carries it out may make capacity less.
    pub const fn may_decrease_capacity(&self) -> bool {
        matches!(self, Self::ScaleIn(_) | Self::SetCapacity { allow_decrease: true, .. })
    }

    /// Whether capacity could become more by it.
    pub const fn increases_capacity(&self) -> bool {
        matches!(self, Self::ScaleOut(_) | Self::SetCapacity { .. })
    }

    /// Whether the change has `direction`. A `set_capacity` has both.
    pub const fn has_direction(&self, direction: Direction) -> bool {
        match direction {
            Direction::ScaleOut => self.increases_capacity(),
            Direction::ScaleIn => self.decreases_capacity(),
        }
    }

    /// The steps, where the amount is given by them.
    pub const fn steps(&self) -> Option<&Steps> {
        match self {
            Self::ScaleOut(Amount::Steps(steps)) | Self::ScaleIn(Amount::Steps(steps)) => Some(steps),
            _ => None,
        }
    }
}
