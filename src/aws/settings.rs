//! The settings that the destinations in AWS share: region, endpoint and role.

use crate::config::read::{Code, Diagnostics, Fields, Node, text};

/// Where a service is called, and by whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Access {
    /// The configured region, or the one in the URL or ARN; `None` leaves it to the AWS SDK.
    pub region: Option<String>,
    /// Another endpoint than AWS' own.
    pub endpoint_url: Option<String>,
    /// The role that calls it, where it is not the process' own.
    pub role: Option<Role>,
}

/// An IAM role that is assumed for the calls of a destination.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Role {
    /// `arn:PARTITION:iam::ACCOUNT:role/NAME`.
    pub arn: String,
    /// The external ID that the role's trust policy requires.
    pub external_id: Option<String>,
}

/// The configured region, or else the one in the queue URL or ARN. With `endpoint_url` the two may differ,
/// since the endpoint is called.
pub(crate) fn effective_region(
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
pub(crate) fn role(fields: &mut Fields<'_, '_>) -> Option<Role> {
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

pub(crate) fn endpoint(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
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
pub(crate) fn host_and_path(url: &str) -> Option<(&str, Option<&str>)> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let (host, path) = match rest.split_once('/') {
        Some((host, path)) => (host, Some(path)),
        None => (rest, None),
    };
    let odd = |c: char| c.is_whitespace() || c.is_control() || "@?#\\\"<>".contains(c);
    (!host.is_empty() && !url.contains(odd)).then_some((host, path))
}
