//! The part of a rule in which event rules and holds differ.

use std::time::Duration;

use super::super::decode::Spanned;
use super::super::diagnostic::Location;
use crate::domain::name::Name;
use crate::domain::rule::{Budget, FiringAction, HoldTemplate, Limits, ResolvedAction, RuleTarget};
use crate::domain::template::Template;

/// The target, actions and event settings of a rule.
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

    /// The body of a hold, without actions and event settings.
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

/// The destinations of a rule.
pub(in crate::config) struct SendTo {
    pub names: Vec<Spanned<Name>>,
    /// The location of `send_to`, or of the rule if it is absent.
    pub location: Location,
    /// Whether `send_to` is present but invalid.
    pub is_invalid: bool,
}
