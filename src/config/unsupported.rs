//! What the design promises and this version does not build yet.
//!
//! It is refused at start, never ignored: a rule that asks for a budget must not act without one. Whoever builds one of these deletes its entry here and reads the key where it belongs.

use super::diagnostic::{Code, Diagnostics, Location};

/// A key of a map that is refused.
pub(super) struct Unsupported {
    /// The map, as [`super::decode::Fields::from_node`] was told.
    path: &'static str,
    key: &'static str,
    help: &'static str,
}

#[rustfmt::skip] // a table, one entry each
const UNSUPPORTED_KEYS: &[Unsupported] = &[
    unsupported("server", "tls", "leave it out, and end TLS in front of the bridge"),
    unsupported("admin", "tls", "leave it out, and end TLS in front of the bridge"),
    unsupported("admin", "tokens", "leave it out, and keep the listener on loopback"),
    unsupported("store", "postgres", "keep the state in `sqlite: { path: … }`"),
    unsupported("sources.*", "auth", "leave it out, and let only Alertmanager reach the listener"),
    unsupported("sources.*", "rules", "leave it out, and name the sources in each rule: `sources: […]`"),
    unsupported("sources.*", "targets", "leave it out, and name the sources in each rule: `sources: […]`"),
];

const fn unsupported(path: &'static str, key: &'static str, help: &'static str) -> Unsupported {
    Unsupported { path, key, help }
}

/// The entry that refuses `key` in the map `at`.
pub(super) fn find(path: &str, key: &str) -> Option<&'static Unsupported> {
    UNSUPPORTED_KEYS.iter().find(|entry| entry.path == path && entry.key == key)
}

/// Whether the setting at this path, or one that it lies in, is listed, so that an environment variable
/// for it is refused by the list and not called unknown.
pub(super) fn is_unsupported_path(path: &str) -> bool {
    UNSUPPORTED_KEYS.iter().any(|entry| {
        let rest = path.strip_prefix(entry.path).and_then(|rest| rest.strip_prefix('.'));
        rest.and_then(|rest| rest.strip_prefix(entry.key))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// The keys that are listed for the map `at`.
pub(super) fn keys(path: &str) -> impl Iterator<Item = &'static str> {
    UNSUPPORTED_KEYS.iter().filter(move |entry| entry.path == path).map(|entry| entry.key)
}

impl Unsupported {
    /// Says so, at the key.
    pub(super) fn report(&self, location: &Location, diagnostics: &mut Diagnostics) {
        let message = format!("`{}` is not supported by this version", self.key);
        diagnostics.add_with_help(Code::Unsupported, location, message, self.help);
    }
}
