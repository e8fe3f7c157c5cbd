//! Splits a URL into its parts, and decodes them.

use percent_encoding::percent_decode_str;

use super::UrlError;

const EXAMPLE: &str = "write `postgres://USER:PASSWORD@HOST:5432/DATABASE?sslmode=verify-full`";

/// The decoded parts. A parameter of the query can stand for each of them.
pub(super) struct Parts {
    pub user: Option<String>,
    pub password: Option<String>,
    /// Hosts with their ports; an empty host is missing.
    pub hosts: Vec<(String, Option<u16>)>,
    pub database: Option<String>,
    /// Names and values, in their order.
    pub parameters: Vec<(String, String)>,
}

/// Splits the text at the places where libpq does, and refuses what may be meant differently.
pub(super) fn split(text: &str) -> Result<Parts, UrlError> {
    let text = text.trim();
    let rest = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let rest = rest.ok_or_else(|| UrlError::new("this is not a libpq URL", EXAMPLE))?;
    if rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
        let help = "the file has one URL and nothing else; a space in it is written as `%20`";
        return Err(UrlError::new("the URL contains white space", help));
    }
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.matches('@').count() > 1 || rest.contains('@') {
        let help = "in user and password, write `@` as `%40`, `/` as `%2F`, `?` as `%3F`, `:` as `%3A` and `%` as `%25`";
        return Err(UrlError::new("the URL has an `@` at a wrong place", help));
    }
    let (user_info, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = match user_info.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (user_info, None),
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let database = path.strip_prefix('/').unwrap_or_default();
    let non_empty = |text: String| Some(text).filter(|text| !text.is_empty());
    Ok(Parts {
        user: non_empty(decode(user, "the user")?),
        password: password.map(|password| decode(password, "the password")).transpose()?.and_then(non_empty),
        hosts: hosts.split(',').map(host_and_port).collect::<Result<_, _>>()?,
        database: non_empty(decode(database, "the name of the database")?),
        parameters: query
            .split('&')
            .filter(|parameter| !parameter.is_empty())
            .enumerate()
            .map(|(index, parameter)| name_and_value(index, parameter))
            .collect::<Result<_, _>>()?,
    })
}

fn host_and_port(text: &str) -> Result<(String, Option<u16>), UrlError> {
    let invalid = |what: &str| {
        UrlError::new(
            format!("{what} is invalid"),
            "write `HOST:PORT`, an IPv6 address in brackets, and commas between several hosts",
        )
    };
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(|| invalid("a host"))?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| invalid("a host"))?;
            (
                host,
                if port.is_empty() {
                    None
                } else {
                    Some(port.strip_prefix(':').ok_or_else(|| invalid("a port"))?)
                },
            )
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port =
        port.filter(|port| !port.is_empty()).map(|port| parse_port(port).ok_or_else(|| invalid("a port")));
    Ok((decode(host, "a host")?, port.transpose()?))
}

/// A port from 1 on.
pub(super) fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn name_and_value(index: usize, parameter: &str) -> Result<(String, String), UrlError> {
    let what = format!("parameter {} of the URL", index + 1);
    let Some((name, value)) = parameter.split_once('=') else {
        return Err(UrlError::new(
            format!("{what} has no value"),
            "write `NAME=VALUE`, and `&` between parameters",
        ));
    };
    Ok((decode(name, &what)?, decode(value, &what)?))
}

fn decode(text: &str, what: &str) -> Result<String, UrlError> {
    let is_hex = |at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_hexdigit);
    let is_complete = text.match_indices('%').all(|(at, _)| is_hex(at + 1) && is_hex(at + 2));
    let decoded = percent_decode_str(text).decode_utf8().ok();
    let decoded = decoded.filter(|decoded| is_complete && !decoded.contains('\0'));
    decoded.map(Into::into).ok_or_else(|| {
        let help = "a percent sign is written as `%25`, another byte as `%` and two hexadecimal digits; the text is UTF-8";
        UrlError::new(format!("{what} is not percent-encoded"), help)
    })
}
