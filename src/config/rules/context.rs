//! Context of the readers of actions and amounts.

use super::defaults::Defaults;
use crate::domain::rule::Limits;
use crate::domain::template::Templates;

/// Whether the action is that of `on_firing` or of `on_resolved`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Firing,
    Resolved,
}

/// Inputs for reading the actions of a rule.
pub(super) struct ActionContext<'a> {
    pub templates: &'a mut Templates,
    pub defaults: &'a Defaults,
    pub limits: Limits,
}
