//! The schema of a rules file.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::{Duration, Matcher, Name, Template};
use crate::domain::target::Platform;

/// Rules: which alerts change the capacity of which targets. An alert is handled by the first rule that
/// matches.
#[derive(JsonSchema)]
#[schemars(title = "scalebridge rules", deny_unknown_fields, extend("$id" = "urn:scalebridge:schema:rules"))]
pub(super) struct RulesFile {
    /// Defaults of the rules in this file.
    defaults: Option<Defaults>,
    /// The rules, evaluated in order.
    rules: Vec<Rule>,
}

/// Defaults of the rules in a file; a rule can override each of them.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Defaults {
    /// See the key of the same name in a rule.
    send_to: Option<Vec<Name>>,
    /// See the key of the same name in a rule.
    expires_after: Option<Duration>,
    /// See the key of the same name in a rule.
    limits: Option<Limits>,
    /// See the key of the same name in a rule.
    mode: Option<Mode>,
    /// See the key of the same name in a rule.
    budget: Option<Budget>,
    /// The `cooldown` of actions.
    cooldown: Option<Duration>,
    /// The `stabilization_window` of actions that can decrease capacity.
    stabilization_window: Option<Duration>,
}

/// A rule: which alerts it matches, the target, and the actions.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Rule {
    /// The unique name, which identifies the rule across restarts and reloads. Required.
    name: Name,
    /// Sources whose alerts the rule accepts. Default: all.
    sources: Option<Vec<Name>>,
    /// Matchers, all of which must match. Without matchers the rule matches every alert.
    matchers: Option<Vec<Matcher>>,
    /// A condition that must be true as well, such as `annotations.value | float >= 1`.
    when: Option<String>,
    /// The target of the actions.
    target: Option<Target>,
    /// The action when an episode opens, and when it grows.
    on_firing: Option<OnFiring>,
    /// The action when an episode closes.
    on_resolved: Option<OnResolved>,
    /// Consumers must not act on an older event. Default 1h.
    expires_after: Option<Duration>,
    /// Bounds of the target's capacity, enforced by the consumer.
    limits: Option<Limits>,
    /// Maximum number of events of this rule about one target in a period.
    budget: Option<Budget>,
    /// Custom parameters for the consumer.
    parameters: Option<BTreeMap<String, Template>>,
    /// Whether the rule acts. Default active.
    mode: Option<Mode>,
    /// Destinations of the events.
    send_to: Option<Vec<Name>>,
    /// Whether later rules are evaluated for the same alert. Default false.
    #[schemars(rename = "continue")]
    continues: Option<bool>,
}

/// A target. Fields except platform are templates; platform, kind and name are required unless the action is
/// a hold.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Target {
    /// Platform.
    platform: Option<Platform>,
    /// Kind of resource, for example nodegroup.
    kind: Option<Template>,
    /// Name of the resource.
    name: Option<Template>,
    /// AWS account ID.
    account: Option<Template>,
    /// Name of the cluster.
    cluster: Option<Template>,
    /// Kubernetes or Nomad namespace.
    namespace: Option<Template>,
    /// AWS region.
    region: Option<Template>,
}

/// The action when an episode opens or grows: exactly one action, and its guards.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct OnFiring {
    /// Increase capacity.
    scale_out: Option<Amount>,
    /// Decrease capacity.
    scale_in: Option<Amount>,
    /// Set the capacity to a number of units.
    set_capacity: Option<SetCapacity>,
    /// Send an event that does not change capacity.
    notify: Option<Notify>,
    /// Block actions of other rules.
    hold: Option<Hold>,
    /// How long an event blocks later ones about the same target. Default 5m.
    cooldown: Option<Duration>,
    /// How long the situation must not change before the action. Default 5m if it can decrease capacity,
    /// otherwise 0.
    stabilization_window: Option<Duration>,
    /// When the action is repeated within an episode. Default on_growth.
    repeat: Option<Repeat>,
    /// Maximum number of events per episode; requires `repeat: while_firing`. Default 5.
    #[schemars(range(min = 1, max = 1000))]
    max_emissions: Option<u32>,
}

/// The action when an episode closes: exactly one action, and its guards.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct OnResolved {
    /// Increase capacity.
    scale_out: Option<Amount>,
    /// Decrease capacity.
    scale_in: Option<Amount>,
    /// Set the capacity to a number of units.
    set_capacity: Option<SetCapacity>,
    /// Send an event that does not change capacity.
    notify: Option<Notify>,
    /// How long an event blocks later ones about the same target. Default 5m.
    cooldown: Option<Duration>,
    /// How long the situation must not change before the action. Default 5m if it can decrease capacity,
    /// otherwise 0.
    stabilization_window: Option<Duration>,
}

/// The amount: exactly one of by, by_percent, metric with steps, and revert.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Amount {
    /// Number of units.
    #[schemars(range(min = 1))]
    by: Option<u32>,
    /// Percentage of the current capacity.
    #[schemars(range(min = 1))]
    by_percent: Option<u32>,
    /// With by_percent: minimum number of units.
    #[schemars(range(min = 1))]
    at_least: Option<u32>,
    /// With steps: the number that selects the step.
    metric: Option<Template>,
    /// Steps with ascending `from`. Not in `on_resolved`.
    steps: Option<Vec<Step>>,
    /// Takes back what this rule has added to the target and not yet taken back. Only in the `scale_in` of
    /// `on_resolved`; requires `on_firing` with `scale_out` and `by` or `steps`, and one acting destination.
    #[schemars(extend("const" = true))]
    revert: Option<bool>,
}

/// A step: the amount from a value of the metric on.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Step {
    /// The lowest metric value of this step.
    from: f64,
    /// Number of units.
    #[schemars(range(min = 1))]
    by: u32,
}

/// Set the capacity to a number of units.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct SetCapacity {
    /// Number of units.
    to: u32,
    /// Whether this may decrease capacity. Default false.
    allow_decrease: Option<bool>,
}

/// Send an event that does not change capacity.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Notify {}

/// Block actions of other rules on the target while an alert of this rule fires.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Hold {
    /// Directions to block. Default: both.
    blocks: Option<Vec<Direction>>,
    /// Hold every target; requires that `target` is absent. Default false.
    all: Option<bool>,
    /// A hold ends after this long, even if its alert still fires. By default it is not limited.
    max_duration: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Direction {
    ScaleOut,
    ScaleIn,
}

/// `on_growth` repeats the action when more alerts fire than at any earlier event of the episode,
/// `while_firing` once per cooldown.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Repeat {
    Never,
    OnGrowth,
    WhileFiring,
}

/// `shadow` records decisions without sending events; `disabled` matches alerts without acting.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Mode {
    Active,
    Shadow,
    Disabled,
}

/// Bounds of a target's capacity.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Limits {
    /// Minimum capacity.
    min_capacity: Option<u32>,
    /// Maximum capacity.
    max_capacity: Option<u32>,
}

/// Maximum number of events about one target in a sliding period.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Budget {
    /// Maximum number of events.
    #[schemars(range(min = 1, max = 1000))]
    events: u32,
    /// Length of the period.
    per: Duration,
}
