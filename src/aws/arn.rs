//! Amazon Resource Names.

/// A parsed ARN: `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arn<'t> {
    /// `aws`, `aws-cn` or `aws-us-gov`.
    pub partition: &'t str,
    pub region: &'t str,
    /// Twelve digits.
    pub account: &'t str,
    /// The rest. It can contain colons and is not empty.
    pub resource: &'t str,
}

impl<'t> Arn<'t> {
    /// Parses the ARN of something in `service` that has a region and an account.
    pub(crate) fn parse(text: &'t str, service: &str) -> Option<Self> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let ["arn", partition, found, region, account, resource] = parts[..] else { return None };
        let valid = found == service
            && partition.starts_with("aws")
            && is_identifier(partition, 64)
            && is_identifier(region, 64)
            && account.len() == 12
            && account.bytes().all(|b| b.is_ascii_digit())
            && !resource.is_empty();
        valid.then_some(Self { partition, region, account, resource })
    }
}

/// Whether `text` has 1 to `max_chars` letters, digits, `-` and `_`.
pub(crate) fn is_identifier(text: &str, max_chars: usize) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    (1..=max_chars).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_has_all_its_parts() {
        let arn = Arn {
            partition: "aws-cn",
            region: "cn-north-1",
            account: "123456789012",
            resource: "stateMachine:scaling:live",
        };
        let text = "arn:aws-cn:states:cn-north-1:123456789012:stateMachine:scaling:live";
        assert_eq!(Arn::parse(text, "states"), Some(arn));
        assert_eq!(Arn::parse(text, "sns"), None);
        for text in [
            "",
            "scaling",
            "arn:aws:sns:eu-west-1:123456789012",
            "arn:aws:sns:eu-west-1:123456789012:",
            "arn:aws:sns:eu-west-1:1234:scaling",
            "arn:aws:sns:eu-west-1:12345678901x:scaling",
            "arn:aws:sns::123456789012:scaling",
            "arn:aws:sns:eu west:123456789012:scaling",
            "arn:azure:sns:eu-west-1:123456789012:scaling",
            "ARN:aws:sns:eu-west-1:123456789012:scaling",
        ] {
            assert_eq!(Arn::parse(text, "sns"), None, "{text}");
        }
    }
}
