//! Removes secrets from the text of a configuration, so that its lines can be shown.
//!
//! Every removed character becomes an asterisk, so that columns remain valid.

use std::collections::BTreeSet;

/// Parts of the names of keys with secrets.
const SECRET_KEYS: [&str; 10] = [
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
];
/// Words before a secret in the value of a header.
const SCHEMES: [&str; 2] = ["bearer ", "basic "];

/// Hides the values of secret keys, and in URLs user info, query, and the last segment of the path unless it is one of
/// `sources` after `/webhook/`.
pub(super) fn redact(text: &str, sources: &BTreeSet<&str>) -> String {
    text.split_inclusive('\n').map(|line| redact_line(line, sources)).collect()
}

fn redact_line(line: &str, sources: &BTreeSet<&str>) -> String {
    // Bytes that are hidden.
    let mut hidden = vec![false; line.len()];
    hide_urls(line, sources, &mut hidden);
    hide_values(line, &mut hidden);
    let lower = line.to_ascii_lowercase();
    for scheme in SCHEMES {
        for (at, _) in lower.match_indices(scheme) {
            let start = at + scheme.len();
            let end = line[start..].find(is_end).map_or(line.len(), |end| start + end);
            hidden[start..end].fill(true);
        }
    }
    let shown = |(at, c): (usize, char)| if hidden[at] && !matches!(c, '\n' | '\r') { '*' } else { c };
    line.char_indices().map(shown).collect()
}

fn is_end(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>')
}

fn hide_urls(line: &str, sources: &BTreeSet<&str>, hidden: &mut [bool]) {
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

/// Hides what comes after `key:`: in a flow map or list up to its end, else the rest of the line.
fn hide_values(line: &str, hidden: &mut [bool]) {
    for (colon, _) in line.match_indices(':') {
        let before = line[..colon].trim_end_matches(['"', '\'', ' ']);
        let start = before
            .rfind(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-'))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let key = before[start..].to_ascii_lowercase();
        if SECRET_KEYS.iter().any(|part| key.contains(part)) && !key.ends_with("_file") {
            let value = line[colon + 1..].trim_start();
            let from = line.len() - value.len();
            let is_in_flow = before[..start].contains(['{', '[']);
            let len = if is_in_flow { flow_value_len(value) } else { value.trim_end().len() };
            hidden[from..from + len].fill(true);
        }
    }
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
            assert_eq!(redact(text, &BTreeSet::from(["prod-eu"])), expected);
            assert_eq!(text.chars().count(), expected.chars().count());
        }
        assert_eq!(redact("a: b\r\n\npassword: x\n", &BTreeSet::new()), "a: b\r\n\npassword: *\n");
    }
}
