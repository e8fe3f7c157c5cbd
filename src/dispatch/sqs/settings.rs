//! The settings of SQS queues.

use super::super::aws::{self, Access, ArnDefaults, Permission};
use super::attributes::MAX_ATTRIBUTE_BYTES_BESIDE_SUBJECT;
use crate::config::read::{Code, Diagnostics, Fields, Node, number, owned_text, text};
use crate::domain::size_limit::SizeLimit;

/// The default of `max_message_bytes`.
const DEFAULT_MESSAGE_BYTES: usize = 256 * 1024;

/// Settings of an SQS queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The URL: http(s), host, account and queue.
    pub queue_url: String,
    /// Whether the URL ends in `.fifo`.
    pub fifo: bool,
    /// Region, endpoint and role.
    pub access: Access,
    /// Maximum size of a message, from [`Settings::MIN_MESSAGE_BYTES`] to [`Settings::MAX_MESSAGE_BYTES`].
    pub max_message_bytes: usize,
}

impl Settings {
    /// A smaller limit has no room for a single alert.
    pub(crate) const MIN_MESSAGE_BYTES: usize = 8 * 1024;
    /// The limit of SQS.
    pub(crate) const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

    /// SQS counts the message attributes, one of which is the subject.
    pub(crate) fn size_limit(&self) -> SizeLimit {
        SizeLimit {
            bytes: self.max_message_bytes,
            metadata_bytes: MAX_ATTRIBUTE_BYTES_BESIDE_SUBJECT,
            subject_copies: 1,
        }
    }

    pub(crate) fn permission<'d>(&'d self, defaults: &ArnDefaults<'_>) -> Option<Permission<'d>> {
        // The URL consists of host, account and queue; it has been validated.
        let parts: Vec<&str> = self.queue_url.rsplit('/').collect();
        let [queue, account, ..] = parts[..] else { return None };
        let region = self.access.region.as_deref().unwrap_or(defaults.region);
        let resource = format!("arn:{}:sqs:{region}:{account}:{queue}", aws::partition(region));
        Some(Permission { role: self.access.role.as_ref(), action: "sqs:SendMessage", resource })
    }
}

/// Reads and checks the settings.
pub(crate) fn read(node: &Node, diagnostics: &mut Diagnostics) -> Option<Settings> {
    let mut fields = Fields::from_node(node, "destinations.*.sqs", diagnostics)?;
    let bytes = Settings::MIN_MESSAGE_BYTES as i64..=Settings::MAX_MESSAGE_BYTES as i64;
    let queue_url = fields.get_required("queue_url", QUEUE_URL, queue_url);
    let region = fields.get("region", owned_text);
    let endpoint_url = fields.get("endpoint_url", aws::endpoint);
    let max_message_bytes = fields.get("max_message_bytes", number(bytes)).unwrap_or(DEFAULT_MESSAGE_BYTES);
    let role = aws::role(&mut fields);
    fields.finish();
    let queue_url = queue_url?;
    let region = aws::effective_region(node, region, queue_region(&queue_url), "queue_url", diagnostics);
    let fifo = queue_url.ends_with(".fifo");
    Some(Settings { queue_url, fifo, access: Access { region, endpoint_url, role }, max_message_bytes })
}

const QUEUE_URL: &str = "queue_url: https://sqs.eu-west-1.amazonaws.com/123456789012/scaling.fifo";

fn queue_url(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = text(node, diagnostics)?;
    let path = aws::host_and_path(text).and_then(|(_, path)| path);
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

/// The region in a queue URL of the form `https://sqs.REGION.amazonaws.com/ACCOUNT/QUEUE`; `None` for other
/// hosts.
fn queue_region(url: &str) -> Option<&str> {
    let host = url.strip_prefix("https://")?.split('/').next()?;
    let rest = host.strip_prefix("sqs.")?;
    let region = rest.strip_suffix(".amazonaws.com").or_else(|| rest.strip_suffix(".amazonaws.com.cn"))?;
    (!region.contains('.')).then_some(region)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_urls_name_the_region() {
        let region = |host: &str| queue_region(&format!("https://{host}/123456789012/q")).map(str::to_owned);
        assert_eq!(region("sqs.eu-west-1.amazonaws.com").as_deref(), Some("eu-west-1"));
        assert_eq!(region("sqs.cn-north-1.amazonaws.com.cn").as_deref(), Some("cn-north-1"));
        for other in ["sqs.a.b.amazonaws.com", "queue.amazonaws.com", "sqs.eu-west-1.localhost:4566", "sqs.x"]
        {
            assert_eq!(region(other), None, "{other}");
        }
        assert_eq!(queue_region("http://127.0.0.1:9324/123456789012/q"), None);
    }
}
