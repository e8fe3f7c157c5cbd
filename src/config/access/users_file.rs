//! Users and the bcrypt hashes of their passwords, as `htpasswd -nB` and Prometheus write them.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::diagnostic::{Diagnostics, Location};
use super::super::secret::Secret;
use super::super::yaml::{self, Kind, Node, Origin};

/// A hash of a lower cost is no hash of bcrypt.
pub(crate) const MIN_BCRYPT_COST: u32 = 4;
/// A comparison with a hash of a higher cost takes more than a second.
pub(crate) const MAX_BCRYPT_COST: u32 = 14;

/// The users of a file, and what is wrong with it.
#[derive(Debug, Default)]
pub(crate) struct Users {
    /// The hashes by user. Only valid ones.
    pub users: BTreeMap<String, Secret>,
    /// What is wrong, each with the line. Contains nothing of a hash. Any of them makes the file malformed.
    pub problems: Vec<(u32, String)>,
}

/// Parses a file of users: lines `USER:HASH`, or a YAML map of users and hashes, alone or below `basic_auth_users`.
pub(crate) fn parse(text: &str) -> Users {
    let mut users = Users::default();
    if is_htpasswd(text) {
        for (line, entry) in entries(text) {
            match entry.split_once(':') {
                Some((user, hash)) => users.add(line, user, hash),
                None => users.problems.push((line, "expected `USER:HASH`".to_owned())),
            }
        }
    } else {
        users.add_yaml(text);
    }
    if users.users.is_empty() && users.problems.is_empty() {
        users.problems.push((1, "no user".to_owned()));
    }
    users
}

/// Whether no line looks like YAML, which has a space after the colon, or nothing, or begins with a bracket or a quote.
fn is_htpasswd(text: &str) -> bool {
    let is_line = |entry: &str| {
        !entry.contains(char::is_whitespace)
            && !entry.ends_with(':')
            && !entry.starts_with(['{', '[', '"', '\''])
    };
    entries(text).all(|(_, entry)| is_line(entry))
}

/// The lines that are not empty and not a comment, with their numbers.
fn entries(text: &str) -> impl Iterator<Item = (u32, &str)> {
    let lines = (1..).zip(text.lines().map(str::trim));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

impl Users {
    fn add(&mut self, line: u32, user: &str, hash: &str) {
        let problem = if user.is_empty() {
            Some("the name of the user is empty".to_owned())
        } else if user.contains(':') {
            // Basic authentication ends the name at the colon. The name is not shown: it may contain a hash.
            Some("the name of a user contains a colon; expected `USER:HASH`".to_owned())
        } else if is_like_hash(user) {
            // The name is not shown: it is the hash.
            Some("the hash is in the place of the user; expected `USER:HASH`".to_owned())
        } else if self.users.contains_key(user) {
            Some(format!("user `{user}` is listed more than once"))
        } else {
            hash_problem(hash).map(|problem| format!("user `{user}`: {problem}"))
        };
        match problem {
            Some(problem) => self.problems.push((line, problem)),
            None => {
                self.users.insert(user.to_owned(), Secret::new(hash.to_owned()));
            }
        }
    }

    fn add_yaml(&mut self, text: &str) {
        // The errors of the parser may contain parts of the text.
        let mut errors = Diagnostics::default();
        let node = yaml::parse(text, &Origin::File(Path::new("").into()), &mut errors);
        for error in &errors {
            self.problems
                .push((line_of(&error.location), "neither lines `USER:HASH` nor a YAML map".to_owned()));
        }
        let Some(node) = node.filter(|_| errors.is_empty()) else { return };
        let node = match &node.kind {
            Kind::Map(entries) if entries.len() == 1 => node.get("basic_auth_users").unwrap_or(&node),
            _ => &node,
        };
        self.add_map(node);
    }

    fn add_map(&mut self, node: &Node) {
        match &node.kind {
            Kind::Null => {}
            Kind::Map(entries) => {
                for (user, hash) in entries {
                    let line = line_of(&user.location);
                    match &hash.kind {
                        Kind::Text(hash) => self.add(line, &user.name, hash),
                        _ => self.add(line, &user.name, ""),
                    }
                }
            }
            _ => {
                let problem = "neither lines `USER:HASH` nor a YAML map".to_owned();
                self.problems.push((line_of(&node.location), problem));
            }
        }
    }
}

fn line_of(location: &Location) -> u32 {
    match location {
        Location::File { line, .. } => *line,
        _ => 1,
    }
}

/// Whether the name of a user is a hash by mistake.
pub(super) fn is_like_hash(user: &str) -> bool {
    user.starts_with('$')
}

/// What is wrong with a hash, without it.
pub(crate) fn hash_problem(hash: &str) -> Option<String> {
    let Some(cost) = bcrypt_cost(hash) else {
        return Some("not a bcrypt hash; make one with `htpasswd -nB USER`".to_owned());
    };
    if cost < MIN_BCRYPT_COST {
        return Some(format!("the cost of the bcrypt hash is {cost}; it must be at least {MIN_BCRYPT_COST}"));
    }
    (cost > MAX_BCRYPT_COST).then(|| {
        format!(
            "the cost of the bcrypt hash is {cost}; it must be at most {MAX_BCRYPT_COST}, so that a comparison takes \
             about a second or less"
        )
    })
}

/// The cost of a bcrypt hash; `None` if it is none. `$2x$` marks hashes of a broken implementation.
fn bcrypt_cost(hash: &str) -> Option<u32> {
    let rest = ["$2a$", "$2b$", "$2y$"].iter().find_map(|version| hash.strip_prefix(version))?;
    let (cost, digest) = rest.split_once('$')?;
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
    let is_cost = cost.len() == 2 && cost.bytes().all(|byte| byte.is_ascii_digit());
    let is_digest = digest.len() == 53 && digest.bytes().all(is_base64);
    (is_cost && is_digest).then(|| cost.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze";

    fn hash(cost: &str) -> String {
        format!("$2y${cost}${DIGEST}")
    }

    fn names(users: &Users) -> Vec<&str> {
        users.users.keys().map(String::as_str).collect()
    }

    #[test]
    fn lines_of_htpasswd_and_maps_of_prometheus_are_read() {
        let (a, b) = (hash("10"), hash("05"));
        for text in [
            format!("# operators\nalice:{a}\n\nbob:{b}\r\n"),
            format!("alice: {a}\nbob: \"{b}\" # a comment\n"),
            format!("basic_auth_users:\n  alice: {a}\n  bob: '{b}'\n"),
            format!("{{ alice: {a}, bob: {b} }}"),
        ] {
            let users = parse(&text);
            assert_eq!((names(&users), &users.problems[..]), (vec!["alice", "bob"], &[][..]), "{text}");
            assert_eq!(users.users["bob"].expose(), b, "{text}");
        }
        assert_eq!(
            names(&parse(&format!("basic_auth_users:{a}"))),
            ["basic_auth_users"],
            "a user of htpasswd"
        );
    }

    #[test]
    fn what_is_wrong_with_a_users_file_is_said_at_its_line_without_the_hash() {
        let good = hash("10");
        let cases = [
            (String::new(), "1: no user"),
            ("# nobody\n".to_owned(), "1: no user"),
            ("basic_auth_users:\n".to_owned(), "1: no user"),
            (format!("a:{good}\n{DIGEST}"), "2: expected `USER:HASH`"),
            (format!("a:{good}\na:{good}"), "2: user `a` is listed more than once"),
            (format!("{good}:a"), "1: the hash is in the place of the user; expected `USER:HASH`"),
            (format!(":{good}"), "1: the name of the user is empty"),
            (
                format!("a:{good}\nb:hunter2"),
                "2: user `b`: not a bcrypt hash; make one with `htpasswd -nB USER`",
            ),
            ("b: 4711".to_owned(), "1: user `b`: not a bcrypt hash; make one with `htpasswd -nB USER`"),
            (
                format!("\nb: {}", hash("03")),
                "2: user `b`: the cost of the bcrypt hash is 3; it must be at least 4",
            ),
            (
                format!("b: {}", hash("15")),
                "1: user `b`: the cost of the bcrypt hash is 15; it must be at most 14, so that a comparison takes \
                 about a second or less",
            ),
            (format!("a: {good}\n b: [{DIGEST}"), "2: neither lines `USER:HASH` nor a YAML map"),
            (format!("- {DIGEST} x"), "1: neither lines `USER:HASH` nor a YAML map"),
        ];
        for (text, expected) in cases {
            let problems = parse(&text).problems;
            let shown: Vec<String> = problems.iter().map(|(line, text)| format!("{line}: {text}")).collect();
            assert_eq!(shown, [expected], "{text}");
        }
    }

    #[test]
    fn only_hashes_of_bcrypt_have_a_cost() {
        for version in ["2a", "2b", "2y"] {
            assert_eq!(hash_problem(&format!("${version}$10${DIGEST}")), None);
        }
        for other in [
            "",
            "$2y$",
            "$2y$10$",
            &format!("$2x$10${DIGEST}"),
            &format!("$2y$1${DIGEST}"),
            &format!("$2y$+9${DIGEST}"),
            &format!("$2y$10${DIGEST}x"),
            &format!("$2y$10${}", DIGEST.replace('.', "!")),
            "$apr1$x$y",
            "{SHA}abc=",
        ] {
            assert!(hash_problem(other).is_some_and(|it| it.starts_with("not a bcrypt")), "{other}");
        }
    }
}
