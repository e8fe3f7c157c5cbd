//! What a browser must not do for a page of another site: such a request has the rights of the person at the
//! browser, by its address in the network or by a client certificate.
//!
//! A browser says in `Origin` and `Sec-Fetch-Site` which page has made it send a request; a page that resolves its own
//! host name to this listener's address (DNS rebinding) says its name in `Host`. Other clients send neither of the first
//! two.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, Uri, header};

/// `Sec-Fetch-Site`, which browsers send over HTTPS and to localhost.
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// A scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    is_https: bool,
    /// In lower case.
    host: String,
    port: u16,
}

/// The address under which browsers reach the admin listener: `admin.external_url`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExternalUrl {
    origin: Origin,
    /// What precedes the listener's own paths: `/scalebridge`, or nothing.
    prefix: String,
}

/// How browsers reach a listener.
#[derive(Debug, Clone, Default)]
pub(super) struct BrowserAccess {
    /// Whether the listener's address is loopback.
    pub on_loopback: bool,
    /// Whether the listener has TLS.
    pub has_tls: bool,
    /// Whether the listener asks for no credentials.
    pub is_open: bool,
    /// The address in browsers, if it is not the listener's.
    pub external_url: Option<ExternalUrl>,
}

impl Origin {
    /// Reads `https://ops.example:8443`; what follows the port is not looked at.
    fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let is_https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        Some(Self::new(is_https, uri.authority()?.as_str()))
    }

    /// The origin of `host[:port]`.
    fn new(is_https: bool, authority: &str) -> Self {
        let (host, port) = split_port(authority);
        let default = if is_https { 443 } else { 80 };
        Self { is_https, host: host.to_ascii_lowercase(), port: port.unwrap_or(default) }
    }
}

impl ExternalUrl {
    /// `None` for what is not an http or https URL, which the configuration refuses.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let path = url.parse::<Uri>().ok()?.path().trim_end_matches('/').to_owned();
        Some(Self { origin: Origin::parse(url)?, prefix: path })
    }

    /// The path of a request without the prefix, if it has it: some proxies remove it and others do not.
    pub(super) fn strip_prefix(&self, uri: &Uri) -> Option<Uri> {
        let rest = uri.path().strip_prefix(&self.prefix)?;
        if self.prefix.is_empty() || !rest.is_empty() && !rest.starts_with('/') {
            return None;
        }
        let path = if rest.is_empty() { "/" } else { rest };
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{path}{query}").parse().ok()
    }
}

impl BrowserAccess {
    /// Why the `Host` of a request is refused: it may be a name that an attacker owns. IP addresses and `localhost` are
    /// always accepted, since no name has to be resolved for them; other names without `external_url` only where the
    /// listener is not on loopback; and not from a browser if the listener asks for no credentials, since then a page that
    /// knows the address could act.
    pub(super) fn refuse_host(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        let Some(host) = headers.get(header::HOST).map(text) else { return Ok(()) };
        let (name, _) = split_port(host);
        if is_ip_or_localhost(name) {
            return Ok(());
        }
        match &self.external_url {
            Some(external) if name.eq_ignore_ascii_case(&external.origin.host) => Ok(()),
            Some(_) => Err(
                "invalid Host: use the listener's IP address, localhost or the host of admin.external_url",
            ),
            None if self.on_loopback => Err(
                "invalid Host: this listener is on loopback, use its IP address, localhost, or the host of \
                     admin.external_url if a proxy is in front of it",
            ),
            None if self.is_open && has_header_of_browser(headers) => Err(
                "invalid Host: this listener asks for no credentials, use its IP address in a browser, or set \
                 admin.external_url to its address there",
            ),
            None => Ok(()),
        }
    }

    /// Why a request is refused that a browser sends for a page of another site.
    pub(super) fn refuse_cross_site(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        let site = headers.get_all(SEC_FETCH_SITE).iter().map(text);
        if site.into_iter().any(|site| !matches!(site, "same-origin" | "none")) {
            return Err("this request was sent by a page of another site");
        }
        let mut origins = headers.get_all(header::ORIGIN).iter().map(text);
        if origins.all(|origin| self.is_own(origin, headers.get(header::HOST).map(text))) {
            return Ok(());
        }
        Err(
            "this request was sent by a page of another origin; if it is a page of this bridge behind a proxy, set \
             admin.external_url to its address in the browser",
        )
    }

    fn is_own(&self, origin: &str, host: Option<&str>) -> bool {
        let Some(origin) = Origin::parse(origin) else { return false };
        let own = host.map(|host| Origin::new(self.has_tls, host));
        match &self.external_url {
            Some(external) if external.origin == origin => true,
            // The proxy has the TLS of this host, so its scheme is not that of the listener.
            Some(external) if own.as_ref().is_some_and(|own| own.host == external.origin.host) => false,
            _ => own == Some(origin),
        }
    }
}

/// Whether a browser sends this request to the webhook. None has a reason to: a page can send it in the name of its
/// visitor, without asking first, if the body's type is `text/plain`.
pub(super) fn is_of_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN)
        || headers.get_all(SEC_FETCH_SITE).iter().any(|site| site.as_bytes() != b"none")
}

/// Whether a request has a header that only browsers send.
fn has_header_of_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"))
}

fn text(value: &HeaderValue) -> &str {
    // What is not ASCII is no host name, origin or keyword.
    value.to_str().unwrap_or("?").trim()
}

/// `127.0.0.1:9097` as host and port; `[::1]` and `localhost` have none.
fn split_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port.parse().ok()),
        _ => (authority, None),
    }
}

/// `127.0.0.1`, `[::1]`, `localhost`.
fn is_ip_or_localhost(name: &str) -> bool {
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || inner.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn proxied(url: &str) -> BrowserAccess {
        BrowserAccess { external_url: ExternalUrl::parse(url), ..BrowserAccess::default() }
    }

    fn accepts_host(access: &BrowserAccess, host: &str) -> bool {
        access.refuse_host(&headers(&[("host", host)])).is_ok()
    }

    #[test]
    fn a_host_name_that_an_attacker_could_own_is_refused() {
        let loopback = BrowserAccess { on_loopback: true, ..BrowserAccess::default() };
        let external = proxied("https://ops.example/scalebridge");
        for access in [&loopback, &external] {
            for host in ["127.0.0.1:9097", "127.0.0.1", "[::1]:9097", "[::1]", "localhost", "LOCALHOST:1"] {
                assert!(accepts_host(access, host), "{host}");
            }
            for host in [
                "evil.example:9097",
                "localhost.evil.example",
                "127.0.0.1.evil.example",
                "",
                "scalebridge:9097",
            ] {
                assert!(!accepts_host(access, host), "{host}");
            }
        }
        assert!(accepts_host(&external, "OPS.example") && accepts_host(&external, "ops.example:8443"));
        assert!(!accepts_host(&loopback, "ops.example"));
        assert!(accepts_host(&BrowserAccess::default(), "scalebridge.monitoring.svc:9097"));
    }

    #[test]
    fn without_credentials_a_browser_cannot_use_a_name_that_is_not_configured() {
        let open = BrowserAccess { is_open: true, ..BrowserAccess::default() };
        let guarded = BrowserAccess::default();
        let external = BrowserAccess { is_open: true, ..proxied("https://ops.example") };
        let name = ("host", "ops.example:9097");
        let (origin, mode) = (("origin", "http://ops.example:9097"), ("sec-fetch-mode", "cors"));
        for (access, pairs, accepted) in [
            (&open, vec![name], true),
            (&open, vec![name, origin], false),
            (&open, vec![name, mode], false),
            (&open, vec![("host", "10.0.0.1:9097"), origin, mode], true),
            (&guarded, vec![name, origin, mode], true),
            (&external, vec![name, origin, mode], true),
        ] {
            assert_eq!(access.refuse_host(&headers(&pairs)).is_ok(), accepted, "{access:?} {pairs:?}");
        }
    }

    #[test]
    fn the_origin_of_a_request_is_its_host_with_the_scheme_or_the_external_url() {
        let with = |access: &BrowserAccess, host: &str, origin: &str| {
            access.refuse_cross_site(&headers(&[("host", host), ("origin", origin)])).is_ok()
        };
        let plain = BrowserAccess::default();
        let tls = BrowserAccess { has_tls: true, ..BrowserAccess::default() };
        assert!(with(&plain, "10.0.0.1:9097", "http://10.0.0.1:9097"));
        assert!(with(&plain, "ops:80", "http://OPS") && with(&tls, "ops", "https://ops:443"));
        for (access, host, origin) in [
            (&plain, "ops", "https://ops"),
            (&tls, "ops", "http://ops"),
            (&plain, "ops", "http://ops:9097"),
            (&plain, "ops", "http://evil.example"),
            (&plain, "ops", "null"),
            (&plain, "ops", ""),
            (&plain, "ops", "file://ops"),
        ] {
            assert!(!with(access, host, origin), "{origin} at {host}");
        }
        let external = proxied("https://ops.example/scalebridge");
        assert!(with(&external, "127.0.0.1:9097", "https://ops.example"));
        assert!(with(&external, "ops.example", "https://ops.example"));
        assert!(with(&external, "127.0.0.1:9097", "http://127.0.0.1:9097"), "past the proxy");
        for host in ["127.0.0.1:9097", "ops.example"] {
            assert!(!with(&external, host, "http://ops.example"), "{host}");
        }
        let both = headers(&[("host", "ops"), ("origin", "http://ops"), ("origin", "http://evil.example")]);
        assert!(plain.refuse_cross_site(&both).is_err());
    }

    #[test]
    fn a_browser_says_that_a_page_of_another_site_sends_the_request() {
        let with =
            |site: &str| BrowserAccess::default().refuse_cross_site(&headers(&[(SEC_FETCH_SITE, site)]));
        assert!(with("same-origin").is_ok() && with("none").is_ok());
        for site in ["cross-site", "same-site", "", "Same-Origin"] {
            assert!(with(site).is_err(), "{site}");
        }
        assert!(is_of_browser(&headers(&[("origin", "null")])));
        assert!(is_of_browser(&headers(&[(SEC_FETCH_SITE, "same-origin")])));
        assert!(!is_of_browser(&headers(&[("host", "ops")])));
    }

    #[test]
    fn the_prefix_of_the_external_url_is_removed_where_the_proxy_has_not() {
        let external = ExternalUrl::parse("https://ops.example/scalebridge/").unwrap();
        let strip = |uri: &str| external.strip_prefix(&uri.parse().unwrap()).map(|uri| uri.to_string());
        assert_eq!(
            strip("/scalebridge/api/v1/pauses?ended=true").as_deref(),
            Some("/api/v1/pauses?ended=true")
        );
        assert_eq!(strip("/scalebridge").as_deref(), Some("/"));
        for path in ["/api/v1/pauses", "/scalebridges/x", "/"] {
            assert_eq!(strip(path), None, "{path}");
        }
        let root = ExternalUrl::parse("https://ops.example").unwrap();
        assert_eq!(root.strip_prefix(&"/api/v1/pauses".parse().unwrap()), None);
        assert_eq!(ExternalUrl::parse("ops.example"), None);
    }
}
