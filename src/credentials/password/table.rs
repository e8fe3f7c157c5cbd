//! The users of one file with their hashes, and what is known of passwords that were compared with them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::str::FromStr as _;
use std::sync::Arc;

use bcrypt::HashParts;
use parking_lot::Mutex;
use subtle::ConstantTimeEq as _;

use crate::config::Secret;
use crate::config::access::users_file;

/// The maximum length of the name of a user.
const MAX_NAME_BYTES: usize = 256;

/// Wrong passwords that are remembered. Beyond them all are forgotten.
const MAX_REFUSED: usize = 1024;

/// A keyed hash of a user and a password.
pub(super) type PairDigest = [u8; 32];

/// The users of one file. A changed file makes a new table; of the comparisons before, it remembers
/// the right passwords of users whose hash did not change.
pub(in crate::credentials) struct UserTable {
    users: HashMap<String, Arc<User>>,
    /// Takes the place of a user that does not exist, so that the time does not tell.
    unknown: Arc<User>,
    /// Users and passwords that do not match.
    refused: Mutex<HashSet<PairDigest>>,
}

pub(super) struct User {
    /// `None` for the one that takes the place of unknown users.
    pub name: Option<String>,
    pub hash: Secret,
    /// The pair that matched. A user has one password, so this cache is bounded.
    proven: Mutex<Option<PairDigest>>,
}

impl User {
    /// Whether it is a user, and not the one that takes the place of unknown users.
    pub(super) fn is_known(&self) -> bool {
        self.name.is_some()
    }
}

impl UserTable {
    /// Reads the text of a file, in either format.
    pub(in crate::credentials) fn parse(text: &str, last: Option<&Self>) -> Result<Self, String> {
        let users = users_file::parse(text);
        if let Some((line, problem)) = users.problems.first() {
            return Err(format!("line {line}: {problem}"));
        }
        Self::new(&users.users, last)
    }

    /// A table of these users and hashes. Users that are the same in `last` are kept.
    pub(in crate::credentials) fn new(
        hashes: &BTreeMap<String, Secret>,
        last: Option<&Self>,
    ) -> Result<Self, String> {
        let mut highest_cost = users_file::MIN_BCRYPT_COST;
        for (name, hash) in hashes {
            // A name that is shown in logs and becomes an actor.
            if name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
                return Err(format!(
                    "a user name has control characters or more than {MAX_NAME_BYTES} bytes; rename the user"
                ));
            }
            let cost = cost(hash.expose()).map_err(|cause| format!("user `{name}`: {cause}"))?;
            highest_cost = highest_cost.max(cost);
        }
        let user = |name: Option<&String>, hash: &Secret| {
            Arc::new(User { name: name.cloned(), hash: hash.clone(), proven: Mutex::new(None) })
        };
        let unknown = Secret::new(format!("$2b${highest_cost:02}${}", ".".repeat(22 + 31)));
        Ok(Self {
            users: hashes
                .iter()
                .map(|(name, hash)| {
                    let known = last.and_then(|last| last.users.get(name));
                    let unchanged = known.filter(|known| known.hash.expose() == hash.expose());
                    (name.clone(), unchanged.cloned().unwrap_or_else(|| user(Some(name), hash)))
                })
                .collect(),
            unknown: user(None, &unknown),
            refused: Mutex::default(),
        })
    }

    pub(in crate::credentials) fn contains(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// Whether a user is the actor `name` in the audit trail, which shows names without space at their ends.
    pub(in crate::credentials) fn has_actor(&self, name: &str) -> bool {
        self.users.contains_key(name) || self.users.keys().any(|user| user.trim() == name)
    }

    /// The user of this name, or the one that takes the place of unknown users.
    pub(super) fn user(&self, name: &str) -> &Arc<User> {
        self.users.get(name).unwrap_or(&self.unknown)
    }

    /// The result of an earlier comparison.
    pub(super) fn remembered(&self, user: &User, pair: &PairDigest) -> Option<bool> {
        let proven = user.proven.lock().is_some_and(|proven| proven.ct_eq(pair).into());
        if proven {
            return Some(true);
        }
        self.refused.lock().contains(pair).then_some(false)
    }

    pub(super) fn remember(&self, user: &User, pair: PairDigest, matches: bool) {
        if matches {
            *user.proven.lock() = Some(pair);
            return;
        }
        let mut refused = self.refused.lock();
        if refused.len() >= MAX_REFUSED {
            refused.clear();
        }
        refused.insert(pair);
    }
}

/// The cost of a bcrypt hash that is supported.
fn cost(hash: &str) -> Result<u32, String> {
    match (users_file::hash_problem(hash), HashParts::from_str(hash)) {
        (None, Ok(parts)) => Ok(parts.get_cost()),
        (Some(problem), _) => Err(problem),
        (None, Err(_)) => Err("not a bcrypt hash; make one with `htpasswd -nB USER`".to_owned()),
    }
}
