//! Reads the paths of files with secrets, keys and certificates, and warns about files that cannot be used.
//!
//! What is wrong with a file is a warning: the machine that checks a configuration may not have its secrets.
//! `credentials` reads the files again when they are used.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::byte_order_mark;
use super::super::database_url::{Authorities, DatabaseUrl, UrlError};
use super::super::diagnostic::{Code, Diagnostics, Location};
use super::super::redact;
use super::super::scalar::text;
use super::super::yaml::Node;
use super::users_file;

/// Maximum size of a file; a larger one is not what it should be.
const MAX_BYTES: u64 = 1024 * 1024;

/// What happens without the file.
const ANSWERS_503: &str =
    "the bridge starts without it, and answers 503 where it is needed until it can be used";
const CALLS_FAIL: &str = "the bridge starts without it, and calls that need it fail until it can be used";
const NOT_STARTED: &str = "the bridge does not start without it";

/// A file that a setting names.
pub(super) struct LocalFile {
    /// What it is, for messages.
    what: &'static str,
    /// What happens without it.
    without: &'static str,
    is_secret: bool,
    /// What is wrong with a text, if anything is.
    problem: fn(&str) -> Option<&'static str>,
}

/// A token that senders or operators present.
pub(super) const TOKEN: LocalFile =
    LocalFile { what: "token", without: ANSWERS_503, is_secret: true, problem: token_problem };
/// A key that senders sign with.
pub(super) const VERIFYING_KEY: LocalFile =
    LocalFile { what: "key", without: ANSWERS_503, is_secret: true, problem: blank_problem };
/// A key that the bridge signs with.
#[cfg(feature = "server")]
pub(super) const SIGNING_KEY: LocalFile =
    LocalFile { what: "key", without: CALLS_FAIL, is_secret: true, problem: signing_key_problem };
/// Credentials that the bridge sends.
pub(super) const OUTGOING_CREDENTIALS: LocalFile =
    LocalFile { what: "credentials", without: CALLS_FAIL, is_secret: true, problem: blank_problem };
/// The private key of a client certificate.
pub(super) const CLIENT_KEY: LocalFile =
    LocalFile { what: "key", without: CALLS_FAIL, is_secret: true, problem: pem_problem };
/// The private key of a listener.
pub(super) const LISTENER_KEY: LocalFile = LocalFile { without: NOT_STARTED, ..CLIENT_KEY };
/// Certificates of an outgoing client.
pub(super) const CLIENT_CERTIFICATES: LocalFile =
    LocalFile { what: "certificate", without: CALLS_FAIL, is_secret: false, problem: pem_problem };
/// Certificates of a listener.
pub(super) const LISTENER_CERTIFICATES: LocalFile = LocalFile { without: NOT_STARTED, ..CLIENT_CERTIFICATES };
/// A JSON Web Key Set.
pub(super) const KEY_SET: LocalFile =
    LocalFile { what: "key set", without: ANSWERS_503, is_secret: false, problem: key_set_problem };
/// The URL of a database, whose problems are errors: the file is there, and it is wrong.
const DATABASE_URL: LocalFile =
    LocalFile { what: "URL", without: NOT_STARTED, is_secret: true, problem: blank_problem };
/// Users and their hashes, whose problems are reported at their lines.
const USERS: LocalFile =
    LocalFile { what: "users", without: ANSWERS_503, is_secret: true, problem: |_| None };

impl LocalFile {
    /// A reader of the path of such a file, which warns about what is wrong with the file.
    pub(super) fn at(self) -> impl Fn(&Node, &mut Diagnostics) -> Option<PathBuf> {
        move |node, diagnostics| {
            let path = path(node, diagnostics)?;
            self.check(&path, node, diagnostics);
            Some(path)
        }
    }

    /// Warns about a file that cannot be used, and about a secret that every user of the machine can read. Returns the
    /// text.
    fn check(&self, path: &Path, named_by: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
        if self.is_secret
            && let Some(mode) = mode_if_readable_by_all(path)
        {
            let message = format!("every user of the machine can read {} (mode {mode:04o})", path.display());
            let help = "let only the bridge read it: `chmod 0640 FILE`, or `defaultMode: 0440` in the volume of a pod";
            diagnostics.add_with_help(Code::ReadableSecret, &named_by.location, message, help);
        }
        let (what, shown) = (self.what, path.display());
        let read = read(path);
        let found = match &read {
            Err(error) => {
                diagnostics.record_read_error(error);
                Some(format!("cannot read the {what} in {shown}: {error}"))
            }
            Ok(text) => (self.problem)(text).map(|problem| format!("the {what} in {shown} {problem}")),
        };
        if let Some(message) = found {
            diagnostics.add_with_help(Code::UnusableFile, &named_by.location, message, self.without);
        }
        read.ok()
    }
}

/// Reads the path of a file with users and their hashes.
pub(super) fn users_file(node: &Node, diagnostics: &mut Diagnostics) -> Option<PathBuf> {
    let path = path(node, diagnostics)?;
    if let Some(text) = USERS.check(&path, node, diagnostics) {
        let file: Arc<Path> = path.as_path().into();
        for (line, problem) in users_file::parse(&text).problems {
            let location = Location::File { file: file.clone(), line, column: 1 };
            diagnostics.add_with_help(Code::UnusableFile, &location, problem, ANSWERS_503);
        }
        diagnostics.show_redacted(&path, redact::users(&text));
    }
    Some(path)
}

/// Reads the path of a file with the URL of a database, and checks the URL and the files that it names.
pub(in crate::config) fn database_url_file(
    node: &Node,
    iam: bool,
    diagnostics: &mut Diagnostics,
) -> Option<PathBuf> {
    let path = path(node, diagnostics)?;
    let text = DATABASE_URL.check(&path, node, diagnostics).filter(|text| !text.trim().is_empty());
    let Some(text) = text else { return Some(path) };
    match DatabaseUrl::parse(&text, iam) {
        Ok(url) => {
            if let Authorities::File(file) = &url.authorities {
                LISTENER_CERTIFICATES.check(file, node, diagnostics);
            }
            if let Some((certificate, key)) = &url.client_certificate {
                LISTENER_CERTIFICATES.check(certificate, node, diagnostics);
                LISTENER_KEY.check(key, node, diagnostics);
            }
        }
        Err(errors) => {
            // Not at a column: no part of the file may be shown.
            let location = Location::WholeFile(path.as_path().into());
            for UrlError { message, help } in errors {
                diagnostics.add_with_help(Code::Value, &location, message, help);
            }
        }
    }
    Some(path)
}

/// Reads a path. A relative one is relative to the file in which it is written; in an environment variable, to the
/// working directory.
pub(super) fn path(node: &Node, diagnostics: &mut Diagnostics) -> Option<PathBuf> {
    let path = Path::new(text(node, diagnostics)?);
    let directory = match &node.location {
        Location::File { file, .. } => file.parent(),
        _ => None,
    };
    Some(directory.unwrap_or(Path::new("")).join(path))
}

/// Reads a file that is a regular one and not too large, without a byte order mark: a pipe would block.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if metadata.len() > MAX_BYTES {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    byte_order_mark::strip(&mut bytes);
    String::from_utf8(bytes).map_err(|_| io::Error::other("not valid UTF-8"))
}

#[cfg(unix)]
fn mode_if_readable_by_all(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = std::fs::metadata(path).ok()?;
    let mode = metadata.permissions().mode() & 0o7777;
    (metadata.is_file() && mode & 0o004 != 0).then_some(mode)
}

#[cfg(not(unix))]
const fn mode_if_readable_by_all(_: &Path) -> Option<u32> {
    None
}

fn blank_problem(text: &str) -> Option<&'static str> {
    text.trim().is_empty().then_some("is empty")
}

fn token_problem(text: &str) -> Option<&'static str> {
    let token = text.trim();
    let has_space = token.contains(|c: char| c.is_whitespace() || c.is_control());
    blank_problem(text)
        .or(has_space.then_some("contains white space: a file has one token, without `Bearer`"))
}

#[cfg(feature = "server")]
fn signing_key_problem(text: &str) -> Option<&'static str> {
    let is_key = text.trim().starts_with("whsec_");
    blank_problem(text)
        .or((!is_key).then_some("does not begin with `whsec_`, as a key of Standard Webhooks does"))
}

fn pem_problem(text: &str) -> Option<&'static str> {
    blank_problem(text).or((!text.contains("-----BEGIN ")).then_some("is not in PEM format"))
}

fn key_set_problem(text: &str) -> Option<&'static str> {
    let keys = serde_json::from_str::<serde_json::Value>(text).ok();
    let keys = keys.as_ref().and_then(|set| set.get("keys")).and_then(serde_json::Value::as_array);
    blank_problem(text).or(match keys.map(Vec::as_slice) {
        None => Some("is not a JSON Web Key Set"),
        Some([]) => Some("has no keys"),
        Some(_) => None,
    })
}
