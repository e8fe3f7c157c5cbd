//! Reads `auth.hmac`, signatures of bodies that are received, and the keys of those that are sent.

use std::path::PathBuf;
use std::time::Duration;

use super::super::decode::{Spanned, check_not_empty, spanned};
use super::super::diagnostic::{Code, Diagnostics};
use super::super::scalar::{positive_duration, text};
use super::super::yaml::Node;
use super::jwt::{RESERVED_HEADERS, is_header_name};
use super::local_file;
use super::secret_maps::{distinct_files, fields, list};
use super::{HmacAuth, HmacTimestamp};

pub(super) const HMAC_EXAMPLE: &str =
    "hmac: { key_files: [/run/secrets/grafana], timestamp_header: X-Grafana-Alerting-Timestamp }";

/// Grafana's default.
const DEFAULT_HEADER: &str = "X-Grafana-Alerting-Signature";
const DEFAULT_TOLERANCE: Duration = Duration::from_mins(5);

/// Reads `auth.hmac`, and where its files are named.
pub(super) fn hmac(node: &Node, diagnostics: &mut Diagnostics) -> Option<(HmacAuth, Vec<Spanned<PathBuf>>)> {
    let mut fields = fields(node, "sources.*.auth.hmac", diagnostics)?;
    let key_files =
        fields.get_required("key_files", "key_files: [/run/secrets/grafana]", |node, diagnostics| {
            check_not_empty(node, "add a file with a key, for example `[/run/secrets/grafana]`", diagnostics);
            distinct_files(list(spanned(local_file::VERIFYING_KEY.at()))(node, diagnostics)?, diagnostics)
        });
    let header = fields.get("header", header);
    let timestamp_header = fields.get("timestamp_header", header_of_time);
    let tolerance = fields.get("tolerance", positive_duration).unwrap_or(DEFAULT_TOLERANCE);
    if fields.has("timestamp_header") {
        let is_signature =
            |name: &&String| name.eq_ignore_ascii_case(header.as_deref().unwrap_or(DEFAULT_HEADER));
        if timestamp_header.as_ref().filter(is_signature).is_some() {
            let why = "is the header of the signature";
            fields.reject(&["timestamp_header"], why, "use the name in Grafana's field `Timestamp Header`");
        }
    } else {
        let help = "set `Timestamp Header` of Grafana's HMAC signature, and the same name here: \
                    `timestamp_header: X-Grafana-Alerting-Timestamp`";
        if fields.has("tolerance") {
            fields.reject(&["tolerance"], "requires `timestamp_header`", help);
        }
        if fields.has("key_files") {
            let message =
                "signatures without a time: a request that someone has seen can be sent again at any time";
            fields.diagnostics.add_with_help(Code::Replayable, fields.location(), message, help);
        }
    }
    fields.finish();
    let key_files = key_files?;
    let hmac = HmacAuth {
        key_files: key_files.iter().map(|file| file.value.clone()).collect(),
        header: header.unwrap_or_else(|| DEFAULT_HEADER.to_owned()),
        timestamp: timestamp_header.map(|header| HmacTimestamp { header, tolerance }),
    };
    Some((hmac, key_files))
}

/// Reads the files with the keys that a destination signs with.
#[cfg(feature = "server")]
pub(crate) fn signing_key_files(node: &Node, diagnostics: &mut Diagnostics) -> Option<Vec<PathBuf>> {
    check_not_empty(node, "add a file with a key, or remove the key `signing_key_files`", diagnostics);
    let files = list(spanned(local_file::SIGNING_KEY.at()))(node, diagnostics)?;
    let files = distinct_files(files, diagnostics)?;
    Some(files.into_iter().map(|file| file.value).collect())
}

fn header(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    header_name(node, "a signature", "header: X-Grafana-Alerting-Signature", diagnostics)
}

fn header_of_time(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    header_name(
        node,
        "the time of a signature",
        "timestamp_header: X-Grafana-Alerting-Timestamp",
        diagnostics,
    )
}

fn header_name(node: &Node, content: &str, example: &str, diagnostics: &mut Diagnostics) -> Option<String> {
    let name = text(node, diagnostics)?;
    let is_reserved =
        RESERVED_HEADERS.iter().chain(&["authorization"]).any(|reserved| name.eq_ignore_ascii_case(reserved));
    let problem = if !is_header_name(name) {
        "is not a valid name of a header".to_owned()
    } else if is_reserved {
        format!("is a header that cannot carry {content}")
    } else {
        return Some(name.to_owned());
    };
    let help = format!("use the name that is set in Grafana, for example `{example}`");
    diagnostics.add_with_help(Code::Value, &node.location, format!("`{name}` {problem}"), help);
    None
}
