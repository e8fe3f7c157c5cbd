//! Lints of holds and of the targets of rules.

use super::super::diagnostic::{Code, Diagnostics};
use super::super::rules::RuleSpans;
use super::super::suggest::did_you_mean;
use crate::domain::rule::{Mode, Rule, RuleTarget};
use crate::domain::target::Platform;
use crate::domain::template::Template;

/// Reports a hold without a maximum duration: it lasts for as long as its alert does, also if that is forgotten.
pub(super) fn lint_hold(rule: &Rule, spans: &RuleSpans, diagnostics: &mut Diagnostics) {
    let RuleTarget::Hold(hold) = &rule.target else { return };
    if rule.mode == Mode::Disabled || hold.max_duration.is_some() {
        return;
    }
    let message = format!("the hold of rule `{}` has no `max_duration`", rule.name);
    let help = "set one, for example `max_duration: 4h`: otherwise an alert that is left firing blocks these targets \
                for ever";
    diagnostics.add_with_help(Code::UnlimitedHold, &spans.hold, message, help);
}

/// Reports a `kind` that the platform does not have. A template can become any kind.
pub(super) fn lint_kind(rule: &Rule, spans: &RuleSpans, diagnostics: &mut Diagnostics) {
    let (platform, kind) = match &rule.target {
        RuleTarget::Target(target) => (Some(target.platform), Some(&target.kind)),
        RuleTarget::Hold(hold) => (hold.covers.platform, hold.covers.kind.as_ref()),
    };
    let Some((platform, kind)) = platform.zip(kind.and_then(Template::constant)) else { return };
    let kinds = kinds(platform);
    let is_custom_resource = platform == Platform::Kubernetes && is_plural_and_group(kind);
    if kinds.is_empty() || kinds.contains(&kind) || is_custom_resource {
        return;
    }
    let message = format!("platform `{}` has no kind `{kind}` (rule `{}`)", platform.as_str(), rule.name);
    let mut help = match kinds {
        [only] => format!("use `{only}`"),
        _ => did_you_mean(kind, kinds),
    };
    if platform == Platform::Kubernetes {
        help += if help.ends_with('?') { " A" } else { "; a" };
        help += " custom resource is written as its plural and group, for example `rollouts.argoproj.io`";
    }
    diagnostics.add_with_help(Code::UnknownKind, &spans.kind, message, help);
}

/// The kinds of a platform; none if it has any.
const fn kinds(platform: Platform) -> &'static [&'static str] {
    match platform {
        Platform::Eks => &["nodegroup"],
        Platform::Ec2 => &["autoscaling-group"],
        Platform::Ecs => &["service"],
        Platform::Kubernetes => &["deployment", "statefulset", "replicaset"],
        Platform::Nomad => &["job"],
        Platform::Custom => &[],
    }
}

/// Whether `kind` has the form of a custom resource: `rollouts.argoproj.io`.
fn is_plural_and_group(kind: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    kind.contains('.') && kind.split('.').all(is_part)
}
