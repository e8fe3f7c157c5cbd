//! Checks of a parsed request, before it is routed: what HTTP requires of a request, and hyper does not check.

use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Method, StatusCode, Version, header};

/// The status and text of the response to a request that is refused whatever it contains.
pub(super) fn check(request: &Parts) -> Result<(), (StatusCode, &'static str)> {
    let bad = |text| Err((StatusCode::BAD_REQUEST, text));
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return bad("a request has one Host header");
    }
    if host.is_none() && request.version == Version::HTTP_11 {
        return bad("a request of HTTP/1.1 needs the header Host");
    }
    if host.is_some_and(|host| !is_host(host)) {
        return bad("invalid Host header");
    }
    if request.method == Method::CONNECT {
        return bad("the bridge is not a proxy");
    }
    match (request.uri.authority(), host) {
        (Some(_), _) if request.uri.scheme().is_none() => return bad("invalid request target"),
        (Some(target), Some(host)) if !is_same(target, host) => {
            return bad("the request target and the Host header name different hosts");
        }
        _ => {}
    }
    let is_continue = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if request.headers.get_all(header::EXPECT).iter().any(|value| !is_continue(value)) {
        return Err((
            StatusCode::EXPECTATION_FAILED,
            "the only expectation that is supported is 100-continue",
        ));
    }
    Ok(())
}

fn is_same(target: &Authority, host: &HeaderValue) -> bool {
    target.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes())
}

/// A host with an optional port. It is compared elsewhere; here, it must not contain what could be read as something
/// else: user info, a path, a second host.
fn is_host(host: &HeaderValue) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%:[]".contains(byte);
    host.as_bytes().iter().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn status(target: &str, version: Version, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().uri(target).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        check(&parts).err().map(|(status, _)| status.as_u16())
    }

    #[test]
    fn a_request_names_one_host() {
        let new = |target: &str, headers: &[(&str, &str)]| status(target, Version::HTTP_11, headers);
        for host in ["a", "a.example:9096", "127.0.0.1", "[::1]:9096", ""] {
            assert_eq!(new("/", &[("host", host)]), None, "{host}");
        }
        for host in ["a b", "a,b", "a/b", "user@a", "a\tb", "a\"", "h\u{fc}"] {
            assert_eq!(new("/", &[("host", host)]), Some(400), "{host}");
        }
        assert_eq!(new("/", &[]), Some(400));
        assert_eq!(new("/", &[("host", "a"), ("host", "a")]), Some(400));
        assert_eq!(new("http://A:1/", &[("host", "a:1")]), None);
        assert_eq!(new("http://b/", &[("host", "a")]), Some(400));
        assert_eq!(new("b", &[("host", "b")]), Some(400));
        assert_eq!(status("/", Version::HTTP_10, &[]), None);
        assert_eq!(status("/", Version::HTTP_10, &[("host", "a"), ("host", "b")]), Some(400));
    }

    #[test]
    fn an_unknown_expectation_is_refused() {
        let expect = |value| status("/", Version::HTTP_11, &[("host", "a"), ("expect", value)]);
        assert_eq!((expect("100-Continue"), expect("200-ok")), (None, Some(417)));
    }
}
