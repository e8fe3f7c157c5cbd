//! What the design promises and this version does not build yet.
//!
//! It is refused at start, never ignored: a rule that asks for a budget must not act without one. Whoever builds one of these deletes its line here and reads the key where it belongs.

use super::diagnostic::{Code, Diagnostics, Place};
use super::yaml::{Kind, Node};

/// A key of a map, with the values of it that are refused.
pub(super) struct Unsupported {
    /// The map, as [`super::decode::Fields::of`] was told.
    at: &'static str,
    key: &'static str,
    refused: Refused,
    help: &'static str,
}

enum Refused {
    Always,
    /// Not these: the value is shown, and what is accepted has to be read by its decoder.
    When(fn(&Node) -> bool),
}
use Refused::{Always, When};

#[rustfmt::skip] // a table, one line each
const LIST: &[Unsupported] = &[
    no("server", "tls", Always, "leave it out, and end TLS in front of the bridge"),
    no("admin", "tls", Always, "leave it out, and end TLS in front of the bridge"),
    no("admin", "tokens", Always, "leave it out, and keep the listener on loopback"),
    no("store", "postgres", Always, "keep the state in `sqlite: { path: … }`"),
    no("sources.*", "auth", Always, "leave it out, and let only Alertmanager reach the listener"),
    no("sources.*", "rules", Always, "leave it out, and name the sources in each rule: `sources: […]`"),
    no("sources.*", "targets", Always, "leave it out, and name the sources in each rule: `sources: […]`"),
    no("destinations.*.sqs", "role_arn", Always, "leave it out, and let the process itself have the role (IRSA, Pod Identity, a profile)"),
    no("destinations.*.sqs", "external_id", Always, "leave it out, and let the process itself have the role (IRSA, Pod Identity, a profile)"),
    no("destinations.*.lambda", "role_arn", Always, "leave it out, and let the process itself have the role (IRSA, Pod Identity, a profile)"),
    no("destinations.*.lambda", "external_id", Always, "leave it out, and let the process itself have the role (IRSA, Pod Identity, a profile)"),
    no("destinations.*.lambda", "per_target_order", When(is_true), "leave it out; a FIFO queue keeps the order of each target"),
    no("destinations.*.lambda", "max_events", When(is_above_one), "leave it out; each call carries one event"),
];

const fn no(at: &'static str, key: &'static str, refused: Refused, help: &'static str) -> Unsupported {
    Unsupported { at, key, refused, help }
}

/// The line that refuses `key: value` in the map `at`.
pub(super) fn refuses(at: &str, key: &str, value: &Node) -> Option<&'static Unsupported> {
    let line = LIST.iter().find(|line| line.at == at && line.key == key)?;
    let refused = match line.refused {
        Always => true,
        When(refused) => refused(value),
    };
    refused.then_some(line)
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
    pub fn report(&self, place: &Place, value: &Node, faults: &mut Diagnostics) {
        let shown = match (&self.refused, &value.kind) {
            (When(_), Kind::Int(number)) => format!("{}: {number}", self.key),
            (When(_), Kind::Bool(flag)) => format!("{}: {flag}", self.key),
            _ => self.key.to_owned(),
        };
        faults.help(
            Code::Unsupported,
            place,
            format!("`{shown}` is not supported by this version"),
            self.help,
        );
    }
}

fn is_true(node: &Node) -> bool {
    node.kind == Kind::Bool(true)
}

fn is_above_one(node: &Node) -> bool {
    matches!(node.kind, Kind::Int(2..))
}
