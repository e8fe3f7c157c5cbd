//! The settings of a queue with notifications.

use crate::aws::{self, Access, ArnDefaults, Permission};
use crate::config::read::{Code, Diagnostics, Fields, Node, distinct, owned_text, text};

/// The settings of a queue with notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The URL: http(s), host, account and queue.
    pub queue_url: String,
    /// Region, endpoint and role.
    pub access: Access,
    /// The topics whose messages are read.
    pub topic_arns: Vec<String>,
}

/// What the bridge does with the queue.
const ACTIONS: [&str; 4] =
    ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes"];

impl Settings {
    /// The IAM permissions that the source needs.
    pub(crate) fn permissions<'s>(&'s self, defaults: &ArnDefaults<'_>) -> Vec<Permission<'s>> {
        let Some(resource) = aws::queue_arn(&self.queue_url, &self.access, defaults) else {
            return Vec::new();
        };
        let role = self.access.role.as_ref();
        ACTIONS.map(|action| Permission { role, action, resource: resource.clone() }).into()
    }

    /// Whether the queue delivers the messages of a group in order.
    pub(crate) fn is_fifo(&self) -> bool {
        self.queue_url.ends_with(".fifo")
    }
}

/// Reads and checks the settings.
pub(in crate::sources) fn read(node: &Node, diagnostics: &mut Diagnostics) -> Option<Settings> {
    let mut fields = Fields::from_node(node, "sources.*.sqs", diagnostics)?;
    let queue_url = fields.get_required("queue_url", QUEUE_URL, aws::queue_url);
    let region = fields.get("region", owned_text);
    let endpoint_url = fields.get("endpoint_url", aws::endpoint);
    let role = aws::role(&mut fields);
    let topics = fields.get("topic_arns", distinct(topic_arn));
    let is_readable = topics.is_some() || !fields.has("topic_arns");
    fields.finish();
    let queue_url = queue_url?;
    let region = aws::effective_region(node, region, aws::queue_region(&queue_url), "queue_url", diagnostics);
    let topic_arns = topics.unwrap_or_default().into_iter().map(|topic| topic.value).collect();
    let settings = Settings { queue_url, access: Access { region, endpoint_url, role }, topic_arns };
    is_readable.then_some(settings)
}

const QUEUE_URL: &str = "queue_url: https://sqs.eu-west-1.amazonaws.com/123456789012/alerts";

fn topic_arn(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = text(node, diagnostics)?;
    let parts: Vec<&str> = text.split(':').collect();
    let is_plain = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if let ["arn", partition, "sns", region, account, topic] = parts[..]
        && partition.starts_with("aws")
        && [region, account, topic].iter().all(|part| !part.is_empty() && is_plain(part))
    {
        return Some(text.to_owned());
    }
    let message = format!("`{text}` is not a valid topic ARN");
    let help = "copy it from SNS, for example `arn:aws:sns:eu-west-1:123456789012:alerts`; patterns are not supported";
    diagnostics.add_with_help(Code::Value, &node.location, message, help);
    None
}
