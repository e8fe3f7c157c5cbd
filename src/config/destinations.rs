//! Where events go.

use std::path::PathBuf;
use std::time::Duration;

use super::called::{Function, is_qualifier, queue_region};
use super::decode::Fields;
use super::delivery;
use super::diagnostic::{Code, Diagnostics};
use super::scalar::{flag, number, owned, text, time, word};
use super::settings::{Delivery, Destination, DestinationKind, File, InvocationType, Lambda, Role, Sqs};
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
    let role = role(&mut fields);
    fields.finish();
    let queue_url = queue_url?;
    let region = located(node, region, queue_region(&queue_url), "queue_url", faults);
    let fifo = queue_url.ends_with(".fifo");
    Some(Sqs { queue_url, fifo, region, endpoint_url, role, max_message_bytes })
}

fn lambda(node: &Node, faults: &mut Diagnostics) -> Option<Lambda> {
    let types = [("event", InvocationType::Event), ("request_response", InvocationType::RequestResponse)];
    let mut fields = Fields::of(node, "destinations.*.lambda", faults)?;
    let function = fields.need("function", FUNCTION, function);
    let qualifier = fields.get("qualifier", qualifier);
    let invocation_type = fields.get("invocation_type", word(&types)).unwrap_or(InvocationType::Event);
    let region = fields.get("region", owned);
    let endpoint_url = fields.get("endpoint_url", endpoint);
    let role = role(&mut fields);
    let max_events = fields.get("max_events", number(1..=Lambda::MAX_EVENTS as i64)).unwrap_or(1);
    // The calls about one target follow each other in any case. What Lambda's own queue makes of them is
    // another matter.
    let ordered = fields.get("per_target_order", flag).unwrap_or(false);
    if ordered && invocation_type == InvocationType::Event {
        let message = "`per_target_order` holds for the calls, and with `invocation_type: event` Lambda queues \
                       them and may run them in another order";
        let help = "say `invocation_type: request_response`, where the next event of a target waits for the \
                    function's answer to the one before";
        fields.faults.help(Code::LooseOrder, fields.place_of("per_target_order"), message, help);
    }
    fields.finish();
    let function = function?;
    let said = Function::parse(&function);
    let region = located(node, region, said.and_then(|said| said.region), "function", faults);
    let of_function = said.and_then(|said| said.qualifier);
    if let (Some(qualifier), Some(other)) =
        (&qualifier, of_function.filter(|other| Some(*other) != qualifier.as_deref()))
    {
        let message = format!("`qualifier` is {qualifier}, and `function` ends in {other}");
        let place = &node.get("qualifier").unwrap_or(node).place;
        faults.help(Code::Contradiction, place, message, "keep one of them");
    }
    Some(Lambda { function, qualifier, invocation_type, max_events, region, endpoint_url, role })
}

/// The region that a destination says, or else the one that the name of what it calls says. Where an endpoint is
/// given, that is what is called, and the name says nothing.
fn located(
    node: &Node,
    region: Option<String>,
    of_name: Option<&str>,
    name: &str,
    faults: &mut Diagnostics,
) -> Option<String> {
    if let (Some(region), Some(other)) = (&region, of_name)
        && region != other
        && node.get("endpoint_url").is_none()
    {
        let message = format!("`region` is {region}, and `{name}` is in {other}");
        let help = format!("leave `region` out: `{name}` says it");
        faults.help(Code::Contradiction, &node.get("region").unwrap_or(node).place, message, help);
    }
    region.or_else(|| of_name.map(str::to_owned))
}

/// The role that is to be assumed, if one is given.
fn role(fields: &mut Fields<'_, '_>) -> Option<Role> {
    let arn = fields.get("role_arn", role_arn);
    if !fields.has("role_arn") {
        let help = "add `role_arn: arn:aws:iam::123456789012:role/scaling`, the role whose owner asks for it, or \
                    leave it out";
        fields.refuse(&["external_id"], "says nothing without `role_arn`", help);
        return None;
    }
    let external_id = fields.get("external_id", external_id);
    Some(Role { arn: arn?, external_id })
}

fn role_arn(node: &Node, faults: &mut Diagnostics) -> Option<String> {
    let text = text(node, faults)?;
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let name = |name: &str| {
        name.len() > 5 && name.starts_with("role/") && name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
    };
    if let ["arn", partition, "iam", "", account, resource] = parts[..]
        && partition.starts_with("aws")
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && name(resource)
    {
        return Some(text.to_owned());
    }
    let message = format!("`{text}` is not the ARN of a role");
    let help = "copy it from IAM, for example `role_arn: arn:aws:iam::123456789012:role/scaling`";
    faults.help(Code::Value, &node.place, message, help);
    None
}

/// As STS wants it.
fn external_id(node: &Node, faults: &mut Diagnostics) -> Option<String> {
    let text = text(node, faults)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@:/-_".contains(&b);
    if (2..=1224).contains(&text.len()) && text.bytes().all(allowed) {
        return Some(text.to_owned());
    }
    let help = "it has 2 to 1224 letters, digits and `+=,.@:/-_`, as the role's owner has set it";
    faults.help(Code::Value, &node.place, "this is no external id", help);
    None
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

const FUNCTION: &str = "function: nodegroup-scaler";

fn function(node: &Node, faults: &mut Diagnostics) -> Option<String> {
    let text = text(node, faults)?;
    if Function::parse(text).is_some() {
        return Some(text.to_owned());
    }
    let message = format!("`{text}` is not the name of a function");
    let help = format!("write its name, its ARN or ACCOUNT:function:NAME, for example `{FUNCTION}`");
    faults.help(Code::Value, &node.place, message, help);
    None
}

fn qualifier(node: &Node, faults: &mut Diagnostics) -> Option<String> {
    let text = text(node, faults)?;
    if is_qualifier(text) {
        return Some(text.to_owned());
    }
    let message = format!("`{text}` is no version and no alias of a function");
    faults.help(Code::Value, &node.place, message, "for example `qualifier: live`, or leave it out");
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
