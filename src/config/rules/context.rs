//! What the readers of actions and amounts share.

use super::defaults::Defaults;
use crate::domain::rule::Limits;
use crate::domain::template::Templates;

/// Which of the two actions is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Firing,
    Resolved,
}

/// What the actions of a rule are read with.
pub(super) struct ActionContext<'a> {
    pub templates: &'a mut Templates,
    pub defaults: &'a Defaults,
    pub limits: Limits,
}
