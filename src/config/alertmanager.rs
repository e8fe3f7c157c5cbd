//! Lints an Alertmanager configuration for settings with which this bridge would miss or delay alerts.
//!
//! The configuration is read as Alertmanager 0.25 to 0.34 reads it (`values`, `matchers`), and the route tree is followed
//! as Alertmanager does it (`routes`, on sets of alerts, `space`). A receiver belongs to this bridge if a
//! `webhook_config` of it has the path `/webhook/SOURCE` with a source of this bridge (`address`, `webhooks`). Only
//! these receivers, the routes to them (`timing`), and what happens to the alerts that rules and heartbeats need
//! (`coverage`, `inhibition`) are checked; `amtool check-config` checks the rest. Lines that are shown contain no
//! secrets (`redact`).

mod address;
mod coverage;
mod inhibition;
mod matchers;
mod routes;
mod space;
#[cfg(test)]
mod tests;
mod timing;
mod values;
mod webhooks;

use std::path::Path;

use coverage::Needed;
use inhibition::Inhibition;
use routes::{Route, Tree};
use space::{Region, Space};
use webhooks::Webhooks;

use super::decode::wrong_type;
use super::diagnostic::{Code, Diagnostics, Location};
use super::file;
use super::kinds::SourceKind;
use super::redact;
use super::settings::Settings;
use super::yaml::{self, Kind, Node, Origin};
use crate::domain::name::Name;

/// Checks the Alertmanager configuration at `path` against the settings of the bridge.
pub(super) fn lint<D, S: SourceKind>(path: &Path, settings: &Settings<D, S>, diagnostics: &mut Diagnostics) {
    if let Some(text) = file::read_text(path, diagnostics) {
        lint_text(path, &text, settings, diagnostics);
    }
}

/// The same for the text of the file.
pub(crate) fn lint_text<D, S: SourceKind>(
    path: &Path,
    text: &str,
    settings: &Settings<D, S>,
    diagnostics: &mut Diagnostics,
) {
    let sources = || settings.sources.keys().map(Name::as_str);
    diagnostics.show_redacted(path, redact::foreign(text, &sources().collect()));
    let Some(root) = yaml::parse_untyped(text, &Origin::File(path.into()), diagnostics) else { return };
    let (Some(route), Some(receivers)) = (root.get("route"), root.get("receivers")) else {
        let help = "pass the file that Alertmanager is started with to `--alertmanager`: it has the keys `route` \
                    and `receivers`";
        diagnostics.add_with_help(Code::Missing, &root.location, "not an Alertmanager configuration", help);
        return;
    };
    if !matches!(receivers.kind, Kind::List(_)) {
        return wrong_type(receivers, "a list of receivers", diagnostics).unwrap_or_default();
    }
    let webhooks = webhooks::find(receivers, settings, diagnostics);
    let sources = sources().chain(webhooks.named.iter().copied());
    diagnostics.show_redacted(path, redact::foreign(text, &sources.collect()));
    // Routes are followed only if all of their matchers could be read.
    let mut unreadable = Diagnostics::default();
    let routes = routes::read(route, &mut unreadable);
    let inhibitions = inhibition::read(&root, &mut unreadable);
    let is_readable = !unreadable.has_errors();
    diagnostics.append(unreadable);
    check_intervals(&routes, &webhooks, settings, diagnostics);
    if webhooks.known.is_empty() && webhooks.uncertain.is_empty() {
        report_no_receiver(&route.location, &webhooks, settings, diagnostics);
    } else if is_readable {
        follow_alerts(&root, &routes, &inhibitions, &webhooks, settings, diagnostics);
    }
}

/// Checks the intervals of all routes to this bridge.
fn check_intervals<D, S>(
    routes: &[Route<'_>],
    webhooks: &Webhooks<'_>,
    settings: &Settings<D, S>,
    diagnostics: &mut Diagnostics,
) {
    let only_source = settings.sources.values().next().filter(|_| settings.sources.len() == 1);
    for route in routes {
        for webhook in webhooks.of(route.receiver) {
            let is_known = webhook.source.is_some();
            // Beside a receiver that is known to be this bridge, one with an unknown address probably is another service.
            if !is_known && !webhooks.known.is_empty() {
                continue;
            }
            timing::check_webhook(webhook, route, diagnostics);
            let source = match webhook.source {
                Some(name) => settings.sources.get(name),
                None => only_source,
            };
            if let Some(source) = source {
                timing::check_source(webhook.receiver, source, route, diagnostics);
            }
        }
    }
}

fn report_no_receiver<D, S>(
    location: &Location,
    webhooks: &Webhooks<'_>,
    settings: &Settings<D, S>,
    diagnostics: &mut Diagnostics,
) {
    if !webhooks.named.is_empty() {
        // A receiver names a source that is not configured, which has been reported.
        return;
    }
    let name = settings.sources.keys().next().map_or("SOURCE", Name::as_str);
    let help = match &webhooks.misspelled {
        Some((receiver, near)) => format!(
            "if receiver `{receiver}` should be it, the path of its `url` is `/webhook/{near}`, with the name of the \
             source"
        ),
        None => format!(
            "add a receiver with `webhook_configs: [{{ url: \"http://{}/webhook/{name}\" }}]` and a route to it",
            settings.server.listen
        ),
    };
    diagnostics.add_with_help(Code::NoRoute, location, "no receiver sends to this bridge", help);
}

/// Follows the alerts that rules and heartbeats need through the route tree.
fn follow_alerts<D, S>(
    root: &Node,
    routes: &[Route<'_>],
    inhibitions: &[Inhibition<'_>],
    webhooks: &Webhooks<'_>,
    settings: &Settings<D, S>,
    diagnostics: &mut Diagnostics,
) {
    let needed = coverage::needed(settings, webhooks);
    let of_routes = routes.iter().flat_map(|route| &route.matchers);
    let of_inhibitions = inhibitions.iter().flat_map(Inhibition::matchers);
    let space = Space::new(needed.iter().flat_map(Needed::matchers).chain(of_routes).chain(of_inhibitions));
    let tree = Tree::new(routes, &space);
    if !webhooks.known.is_empty() && !check_reached(root, &tree, webhooks, diagnostics) {
        return;
    }
    for one in &needed {
        // Matchers that contradict each other have been reported with the rule.
        let Some(all) = one.region(&space) else { continue };
        let covered = coverage::check(one, &all, &tree, webhooks, diagnostics);
        for route in covered.routes {
            timing::check_needed(one.by, &one.sources, &routes[route], diagnostics);
        }
        inhibition::check(one.by, &all, &covered.reaching, inhibitions, &space, diagnostics);
    }
}

/// Reports receivers of this bridge that no route uses, if there is no other. Returns whether alerts can reach one.
fn check_reached(
    root: &Node,
    tree: &Tree<'_, '_>,
    webhooks: &Webhooks<'_>,
    diagnostics: &mut Diagnostics,
) -> bool {
    let leads_here = |route: usize| webhooks.of(tree.routes[route].receiver).next().is_some();
    let ours: Vec<usize> = (0..tree.routes.len()).filter(|route| leads_here(*route)).collect();
    let location = root.get("route").map_or(&root.location, |route| &route.location);
    let receiver = webhooks.known.first().map_or("", |webhook| webhook.receiver);
    if ours.is_empty() {
        let message = format!("no route uses receiver `{receiver}`, which sends to this bridge");
        let help = format!("add a route with `receiver: {receiver}`");
        diagnostics.add_with_help(Code::NoRoute, location, message, help);
        return false;
    }
    let is_taken =
        || tree.follow(Region::new()).iter().any(|(_, routes)| routes.iter().any(|route| leads_here(*route)));
    // Without an example of what matches a route, nothing can be said about it.
    let is_hidden = ours.iter().all(|route| tree.region(*route).is_some()) && !is_taken();
    if is_hidden {
        let message = format!("no alert takes a route to receiver `{receiver}`, which sends to this bridge");
        let help = "put it before the routes that match all of its alerts, and set `continue: true` in it, so that \
                    they are still sent there";
        diagnostics.add_with_help(Code::NoRoute, tree.routes[ours[0]].location, message, help);
    }
    !is_hidden
}
