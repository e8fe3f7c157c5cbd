//! Parses the names and ARNs of Lambda functions.

use super::super::aws::is_identifier;

/// A parsed function name: `scaler`, `123456789012:function:scaler` or
/// `arn:aws:lambda:REGION:ACCOUNT:function:scaler`, each optionally with a qualifier (`:live`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FunctionName<'t> {
    /// `aws`, `aws-cn` or `aws-us-gov`; present in ARNs only.
    pub partition: Option<&'t str>,
    /// Present in ARNs only.
    pub region: Option<&'t str>,
    /// Twelve digits.
    pub account: Option<&'t str>,
    /// The unqualified name, at most 64 characters.
    pub name: &'t str,
    /// A version, an alias, or `$LATEST`.
    pub qualifier: Option<&'t str>,
}

impl<'t> FunctionName<'t> {
    /// Parses a function name; `None` if Lambda would reject it.
    pub(super) fn parse(text: &'t str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (arn, rest) = match parts[..] {
            ["arn", partition, "lambda", region, ref rest @ ..] => (Some((partition, region)), rest),
            ref rest => (None, rest),
        };
        let (account, rest) = match *rest {
            [account, "function", ref rest @ ..] => (Some(account), rest),
            ref rest => (None, rest),
        };
        let (name, qualifier) = match *rest {
            [name] => (name, None),
            [name, qualifier] => (name, Some(qualifier)),
            _ => return None,
        };
        let name_parts = Self {
            partition: arn.map(|(partition, _)| partition),
            region: arn.map(|(_, region)| region),
            account,
            name,
            qualifier,
        };
        let valid = is_identifier(name, 64)
            && qualifier.is_none_or(is_qualifier)
            && account
                .is_none_or(|account| account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()))
            && name_parts.region.is_none_or(|region| is_identifier(region, 64) && account.is_some())
            && name_parts
                .partition
                .is_none_or(|partition| partition.starts_with("aws") && is_identifier(partition, 64));
        valid.then_some(name_parts)
    }
}

/// Whether `text` is a valid version or alias, or `$LATEST`.
pub(super) fn is_qualifier(text: &str) -> bool {
    text == "$LATEST" || is_identifier(text, 128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_name_form_of_lambda_is_parsed() {
        let bare =
            FunctionName { partition: None, region: None, account: None, name: "f-1_x", qualifier: None };
        let (account, qualifier) = (Some("123456789012"), Some("live"));
        let arn = FunctionName { partition: Some("aws"), region: Some("eu-west-1"), account, ..bare };
        for (text, name_parts) in [
            ("f-1_x", bare),
            ("f-1_x:live", FunctionName { qualifier, ..bare }),
            ("f-1_x:$LATEST", FunctionName { qualifier: Some("$LATEST"), ..bare }),
            ("123456789012:function:f-1_x", FunctionName { account, ..bare }),
            ("123456789012:function:f-1_x:live", FunctionName { account, qualifier, ..bare }),
            ("arn:aws:lambda:eu-west-1:123456789012:function:f-1_x", arn),
            ("arn:aws:lambda:eu-west-1:123456789012:function:f-1_x:live", FunctionName { qualifier, ..arn }),
        ] {
            assert_eq!(FunctionName::parse(text), Some(name_parts), "{text}");
        }
        let long = "f".repeat(65);
        for text in [
            "",
            "a b",
            "f:",
            ":f",
            "f:a:b",
            "f:a b",
            "1:function:f",
            "arn:aws:lambda:eu-west-1:function:f",
            "arn:aws:lambda:eu-west-1:123456789012:function:f:a:b",
            "arn:aws:lambda:eu-west-1:123456789012:layer:f",
            "arn:aws:sqs:eu-west-1:123456789012:f",
            "https://f.lambda-url.eu-west-1.on.aws/",
            &long,
        ] {
            assert_eq!(FunctionName::parse(text), None, "{text}");
        }
    }
}
