//! Lints an Alertmanager configuration for settings with which this bridge would miss or delay alerts.
//!
//! The route tree is traversed as Alertmanager does it: a route passes its receiver and its intervals on to
//! its children. A receiver belongs to this bridge if a `webhook_config` of it has the path
//! `/webhook/SOURCE`. Only these receivers and the routes to them are checked; `amtool check-config` checks
//! the rest. The format is that of Alertmanager's documentation of `route`, `receiver` and `webhook_config`.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::decode::{entries, wrong_type};
use super::diagnostic::{Code, Diagnostics, Location};
use super::file;
use super::scalar::duration;
use super::settings::Settings;
use super::suggest::did_you_mean;
use super::yaml::{Kind, Node};
use crate::domain::duration::format;
use crate::domain::matcher::{Matcher, implies, possible_values};
use crate::domain::name::Name;
use crate::domain::rule::{Change, Mode, Rule};
use crate::domain::source::Source;

/// Alertmanager's own defaults.
const DEFAULT_GROUP_INTERVAL: Duration = Duration::from_mins(5);
const DEFAULT_REPEAT_INTERVAL: Duration = Duration::from_hours(4);
/// Upper bound for the number of routes; larger trees are checked in part.
const MAX_ROUTES: usize = 100_000;

/// A `webhook_config` that sends to this bridge.
struct BridgeWebhook<'n> {
    receiver: &'n str,
    source: String,
    timeout: Option<(Duration, &'n Location)>,
}

/// The settings that child routes inherit.
#[derive(Clone, Copy)]
struct RouteSettings<'n> {
    receiver: Option<&'n str>,
    group_interval: (Duration, &'n Location),
    repeat_interval: (Duration, &'n Location),
}

/// Checks the Alertmanager configuration at `path` against the settings of the bridge.
pub(super) fn lint<D, S>(path: &Path, settings: &Settings<D, S>, diagnostics: &mut Diagnostics) {
    let Some((root, _)) = file::read(path, None, diagnostics) else { return };
    let (Some(route), Some(receivers)) = (root.get("route"), root.get("receivers")) else {
        let help = "pass the file that Alertmanager is started with to `--alertmanager`: it has the keys `route` \
                    and `receivers`";
        diagnostics.add_with_help(Code::Missing, &root.location, "not an Alertmanager configuration", help);
        return;
    };
    let webhooks = bridge_webhooks(receivers, settings, diagnostics);
    let group_interval = (DEFAULT_GROUP_INTERVAL, &route.location);
    let top = RouteSettings {
        receiver: None,
        group_interval,
        repeat_interval: (DEFAULT_REPEAT_INTERVAL, &route.location),
    };
    let mut routes = Vec::new();
    collect_routes(route, top, &mut routes, diagnostics);
    let mut reached_sources = BTreeSet::new();
    for route_settings in &routes {
        for webhook in webhooks.iter().filter(|webhook| Some(webhook.receiver) == route_settings.receiver) {
            reached_sources.insert(webhook.source.as_str());
            check_timing(webhook, route_settings, settings, diagnostics);
        }
    }
    let sources: Vec<&Name> = settings.sources.keys().collect();
    // An address in a `url_file` is unknown here, and may be that of this bridge.
    let configured_webhooks =
        || items(Some(receivers)).iter().flat_map(|receiver| items(receiver.get("webhook_configs")));
    if webhooks.is_empty() && configured_webhooks().any(|webhook| webhook.get("url_file").is_some()) {
        return;
    }
    if !sources.iter().any(|name| reached_sources.contains(name.as_str())) {
        let unrouted_receiver = webhooks.first().map(|webhook| webhook.receiver);
        let message = match unrouted_receiver {
            None => "no receiver sends to this bridge".to_owned(),
            Some(receiver) => format!("no route uses receiver `{receiver}`, which sends to this bridge"),
        };
        let name = sources.first().map_or("SOURCE", |name| name.as_str());
        let help = match unrouted_receiver {
            None => format!(
                "add a receiver with `webhook_configs: [{{ url: \"http://{}/webhook/{name}\" }}]` and a route to it",
                settings.server.listen
            ),
            Some(receiver) => format!("add a route with `receiver: {receiver}`"),
        };
        diagnostics.add_with_help(Code::NoRoute, &route.location, message, help);
    } else {
        check_unrouted(route, &webhooks, settings, diagnostics);
    }
}

/// Reports the rules and heartbeats whose alerts no route sends to this bridge.
fn check_unrouted<D, S>(
    route: &Node,
    webhooks: &[BridgeWebhook<'_>],
    settings: &Settings<D, S>,
    diagnostics: &mut Diagnostics,
) {
    let served: BTreeSet<&str> = webhooks.iter().map(|webhook| webhook.source.as_str()).collect();
    let is_routed = |source: &Source, matchers: &[Matcher]| {
        // Alertmanager does not know the labels that the source sets.
        let own = matchers.iter().filter(|matcher| source.labels.get(matcher.label()).is_empty());
        let mut receivers = Vec::new();
        collect_receivers(route, None, &own.cloned().collect::<Vec<_>>(), &mut receivers);
        webhooks
            .iter()
            .any(|webhook| webhook.source == source.name.as_str() && receivers.contains(&webhook.receiver))
    };
    let sources: Vec<&Source> =
        settings.sources.values().filter(|source| served.contains(source.name.as_str())).collect();
    for (source, heartbeat) in sources.iter().filter_map(|source| Some((source, source.heartbeat.as_ref()?)))
    {
        if !is_routed(source, &heartbeat.matchers) {
            let message = format!("no route sends the heartbeat of source `{}` to this bridge", source.name);
            let help = "add a route for it: while the heartbeat is absent, no alert of this source can decrease \
                        capacity";
            diagnostics.add_with_help(Code::Unrouted, &route.location, message, help);
        }
    }
    for rule in settings.rules.rules().iter().filter(|rule| rule.mode != Mode::Disabled) {
        let accepts =
            |source: &&&Source| rule.sources.as_ref().is_none_or(|names| names.contains(&source.name));
        let mut rule_sources = sources.iter().filter(accepts).peekable();
        if rule_sources.peek().is_some() && !rule_sources.any(|source| is_routed(source, &rule.matchers)) {
            let message = format!("no route sends the alerts of rule `{}` to this bridge", rule.name);
            let help = "add a route for these alerts, or widen an existing one; an earlier route without `continue: \
                        true` hides alerts from later routes";
            diagnostics.add_with_help(Code::Unrouted, &route.location, message, help);
        }
    }
}

/// Collects the receivers that may get alerts with `alert_matchers` through this route.
fn collect_receivers<'n>(
    route: &'n Node,
    inherited: Option<&'n str>,
    alert_matchers: &[Matcher],
    receivers: &mut Vec<&'n str>,
) {
    let receiver = text_of(route, "receiver").or(inherited);
    let mut is_handled = false;
    for child in items(route.get("routes")) {
        let route_matchers = matchers_of(child);
        let all: Vec<Matcher> =
            alert_matchers.iter().chain(route_matchers.iter().flatten()).cloned().collect();
        let excluded = |matcher: &Matcher| {
            possible_values(matcher.label(), &all, None).is_some_and(|left| left.is_empty())
        };
        if all.iter().any(excluded) {
            continue;
        }
        collect_receivers(child, receiver, alert_matchers, receivers);
        // A child that matches all of these alerts hides them from its parent and from later siblings.
        if route_matchers.is_some_and(|route_matchers| implies(alert_matchers, &route_matchers)) {
            is_handled = true;
            if child.get("continue").is_none_or(|node| node.kind != Kind::Bool(true)) {
                break;
            }
        }
    }
    if !is_handled {
        receivers.extend(receiver);
    }
}

/// The matchers of a route, from `matchers` and the deprecated `match` and `match_re`; `None` if one is
/// invalid.
fn matchers_of(route: &Node) -> Option<Vec<Matcher>> {
    let mut found = Vec::new();
    for item in items(route.get("matchers")) {
        let Kind::Text(text) = &item.kind else { return None };
        found.extend(Matcher::parse_list(text).ok()?);
    }
    for (key, operator) in [("match", "="), ("match_re", "=~")] {
        let Some(Kind::Map(entries)) = route.get(key).map(|node| &node.kind) else { continue };
        for (label, value) in entries {
            let Kind::Text(value) = &value.kind else { return None };
            let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            found.extend(
                Matcher::parse_list(&format!("{}{operator}{}", quoted(&label.name), quoted(value))).ok()?,
            );
        }
    }
    Some(found)
}

fn items(node: Option<&Node>) -> &[Node] {
    match node.map(|node| &node.kind) {
        Some(Kind::List(items)) => items,
        _ => &[],
    }
}

fn text_of<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    match node.get(key).map(|node| &node.kind) {
        Some(Kind::Text(text)) => Some(text),
        _ => None,
    }
}

/// The source in a webhook URL: `prod-eu` in `http://bridge:9096/webhook/prod-eu?x=y`.
fn source_from_url(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let (_, path) = rest.split_once('/')?;
    let path = path.split(['?', '#']).next()?.trim_end_matches('/');
    let (before, source) = path.rsplit_once('/')?;
    let is_webhook = before == "webhook" || before.ends_with("/webhook");
    (is_webhook && !source.is_empty()).then_some(source)
}

fn bridge_webhooks<'n, D, S>(
    receivers: &'n Node,
    settings: &Settings<D, S>,
    diagnostics: &mut Diagnostics,
) -> Vec<BridgeWebhook<'n>> {
    let mut webhooks = Vec::new();
    if !matches!(receivers.kind, Kind::List(_)) {
        return wrong_type(receivers, "a list of receivers", diagnostics).unwrap_or_default();
    }
    for receiver in items(Some(receivers)) {
        let Some(name) = text_of(receiver, "name") else { continue };
        for webhook in items(receiver.get("webhook_configs")) {
            let Some((url, source)) =
                webhook.get("url").and_then(|url| Some((url, source_from_url(text_of(webhook, "url")?)?)))
            else {
                continue;
            };
            if settings.sources.keys().any(|known| known.as_str() == source) {
                check_webhook(name, webhook, diagnostics);
                let timeout = webhook
                    .get("timeout")
                    .and_then(|node| Some((duration(node, diagnostics)?, &node.location)));
                webhooks.push(BridgeWebhook { receiver: name, source: source.to_owned(), timeout });
            } else {
                let known: Vec<&str> = settings.sources.keys().map(Name::as_str).collect();
                let message =
                    format!("receiver `{name}` sends to source `{source}`, which is not configured");
                diagnostics.add_with_help(
                    Code::UnknownSource,
                    &url.location,
                    message,
                    did_you_mean(source, &known),
                );
            }
        }
    }
    webhooks
}

fn check_webhook(name: &str, webhook: &Node, diagnostics: &mut Diagnostics) {
    if let Some(node) = webhook.get("send_resolved").filter(|node| node.kind == Kind::Bool(false)) {
        let message = format!("receiver `{name}` does not send resolved alerts");
        let help = "set `send_resolved: true`: without it no episode closes, and nothing is scaled in";
        diagnostics.add_with_help(Code::ResolvedUnsent, &node.location, message, help);
    }
    let is_limited = |node: &&Node| !matches!(node.kind, Kind::Int(0) | Kind::Null);
    if let Some(node) = webhook.get("max_alerts").filter(is_limited) {
        let message = format!("receiver `{name}` truncates large groups");
        let help = "remove `max_alerts` (0 means no limit): truncated alerts are never acted on, and a truncated \
                    notification never decreases capacity";
        diagnostics.add_with_help(Code::TruncatedAlerts, &node.location, message, help);
    }
}

fn collect_routes<'n>(
    route: &'n Node,
    inherited: RouteSettings<'n>,
    routes: &mut Vec<RouteSettings<'n>>,
    diagnostics: &mut Diagnostics,
) {
    if routes.len() >= MAX_ROUTES || entries(route, diagnostics).is_none() {
        return;
    }
    let mut own = |key: &str, inherited: (Duration, &'n Location)| {
        let node = route.get(key);
        node.and_then(|node| Some((duration(node, diagnostics)?, &node.location))).unwrap_or(inherited)
    };
    let route_settings = RouteSettings {
        group_interval: own("group_interval", inherited.group_interval),
        repeat_interval: own("repeat_interval", inherited.repeat_interval),
        receiver: text_of(route, "receiver").or(inherited.receiver),
    };
    routes.push(route_settings);
    for child in items(route.get("routes")) {
        collect_routes(child, route_settings, routes, diagnostics);
    }
}

fn check_timing<D, S>(
    webhook: &BridgeWebhook<'_>,
    route_settings: &RouteSettings<'_>,
    settings: &Settings<D, S>,
    diagnostics: &mut Diagnostics,
) {
    let Some(source) = settings.sources.get(webhook.source.as_str()) else { return };
    let (interval, interval_at) = route_settings.group_interval;
    if let Some((timeout, location)) =
        webhook.timeout.filter(|(timeout, _)| !timeout.is_zero() && *timeout >= interval)
    {
        let message = format!(
            "the `timeout` ({}) of receiver `{}` is not below the `group_interval` ({}) of a route to it",
            format(timeout),
            webhook.receiver,
            format(interval)
        );
        let help = "use a shorter `timeout`, for example 10s: Alertmanager retries a notification only within its \
                    `group_interval`";
        diagnostics.add_with_help(Code::LongTimeout, location, message, help);
    }
    let (repeat, repeat_at) = route_settings.repeat_interval;
    // Alertmanager evaluates a group once per `group_interval`, so a repeat may be that much later.
    if repeat.saturating_add(interval) >= source.occurrence_ttl {
        let message = format!(
            "the `repeat_interval` ({}) plus the `group_interval` ({}) of a route to receiver `{}` is not below the \
             `occurrence_ttl` ({}) of source `{}`",
            format(repeat),
            format(interval),
            webhook.receiver,
            format(source.occurrence_ttl),
            source.name
        );
        let help = "use a shorter `repeat_interval` or a longer `occurrence_ttl`: otherwise an alert expires while \
                    it still fires, and its resolve decreases no capacity";
        diagnostics.add_with_help(Code::LongRepeatInterval, repeat_at, message, help);
    }
    if interval >= source.late_window {
        let message = format!(
            "the `group_interval` ({}) of a route to receiver `{}` is not below the `late_window` ({}) of source \
             `{}`",
            format(interval),
            webhook.receiver,
            format(source.late_window),
            source.name
        );
        let help = "raise `late_window` above it: another member of the Alertmanager cluster may send its \
                    notification that much later";
        diagnostics.add_with_help(Code::ShortLateWindow, interval_at, message, help);
    }
    for rule in settings.rules.rules().iter().filter(|rule| rule.mode != Mode::Disabled) {
        if rule.sources.as_ref().is_none_or(|names| names.contains(&source.name)) {
            check_cooldowns(rule, source, interval, interval_at, diagnostics);
        }
    }
}

fn check_cooldowns(
    rule: &Rule,
    source: &Source,
    interval: Duration,
    location: &Location,
    diagnostics: &mut Diagnostics,
) {
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
