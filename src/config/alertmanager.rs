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
use super::diagnostic::{Code, Diagnostics, Place};
use super::settings::Settings;
use super::slip::did_you_mean;
use super::yaml::{Kind, Node};
use super::{file, scalar};
use crate::domain::duration::format;
use crate::domain::matcher::{Matcher, implies, possible_values};
use crate::domain::name::Name;
use crate::domain::rule::{Change, Mode, Rule};
use crate::domain::source::Source;

/// Alertmanager's own defaults.
const GROUP_INTERVAL: Duration = Duration::from_mins(5);
const REPEAT_INTERVAL: Duration = Duration::from_hours(4);
/// Routes that are walked; a tree that is deeper or wider is no configuration.
const MOST_ROUTES: usize = 100_000;

/// A webhook of a receiver that sends here.
struct Ours<'n> {
    receiver: &'n str,
    source: String,
    timeout: Option<(Duration, &'n Place)>,
}

/// What a route hands down.
#[derive(Clone, Copy)]
struct Handed<'n> {
    receiver: Option<&'n str>,
    group_interval: (Duration, &'n Place),
    repeat_interval: (Duration, &'n Place),
}

/// Adds what is wrong with the Alertmanager configuration at `path`, as far as it concerns a bridge with these
/// settings.
pub(super) fn lint(path: &Path, settings: &Settings, faults: &mut Diagnostics) {
    let Some((root, _)) = file::read(path, None, faults) else { return };
    let (Some(route), Some(receivers)) = (root.get("route"), root.get("receivers")) else {
        let help = "give `--alertmanager` the file that Alertmanager is started with: it has `route` and `receivers`";
        faults.help(Code::Missing, &root.place, "this is no Alertmanager configuration", help);
        return;
    };
    let ours = receivers_of_ours(receivers, settings, faults);
    let times = (GROUP_INTERVAL, &route.place);
    let top =
        Handed { receiver: None, group_interval: times, repeat_interval: (REPEAT_INTERVAL, &route.place) };
    let mut routes = Vec::new();
    walk(route, top, &mut routes, faults);
    let mut reached = BTreeSet::new();
    for handed in &routes {
        for our in ours.iter().filter(|our| Some(our.receiver) == handed.receiver) {
            reached.insert(our.source.as_str());
            times_of(our, handed, settings, faults);
        }
    }
    let known: Vec<&Name> = settings.sources.keys().collect();
    // Where an address is in a file of its own, nobody can tell from here that it is not this bridge's.
    let webhooks =
        || items(Some(receivers)).iter().flat_map(|receiver| items(receiver.get("webhook_configs")));
    if ours.is_empty() && webhooks().any(|webhook| webhook.get("url_file").is_some()) {
        return;
    }
    if !known.iter().any(|name| reached.contains(name.as_str())) {
        let unreached = ours.first().map(|our| our.receiver);
        let message = match unreached {
            None => "no receiver here sends to this bridge".to_owned(),
            Some(receiver) => format!("no route leads to receiver `{receiver}`, which sends to this bridge"),
        };
        let name = known.first().map_or("SOURCE", |name| name.as_str());
        let help = match unreached {
            None => format!(
                "add a receiver with `webhook_configs: [{{ url: \"http://{}/webhook/{name}\" }}]` and a route to it",
                settings.server.listen
            ),
            Some(receiver) => format!("add a route with `receiver: {receiver}`"),
        };
        faults.help(Code::NoRoute, &route.place, message, help);
    } else {
        unrouted(route, &ours, settings, faults);
    }
}

/// Says which alerts that somebody waits for are never brought here: those of rules, and heartbeats.
fn unrouted(route: &Node, ours: &[Ours<'_>], settings: &Settings, faults: &mut Diagnostics) {
    let served: BTreeSet<&str> = ours.iter().map(|our| our.source.as_str()).collect();
    let comes = |source: &Source, wanted: &[Matcher]| {
        // What the source lays over its alerts Alertmanager does not know.
        let own = wanted.iter().filter(|matcher| source.labels.get(matcher.label()).is_empty());
        let mut receivers = Vec::new();
        reached_by(route, None, &own.cloned().collect::<Vec<_>>(), &mut receivers);
        ours.iter().any(|our| our.source == source.name.as_str() && receivers.contains(&our.receiver))
    };
    let sources: Vec<&Source> =
        settings.sources.values().filter(|source| served.contains(source.name.as_str())).collect();
    for source in sources.iter().filter(|source| !source.heartbeat.is_empty()) {
        if !comes(source, &source.heartbeat) {
            let message = format!("no route leads the heartbeat of source `{}` to this bridge", source.name);
            let help = "add a route for it: while it is not heard, this source takes nothing away";
            faults.help(Code::Unrouted, &route.place, message, help);
        }
    }
    for rule in settings.rules.rules().iter().filter(|rule| rule.mode != Mode::Disabled) {
        let listens =
            |source: &&&Source| rule.sources.as_ref().is_none_or(|names| names.contains(&source.name));
        let mut listening = sources.iter().filter(listens).peekable();
        if listening.peek().is_some() && !listening.any(|source| comes(source, &rule.matchers)) {
            let message = format!("no route leads the alerts of rule `{}` to this bridge", rule.name);
            let help = "add a route for them, or widen the one that leads here; an earlier route without \
                        `continue: true` keeps alerts from those behind it";
            faults.help(Code::Unrouted, &route.place, message, help);
        }
    }
}

/// The receivers that alerts which meet `wanted` may come to by this route; `above` is what it hands down.
fn reached_by<'n>(route: &'n Node, above: Option<&'n str>, wanted: &[Matcher], receivers: &mut Vec<&'n str>) {
    let receiver = text_of(route, "receiver").or(above);
    let mut is_taken = false;
    for child in items(route.get("routes")) {
        let asked = matchers_of(child);
        let all: Vec<Matcher> = wanted.iter().chain(asked.iter().flatten()).cloned().collect();
        let excluded = |matcher: &Matcher| {
            possible_values(matcher.label(), &all, None).is_some_and(|left| left.is_empty())
        };
        if all.iter().any(excluded) {
            continue;
        }
        reached_by(child, receiver, wanted, receivers);
        // One that every such alert meets keeps it from its parent, and from those behind it.
        if asked.is_some_and(|asked| implies(wanted, &asked)) {
            is_taken = true;
            if child.get("continue").is_none_or(|node| node.kind != Kind::Bool(true)) {
                break;
            }
        }
    }
    if !is_taken {
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
fn source_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let (_, path) = rest.split_once('/')?;
    let path = path.split(['?', '#']).next()?.trim_end_matches('/');
    let (before, source) = path.rsplit_once('/')?;
    let ours = before == "webhook" || before.ends_with("/webhook");
    (ours && !source.is_empty()).then_some(source)
}

fn receivers_of_ours<'n>(
    receivers: &'n Node,
    settings: &Settings,
    faults: &mut Diagnostics,
) -> Vec<Ours<'n>> {
    let mut ours = Vec::new();
    if !matches!(receivers.kind, Kind::List(_)) {
        return wrong_type(receivers, "a list of receivers", faults).unwrap_or_default();
    }
    for receiver in items(Some(receivers)) {
        let Some(name) = text_of(receiver, "name") else { continue };
        for webhook in items(receiver.get("webhook_configs")) {
            let Some((url, source)) =
                webhook.get("url").and_then(|url| Some((url, source_of(text_of(webhook, "url")?)?)))
            else {
                continue;
            };
            if settings.sources.keys().any(|known| known.as_str() == source) {
                webhook_of(name, webhook, faults);
                let timeout =
                    webhook.get("timeout").and_then(|node| Some((time(node, faults)?, &node.place)));
                ours.push(Ours { receiver: name, source: source.to_owned(), timeout });
            } else {
                let known: Vec<&str> = settings.sources.keys().map(Name::as_str).collect();
                let message =
                    format!("receiver `{name}` sends to source `{source}`, which this bridge does not have");
                faults.help(Code::UnknownSource, &url.place, message, did_you_mean(source, &known));
            }
        }
    }
    ours
}

fn webhook_of(name: &str, webhook: &Node, faults: &mut Diagnostics) {
    if let Some(node) = webhook.get("send_resolved").filter(|node| node.kind == Kind::Bool(false)) {
        let message = format!("receiver `{name}` does not send what has resolved");
        let help =
            "say `send_resolved: true`: without it no episode ever ends, and nothing is ever scaled in";
        faults.help(Code::ResolvedUnsent, &node.place, message, help);
    }
    let some = |node: &&Node| !matches!(node.kind, Kind::Int(0) | Kind::Null);
    if let Some(node) = webhook.get("max_alerts").filter(some) {
        let message = format!("receiver `{name}` leaves alerts out of large groups");
        let help = "take `max_alerts` out (0 is no bound): what is left out is never scaled for, and a truncated \
                    notification never takes capacity away";
        faults.help(Code::AlertsCut, &node.place, message, help);
    }
}

/// A duration; what cannot be read is Alertmanager's own to complain about.
fn time(node: &Node, faults: &mut Diagnostics) -> Option<Duration> {
    scalar::duration(node, faults)
}

fn walk<'n>(route: &'n Node, above: Handed<'n>, routes: &mut Vec<Handed<'n>>, faults: &mut Diagnostics) {
    if routes.len() >= MOST_ROUTES || entries(route, faults).is_none() {
        return;
    }
    let mut own = |key: &str, above: (Duration, &'n Place)| {
        let node = route.get(key);
        node.and_then(|node| Some((time(node, faults)?, &node.place))).unwrap_or(above)
    };
    let handed = Handed {
        group_interval: own("group_interval", above.group_interval),
        repeat_interval: own("repeat_interval", above.repeat_interval),
        receiver: text_of(route, "receiver").or(above.receiver),
    };
    routes.push(handed);
    for child in items(route.get("routes")) {
        walk(child, handed, routes, faults);
    }
}

fn times_of(our: &Ours<'_>, handed: &Handed<'_>, settings: &Settings, faults: &mut Diagnostics) {
    let Some(source) = settings.sources.get(our.source.as_str()) else { return };
    let (interval, interval_at) = handed.group_interval;
    if let Some((timeout, place)) =
        our.timeout.filter(|(timeout, _)| !timeout.is_zero() && *timeout >= interval)
    {
        let message = format!(
            "receiver `{}` waits {} for an answer, not less than the `group_interval` ({}) of a route to it",
            our.receiver,
            format(timeout),
            format(interval)
        );
        let help = "take a shorter `timeout`, for example 10s: a notification that is not answered is tried again only \
                    within its group_interval";
        faults.help(Code::SlowTimeout, place, message, help);
    }
    let (repeat, repeat_at) = handed.repeat_interval;
    // A group is looked at once in a `group_interval`: that much later it may be.
    if repeat.saturating_add(interval) >= source.occurrence_ttl {
        let message = format!(
            "a route to receiver `{}` repeats every {}, up to a `group_interval` ({}) later, and source `{}` forgets \
             an alert after {}",
            our.receiver,
            format(repeat),
            format(interval),
            source.name,
            format(source.occurrence_ttl)
        );
        let help = "take a shorter `repeat_interval`, or a longer `occurrence_ttl`: else an alert expires while it \
                    still fires, and its end takes nothing away";
        faults.help(Code::RepeatTooLate, repeat_at, message, help);
    }
    if interval >= source.late_window {
        let message = format!(
            "the `group_interval` ({}) of a route to receiver `{}` is not below the `late_window` ({}) of source `{}`",
            format(interval),
            our.receiver,
            format(source.late_window),
            source.name
        );
        let help = "raise `late_window` above it: the other member of an Alertmanager cluster may speak that much later";
        faults.help(Code::ShortLateWindow, interval_at, message, help);
    }
    for rule in settings.rules.rules().iter().filter(|rule| rule.mode != Mode::Disabled) {
        if rule.sources.as_ref().is_none_or(|names| names.contains(&source.name)) {
            cooldowns(rule, source, interval, interval_at, faults);
        }
    }
}

fn cooldowns(rule: &Rule, source: &Source, interval: Duration, place: &Place, faults: &mut Diagnostics) {
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
        faults.help(Code::ShortCooldown, place, message, help);
    }
}
