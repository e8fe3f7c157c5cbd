//! The IAM permissions that destinations need, and their ARNs.

use super::settings::Role;

/// The one permission that a destination needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Permission<'d> {
    /// The role that needs it; `None` is the bridge itself.
    pub role: Option<&'d Role>,
    /// Such as `sqs:SendMessage`.
    pub action: &'static str,
    /// An ARN, possibly with wildcards.
    pub resource: String,
}

/// Replaces the parts of ARNs that the settings of a destination do not have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ArnDefaults<'a> {
    pub account: &'a str,
    pub region: &'a str,
}

/// The partition of a region, the second part of ARNs.
pub(crate) fn partition(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "aws-cn"
    } else if region.starts_with("us-gov-") {
        "aws-us-gov"
    } else {
        "aws"
    }
}
