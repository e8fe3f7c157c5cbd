//! The settings of SQS queues.

use super::super::aws::{self, Access, ArnDefaults, Permission};
use super::super::message::MAX_ATTRIBUTE_BYTES_BESIDE_SUBJECT;
use crate::config::read::{Diagnostics, Fields, Node, number, owned_text};
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
        let resource = aws::queue_arn(&self.queue_url, &self.access, defaults)?;
        Some(Permission { role: self.access.role.as_ref(), action: "sqs:SendMessage", resource })
    }
}

/// Reads and checks the settings.
pub(crate) fn read(node: &Node, diagnostics: &mut Diagnostics) -> Option<Settings> {
    let mut fields = Fields::from_node(node, "destinations.*.sqs", diagnostics)?;
    let bytes = Settings::MIN_MESSAGE_BYTES as i64..=Settings::MAX_MESSAGE_BYTES as i64;
    let queue_url = fields.get_required("queue_url", aws::QUEUE_URL, aws::queue_url);
    let region = fields.get("region", owned_text);
    let endpoint_url = fields.get("endpoint_url", aws::endpoint);
    let max_message_bytes = fields.get("max_message_bytes", number(bytes)).unwrap_or(DEFAULT_MESSAGE_BYTES);
    let role = aws::role(&mut fields);
    fields.finish();
    let queue_url = queue_url?;
    let region = aws::effective_region(node, region, aws::queue_region(&queue_url), "queue_url", diagnostics);
    let fifo = queue_url.ends_with(".fifo");
    Some(Settings { queue_url, fifo, access: Access { region, endpoint_url, role }, max_message_bytes })
}
