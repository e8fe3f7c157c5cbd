//! The settings of SNS topics.

use super::super::aws::{self, Access, Arn, Permission, is_identifier};
use super::super::message::MAX_ATTRIBUTE_BYTES_BESIDE_SUBJECT;
use crate::config::read::{Code, Diagnostics, Fields, Node, number, owned_text, text};
use crate::domain::size_limit::SizeLimit;

/// The default of `max_message_bytes`, that of a topic.
const DEFAULT_MESSAGE_BYTES: usize = 256 * 1024;

/// Settings of an SNS topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `arn:PARTITION:sns:REGION:ACCOUNT:NAME`.
    pub topic_arn: String,
    /// Whether the name ends in `.fifo`.
    pub fifo: bool,
    /// Region, endpoint and role.
    pub access: Access,
    /// Maximum size of a message, and of all messages of a call, from [`Settings::MIN_MESSAGE_BYTES`] to
    /// [`Settings::MAX_MESSAGE_BYTES`].
    pub max_message_bytes: usize,
}

impl Settings {
    /// A smaller limit has no room for a single alert.
    pub(crate) const MIN_MESSAGE_BYTES: usize = 8 * 1024;
    /// The highest limit that a topic can have.
    pub(crate) const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

    /// SNS counts the message attributes, one of which is the subject.
    pub(crate) fn size_limit(&self) -> SizeLimit {
        SizeLimit {
            bytes: self.max_message_bytes,
            metadata_bytes: MAX_ATTRIBUTE_BYTES_BESIDE_SUBJECT,
            subject_copies: 1,
        }
    }

    /// `PublishBatch` needs the permission for `Publish`.
    pub(crate) fn permission(&self) -> Permission<'_> {
        Permission {
            role: self.access.role.as_ref(),
            action: "sns:Publish",
            resource: self.topic_arn.clone(),
        }
    }
}

/// Reads and checks the settings.
pub(crate) fn read(node: &Node, diagnostics: &mut Diagnostics) -> Option<Settings> {
    let mut fields = Fields::from_node(node, "destinations.*.sns", diagnostics)?;
    let bytes = Settings::MIN_MESSAGE_BYTES as i64..=Settings::MAX_MESSAGE_BYTES as i64;
    let topic_arn = fields.get_required("topic_arn", TOPIC_ARN, topic_arn);
    let region = fields.get("region", owned_text);
    let endpoint_url = fields.get("endpoint_url", aws::endpoint);
    let max_message_bytes = fields.get("max_message_bytes", number(bytes)).unwrap_or(DEFAULT_MESSAGE_BYTES);
    let role = aws::role(&mut fields);
    fields.finish();
    let topic_arn = topic_arn?;
    let topic_region = parse_topic(&topic_arn).map(|arn| arn.region);
    let region = aws::effective_region(node, region, topic_region, "topic_arn", diagnostics);
    let fifo = topic_arn.ends_with(".fifo");
    Some(Settings { topic_arn, fifo, access: Access { region, endpoint_url, role }, max_message_bytes })
}

const TOPIC_ARN: &str = "topic_arn: arn:aws:sns:eu-west-1:123456789012:scaling.fifo";

/// Parses the ARN of a topic; `None` also for that of a subscription or of a mobile application.
fn parse_topic(text: &str) -> Option<Arn<'_>> {
    let arn = Arn::parse(text, "sns")?;
    let name = arn.resource.strip_suffix(".fifo").unwrap_or(arn.resource);
    (is_identifier(name, 256) && arn.resource.len() <= 256).then_some(arn)
}

fn topic_arn(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = text(node, diagnostics)?;
    if parse_topic(text).is_some() {
        return Some(text.to_owned());
    }
    let message = format!("`{text}` is not a valid topic ARN");
    let help = format!("copy it from SNS, for example `{TOPIC_ARN}`");
    diagnostics.add_with_help(Code::Value, &node.location, message, help);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_has_an_arn() {
        let arn = |name: &str| format!("arn:aws:sns:eu-west-1:123456789012:{name}");
        for name in ["scaling", "scaling.fifo", "a_b-1", &"x".repeat(256)] {
            assert_eq!(parse_topic(&arn(name)).map(|arn| arn.region), Some("eu-west-1"), "{name}");
        }
        for name in [
            "",
            ".fifo",
            "scaling.FIFO",
            "scaling.fifo.fifo",
            "a.b",
            "scaling:0b1c-2d",
            "app/GCM/x",
            &"x".repeat(257),
        ] {
            assert_eq!(parse_topic(&arn(name)), None, "{name}");
        }
        assert_eq!(parse_topic("scaling"), None);
        assert_eq!(parse_topic("https://sns.eu-west-1.amazonaws.com/123456789012/scaling"), None);
    }
}
