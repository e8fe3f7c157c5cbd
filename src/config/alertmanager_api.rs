//! Reads `alertmanager` of a source: whom the bridge asks what fires now.

use std::collections::BTreeSet;

use super::access::{alertmanager_url, http_client};
use super::decode::{Fields, check_not_empty, distinct};
use super::diagnostic::{Code, Diagnostics};
use super::kinds::SourceKind;
use super::scalar::owned_text;
use super::settings::AlertmanagerApi;
use super::yaml::Node;

/// More peers than a cluster has are a mistake.
const MAX_URLS: usize = 16;

/// Reads `alertmanager` of a source of the kind `kind`; `None` if it has none.
pub(super) fn of_source<S: SourceKind>(kind: &str, fields: &mut Fields<'_, '_>) -> Option<AlertmanagerApi> {
    if let Some(why) = S::no_alertmanager(kind) {
        fields.reject(&["alertmanager"], why, "remove it");
        return None;
    }
    fields.get("alertmanager", alertmanager_api)
}

fn alertmanager_api(node: &Node, diagnostics: &mut Diagnostics) -> Option<AlertmanagerApi> {
    let mut fields = Fields::from_node(node, "sources.*.alertmanager", diagnostics)?;
    let urls = fields.get_required("urls", "urls: ['http://alertmanager:9093']", urls);
    let receivers = fields.get("receivers", receivers).unwrap_or_default();
    let http = fields.get("http", http_client).unwrap_or_default();
    fields.finish();
    Some(AlertmanagerApi { urls: urls?, receivers, http })
}

fn urls(node: &Node, diagnostics: &mut Diagnostics) -> Option<Vec<String>> {
    let help = "name the URL of each Alertmanager of the cluster, or remove `alertmanager`";
    check_not_empty(node, help, diagnostics);
    let urls = distinct(alertmanager_url)(node, diagnostics)?;
    if urls.len() > MAX_URLS {
        let message = format!("more than {MAX_URLS} URLs");
        let help = "name the peers of one Alertmanager cluster; other clusters are sources of their own";
        diagnostics.add_with_help(Code::Range, &node.location, message, help);
        return None;
    }
    Some(urls.into_iter().map(|url| url.value).collect()).filter(|urls: &Vec<String>| !urls.is_empty())
}

fn receivers(node: &Node, diagnostics: &mut Diagnostics) -> Option<BTreeSet<String>> {
    let help =
        "name the receivers in Alertmanager's configuration that send to this source, or remove `receivers`";
    check_not_empty(node, help, diagnostics);
    let receivers = distinct(owned_text)(node, diagnostics)?;
    Some(receivers.into_iter().map(|receiver| receiver.value).collect())
}
