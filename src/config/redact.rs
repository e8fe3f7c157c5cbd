//! Removes secrets from the text of a configuration, so that its lines can be shown.
//!
//! Every removed character becomes an asterisk, so that columns remain valid. Our own files should not contain secrets,
//! but the line that is shown may be the one in which somebody has written one.

mod blocks;

use std::collections::BTreeSet;

use blocks::{Blocks, Kind};

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
const CREDENTIAL_KEYS: [&str; 9] =
    ["auth", "authorization", "basic_auth", "client_cert", "client_certs", "hmac", "jwt", "tokens", "users"];
/// Keys below them whose values are maps without secrets.
const KNOWN_MAPS: [&str; 2] = ["http", "tls_config"];
/// Keys below them whose values are no secrets, in addition to names of files.
const KNOWN_KEYS: [&str; 19] = [
    "audience",
    "follow_redirects",
    "groups",
    "header",
    "insecure_skip_verify",
    "issuer",
    "jwks_url",
    "name",
    "name_claim",
    "no_proxy",
    "proxy_url",
    "sans",
    "scope",
    "server_name",
    "subjects",
    "timestamp_header",
    "tolerance",
    "type",
    "username",
];
/// Words before a secret in the value of a header.
const SCHEMES: [&str; 2] = ["bearer ", "basic "];
/// How hashes of bcrypt begin.
const HASHES: [&str; 4] = ["$2a$", "$2b$", "$2x$", "$2y$"];

/// Of a configuration of Alertmanager: hides the values of secret keys, and in URLs user info, query, and the last
/// segment of the path unless it is one of `sources` after `/webhook/`.
pub(super) fn foreign(text: &str, sources: &BTreeSet<&str>) -> String {
    text.split_inclusive('\n').map(|line| redact_line(line, &Context::Foreign { sources }).0).collect()
}

/// Of a file of our own: hides the values of secret keys, also those on the lines below the key, hashes of passwords,
/// private keys, and user info in URLs. `None` if there is nothing to hide.
pub(super) fn own(text: &str) -> Option<String> {
    let mut redacted = String::with_capacity(text.len());
    let mut blocks = Blocks::default();
    for line in text.split_inclusive('\n') {
        let within = blocks.enter(line);
        if within == Some(Kind::Secret) {
            redacted.extend(line.chars().map(|c| if c.is_whitespace() { c } else { '*' }));
            continue;
        }
        let (shown, opens) = redact_line(line, &Context::Own { within });
        blocks.open(line, opens);
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

/// Where a line is.
enum Context<'a> {
    /// In a configuration of Alertmanager; `sources` are ours.
    Foreign { sources: &'a BTreeSet<&'a str> },
    /// In a file of our own, in this block.
    Own { within: Option<Kind> },
}

/// The line without secrets, and the block that it opens.
fn redact_line(line: &str, context: &Context<'_>) -> (String, Option<Kind>) {
    // Bytes that are hidden.
    let mut hidden = vec![false; line.len()];
    let opens = match context {
        Context::Foreign { sources } => {
            hide_urls(line, Some(*sources), &mut hidden);
            hide_values(line, None, &mut hidden);
            None
        }
        Context::Own { within } => {
            hide_urls(line, None, &mut hidden);
            if let Some(within) = within {
                hidden[blocks::misplaced(line, *within)].fill(true);
            }
            hide_values(line, Some(*within), &mut hidden)
        }
    };
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
    (line.char_indices().map(shown).collect(), opens)
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

/// Hides what comes after `key:`: in a flow map or list up to its end, else the rest of the line. `own` is the block
/// around the line in a file of our own. Returns the block that the line opens in such a file.
fn hide_values(line: &str, own: Option<Option<Kind>>, hidden: &mut [bool]) -> Option<Kind> {
    let mut opens = None;
    // The end of the flow map or list of a key of `CREDENTIAL_KEYS`.
    let mut credentials_end = if own.flatten().is_some() { line.len() } else { 0 };
    for (colon, _) in line.match_indices(':') {
        let before = line[..colon].trim_end_matches(['"', '\'', ' ']);
        let start = key_start(before);
        let key = before[start..].to_ascii_lowercase();
        let value = line[colon + 1..].trim_start();
        let from = line.len() - value.len();
        let is_key = from > colon + 1 || value.is_empty();
        let key = Key::new(&key, is_key && colon < credentials_end);
        let mut is_secret = key.is_secret();
        if own.is_some() && is_key && !value.is_empty() && key.has_credentials() {
            let flow = value.starts_with(['{', '[']).then(|| flow_len(value));
            credentials_end = credentials_end.max(from + flow.unwrap_or_default());
            // Without keys, it is a list of secrets.
            is_secret |= flow.map_or(!value.starts_with('#'), |len| blocks::is_bare(&value[..len]));
        }
        is_secret |= key.names_token_files() && is_key && blocks::is_secret_instead_of_files(value);
        let is_in_flow = before[..start].contains(['{', '[']);
        if is_key {
            opens = key.opens(value, is_secret, is_in_flow).or(opens.filter(|_| is_in_flow));
        }
        // The keys in a list of maps are looked at by themselves.
        let has_maps = key.name == "tokens" && value.trim_start_matches(['[', ' ']).starts_with('{');
        if is_secret && !has_maps {
            let len = if is_in_flow { flow_value_len(value) } else { value.trim_end().len() };
            hidden[from..from + len].fill(true);
        }
    }
    opens
}

/// Where the key at the end of `before` starts.
fn key_start(before: &str) -> usize {
    before
        .rfind(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-'))
        .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8))
}

/// A key in lower case, and what is known of its value.
struct Key<'k> {
    name: &'k str,
    /// Whether it is below a key of `CREDENTIAL_KEYS`.
    is_below_credentials: bool,
}

impl<'k> Key<'k> {
    fn new(name: &'k str, is_below_credentials: bool) -> Self {
        Self { name, is_below_credentials }
    }

    fn names_files(&self) -> bool {
        self.name.ends_with("_file") || self.name.ends_with("_files")
    }

    fn names_token_files(&self) -> bool {
        self.name.ends_with("token_files")
    }

    fn has_credentials(&self) -> bool {
        CREDENTIAL_KEYS.contains(&self.name)
    }

    fn is_known(&self) -> bool {
        self.names_files() || KNOWN_KEYS.contains(&self.name)
    }

    fn is_secret(&self) -> bool {
        let is_unknown = self.is_below_credentials
            && !self.is_known()
            && !self.has_credentials()
            && !KNOWN_MAPS.contains(&self.name);
        let has_secret_name = self.name == "key" || SECRET_KEYS.iter().any(|part| self.name.contains(part));
        is_unknown || (has_secret_name && !self.names_files())
    }

    /// The block below it, if its value may be there, or go on there.
    fn opens(&self, value: &str, is_secret: bool, is_in_flow: bool) -> Option<Kind> {
        let is_flow = value.starts_with(['{', '[']);
        let is_below =
            value.is_empty() || value.starts_with('#') || (is_flow && flow_len(value) == value.len());
        if self.has_credentials() && is_below {
            Some(Kind::Credentials)
        } else if is_secret {
            (is_below || !(is_in_flow || is_flow)).then_some(Kind::Secret)
        } else if !is_below {
            None
        } else if self.names_token_files() {
            Some(Kind::TokenFiles)
        } else if self.is_below_credentials {
            Some(if KNOWN_MAPS.contains(&self.name) { Kind::Credentials } else { Kind::Shown })
        } else {
            None
        }
    }
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
mod tests;
