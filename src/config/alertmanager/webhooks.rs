//! The receivers that send to this bridge, and the keys of their webhooks.

use std::collections::BTreeSet;
use std::time::Duration;

use super::address::{self, Address};
use super::values::{count, flag, go_duration, items, text_of};
use crate::config::decode::entries;
use crate::config::diagnostic::{Code, Diagnostics, Location};
use crate::config::kinds::SourceKind;
use crate::config::settings::Settings;
use crate::config::suggest::{did_you_mean, nearest};
use crate::config::yaml::{Kind, Node};
use crate::domain::name::Name;

/// The keys of a webhook, in all versions of Alertmanager.
const KEYS: [&str; 7] =
    ["send_resolved", "http_config", "url", "url_file", "max_alerts", "timeout", "payload"];
/// The keys of `http_config`.
const HTTP_KEYS: [&str; 13] = [
    "basic_auth",
    "authorization",
    "oauth2",
    "bearer_token",
    "bearer_token_file",
    "tls_config",
    "follow_redirects",
    "enable_http2",
    "http_headers",
    "proxy_url",
    "no_proxy",
    "proxy_from_environment",
    "proxy_connect_header",
];

/// A webhook that sends to this bridge, or may do so.
pub(super) struct Webhook<'n> {
    pub receiver: &'n str,
    /// The source; `None` if the address is unknown.
    pub source: Option<&'n str>,
    pub timeout: Option<(Duration, &'n Location)>,
}

/// The webhooks of a configuration.
pub(super) struct Webhooks<'n> {
    pub known: Vec<Webhook<'n>>,
    /// What is known to be the bridge, or perhaps is.
    pub uncertain: Vec<Webhook<'n>>,
    /// Sources that a receiver names at this bridge, also those that are not configured.
    pub named: BTreeSet<&'n str>,
    /// A source in an address of another host that probably is a misspelled source of this bridge.
    pub misspelled: Option<(&'n str, String)>,
}

impl<'n> Webhooks<'n> {
    /// The webhooks of a receiver.
    pub(super) fn of(&self, receiver: Option<&str>) -> impl Iterator<Item = &Webhook<'n>> {
        let all = self.known.iter().chain(&self.uncertain);
        all.filter(move |webhook| Some(webhook.receiver) == receiver)
    }
}

/// A webhook as it is configured.
struct Configured<'n> {
    receiver: &'n str,
    node: &'n Node,
    address: Address<'n>,
    location: &'n Location,
}

/// Finds the webhooks that send to this bridge, and checks their keys.
pub(super) fn find<'n, D, S: SourceKind>(
    receivers: &'n Node,
    settings: &Settings<D, S>,
    diagnostics: &mut Diagnostics,
) -> Webhooks<'n> {
    let configured: Vec<Configured<'_>> = items(Some(receivers)).iter().flat_map(of_receiver).collect();
    let is_source = |name: &str| settings.sources.keys().any(|known| known.as_str() == name);
    let mut own_hosts: BTreeSet<String> = address::local_hosts(settings.server.listen).into_iter().collect();
    for webhook in &configured {
        if let Address::Webhook { host, source } = &webhook.address
            && is_source(source)
        {
            own_hosts.insert(host.clone());
        }
    }
    let sources: Vec<&str> = settings.sources.keys().map(Name::as_str).collect();
    let mut found =
        Webhooks { known: Vec::new(), uncertain: Vec::new(), named: BTreeSet::new(), misspelled: None };
    let mut uncertain = Vec::new();
    for webhook in &configured {
        match &webhook.address {
            Address::Webhook { source, .. } if is_source(source) => {
                found.named.insert(source);
                check_kind(webhook, source, settings, diagnostics);
                let timeout = check_keys(webhook.receiver, webhook.node, diagnostics);
                found.known.push(Webhook { receiver: webhook.receiver, source: Some(source), timeout });
            }
            Address::Webhook { host, source } if own_hosts.contains(host) => {
                found.named.insert(source);
                let message = format!(
                    "receiver `{}` sends to source `{source}`, which is not configured",
                    webhook.receiver
                );
                let help = did_you_mean(source, &sources);
                diagnostics.add_with_help(Code::UnknownSource, webhook.location, message, help);
            }
            Address::Webhook { source, .. } => {
                let near = nearest(source, sources.iter().copied()).map(str::to_owned);
                found.misspelled = found.misspelled.take().or(near.map(|near| (webhook.receiver, near)));
            }
            Address::Unknown(why) => {
                let message = format!(
                    "cannot tell whether receiver `{}` sends to this bridge: {why}",
                    webhook.receiver
                );
                let help = "check by hand that its path is /webhook/SOURCE, with a source of this bridge";
                diagnostics.add_with_help(Code::UncertainAddress, webhook.location, message, help);
                uncertain.push(webhook);
            }
            Address::Foreign => {}
        }
    }
    for webhook in uncertain {
        // Beside a receiver that is known to be this bridge, one with an unknown address probably is another service.
        let timeout = if found.known.is_empty() {
            check_keys(webhook.receiver, webhook.node, diagnostics)
        } else {
            None
        };
        found.uncertain.push(Webhook { receiver: webhook.receiver, source: None, timeout });
    }
    found
}

/// Reports a source of a kind that refuses what Alertmanager sends.
fn check_kind<D, S: SourceKind>(
    webhook: &Configured<'_>,
    source: &str,
    settings: &Settings<D, S>,
    diagnostics: &mut Diagnostics,
) {
    if settings.source_kinds.get(source).is_none_or(SourceKind::takes_alertmanagers_webhook) {
        return;
    }
    let message = format!(
        "receiver `{}` sends to source `{source}`, whose kind does not take Alertmanager's notifications",
        webhook.receiver
    );
    let help = format!("use a source of kind alertmanager, or set `kind: alertmanager` for `{source}`");
    diagnostics.add_with_help(Code::UnknownSource, webhook.location, message, help);
}

fn of_receiver(receiver: &Node) -> Vec<Configured<'_>> {
    let Some(name) = text_of(receiver, "name") else { return Vec::new() };
    let webhooks = items(receiver.get("webhook_configs")).iter().filter_map(|node| {
        let (location, address) = match (text_of(node, "url"), node.get("url_file")) {
            (Some(url), _) => (&node.get("url")?.location, address::parse(url)),
            (None, Some(file)) => (&file.location, Address::Unknown("its address is in a file")),
            (None, None) => return None,
        };
        Some(Configured { receiver: name, node, address, location })
    });
    webhooks.collect()
}

/// Checks the keys beside the address. Returns the timeout.
fn check_keys<'n>(
    receiver: &str,
    webhook: &'n Node,
    diagnostics: &mut Diagnostics,
) -> Option<(Duration, &'n Location)> {
    check_unknown(webhook, &KEYS, diagnostics);
    if let Some(http) = webhook.get("http_config") {
        check_unknown(http, &HTTP_KEYS, diagnostics);
    }
    let sends_resolved = webhook.get("send_resolved").and_then(|node| Some((node, flag(node, diagnostics)?)));
    if let Some((node, false)) = sends_resolved {
        let message = format!("receiver `{receiver}` does not send resolved alerts");
        let help = "set `send_resolved: true`: without it no episode closes, and nothing is scaled in";
        diagnostics.add_with_help(Code::ResolvedUnsent, &node.location, message, help);
    }
    let max_alerts = webhook.get("max_alerts").and_then(|node| Some((node, count(node, diagnostics)?)));
    if let Some((node, 1..)) = max_alerts {
        let message = format!("receiver `{receiver}` truncates large groups");
        let help = "remove `max_alerts` (0 means no limit): truncated alerts are never acted on, and a truncated \
                    notification never decreases capacity";
        diagnostics.add_with_help(Code::TruncatedAlerts, &node.location, message, help);
    }
    if let Some(node) = webhook.get("payload").filter(|node| node.kind != Kind::Null) {
        let message = format!("the `payload` of receiver `{receiver}` replaces the notification");
        let help = "remove `payload`: this bridge reads Alertmanager's own format";
        diagnostics.add_with_help(Code::ReplacedBody, &node.location, message, help);
    }
    let node = webhook.get("timeout")?;
    let timeout = go_duration(node, diagnostics).filter(|timeout| !timeout.is_zero())?;
    if timeout < Duration::from_millis(1) {
        let message = format!("the `timeout` of receiver `{receiver}` is shorter than a request takes");
        let help = "add a unit, for example `timeout: 10s`: a number without a unit is nanoseconds";
        diagnostics.add_with_help(Code::Range, &node.location, message, help);
    }
    Some((timeout, &node.location))
}

fn check_unknown(node: &Node, known: &[&str], diagnostics: &mut Diagnostics) {
    for (key, _) in entries(node, diagnostics).unwrap_or_default() {
        if !known.contains(&key.name.as_str()) {
            let message = format!("unknown key `{}`", key.name);
            diagnostics.add_with_help(
                Code::UnknownKey,
                &key.location,
                message,
                did_you_mean(&key.name, known),
            );
        }
    }
}
