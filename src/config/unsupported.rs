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
    code: Code,
}

#[rustfmt::skip] // a table, one entry per line
const UNSUPPORTED_KEYS: &[Unsupported] = &[
    inline("store.postgres", "url", "write the URL into a file, and use `url_file: FILE`"),
    inline("store.postgres", "dsn", "write the URL into a file, and use `url_file: FILE`"),
    inline("store.postgres", "password", "write it into the URL of `url_file`"),
    inline("sources.*.auth", "bearer_token", "use `bearer_token_files: [FILE]`"),
    inline("sources.*.auth", "bearer_tokens", "use `bearer_token_files: [FILE]`"),
    inline("sources.*.auth", "token", "use `bearer_token_files: [FILE]`"),
    inline("sources.*.auth", "tokens", "use `bearer_token_files: [FILE]`"),
    inline("sources.*.auth.hmac", "key", "use `key_files: [FILE]`"),
    inline("sources.*.auth.hmac", "keys", "use `key_files: [FILE]`"),
    inline("sources.*.auth.hmac", "secret", "use `key_files: [FILE]`"),
    inline("sources.*.auth", "password", "use `basic_auth_users_file: FILE`, with lines of `htpasswd -nB`"),
    inline("sources.*.auth", "basic_auth_users", "use `basic_auth_users_file: FILE`, with lines of `htpasswd -nB`"),
    inline("admin", "token", "use `tokens: [{ name: …, scope: operate, token_file: FILE }]`"),
    inline("admin", "bearer_token", "use `tokens: [{ name: …, scope: operate, token_file: FILE }]`"),
    inline("admin", "password", "use `users_file: FILE`, with lines of `htpasswd -nB`"),
    inline("admin", "basic_auth_users", "use `users_file: FILE`, with lines of `htpasswd -nB`"),
    inline("admin.tokens.*", "token", "use `token_file: FILE`"),
    inline("admin.tokens.*", "bearer_token", "use `token_file: FILE`"),
    inline("admin.tokens.*", "password", "use `token_file: FILE`"),
    inline("admin.users.*", "password", "use `users_file: FILE` of `admin`, with lines of `htpasswd -nB`"),
    inline("admin.users.*", "password_hash", "use `users_file: FILE` of `admin`, with lines of `htpasswd -nB`"),
    inline("destinations.*.http", "signing_key", "use `signing_key_files: [FILE]`"),
    inline("destinations.*.http", "signing_keys", "use `signing_key_files: [FILE]`"),
    inline("destinations.*.http", "secret", "use `signing_key_files: [FILE]`"),
    no("destinations.*.http", "signing_key_file", "is a list here, so that keys can be rotated", "use \
        `signing_key_files: [FILE]`"),
    inline("http", "bearer_token", "use `authorization: { credentials_file: FILE }`"),
    inline("http", "password", "use `basic_auth: { username: …, password_file: FILE }`"),
    inline("http.authorization", "credentials", "use `credentials_file: FILE`"),
    inline("http.basic_auth", "password", "use `password_file: FILE`"),
    inline("http.tls_config", "key", "use `key_file: FILE`"),
    inline("tls", "key", "use `key_file: FILE`"),
    inline("web_config.tls_server_config", "key", "use `key_file: FILE`"),
    no("http.tls_config", "insecure_skip_verify", "is not possible: anyone on the way could answer instead of the \
        server", "remove it, and name the CA of the server in `ca_file`"),
    no("http", "insecure_skip_verify", "is not possible: anyone on the way could answer instead of the server",
        "remove it, and name the CA of the server in `tls_config: { ca_file: … }`"),
    no("http", "bearer_token_file", "is called differently here", "use `authorization: { credentials_file: FILE }`"),
    no("web_config", "rate_limit", "is not supported: Alertmanager gives up on what is answered 429", "remove it; \
        `server.max_in_flight` limits concurrent requests"),
    unsupported("web_config.tls_server_config", "cert", "use `cert_file: FILE`"),
    unsupported("web_config.tls_server_config", "client_ca", "use `client_ca_file: FILE`"),
    no("web_config.tls_server_config", "cipher_suites", SUITES, "remove it"),
    no("web_config.tls_server_config", "curve_preferences", SUITES, "remove it"),
    no("tls", "cipher_suites", SUITES, "remove it"),
    no("tls", "curve_preferences", SUITES, "remove it"),
    removed("engine", "max_deferral", "was removed: deferred decreases are now kept until they can be emitted, or until \
        `retention.owed` is over", "remove the key"),
];

const SUITES: &str = "is not supported: only suites and curves that are not known to be weak are offered";

const fn unsupported(path: &'static str, key: &'static str, help: &'static str) -> Unsupported {
    no(path, key, "is not supported by this version", help)
}

const fn no(path: &'static str, key: &'static str, why: &'static str, help: &'static str) -> Unsupported {
    Unsupported { path, key, why, help, code: Code::Unsupported }
}

/// A key whose value is a secret.
const fn inline(path: &'static str, key: &'static str, help: &'static str) -> Unsupported {
    let why = "is a secret: it is only ever named by file, so that this file can be shown and shared";
    Unsupported { path, key, why, help, code: Code::InlineSecret }
}

const fn removed(
    path: &'static str,
    key: &'static str,
    why: &'static str,
    help: &'static str,
) -> Unsupported {
    no(path, key, why, help)
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

/// The unsupported keys of the map `path` that may be supported one day.
pub(super) fn keys(path: &str) -> impl Iterator<Item = &'static str> {
    let of_path = UNSUPPORTED_KEYS.iter().filter(move |entry| entry.path == path);
    of_path.filter(|entry| entry.code == Code::Unsupported).map(|entry| entry.key)
}

impl Unsupported {
    /// The fix.
    pub(super) const fn help(&self) -> &'static str {
        self.help
    }

    /// Reports the key.
    pub(super) fn report(&self, location: &Location, diagnostics: &mut Diagnostics) {
        let message = format!("`{}` {}", self.key, self.why);
        diagnostics.add_with_help(self.code, location, message, self.help);
    }
}
