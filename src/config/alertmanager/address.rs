//! Addresses of webhooks: which of them are this bridge.

use std::net::SocketAddr;

/// What an address says about its receiver.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Address<'n> {
    /// The webhook of a source, at this host and port.
    Webhook { host: String, source: &'n str },
    /// Another service.
    Foreign,
    /// Unknown here, for this reason.
    Unknown(&'static str),
}

/// Reads an address as it is written in the configuration.
pub(super) fn parse(url: &str) -> Address<'_> {
    if url == "<secret>" {
        return Address::Unknown("its address is redacted");
    }
    if url.contains("{{") {
        return Address::Unknown("its address is a template");
    }
    let Some((host, path)) = host_and_path(url) else { return Address::Foreign };
    // The bridge accepts one trailing slash; what is before a second one is no source.
    let path = path.strip_suffix('/').unwrap_or(path);
    match path.rsplit_once('/') {
        Some((before, source)) if before.ends_with("/webhook") && !(source.is_empty()) => {
            Address::Webhook { host, source }
        }
        _ if path.ends_with('/') && path.trim_end_matches('/').rsplit_once('/').is_some_and(is_webhook) => {
            Address::Webhook { host, source: trailing(path) }
        }
        _ => Address::Foreign,
    }
}

fn is_webhook((before, _): (&str, &str)) -> bool {
    before.ends_with("/webhook")
}

/// The last segment with the slashes after it.
fn trailing(path: &str) -> &str {
    let start = path.trim_end_matches('/').rfind('/').map_or(0, |at| at + 1);
    &path[start..]
}

/// The host with the port, in lower case, and the path without the query.
fn host_and_path(url: &str) -> Option<(String, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit('@').next()?.to_ascii_lowercase();
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let host = if has_port { host } else { format!("{host}:{default_port}") };
    let end = path.find(['?', '#']).unwrap_or(path.len());
    Some((host, &path[..end]))
}

/// The hosts under which a program on the same machine reaches `listen`.
pub(super) fn local_hosts(listen: SocketAddr) -> Vec<String> {
    let port = listen.port();
    let mut hosts = vec![listen.to_string()];
    if listen.ip().is_loopback() || listen.ip().is_unspecified() {
        hosts.extend(["localhost", "127.0.0.1", "[::1]"].map(|host| format!("{host}:{port}")));
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_webhook_of_a_source_or_not() {
        let webhook = |host: &str, source| Address::Webhook { host: host.to_owned(), source };
        let cases = [
            ("http://bridge:9096/webhook/prod-eu", webhook("bridge:9096", "prod-eu")),
            ("https://u:p@Bridge/scaling/webhook/prod-eu/?x=/webhook/y#z", webhook("bridge:443", "prod-eu")),
            ("HTTP://[::1]:9096/webhook/a", webhook("[::1]:9096", "a")),
            ("http://[::1]/webhook/a", webhook("[::1]:80", "a")),
            ("http://bridge/webhook/a//", webhook("bridge:80", "a/")),
            ("http://n8n:5678/webhook-test/x", Address::Foreign),
            ("http://ha:8123/api/webhook/x", webhook("ha:8123", "x")),
            ("http://bridge/webhook/", Address::Foreign),
            ("http://bridge/webhook", Address::Foreign),
            ("http://bridge", Address::Foreign),
            ("bridge/webhook/a", Address::Foreign),
            ("ftp://bridge/webhook/a", Address::Foreign),
            ("<secret>", Address::Unknown("its address is redacted")),
            ("http://bridge/webhook/{{ .x }}", Address::Unknown("its address is a template")),
        ];
        for (url, expected) in cases {
            assert_eq!(parse(url), expected, "{url}");
        }
    }
}
