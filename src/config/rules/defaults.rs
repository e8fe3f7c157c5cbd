//! Reader of `defaults`, and of the settings that rules can override.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::decode::{Fields, Spanned};
use super::super::diagnostic::{Code, Diagnostics};
use super::super::names::names;
use super::super::scalar::{duration, keyword, number, positive_duration};
use super::super::yaml::Node;
use crate::domain::name::Name;
use crate::domain::rule::{Budget, Limits, Mode};

/// Bounds the state of a target, which stores the time of each event of the budget.
const MAX_BUDGET_EVENTS: i64 = 1000;

/// The section `defaults` of a rules file. Settings of a rule override it.
#[derive(Default)]
pub(super) struct Defaults {
    pub send_to: Option<Vec<Spanned<Name>>>,
    pub expires_after: Option<Duration>,
    pub limits: Limits,
    pub mode: Option<Mode>,
    pub budget: Option<Budget>,
    pub cooldown: Option<Duration>,
    /// For actions that can decrease capacity; for a scale-out only the rule itself can set a window.
    pub stabilization_window: Option<Duration>,
}

pub(super) const MODES: [(&str, Mode); 3] =
    [("active", Mode::Active), ("shadow", Mode::Shadow), ("disabled", Mode::Disabled)];

pub(super) fn defaults(node: &Node, diagnostics: &mut Diagnostics) -> Option<Defaults> {
    let mut fields = Fields::from_node(node, "rules.defaults", diagnostics)?;
    let defaults = Defaults {
        send_to: fields.get("send_to", names),
        expires_after: fields.get("expires_after", positive_duration),
        limits: limits(&mut fields, Limits::default()),
        mode: fields.get("mode", keyword(&MODES)),
        budget: fields.get("budget", budget),
        cooldown: fields.get("cooldown", duration),
        stabilization_window: fields.get("stabilization_window", duration),
    };
    fields.finish();
    Some(defaults)
}

/// Reads a budget such as `{ events: 20, per: 1h }`.
pub(super) fn budget(node: &Node, diagnostics: &mut Diagnostics) -> Option<Budget> {
    let mut fields = Fields::from_node(node, "rules.*.budget", diagnostics)?;
    let events = fields.get_required("events", "events: 20", number::<u32>(1..=MAX_BUDGET_EVENTS));
    let per = fields.get_required("per", "per: 1h", positive_duration);
    fields.finish();
    Some(Budget { events: NonZeroU32::new(events?)?, per: per? })
}

/// Reads `limits` and merges them with `common` key by key: a rule that sets only a maximum inherits the
/// minimum.
pub(super) fn limits(fields: &mut Fields<'_, '_>, common: Limits) -> Limits {
    let read = |node: &Node, diagnostics: &mut Diagnostics| {
        let mut fields = Fields::from_node(node, "rules.*.limits", diagnostics)?;
        let [min_capacity, max_capacity] = ["min_capacity", "max_capacity"]
            .map(|key| fields.get(key, number::<u32>(0..=i64::from(u32::MAX))));
        fields.finish();
        Some(Limits { min_capacity, max_capacity })
    };
    let own = fields.get("limits", read).unwrap_or_default();
    let min_capacity = own.min_capacity.or(common.min_capacity);
    let max_capacity = own.max_capacity.or(common.max_capacity);
    if let (Some(min), Some(max)) = (min_capacity, max_capacity)
        && min > max
        && own != Limits::default()
    {
        let message = format!("`min_capacity` ({min}) exceeds `max_capacity` ({max})");
        let help = "raise `max_capacity` or lower `min_capacity`";
        fields.diagnostics.add_with_help(Code::Contradiction, fields.location_of("limits"), message, help);
    }
    Limits { min_capacity, max_capacity }
}
