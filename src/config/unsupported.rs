//! What the design promises and this version does not build yet.
//!
//! It is refused at start, never ignored: a rule that asks for a budget must not act without one. Whoever builds one of these deletes its line here and reads the key where it belongs.

use super::diagnostic::{Code, Diagnostics, Place};

/// A key of a map that is refused.
pub(super) struct Unsupported {
    /// The map, as [`super::decode::Fields::of`] was told.
    at: &'static str,
    key: &'static str,
    help: &'static str,
}

#[rustfmt::skip] // a table, one line each
const LIST: &[Unsupported] = &[
    no("server", "tls", "leave it out, and end TLS in front of the bridge"),
    no("admin", "tls", "leave it out, and end TLS in front of the bridge"),
    no("admin", "tokens", "leave it out, and keep the listener on loopback"),
    no("store", "postgres", "keep the state in `sqlite: { path: … }`"),
    no("sources.*", "auth", "leave it out, and let only Alertmanager reach the listener"),
    no("sources.*", "rules", "leave it out, and name the sources in each rule: `sources: […]`"),
    no("sources.*", "targets", "leave it out, and name the sources in each rule: `sources: […]`"),
];

const fn no(at: &'static str, key: &'static str, help: &'static str) -> Unsupported {
    Unsupported { at, key, help }
}

/// The line that refuses `key` in the map `at`.
pub(super) fn refuses(at: &str, key: &str) -> Option<&'static Unsupported> {
    LIST.iter().find(|line| line.at == at && line.key == key)
}

/// Whether the setting at this path, or one that it lies in, is listed, so that an environment variable
/// for it is refused by the list and not called unknown.
pub(super) fn covers(path: &str) -> bool {
    LIST.iter().any(|line| {
        let rest = path.strip_prefix(line.at).and_then(|rest| rest.strip_prefix('.'));
        rest.and_then(|rest| rest.strip_prefix(line.key))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// The keys that are listed for the map `at`.
pub(super) fn keys(at: &str) -> impl Iterator<Item = &'static str> {
    LIST.iter().filter(move |line| line.at == at).map(|line| line.key)
}

impl Unsupported {
    /// Says so, at the key.
    pub fn report(&self, place: &Place, faults: &mut Diagnostics) {
        let message = format!("`{}` is not supported by this version", self.key);
        faults.help(Code::Unsupported, place, message, self.help);
    }
}
