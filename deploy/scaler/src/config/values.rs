//! Checks of single values: URLs, regions and patterns.

use std::net::{IpAddr, Ipv6Addr};

/// What subjects of targets begin with.
const KINDS: [&str; 5] =
    ["eks/nodegroup/", "ec2/autoscaling-group/", "ecs/service/", "kubernetes/", "nomad/job/"];
/// Between the parts of a subject.
pub(super) const SEPARATORS: usize = 6;

/// What is wrong with a URL that is not a secret, as the end of a sentence. The URL is not repeated, since it could have
/// a password. `what` is what it should be.
pub(crate) fn url_error(url: &str, what: &str) -> Option<String> {
    let Some(rest) = after_scheme(url) else { return Some(format!("is not {what}")) };
    if url.contains('@') {
        return Some("has user info, which would be seen in the log: remove it".to_owned());
    }
    if rest.contains(['?', '#']) {
        return Some("has a query or a fragment: remove it".to_owned());
    }
    match host(url) {
        Some(_) => None,
        None => Some(format!("has no valid host and port; {what} is expected")),
    }
}

fn after_scheme(url: &str) -> Option<&str> {
    url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))
}

/// The host of a URL; `None` if that or its port is not valid.
pub(super) fn host(url: &str) -> Option<&str> {
    if url.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        return None;
    }
    let authority = after_scheme(url)?.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let is_host = |host: &str| !host.is_empty() && !host.contains('%');
    (is_port && is_host(host)).then_some(host)
}

/// Whether a URL is of this machine.
pub(super) fn is_loopback(url: &str) -> bool {
    host(url).is_some_and(|host| {
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

/// Whether the text is the name of a region of AWS, such as `eu-west-1`: host names are made of it.
pub(crate) fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let is_word = |part: &&str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let is_number = |part: &&&str| part.bytes().all(|byte| byte.is_ascii_digit());
    parts.len() >= 3
        && parts.iter().all(is_word)
        && parts.last().filter(is_number).is_some()
        && text.starts_with(|first: char| first.is_ascii_lowercase())
}

/// Whether the text is the id of an account of AWS.
pub(crate) fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Why a pattern matches no target at all.
pub(super) fn pattern_error(pattern: &str) -> Option<String> {
    let (prefix, has_star) = pattern.split_once('*').map_or((pattern, false), |(prefix, _)| (prefix, true));
    if !KINDS.iter().any(|kind| prefix.starts_with(kind) || kind.starts_with(prefix)) {
        return Some(format!("`match` matches no target: they begin with {}", KINDS.join(", ")));
    }
    let separators = pattern.matches('/').count();
    if separators > SEPARATORS || (separators < SEPARATORS && !has_star) {
        return Some(
            "`match` matches no target: they have the seven parts \
             platform/kind/account/region/cluster/namespace/name, with `-` for what is absent and %2F for a `/` in a \
             name"
                .to_owned(),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_urls() {
        for (url, expected) in [
            ("https://sqs.eu-west-1.amazonaws.com/1/q", Some("sqs.eu-west-1.amazonaws.com")),
            ("http://127.0.0.1:4566/000000000000/q", Some("127.0.0.1")),
            ("https://[::1]:4646", Some("::1")),
            ("https://nomad", Some("nomad")),
            ("https://", None),
            ("https://:4646", None),
            ("https://nomad:99999", None),
            ("https://nomad:x", None),
            ("https://[::1", None),
            ("https://no mad", None),
            ("ftp://nomad", None),
        ] {
            assert_eq!(host(url), expected, "{url}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for url in ["http://127.0.0.1:4646", "http://localhost:4646/", "http://[::1]", "http://127.8.0.1"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in ["http://127.0.0.1.evil.example", "http://localhost.evil.example", "http://10.0.0.1"] {
            assert!(!is_loopback(url), "{url}");
        }
    }

    #[test]
    fn names_of_regions() {
        for region in ["eu-west-1", "us-gov-east-1", "ap-southeast-2", "eusc-de-east-1", "us-iso-west-1"] {
            assert!(is_region(region), "{region}");
        }
        for text in
            ["", "*", "eu-west", "evil.example/x", "eu-west-1.evil", "EU-WEST-1", "eu--1", "eu-west-1a-"]
        {
            assert!(!is_region(text), "{text}");
        }
    }
}
