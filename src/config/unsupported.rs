//! Keys that the design has and this version does not support, and keys of earlier versions.
//!
//! They are rejected at start, not ignored: a listener with `tls` must not start without it. To implement a
//! key, remove its entry here and read it in the reader of its map.

use super::diagnostic::{Code, Diagnostics, Location};

/// An unsupported key.
pub(super) struct Unsupported {
    /// The map, as passed to [`super::decode::Fields::from_node`].
    path: &'static str,
    key: &'static str,
    /// Completes the sentence that begins with the key.
    why: &'static str,
    help: &'static str,
}

#[rustfmt::skip] // a table, one entry per line
const UNSUPPORTED_KEYS: &[Unsupported] = &[
    unsupported("server", "tls", "remove it, and terminate TLS in front of the bridge"),
    unsupported("admin", "tls", "remove it, and terminate TLS in front of the bridge"),
    unsupported("admin", "tokens", "remove it, and keep the listener on loopback"),
    unsupported("store", "postgres", "use `sqlite: { path: … }`"),
    unsupported("sources.*", "auth", "remove it, and allow only Alertmanager to reach the listener"),
    removed("engine", "max_deferral", "was removed: deferred decreases are now kept until they can be emitted, or until \
        `retention.owed` is over", "remove the key"),
];

const fn unsupported(path: &'static str, key: &'static str, help: &'static str) -> Unsupported {
    Unsupported { path, key, why: "is not supported by this version", help }
}

const fn removed(
    path: &'static str,
    key: &'static str,
    why: &'static str,
    help: &'static str,
) -> Unsupported {
    Unsupported { path, key, why, help }
}

/// The entry of `key` in the map `path`.
pub(super) fn find(path: &str, key: &str) -> Option<&'static Unsupported> {
    UNSUPPORTED_KEYS.iter().find(|entry| entry.path == path && entry.key == key)
}

/// Whether the setting at `path`, or a section that contains it, is listed. An environment variable for it
/// is then reported as unsupported, not as unknown.
pub(super) fn is_unsupported_path(path: &str) -> bool {
    UNSUPPORTED_KEYS.iter().any(|entry| {
        let rest = path.strip_prefix(entry.path).and_then(|rest| rest.strip_prefix('.'));
        rest.and_then(|rest| rest.strip_prefix(entry.key))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// The unsupported keys of the map `path`.
pub(super) fn keys(path: &str) -> impl Iterator<Item = &'static str> {
    UNSUPPORTED_KEYS.iter().filter(move |entry| entry.path == path).map(|entry| entry.key)
}

impl Unsupported {
    /// Reports the key.
    pub(super) fn report(&self, location: &Location, diagnostics: &mut Diagnostics) {
        let message = format!("`{}` {}", self.key, self.why);
        diagnostics.add_with_help(Code::Unsupported, location, message, self.help);
    }
}
