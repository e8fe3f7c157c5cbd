//! `--url`: what is checked before a credential leaves this machine.

use std::net::IpAddr;

use super::ClientError;

/// A URL that requests can be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CheckedUrl<'u> {
    /// The host, without the brackets of an IPv6 address.
    pub host: &'u str,
    pub is_https: bool,
}

impl<'u> CheckedUrl<'u> {
    /// Checks a URL. `expected` describes the right one, with an example.
    pub(super) fn parse(url: &'u str, expected: &str) -> Result<Self, ClientError> {
        // Before anything else, and without the URL: it contains a secret.
        if url.contains('@') {
            return Err(ClientError::InvalidArguments(
                "invalid --url: it contains a user or password, which process lists and logs would show; remove it, and \
                 use --token-file"
                    .to_owned(),
            ));
        }
        let invalid = || ClientError::InvalidArguments(format!("invalid --url {url}: expected {expected}"));
        let (is_https, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(invalid()),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, _)) => address,
            None => authority.split(':').next().unwrap_or_default(),
        };
        if host.is_empty() { Err(invalid()) } else { Ok(Self { host, is_https }) }
    }

    /// Whether the host is this machine, so that no network sees what is sent.
    pub(super) fn is_loopback(&self) -> bool {
        let is_local_name = self.host.eq_ignore_ascii_case("localhost");
        is_local_name || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_with_ports_paths_and_ipv6_addresses() {
        for (url, host, is_https, is_loopback) in [
            ("http://127.0.0.1:9097", "127.0.0.1", false, true),
            ("http://127.8.8.8/", "127.8.8.8", false, true),
            ("http://[::1]:9097/x", "::1", false, true),
            ("http://LocalHost:9097", "LocalHost", false, true),
            ("https://ops.example/scalebridge", "ops.example", true, false),
            ("http://localhost.example", "localhost.example", false, false),
            ("http://127.0.0.1.example:80", "127.0.0.1.example", false, false),
            ("http://10.0.0.1?x=127.0.0.1", "10.0.0.1", false, false),
        ] {
            let checked = CheckedUrl::parse(url, "").unwrap();
            assert_eq!(checked, CheckedUrl { host, is_https }, "{url}");
            assert_eq!(checked.is_loopback(), is_loopback, "{url}");
        }
    }

    #[test]
    fn urls_without_host_or_of_another_scheme_are_invalid() {
        for url in ["", "127.0.0.1:9097", "ftp://x", "https://", "http:///path", "http://:9097", "HTTP"] {
            let Err(ClientError::InvalidArguments(error)) = CheckedUrl::parse(url, "an example") else {
                panic!("{url} is accepted");
            };
            assert_eq!(error, format!("invalid --url {url}: expected an example"));
        }
    }

    #[test]
    fn user_info_is_refused_and_not_repeated() {
        for url in [
            "https://admin:hunter2@ops.example",
            "http://hunter2@127.0.0.1",
            "admin:hunter2/@x",
            "http://a:hunter2/b@c",
        ] {
            let Err(ClientError::InvalidArguments(error)) = CheckedUrl::parse(url, "an example") else {
                panic!("{url} is accepted");
            };
            assert!(error.contains("--token-file") && !error.contains("hunter2"), "{error}");
        }
    }
}
