//! The intervals of the routes to this bridge.

use super::coverage::By;
use super::routes::Route;
use super::webhooks::Webhook;
use crate::config::diagnostic::{Code, Diagnostics};
use crate::domain::duration::format;
use crate::domain::rule::{Change, Rule};
use crate::domain::source::{HeartbeatSettings, Source};

use std::time::Duration;

/// The least time that Alertmanager gives to a notification.
const MIN_NOTIFY_TIME: Duration = Duration::from_secs(10);

/// Checks the intervals of a route against the webhook to which it leads.
pub(super) fn check_webhook(webhook: &Webhook<'_>, route: &Route<'_>, diagnostics: &mut Diagnostics) {
    let (interval, _) = route.group_interval;
    let limit = interval.max(MIN_NOTIFY_TIME);
    if let Some((timeout, location)) = webhook.timeout.filter(|(timeout, _)| *timeout > limit) {
        let message = format!(
            "the `timeout` ({}) of receiver `{}` is above the time that Alertmanager has for a notification ({}, by \
             the `group_interval` of a route to it)",
            format(timeout),
            webhook.receiver,
            format(limit)
        );
        let help = "use a shorter `timeout`, for example 10s: Alertmanager retries a notification only within its \
                    `group_interval`";
        diagnostics.add_with_help(Code::LongTimeout, location, message, help);
    }
    if let Some((name, location)) = route.intervals {
        let message = format!(
            "notifications of this route to receiver `{}` are muted at times by `{name}`",
            webhook.receiver
        );
        let help = "remove it from the route to this bridge: while a route is muted, neither new nor resolved alerts \
                    are sent, so nothing is scaled; use a pause or a rule with `hold` instead";
        diagnostics.add_with_help(Code::Muted, location, message, help);
    }
}

/// Checks the intervals of a route to this bridge against the source to which it leads.
pub(super) fn check_source(
    receiver: &str,
    source: &Source,
    route: &Route<'_>,
    diagnostics: &mut Diagnostics,
) {
    let (interval, interval_at) = route.group_interval;
    let (repeat, repeat_at) = route.repeat_interval;
    // Alertmanager evaluates a group once per `group_interval`, so a repeat may be that much later.
    if repeat.saturating_add(interval) >= source.occurrence_ttl {
        let message = format!(
            "the `repeat_interval` ({}) plus the `group_interval` ({}) of a route to receiver `{receiver}` is not \
             below the `occurrence_ttl` ({}) of source `{}`",
            format(repeat),
            format(interval),
            format(source.occurrence_ttl),
            source.name
        );
        let help = "use a shorter `repeat_interval` or a longer `occurrence_ttl`: otherwise an alert expires while \
                    it still fires, and its resolve decreases no capacity";
        diagnostics.add_with_help(Code::LongRepeatInterval, repeat_at, message, help);
    }
    if interval >= source.late_window {
        let message = format!(
            "the `group_interval` ({}) of a route to receiver `{receiver}` is not below the `late_window` ({}) of \
             source `{}`",
            format(interval),
            format(source.late_window),
            source.name
        );
        let help = "raise `late_window` above it: another member of the Alertmanager cluster may send its \
                    notification that much later";
        diagnostics.add_with_help(Code::ShortLateWindow, interval_at, message, help);
    }
}

/// Checks the intervals of a route against what needs its alerts.
pub(super) fn check_needed(
    by: By<'_>,
    sources: &[&Source],
    route: &Route<'_>,
    diagnostics: &mut Diagnostics,
) {
    match by {
        By::Rule(rule) => {
            for source in sources {
                check_cooldowns(rule, source, route, diagnostics);
            }
        }
        By::Heartbeat(source, heartbeat) => check_heartbeat(source, heartbeat, route, diagnostics),
    }
}

fn check_cooldowns(rule: &Rule, source: &Source, route: &Route<'_>, diagnostics: &mut Diagnostics) {
    let (interval, location) = route.group_interval;
    let firing = rule.on_firing.as_ref().map(|firing| &firing.action);
    let resolved = rule.on_resolved.as_ref().map(|resolved| &resolved.action);
    for (phase, action) in [("on_firing", firing), ("on_resolved", resolved)] {
        let Some(action) =
            action.filter(|action| action.cooldown < interval && !matches!(action.change, Change::Notify))
        else {
            continue;
        };
        let message = format!(
            "the `cooldown` ({}) of `{phase}` in rule `{}` is below the `group_interval` ({}) of a route from \
             source `{}`",
            format(action.cooldown),
            rule.name,
            format(interval),
            source.name
        );
        let help = "raise the rule's `cooldown` or use a shorter `group_interval`: Alertmanager reports the effect \
                    of an action only after a `group_interval`";
        diagnostics.add_with_help(Code::ShortCooldown, location, message, help);
    }
}

fn check_heartbeat(
    source: &Source,
    heartbeat: &HeartbeatSettings,
    route: &Route<'_>,
    diagnostics: &mut Diagnostics,
) {
    let (repeat, location) = route.repeat_interval;
    let (interval, _) = route.group_interval;
    let longest = repeat.saturating_add(interval);
    let least = format(longest.saturating_add(Duration::from_mins(1)));
    let Some(timeout) = heartbeat.timeout else {
        let message = format!("source `{}` has no `heartbeat_timeout`", source.name);
        let help = format!(
            "set it above the time after which Alertmanager repeats the heartbeat, for example `heartbeat_timeout: \
             {least}`, so that nothing is decreased when notifications stop to arrive"
        );
        return diagnostics.add_with_help(Code::NoHeartbeatTimeout, location, message, help);
    };
    if longest >= timeout {
        let message = format!(
            "the `repeat_interval` ({}) plus the `group_interval` ({}) of the route of the heartbeat is not below the \
             `heartbeat_timeout` ({}) of source `{}`",
            format(repeat),
            format(interval),
            format(timeout),
            source.name
        );
        let help = format!(
            "set `heartbeat_timeout: {least}`, or use a shorter `repeat_interval`: otherwise the heartbeat is taken as \
             lost while it fires, and nothing is decreased"
        );
        diagnostics.add_with_help(Code::ShortHeartbeatTimeout, location, message, help);
    }
}
