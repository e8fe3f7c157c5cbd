//! The two formats of a file with users: lines of `htpasswd -nB`, and the map of Prometheus' web configuration.

use crate::config::read::{Kind, Node, parse_private};

/// Users and hashes, in the order of the file.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let users = if is_htpasswd(text) { parse_lines(text)? } else { parse_map(text)? };
    if users.is_empty() {
        return Err("the file has no users; add one with `htpasswd -nB USER`".to_owned());
    }
    Ok(users)
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// In YAML a colon after a key is followed by white space or by the end of the line.
fn is_htpasswd(text: &str) -> bool {
    let first = lines(text).next().and_then(|(_, line)| line.split_once(':'));
    first.is_some_and(|(user, hash)| {
        !user.starts_with(['{', '"', '\'']) && !hash.is_empty() && !hash.starts_with([' ', '\t'])
    })
}

fn parse_lines(text: &str) -> Result<Vec<(String, String)>, String> {
    let user = |(number, line): (usize, &str)| match line.split_once(':') {
        Some((user, hash)) if !user.is_empty() => Ok((user.to_owned(), hash.trim().to_owned())),
        _ => Err(format!("line {number} is not `USER:HASH`; create it with `htpasswd -nB USER`")),
    };
    lines(text).map(user).collect()
}

fn parse_map(text: &str) -> Result<Vec<(String, String)>, String> {
    const FORMATS: &str =
        "expected lines of `htpasswd -nB`, or `basic_auth_users` with a map of users to hashes";
    let root = parse_private(text).map_err(|line| format!("line {line}: invalid YAML; {FORMATS}"))?;
    let users = match root.get("basic_auth_users") {
        Some(users @ Node { kind: Kind::Map(_), .. }) => {
            if matches!(&root.kind, Kind::Map(entries) if entries.len() > 1) {
                return Err("only `basic_auth_users` is read here; remove the other keys".to_owned());
            }
            users
        }
        _ => &root,
    };
    let Kind::Map(entries) = &users.kind else { return Err(FORMATS.to_owned()) };
    let user = |(key, node): &(crate::config::read::Key, Node)| match &node.kind {
        Kind::Text(hash) if !key.name.contains(':') => Ok((key.name.clone(), hash.clone())),
        Kind::Text(_) => Err(format!("user `{}` contains a colon, which no client can send", key.name)),
        _ => Err(format!("user `{}`: the hash is not a text", key.name)),
    };
    entries.iter().map(user).collect()
}
