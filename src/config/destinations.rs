//! Where events go.

use std::path::PathBuf;
use std::time::Duration;

use super::decode::Fields;
use super::delivery;
use super::diagnostic::{Code, Diagnostics};
use super::scalar::{flag, number, owned, text, time, word};
use super::settings::{Delivery, Destination, DestinationKind, File, InvocationType, Lambda, Sqs};
use super::yaml::Node;
use crate::domain::name::Name;

const CONCURRENCY: usize = 8;
const TIMEOUT: Duration = Duration::from_secs(30);
const EXAMPLE: &str = "say where its events go, for example `file: { path: \"-\" }`";

pub(super) fn destination(
    name: Name,
    node: &Node,
    common: Delivery,
    faults: &mut Diagnostics,
) -> Option<Destination> {
    let mut fields = Fields::of(node, "destinations.*", faults)?;
    let kind = match fields.one_of(&["sqs", "lambda", "file"], EXAMPLE) {
        Some(("sqs", node)) => sqs(node, fields.faults).map(DestinationKind::Sqs),
        Some(("lambda", node)) => lambda(node, fields.faults).map(DestinationKind::Lambda),
        Some((_, node)) => file(node, fields.faults).map(DestinationKind::File),
        None => None,
    };
    // Two writers would mix the lines of one file.
    let most = if fields.has("file") { 1 } else { 256 };
    let concurrency = fields.get("concurrency", number(1..=most));
    let timeout = fields.get("timeout", time).unwrap_or(TIMEOUT);
    let max_backlog = fields.get("max_backlog", delivery::backlog);
    let delivery = delivery::over(common, &mut fields);
    fields.finish();
    let kind = kind?;
    let usual = if matches!(kind, DestinationKind::File(_)) { 1 } else { CONCURRENCY };
    let concurrency = concurrency.unwrap_or(usual);
    Some(Destination { name, kind, delivery, max_backlog, concurrency, timeout })
}

fn sqs(node: &Node, faults: &mut Diagnostics) -> Option<Sqs> {
    let mut fields = Fields::of(node, "destinations.*.sqs", faults)?;
    let bytes = Sqs::MIN_MESSAGE_BYTES as i64..=Sqs::MAX_MESSAGE_BYTES as i64;
    let queue_url = fields.need("queue_url", QUEUE_URL, queue_url);
    let region = fields.get("region", owned);
    let endpoint_url = fields.get("endpoint_url", endpoint);
    let max_message_bytes = fields.get("max_message_bytes", number(bytes)).unwrap_or(256 * 1024);
    fields.finish();
    let queue_url = queue_url?;
    let fifo = queue_url.ends_with(".fifo");
    Some(Sqs { queue_url, fifo, region, endpoint_url, max_message_bytes })
}

fn lambda(node: &Node, faults: &mut Diagnostics) -> Option<Lambda> {
    let types = [("event", InvocationType::Event), ("request_response", InvocationType::RequestResponse)];
    let mut fields = Fields::of(node, "destinations.*.lambda", faults)?;
    let function = fields.need("function", "function: nodegroup-scaler", owned);
    let qualifier = fields.get("qualifier", owned);
    let invocation_type = fields.get("invocation_type", word(&types)).unwrap_or(InvocationType::Event);
    let region = fields.get("region", owned);
    let endpoint_url = fields.get("endpoint_url", endpoint);
    // Of these the list of what is unsupported leaves only the values that change nothing.
    fields.get("per_target_order", flag);
    fields.get("max_events", number::<u32>(1..=i64::MAX));
    fields.finish();
    Some(Lambda { function: function?, qualifier, invocation_type, region, endpoint_url })
}

fn file(node: &Node, faults: &mut Diagnostics) -> Option<File> {
    let mut fields = Fields::of(node, "destinations.*.file", faults)?;
    let path = fields.need("path", "path: data/events.jsonl", text);
    fields.finish();
    match path? {
        "-" => Some(File::Stdout),
        path => Some(File::Path(PathBuf::from(path))),
    }
}

const QUEUE_URL: &str = "queue_url: https://sqs.eu-west-1.amazonaws.com/123456789012/scaling.fifo";

fn queue_url(node: &Node, faults: &mut Diagnostics) -> Option<String> {
    let text = text(node, faults)?;
    let path = host_and_path(text).and_then(|(_, path)| path);
    let parts: Vec<&str> = path.unwrap_or_default().split('/').collect();
    let plain = |part: &&str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if parts.len() == 2 && parts.iter().all(plain) {
        return Some(text.to_owned());
    }
    let message = format!("`{text}` is not the URL of a queue");
    let help = format!("copy it from SQS: scheme, host, account and queue, for example `{QUEUE_URL}`");
    faults.help(Code::Value, &node.place, message, help);
    None
}

fn endpoint(node: &Node, faults: &mut Diagnostics) -> Option<String> {
    let text = text(node, faults)?;
    if host_and_path(text).is_some() {
        return Some(text.to_owned());
    }
    let message = format!("`{text}` is not an endpoint");
    let help = "write an http(s) URL, for example `http://127.0.0.1:4566`, or leave it out for AWS' own";
    faults.help(Code::Value, &node.place, message, help);
    None
}

/// Of an http(s) URL, as far as this bridge has to understand one.
fn host_and_path(url: &str) -> Option<(&str, Option<&str>)> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let (host, path) = match rest.split_once('/') {
        Some((host, path)) => (host, Some(path)),
        None => (rest, None),
    };
    let odd = |c: char| c.is_whitespace() || c.is_control() || "@?#\\\"<>".contains(c);
    (!host.is_empty() && !url.contains(odd)).then_some((host, path))
}
