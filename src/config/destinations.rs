//! Readers of destinations: SQS queues, Lambda functions and files.

use std::path::PathBuf;
use std::time::Duration;

use super::aws_names::{FunctionName, is_qualifier, queue_region};
use super::decode::Fields;
use super::delivery;
use super::diagnostic::{Code, Diagnostics};
use super::scalar::{flag, keyword, number, owned_text, positive_duration, text};
use super::settings::{Delivery, Destination, DestinationKind, File, InvocationType, Lambda, Role, Sqs};
use super::yaml::Node;
use crate::domain::name::Name;

const DEFAULT_CONCURRENCY: usize = 8;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const EXAMPLE: &str = "add one, for example `file: { path: \"-\" }`";

pub(super) fn destination(
    name: Name,
    node: &Node,
    common: Delivery,
    diagnostics: &mut Diagnostics,
) -> Option<Destination> {
    let mut fields = Fields::from_node(node, "destinations.*", diagnostics)?;
    let kind = match fields.one_of(&["sqs", "lambda", "file"], EXAMPLE) {
        Some(("sqs", node)) => sqs(node, fields.diagnostics).map(DestinationKind::Sqs),
        Some(("lambda", node)) => lambda(node, fields.diagnostics).map(DestinationKind::Lambda),
        Some((_, node)) => file(node, fields.diagnostics).map(DestinationKind::File),
        None => None,
    };
    // Concurrent writers would interleave the lines of a file.
    let max_concurrency = if fields.has("file") { 1 } else { 256 };
    let concurrency = fields.get("concurrency", number(1..=max_concurrency));
    let timeout = fields.get("timeout", positive_duration).unwrap_or(DEFAULT_TIMEOUT);
    let max_backlog = fields.get("max_backlog", delivery::backlog);
    let delivery = delivery::with_overrides(common, &mut fields);
    fields.finish();
    let kind = kind?;
    let default_concurrency = if matches!(kind, DestinationKind::File(_)) { 1 } else { DEFAULT_CONCURRENCY };
    let concurrency = concurrency.unwrap_or(default_concurrency);
    Some(Destination { name, kind, delivery, max_backlog, concurrency, timeout })
}

fn sqs(node: &Node, diagnostics: &mut Diagnostics) -> Option<Sqs> {
    let mut fields = Fields::from_node(node, "destinations.*.sqs", diagnostics)?;
    let bytes = Sqs::MIN_MESSAGE_BYTES as i64..=Sqs::MAX_MESSAGE_BYTES as i64;
    let queue_url = fields.get_required("queue_url", QUEUE_URL, queue_url);
    let region = fields.get("region", owned_text);
    let endpoint_url = fields.get("endpoint_url", endpoint);
    let max_message_bytes = fields.get("max_message_bytes", number(bytes)).unwrap_or(256 * 1024);
    let role = role(&mut fields);
    fields.finish();
    let queue_url = queue_url?;
    let region = effective_region(node, region, queue_region(&queue_url), "queue_url", diagnostics);
    let fifo = queue_url.ends_with(".fifo");
    Some(Sqs { queue_url, fifo, region, endpoint_url, role, max_message_bytes })
}

fn lambda(node: &Node, diagnostics: &mut Diagnostics) -> Option<Lambda> {
    let types = [("event", InvocationType::Event), ("request_response", InvocationType::RequestResponse)];
    let mut fields = Fields::from_node(node, "destinations.*.lambda", diagnostics)?;
    let function = fields.get_required("function", FUNCTION, function);
    let qualifier = fields.get("qualifier", qualifier);
    let invocation_type = fields.get("invocation_type", keyword(&types)).unwrap_or(InvocationType::Event);
    let region = fields.get("region", owned_text);
    let endpoint_url = fields.get("endpoint_url", endpoint);
    let role = role(&mut fields);
    let max_events = fields.get("max_events", number(1..=Lambda::MAX_EVENTS as i64)).unwrap_or(1);
    // The bridge calls the function for one event of a target at a time. Lambda's own queue may still
    // reorder the calls.
    let ordered = fields.get("per_target_order", flag).unwrap_or(false);
    if ordered && invocation_type == InvocationType::Event {
        let message = "`per_target_order` is not guaranteed with `invocation_type: event`: Lambda queues the calls \
                       and may run them in another order";
        let help = "use `invocation_type: request_response`: the next event of a target is then sent after the \
                    function has responded to the previous one";
        fields.diagnostics.add_with_help(
            Code::OrderNotGuaranteed,
            fields.location_of("per_target_order"),
            message,
            help,
        );
    }
    fields.finish();
    let function = function?;
    let parsed = FunctionName::parse(&function);
    let region =
        effective_region(node, region, parsed.and_then(|parsed| parsed.region), "function", diagnostics);
    let function_qualifier = parsed.and_then(|parsed| parsed.qualifier);
    if let (Some(qualifier), Some(other)) =
        (&qualifier, function_qualifier.filter(|other| Some(*other) != qualifier.as_deref()))
    {
        let message = format!("`qualifier` is `{qualifier}`, but `function` ends in `{other}`");
        let location = &node.get("qualifier").unwrap_or(node).location;
        diagnostics.add_with_help(Code::Contradiction, location, message, "keep only one of them");
    }
    Some(Lambda { function, qualifier, invocation_type, max_events, region, endpoint_url, role })
}

/// The configured region, or else the one in the queue URL or ARN. With `endpoint_url` the two may differ,
/// since the endpoint is called.
fn effective_region(
    node: &Node,
    region: Option<String>,
    name_region: Option<&str>,
    name: &str,
    diagnostics: &mut Diagnostics,
) -> Option<String> {
    if let (Some(region), Some(other)) = (&region, name_region)
        && region != other
        && node.get("endpoint_url").is_none()
    {
        let message = format!("`region` is `{region}`, but `{name}` is in `{other}`");
        let help = format!("remove `region`: it is taken from `{name}`");
        diagnostics.add_with_help(
            Code::Contradiction,
            &node.get("region").unwrap_or(node).location,
            message,
            help,
        );
    }
    region.or_else(|| name_region.map(str::to_owned))
}

/// Reads the role to assume, if there is one.
fn role(fields: &mut Fields<'_, '_>) -> Option<Role> {
    let arn = fields.get("role_arn", role_arn);
    if !fields.has("role_arn") {
        let help = "add `role_arn: arn:aws:iam::123456789012:role/scaling`, the role that requires this external \
                    ID, or remove `external_id`";
        fields.reject(&["external_id"], "requires `role_arn`", help);
        return None;
    }
    let external_id = fields.get("external_id", external_id);
    Some(Role { arn: arn?, external_id })
}

fn role_arn(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = text(node, diagnostics)?;
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let is_role_name = |is_role_name: &str| {
        is_role_name.len() > 5
            && is_role_name.starts_with("role/")
            && is_role_name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
    };
    if let ["arn", partition, "iam", "", account, resource] = parts[..]
        && partition.starts_with("aws")
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && is_role_name(resource)
    {
        return Some(text.to_owned());
    }
    let message = format!("`{text}` is not a valid IAM role ARN");
    let help = "copy it from IAM, for example `role_arn: arn:aws:iam::123456789012:role/scaling`";
    diagnostics.add_with_help(Code::Value, &node.location, message, help);
    None
}

/// Reads an external ID in the format of STS.
fn external_id(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = text(node, diagnostics)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@:/-_".contains(&b);
    if (2..=1224).contains(&text.len()) && text.bytes().all(allowed) {
        return Some(text.to_owned());
    }
    let help =
        "use 2 to 1224 letters, digits and characters of `+=,.@:/-_`, as set in the role's trust policy";
    diagnostics.add_with_help(Code::Value, &node.location, "invalid external ID", help);
    None
}

fn file(node: &Node, diagnostics: &mut Diagnostics) -> Option<File> {
    let mut fields = Fields::from_node(node, "destinations.*.file", diagnostics)?;
    let path = fields.get_required("path", "path: data/events.jsonl", text);
    fields.finish();
    match path? {
        "-" => Some(File::Stdout),
        path => Some(File::Path(PathBuf::from(path))),
    }
}

const QUEUE_URL: &str = "queue_url: https://sqs.eu-west-1.amazonaws.com/123456789012/scaling.fifo";

fn queue_url(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = text(node, diagnostics)?;
    let path = host_and_path(text).and_then(|(_, path)| path);
    let parts: Vec<&str> = path.unwrap_or_default().split('/').collect();
    let plain = |part: &&str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if parts.len() == 2 && parts.iter().all(plain) {
        return Some(text.to_owned());
    }
    let message = format!("`{text}` is not a valid queue URL");
    let help = format!("copy it from SQS: scheme, host, account and queue, for example `{QUEUE_URL}`");
    diagnostics.add_with_help(Code::Value, &node.location, message, help);
    None
}

const FUNCTION: &str = "function: nodegroup-scaler";

fn function(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = text(node, diagnostics)?;
    if FunctionName::parse(text).is_some() {
        return Some(text.to_owned());
    }
    let message = format!("`{text}` is not a valid function name or ARN");
    let help = format!("use the name, the ARN or ACCOUNT:function:NAME, for example `{FUNCTION}`");
    diagnostics.add_with_help(Code::Value, &node.location, message, help);
    None
}

fn qualifier(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = text(node, diagnostics)?;
    if is_qualifier(text) {
        return Some(text.to_owned());
    }
    let message = format!("`{text}` is not a valid function version or alias");
    diagnostics.add_with_help(
        Code::Value,
        &node.location,
        message,
        "use a version or an alias, for example `qualifier: live`, or remove it",
    );
    None
}

fn endpoint(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = text(node, diagnostics)?;
    if host_and_path(text).is_some() {
        return Some(text.to_owned());
    }
    let message = format!("`{text}` is not a valid endpoint URL");
    let help =
        "use an http(s) URL, for example `http://127.0.0.1:4566`, or remove it to use the AWS endpoint";
    diagnostics.add_with_help(Code::Value, &node.location, message, help);
    None
}

/// Splits an http(s) URL into host and path; `None` if it is invalid or has user info, a query or a fragment.
fn host_and_path(url: &str) -> Option<(&str, Option<&str>)> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let (host, path) = match rest.split_once('/') {
        Some((host, path)) => (host, Some(path)),
        None => (rest, None),
    };
    let odd = |c: char| c.is_whitespace() || c.is_control() || "@?#\\\"<>".contains(c);
    (!host.is_empty() && !url.contains(odd)).then_some((host, path))
}
