//! Removes secrets from the text of a configuration, so that its lines can be shown.
//!
//! Every removed character becomes an asterisk, so that columns remain valid. Our own files should not contain secrets,
//! but the line that is shown may be the one in which somebody has written one.

use std::collections::BTreeSet;

/// Parts of the names of keys with secrets.
const SECRET_KEYS: [&str; 11] = [
    "pass",
    "pwd",
    "secret",
    "token",
    "credential",
    "api_key",
    "apikey",
    "routing_key",
    "service_key",
    "signing_key",
    "basic_auth_users",
];
/// Keys of our own files below which a secret may be written by mistake, with any key of its own.
const CREDENTIAL_KEYS: [&str; 3] = ["auth", "tokens", "users"];
/// Keys below them whose values are no secrets, in addition to names of files.
const KNOWN_KEYS: [&str; 22] = [
    "audience",
    "auth",
    "authorization",
    "basic_auth",
    "client_cert",
    "follow_redirects",
    "groups",
    "header",
    "http",
    "insecure_skip_verify",
    "issuer",
    "jwks_url",
    "jwt",
    "name",
    "name_claim",
    "no_proxy",
    "proxy_url",
    "sans",
    "scope",
    "server_name",
    "subjects",
    "tls_config",
];
/// Words before a secret in the value of a header.
const SCHEMES: [&str; 2] = ["bearer ", "basic "];
/// How hashes of bcrypt begin.
const HASHES: [&str; 4] = ["$2a$", "$2b$", "$2x$", "$2y$"];

/// Of a configuration of Alertmanager: hides the values of secret keys, and in URLs user info, query, and the last
/// segment of the path unless it is one of `sources` after `/webhook/`.
pub(super) fn foreign(text: &str, sources: &BTreeSet<&str>) -> String {
    text.split_inclusive('\n').map(|line| redact_line(line, Some(sources)).0).collect()
}

/// Of a file of our own: hides the values of secret keys, also those on the lines below the key, hashes of passwords,
/// private keys, and user info in URLs. `None` if there is nothing to hide.
pub(super) fn own(text: &str) -> Option<String> {
    let mut redacted = String::with_capacity(text.len());
    // The indentation of a secret key whose value is below it.
    let mut secret_block: Option<usize> = None;
    for line in text.split_inclusive('\n') {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        if content.is_empty() || secret_block.is_some_and(|key| indent > key) {
            redacted.extend(line.chars().map(|c| if c.is_whitespace() { c } else { '*' }));
            continue;
        }
        let (shown, opens_block) = redact_line(line, None);
        secret_block = opens_block.then_some(indent);
        redacted.push_str(&shown);
    }
    (redacted != text).then_some(redacted)
}

/// Of a message, which quotes a value: hides user info in URLs. Their password says nothing about its length here.
pub(super) fn message(text: String) -> String {
    if !text.contains("://") {
        return text;
    }
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let authority =
            part.find(|c: char| is_end(c) || matches!(c, '/' | '?' | '#' | '`')).unwrap_or(part.len());
        let host = part[..authority].rfind('@');
        shown.push_str("://");
        shown.push_str(if host.is_some() { "…" } else { "" });
        shown.push_str(&part[host.unwrap_or(0)..]);
    }
    shown
}

/// Of a file with users and hashes: hides all but the users.
pub(super) fn users(text: &str) -> String {
    let line = |line: &str| {
        // With a hash before the colon, the two are swapped.
        let colon = line.find(':').filter(|colon| !line[..*colon].contains('$'));
        let hidden = colon.map_or(0, |colon| colon + 1);
        let shown = |(at, c): (usize, char)| if at < hidden || c.is_whitespace() { c } else { '*' };
        line.char_indices().map(shown).collect::<String>()
    };
    text.split_inclusive('\n').map(line).collect()
}

/// The line without secrets, and whether the value of a secret key is on the next lines. `sources` is `None` for a file
/// of our own.
fn redact_line(line: &str, sources: Option<&BTreeSet<&str>>) -> (String, bool) {
    // Bytes that are hidden.
    let mut hidden = vec![false; line.len()];
    hide_urls(line, sources, &mut hidden);
    let opens_block = hide_values(line, sources.is_none(), &mut hidden);
    let lower = line.to_ascii_lowercase();
    for scheme in SCHEMES {
        for (at, _) in lower.match_indices(scheme) {
            let start = at + scheme.len();
            let end = line[start..].find(is_end).map_or(line.len(), |end| start + end);
            hidden[start..end].fill(true);
        }
    }
    for hash in HASHES {
        for (at, _) in line.match_indices(hash) {
            let end = line[at..].find(is_end).map_or(line.len(), |end| at + end);
            hidden[at..end].fill(true);
        }
    }
    if let Some(at) = line.find("PRIVATE KEY-----") {
        hidden[at..].fill(true);
    }
    let shown = |(at, c): (usize, char)| if hidden[at] && !matches!(c, '\n' | '\r') { '*' } else { c };
    (line.char_indices().map(shown).collect(), opens_block)
}

fn is_end(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>')
}

fn hide_urls(line: &str, sources: Option<&BTreeSet<&str>>, hidden: &mut [bool]) {
    for (at, _) in line.match_indices("://") {
        let start = at + 3;
        let end = line[start..].find(is_end).map_or(line.len(), |end| start + end);
        let url = &line[start..end];
        let path_at = start + url.find(['/', '?', '#']).unwrap_or(url.len());
        if let Some(user_info) = line[start..path_at].rfind('@') {
            hidden[start..start + user_info].fill(true);
        }
        let path = &line[path_at..end];
        let query_at = path.find(['?', '#']).unwrap_or(path.len());
        hidden[(path_at + query_at).min(end)..end].fill(true);
        // The paths of queues, issuers and key sets are no secrets.
        let Some(sources) = sources else { continue };
        // Brackets and commas after an unquoted URL in a flow list or map.
        let path = path[..query_at].trim_end_matches(['}', ']', ',']);
        let segments = path.trim_end_matches('/');
        let Some(last) = segments.rfind('/') else { continue };
        let is_source = segments[..last].ends_with("/webhook") && sources.contains(&segments[last + 1..]);
        if !is_source {
            hidden[path_at + last + 1..path_at + segments.len()].fill(true);
        }
    }
}

/// Hides what comes after `key:`: in a flow map or list up to its end, else the rest of the line. Returns whether the
/// value is on the next lines.
fn hide_values(line: &str, is_own: bool, hidden: &mut [bool]) -> bool {
    let mut opens_block = false;
    // The end of the flow map or list of a key of `CREDENTIAL_KEYS`.
    let mut credentials_end = 0;
    for (colon, _) in line.match_indices(':') {
        let before = line[..colon].trim_end_matches(['"', '\'', ' ']);
        let start = before
            .rfind(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-'))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let key = before[start..].to_ascii_lowercase();
        let names_files = key.ends_with("_file") || key.ends_with("_files");
        let value = line[colon + 1..].trim_start();
        let from = line.len() - value.len();
        let is_unknown = colon < credentials_end && from > colon + 1 && !KNOWN_KEYS.contains(&key.as_str());
        let mut is_scalar = false;
        if is_own && CREDENTIAL_KEYS.contains(&key.as_str()) && from > colon + 1 {
            if value.starts_with(['{', '[']) {
                credentials_end = credentials_end.max(from + flow_len(value));
            } else {
                is_scalar = !value.is_empty() && !value.starts_with('#');
            }
        }
        let is_secret = is_scalar
            || (is_unknown && !CREDENTIAL_KEYS.contains(&key.as_str()))
            || key == "key"
            || SECRET_KEYS.iter().any(|part| key.contains(part));
        if is_secret && !names_files {
            opens_block = key != "tokens" && (value.is_empty() || value.starts_with(['|', '>']));
            // A list of maps, whose keys are looked at by themselves.
            if key == "tokens" && value.trim_start_matches(['[', ' ']).starts_with('{') {
                continue;
            }
            let is_in_flow = before[..start].contains(['{', '[']);
            let len = if is_in_flow { flow_value_len(value) } else { value.trim_end().len() };
            hidden[from..from + len].fill(true);
        }
    }
    opens_block
}

/// The length of the flow map or list at the start of `text`, with all that is in it.
fn flow_len(text: &str) -> usize {
    let (mut depth, mut quote) = (0_usize, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '{' | '[') => depth += 1,
            (None, '}' | ']') if depth <= 1 => return at + 1,
            (None, '}' | ']') => depth -= 1,
            (None, _) => {}
        }
    }
    text.len()
}

/// The length of the value at the start of `value`, in a flow map.
fn flow_value_len(value: &str) -> usize {
    let closing = match value.chars().next() {
        Some('"') => {
            let mut is_escaped = false;
            value[1..].find(|c| {
                let closes = c == '"' && !is_escaped;
                is_escaped = c == '\\' && !is_escaped;
                closes
            })
        }
        // Two of them are one inside; hiding both parts hides the value.
        Some('\'') => value[1..].rfind('\''),
        Some('[') => value[1..].find(']'),
        Some('{') => value[1..].find('}'),
        _ => return value.find([',', '}', ']']).map_or(value, |end| &value[..end]).trim_end().len(),
    };
    closing.map_or(value.trim_end().len(), |at| at + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_do_not_show_user_info() {
        for (text, expected) in [
            ("`https://u:p@host/a@b` is not a URL", "`https://…@host/a@b` is not a URL"),
            ("http://u:p@a, http://b and http://c@d", "http://…@a, http://b and http://…@d"),
            ("http://u:p/x@host", "http://u:p/x@host"),
            ("a@b://", "a@b://"),
            ("://@`@", "://…@`@"),
        ] {
            assert_eq!(message(text.to_owned()), expected);
        }
    }

    #[test]
    fn secrets_are_not_shown_and_columns_remain() {
        let cases = [
            ("url: http://u:p@bridge/webhook/prod-eu", "url: http://***@bridge/webhook/prod-eu"),
            ("url: http://bridge/webhook/prod-eu/?t=x", "url: http://bridge/webhook/prod-eu/****"),
            (
                "- {url: 'http://n8n/webhook/0815', max_alerts: 1}",
                "- {url: 'http://n8n/webhook/****', max_alerts: 1}",
            ),
            (
                "[{url: https://hooks.slack.com/services/T/B/XY}]",
                "[{url: https://hooks.slack.com/services/T/B/**}]",
            ),
            ("url: http://x/", "url: http://x/"),
            ("password: a, b} # c", "password: *********"),
            ("- { x: y, password: \"a\\\"b, \" , c: d }", "- { x: y, password: ******** , c: d }"),
            ("[{ secret: 'a''b' }, { secret: c }]", "[{ secret: ****** }, { secret: * }]"),
            ("b: {password: ab , x: y}", "b: {password: ** , x: y}"),
            ("bearer_token: äöü", "bearer_token: ***"),
            ("\"password\": x", "\"password\": *"),
            ("password_file: /run/x", "password_file: /run/x"),
            ("values: [\"Bearer abc\"]", "values: [\"Bearer ***\"]"),
            ("secrets: [a, b]", "secrets: ******"),
            ("passwrd: hunter2", "passwrd: *******"),
            ("receiver: x # a: b", "receiver: x # a: b"),
        ];
        for (text, expected) in cases {
            assert_eq!(foreign(text, &BTreeSet::from(["prod-eu"])), expected);
            assert_eq!(text.chars().count(), expected.chars().count());
        }
        assert_eq!(foreign("a: b\r\n\npassword: x\n", &BTreeSet::new()), "a: b\r\n\npassword: *\n");
    }

    #[test]
    fn secrets_in_files_of_our_own_are_not_shown() {
        let hash = "$2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze";
        let stars = "*".repeat(hash.len());
        let cases = [
            ("auth: { bearer_token: sesame }".to_owned(), "auth: { bearer_token: ****** }".to_owned()),
            (
                "tokens: [{ name: a, token: sesame }, { token_file: b }]".to_owned(),
                "tokens: [{ name: a, token: ****** }, { token_file: b }]".to_owned(),
            ),
            ("tokens: { a: sesame, name: b }".to_owned(), "tokens: { a: ******, name: b }".to_owned()),
            ("users: { alice: sesame } # x: y".to_owned(), "users: { alice: ****** } # x: y".to_owned()),
            ("a: { auth: sesame, b: c }".to_owned(), "a: { auth: ******, b: c }".to_owned()),
            ("auth: open sesame".to_owned(), "auth: ***********".to_owned()),
            (
                "a: { auth: { toekn: sesame, jwt: { issuer: i } }, b: c }".to_owned(),
                "a: { auth: { toekn: ******, jwt: { issuer: i } }, b: c }".to_owned(),
            ),
            (
                "jwks_url: \"https://idp/keys?t=sesame\"".to_owned(),
                "jwks_url: \"https://idp/keys*********\"".to_owned(),
            ),
            ("tls: { key: sesame }".to_owned(), "tls: { key: ****** }".to_owned()),
            ("basic_auth_users: { a: sesame }".to_owned(), "basic_auth_users: *************".to_owned()),
            ("tokens: [sesame, b]".to_owned(), "tokens: ***********".to_owned()),
            (
                "  password: |\n    open\n    sesame\n  b: c".to_owned(),
                "  password: *\n    ****\n    ******\n  b: c".to_owned(),
            ),
            ("password:\n  sesame".to_owned(), "password:\n  ******".to_owned()),
            (format!("  alice: {hash}"), format!("  alice: {stars}")),
            (format!("{{ alice: '{hash}' }}"), format!("{{ alice: '{stars}' }}")),
            ("proxy_url: http://u:p@proxy/a".to_owned(), "proxy_url: http://***@proxy/a".to_owned()),
            (
                "- \"-----BEGIN PRIVATE KEY-----abc\"".to_owned(),
                "- \"-----BEGIN ********************".to_owned(),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(own(&text), Some(expected));
        }
        for text in [
            "queue_url: https://sqs/1/scaling",
            "auth: { bearer_token_files: [/run/x] }",
            "bearer_token_files:\n  - /run/x",
            "a: b\n\n  c: d",
        ] {
            assert_eq!(own(text), None);
        }
        let text = format!("alice:{hash}\n\n  bob: {hash}\n{hash}\n");
        assert_eq!(users(&text), format!("alice:{stars}\n\n  bob: {stars}\n{stars}\n"));
        assert_eq!(users(&format!("{hash}:alice")), format!("{stars}******"));
    }
}
