//! Reads http(s) URLs, which must not contain credentials.

use std::net::IpAddr;

use super::super::diagnostic::{Code, Diagnostics};
use super::super::scalar::text;
use super::super::yaml::Node;

/// The parts of an http(s) URL.
pub(super) struct Url<'u> {
    pub is_https: bool,
    pub user_info: Option<&'u str>,
    /// Without brackets.
    pub host: &'u str,
    pub path: &'u str,
    pub has_query: bool,
    pub has_fragment: bool,
}

impl<'u> Url<'u> {
    /// Splits a URL; `None` if it is not one.
    pub(super) fn parse(url: &'u str) -> Option<Self> {
        let (is_https, rest) = match url.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, url.strip_prefix("http://")?),
        };
        let (rest, fragment) = cut(rest, '#');
        let (rest, query) = cut(rest, '?');
        let path_at = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(path_at);
        let (user_info, host_and_port) = match authority.rsplit_once('@') {
            Some((user_info, host)) => (Some(user_info), host),
            None => (None, authority),
        };
        let host = host(host_and_port)?;
        let is_odd = |c: char| c.is_whitespace() || c.is_control() || "\\\"<>^`{|}".contains(c);
        let has_query = query.is_some();
        let has_fragment = fragment.is_some();
        (!url.contains(is_odd)).then_some(Self { is_https, user_info, host, path, has_query, has_fragment })
    }

    pub(super) fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    }
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

/// The host of `HOST`, `HOST:PORT` or `[IPV6]:PORT`.
fn host(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => cut(authority, ':'),
    };
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    (!host.is_empty() && host.chars().all(is_name) && port.is_none_or(is_port)).then_some(host)
}

/// Reads the URL of a JSON Web Key Set.
pub(super) fn jwks_url(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = text(node, diagnostics)?;
    let help = "use an https:// URL without user info, for example `https://idp.example/keys`; http:// is possible on \
                loopback only. Credentials are set by `http: { authorization: { credentials_file: … } }`";
    let problem = match Url::parse(text) {
        None => "`jwks_url` is not a valid URL",
        Some(url) if url.user_info.is_some() => "`jwks_url` contains user info, which is a secret",
        Some(url) if url.has_fragment => "`jwks_url` has a fragment",
        Some(url) if !url.is_https && !url.is_loopback() => {
            "`jwks_url` is called over plain HTTP: anyone who can answer in its place can sign tokens"
        }
        Some(_) => return Some(text.to_owned()),
    };
    diagnostics.add_with_help(Code::Value, &node.location, problem, help);
    None
}

/// Reads the URL of an Alertmanager. A slash at its end is removed.
pub(in crate::config) fn alertmanager_url(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = text(node, diagnostics)?;
    let problem = match Url::parse(text) {
        // Not shown: it may contain a secret.
        None => "not a valid URL",
        Some(url) if url.user_info.is_some() => "the URL contains user info, which is a secret",
        Some(url) if url.has_query => "the URL has a query",
        Some(url) if url.has_fragment => "the URL has a fragment",
        Some(url) if url.path.contains("/api/v") => {
            "the URL leads into the API: its path is added by the bridge"
        }
        Some(_) => return Some(text.trim_end_matches('/').to_owned()),
    };
    let help = "use the URL of Alertmanager's web interface, for example `http://alertmanager:9093`; credentials are set by \
                `http: { authorization: { credentials_file: … } }`";
    diagnostics.add_with_help(Code::Value, &node.location, problem, help);
    None
}

/// Reads the external URL of the admin listener. A slash at its end is removed.
pub(super) fn external_url(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = text(node, diagnostics)?;
    let problem = match Url::parse(text) {
        None => "`external_url` is not a valid URL",
        Some(url) if url.user_info.is_some() => "`external_url` contains user info",
        Some(url) if url.has_query => "`external_url` has a query",
        Some(url) if url.has_fragment => "`external_url` has a fragment",
        Some(url) if url.path.contains("//") || url.path.split('/').any(|part| part == "..") => {
            "the path of `external_url` has `//` or `..`"
        }
        Some(_) => return Some(text.trim_end_matches('/').to_owned()),
    };
    let help = "use scheme, host and path, for example `https://ops.example/scalebridge`";
    diagnostics.add_with_help(Code::Value, &node.location, problem, help);
    None
}

/// Whether `text` is the URL of a proxy.
pub(super) fn is_proxy(text: &str) -> bool {
    Url::parse(text).is_some_and(|url| matches!(url.path, "" | "/") && !url.has_query && !url.has_fragment)
}

#[cfg(test)]
mod tests {
    use super::Url;

    #[test]
    fn urls_are_split_and_malformed_ones_rejected() {
        let url = Url::parse("https://u:p@idp.example:8443/keys/a?b#c").unwrap();
        assert_eq!((url.user_info, url.host, url.path), (Some("u:p"), "idp.example", "/keys/a"));
        assert!(url.is_https && url.has_query && url.has_fragment && !url.is_loopback());
        for (text, is_loopback) in [
            ("http://[::1]:80", true),
            ("http://127.9.9.9/x", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://LOCALHOST", true),
            ("http://localhost@evil", false),
            ("http://evil/localhost", false),
            ("http://127.0.0.1.evil", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(Url::parse(text).unwrap().is_loopback(), is_loopback, "{text}");
        }
        for text in [
            "",
            "idp.example",
            "ftp://a",
            "HTTPS://a",
            "https://",
            "https:///a",
            "https://a:b",
            "https://a:0",
            "https://a:70000",
            "https://[::1",
            "https://[a]",
            "https://[::1]x",
            "https://a b",
            "https://a\u{7}",
            "https://a\\b",
        ] {
            assert!(Url::parse(text).is_none(), "{text}");
        }
    }
}
