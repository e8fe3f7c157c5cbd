//! What in an Alertmanager's own configuration would make this bridge blind or late.
//!
//! Its route tree is walked as Alertmanager walks it: a route hands its receiver and its times down to its
//! children. Receivers are ours where a `webhook_config` has the path `/webhook/SOURCE`. Only what concerns
//! them is looked at; `amtool check-config` is for the rest. The format is that of Alertmanager's
//! documentation of `route`, `receiver` and `webhook_config`.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::decode::{entries, wrong_type};
use super::diagnostic::{Code, Diagnostics, Location};
use super::settings::Settings;
use super::suggest::did_you_mean;
use super::yaml::{Kind, Node};
use super::{file, scalar};
use crate::domain::duration::format;
use crate::domain::matcher::{Matcher, implies, possible_values};
use crate::domain::name::Name;
use crate::domain::rule::{Change, Mode, Rule};
use crate::domain::source::Source;

/// Alertmanager's own defaults.
const DEFAULT_GROUP_INTERVAL: Duration = Duration::from_mins(5);
const DEFAULT_REPEAT_INTERVAL: Duration = Duration::from_hours(4);
/// Routes that are walked; a tree that is deeper or wider is no configuration.
const MAX_ROUTES: usize = 100_000;

/// A webhook of a receiver that sends here.
struct BridgeWebhook<'n> {
    receiver: &'n str,
    source: String,
    timeout: Option<(Duration, &'n Location)>,
}

/// What a route hands down.
#[derive(Clone, Copy)]
struct RouteSettings<'n> {
    receiver: Option<&'n str>,
    group_interval: (Duration, &'n Location),
    repeat_interval: (Duration, &'n Location),
}

/// Adds what is wrong with the Alertmanager configuration at `path`, as far as it concerns a bridge with these
/// settings.
pub(super) fn lint(path: &Path, settings: &Settings, diagnostics: &mut Diagnostics) {
    let Some((root, _)) = file::read(path, None, diagnostics) else { return };
    let (Some(route), Some(receivers)) = (root.get("route"), root.get("receivers")) else {
        let help = "give `--alertmanager` the file that Alertmanager is started with: it has `route` and `receivers`";
        diagnostics.add_with_help(
            Code::Missing,
            &root.location,
            "this is no Alertmanager configuration",
            help,
        );
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
    // Where an address is in a file of its own, nobody can tell from here that it is not this bridge's.
    let configured_webhooks =
        || items(Some(receivers)).iter().flat_map(|receiver| items(receiver.get("webhook_configs")));
    if webhooks.is_empty() && configured_webhooks().any(|webhook| webhook.get("url_file").is_some()) {
        return;
    }
    if !sources.iter().any(|name| reached_sources.contains(name.as_str())) {
        let unrouted_receiver = webhooks.first().map(|webhook| webhook.receiver);
        let message = match unrouted_receiver {
            None => "no receiver here sends to this bridge".to_owned(),
            Some(receiver) => format!("no route leads to receiver `{receiver}`, which sends to this bridge"),
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

/// Says which alerts that somebody waits for are never brought here: those of rules, and heartbeats.
fn check_unrouted(
    route: &Node,
    webhooks: &[BridgeWebhook<'_>],
    settings: &Settings,
    diagnostics: &mut Diagnostics,
) {
    let served: BTreeSet<&str> = webhooks.iter().map(|webhook| webhook.source.as_str()).collect();
    let is_routed = |source: &Source, matchers: &[Matcher]| {
        // What the source lays over its alerts Alertmanager does not know.
        let own = matchers.iter().filter(|matcher| source.labels.get(matcher.label()).is_empty());
        let mut receivers = Vec::new();
        collect_receivers(route, None, &own.cloned().collect::<Vec<_>>(), &mut receivers);
        webhooks
            .iter()
            .any(|webhook| webhook.source == source.name.as_str() && receivers.contains(&webhook.receiver))
    };
    let sources: Vec<&Source> =
        settings.sources.values().filter(|source| served.contains(source.name.as_str())).collect();
    for source in sources.iter().filter(|source| !source.heartbeat.is_empty()) {
        if !is_routed(source, &source.heartbeat) {
            let message = format!("no route leads the heartbeat of source `{}` to this bridge", source.name);
            let help = "add a route for it: while it is not heard, this source takes nothing away";
            diagnostics.add_with_help(Code::Unrouted, &route.location, message, help);
        }
    }
    for rule in settings.rules.rules().iter().filter(|rule| rule.mode != Mode::Disabled) {
        let accepts =
            |source: &&&Source| rule.sources.as_ref().is_none_or(|names| names.contains(&source.name));
        let mut rule_sources = sources.iter().filter(accepts).peekable();
        if rule_sources.peek().is_some() && !rule_sources.any(|source| is_routed(source, &rule.matchers)) {
            let message = format!("no route leads the alerts of rule `{}` to this bridge", rule.name);
            let help = "add a route for them, or widen the one that leads here; an earlier route without \
                        `continue: true` keeps alerts from those behind it";
            diagnostics.add_with_help(Code::Unrouted, &route.location, message, help);
        }
    }
}

/// The receivers that alerts which meet `wanted` may come to by this route; `above` is what it hands down.
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
        // One that every such alert meets keeps it from its parent, and from those behind it.
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

/// All that a route asks for, in the present form and in the two old ones; `None` if it cannot be read.
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

/// Of `http://bridge:9096/webhook/prod-eu?x=y` it is `prod-eu`.
fn source_from_url(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let (_, path) = rest.split_once('/')?;
    let path = path.split(['?', '#']).next()?.trim_end_matches('/');
    let (before, source) = path.rsplit_once('/')?;
    let is_webhook = before == "webhook" || before.ends_with("/webhook");
    (is_webhook && !source.is_empty()).then_some(source)
}

fn bridge_webhooks<'n>(
    receivers: &'n Node,
    settings: &Settings,
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
                    format!("receiver `{name}` sends to source `{source}`, which this bridge does not have");
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
        let message = format!("receiver `{name}` does not send what has resolved");
        let help =
            "say `send_resolved: true`: without it no episode ever ends, and nothing is ever scaled in";
        diagnostics.add_with_help(Code::ResolvedUnsent, &node.location, message, help);
    }
    let is_limited = |node: &&Node| !matches!(node.kind, Kind::Int(0) | Kind::Null);
    if let Some(node) = webhook.get("max_alerts").filter(is_limited) {
        let message = format!("receiver `{name}` leaves alerts out of large groups");
        let help = "take `max_alerts` out (0 is no bound): what is left out is never scaled for, and a truncated \
                    notification never takes capacity away";
        diagnostics.add_with_help(Code::TruncatedAlerts, &node.location, message, help);
    }
}

/// A duration; what cannot be read is Alertmanager's own to complain about.
fn duration(node: &Node, diagnostics: &mut Diagnostics) -> Option<Duration> {
    scalar::duration(node, diagnostics)
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

fn check_timing(
    webhook: &BridgeWebhook<'_>,
    route_settings: &RouteSettings<'_>,
    settings: &Settings,
    diagnostics: &mut Diagnostics,
) {
    let Some(source) = settings.sources.get(webhook.source.as_str()) else { return };
    let (interval, interval_at) = route_settings.group_interval;
    if let Some((timeout, location)) =
        webhook.timeout.filter(|(timeout, _)| !timeout.is_zero() && *timeout >= interval)
    {
        let message = format!(
            "receiver `{}` waits {} for an answer, not less than the `group_interval` ({}) of a route to it",
            webhook.receiver,
            format(timeout),
            format(interval)
        );
        let help = "take a shorter `timeout`, for example 10s: a notification that is not answered is tried again only \
                    within its group_interval";
        diagnostics.add_with_help(Code::LongTimeout, location, message, help);
    }
    let (repeat, repeat_at) = route_settings.repeat_interval;
    // A group is looked at once in a `group_interval`: that much later it may be.
    if repeat.saturating_add(interval) >= source.occurrence_ttl {
        let message = format!(
            "a route to receiver `{}` repeats every {}, up to a `group_interval` ({}) later, and source `{}` forgets \
             an alert after {}",
            webhook.receiver,
            format(repeat),
            format(interval),
            source.name,
            format(source.occurrence_ttl)
        );
        let help = "take a shorter `repeat_interval`, or a longer `occurrence_ttl`: else an alert expires while it \
                    still fires, and its end takes nothing away";
        diagnostics.add_with_help(Code::LongRepeatInterval, repeat_at, message, help);
    }
    if interval >= source.late_window {
        let message = format!(
            "the `group_interval` ({}) of a route to receiver `{}` is not below the `late_window` ({}) of source `{}`",
            format(interval),
            webhook.receiver,
            format(source.late_window),
            source.name
        );
        let help = "raise `late_window` above it: the other member of an Alertmanager cluster may speak that much later";
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
            "the `cooldown` ({}) of `{phase}` in rule `{}` is over before source `{}` can tell what has changed (`group_interval` {})",
            format(action.cooldown),
            rule.name,
            source.name,
            format(interval)
        );
        let help = "raise the rule's `cooldown`, or take a shorter `group_interval`: until then the bridge decides on \
                    what it heard before its last action";
        diagnostics.add_with_help(Code::ShortCooldown, location, message, help);
    }
}
