//! The part of a rule in which event rules and holds differ.

use std::time::Duration;

use super::super::decode::Spanned;
use super::super::diagnostic::Location;
use crate::domain::name::Name;
use crate::domain::rule::{Budget, FiringAction, HoldTemplate, Limits, ResolvedAction, RuleTarget};
use crate::domain::template::Template;

/// What a rule does, and with what: the part in which those that send events and those that hold differ.
pub(super) struct RuleBody {
    pub target: RuleTarget,
    pub on_firing: Option<FiringAction>,
    pub on_resolved: Option<ResolvedAction>,
    pub expires_after: Duration,
    pub limits: Limits,
    pub budget: Option<Budget>,
    pub parameters: Vec<(String, Template)>,
    pub send_to: Vec<Name>,
}

impl RuleBody {
    pub(super) const DEFAULT_EXPIRES_AFTER: Duration = Duration::from_hours(1);

    /// A hold, which has none of what belongs to events.
    pub(super) fn for_hold(hold: HoldTemplate) -> Self {
        Self {
            target: RuleTarget::Hold(hold),
            on_firing: None,
            on_resolved: None,
            expires_after: Self::DEFAULT_EXPIRES_AFTER,
            limits: Limits::default(),
            budget: None,
            parameters: Vec::new(),
            send_to: Vec::new(),
        }
    }
}

/// Where a rule sends its events.
pub(in crate::config) struct SendTo {
    pub names: Vec<Spanned<Name>>,
    /// Where `send_to` or its absence is to be seen.
    pub location: Location,
    /// Whether it is there and could not be read.
    pub is_invalid: bool,
}
