//! URLs of SQS queues.

use super::permission::{ArnDefaults, partition};
use super::settings::{Access, host_and_path};
use crate::config::read::{Code, Diagnostics, Node, text};

/// A complete setting, for messages.
pub(crate) const QUEUE_URL: &str = "queue_url: https://sqs.eu-west-1.amazonaws.com/123456789012/scaling.fifo";

/// Reads the URL of a queue: http(s), host, account and queue.
pub(crate) fn queue_url(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
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

/// The region in a queue URL of the form `https://sqs.REGION.amazonaws.com/ACCOUNT/QUEUE`; `None` for other
/// hosts.
pub(crate) fn queue_region(url: &str) -> Option<&str> {
    let host = url.strip_prefix("https://")?.split('/').next()?;
    let rest = host.strip_prefix("sqs.")?;
    let region = rest.strip_suffix(".amazonaws.com").or_else(|| rest.strip_suffix(".amazonaws.com.cn"))?;
    (!region.contains('.')).then_some(region)
}

/// The ARN of the queue with a valid URL.
pub(crate) fn queue_arn(url: &str, access: &Access, defaults: &ArnDefaults<'_>) -> Option<String> {
    let parts: Vec<&str> = url.rsplit('/').collect();
    let [queue, account, ..] = parts[..] else { return None };
    let region = access.region.as_deref().unwrap_or(defaults.region);
    Some(format!("arn:{}:sqs:{region}:{account}:{queue}", partition(region)))
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
