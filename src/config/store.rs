//! Readers of the sections `store`, `engine`, `retention` and `log`.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::access::database_url_file;
use super::decode::Fields;
use super::diagnostic::{Code, Diagnostics, Location};
use super::scalar::{duration, duration_or_off, flag, keyword, number, positive_duration, text};
use super::settings::{Engine, Log, LogFormat, LogLevel, PostgresStore, Retention, Store};
use super::yaml::{Kind, Node};
use crate::domain::duration::format;
use crate::domain::rate::PerMinute;

pub(super) fn store(node: &Node, diagnostics: &mut Diagnostics) -> Option<Store> {
    let mut fields = Fields::from_node(node, "store", diagnostics)?;
    let (sqlite, postgres) = (fields.lookup("sqlite"), fields.lookup("postgres"));
    if postgres.is_some() && sqlite.is_some_and(is_given) {
        let message = "`sqlite`, `postgres` are mutually exclusive";
        let location = fields.location_of("postgres");
        fields.diagnostics.add_with_help(Code::ExactlyOne, location, message, "keep only one of them");
        fields.finish();
        return None;
    }
    let store = match (postgres, sqlite) {
        (Some(node), _) => postgres_store(node, fields.diagnostics).map(Store::Postgres),
        (None, Some(node)) => sqlite_store(node, fields.diagnostics),
        (None, None) => None,
    };
    fields.finish();
    store
}

/// Whether the file or the environment has it, and not only the defaults.
fn is_given(node: &Node) -> bool {
    let is_default = |node: &Node| node.location == Location::Default;
    match &node.kind {
        Kind::Map(entries) if is_default(node) => entries.iter().any(|(_, value)| !is_default(value)),
        _ => !is_default(node),
    }
}

fn sqlite_store(node: &Node, diagnostics: &mut Diagnostics) -> Option<Store> {
    let mut fields = Fields::from_node(node, "store.sqlite", diagnostics)?;
    let path = fields.get_required("path", "path: data/scalebridge.db", text);
    fields.finish();
    Some(Store::Sqlite { path: PathBuf::from(path?) })
}

/// Few are enough, since a transaction has the notifications of many requests, and each costs the server memory.
const MAX_CONNECTIONS: usize = 8;
/// PostgreSQL accepts 100 by default. With one, a long read would block all decisions.
const CONNECTIONS: RangeInclusive<i64> = 2..=1000;

fn postgres_store(node: &Node, diagnostics: &mut Diagnostics) -> Option<PostgresStore> {
    let mut fields = Fields::from_node(node, "store.postgres", diagnostics)?;
    let has = ["iam", "notify", "max_connections"].map(|key| fields.has(key));
    let iam = fields.get("iam", flag);
    let notify = fields.get("notify", flag);
    let max_connections = fields.get("max_connections", number::<usize>(CONNECTIONS));
    let example = "url_file: /run/secrets/database-url";
    let url_file = fields.get_required("url_file", example, |node, diagnostics| {
        database_url_file(node, iam.unwrap_or(false), diagnostics)
    });
    fields.finish();
    let [has_iam, has_notify, has_max_connections] = has;
    Some(PostgresStore {
        url_file: url_file?,
        max_connections: if has_max_connections { max_connections? } else { MAX_CONNECTIONS },
        iam: if has_iam { iam? } else { false },
        notify: if has_notify { notify? } else { true },
    })
}

/// A thousand events per second; 0 means no limit.
const MAX_EVENTS_PER_MINUTE: i64 = 60_000;

pub(super) fn engine(node: &Node, diagnostics: &mut Diagnostics) -> Option<Engine> {
    let mut fields = Fields::from_node(node, "engine", diagnostics)?;
    let [scale_out_per_minute, scale_in_per_minute] = ["scale_out_per_minute", "scale_in_per_minute"]
        .map(|key| fields.get(key, number::<u32>(0..=MAX_EVENTS_PER_MINUTE)));
    fields.finish();
    let per_minute = PerMinute { scale_out: scale_out_per_minute?, scale_in: scale_in_per_minute? };
    Some(Engine { per_minute })
}

/// A terabyte.
const MAX_NOTIFICATIONS_BYTES: i64 = 1 << 40;

pub(super) fn retention(node: &Node, diagnostics: &mut Diagnostics) -> Option<Retention> {
    let mut fields = Fields::from_node(node, "retention", diagnostics)?;
    let decisions = fields.get("decisions", duration);
    let delivered = fields.get("delivered", duration);
    let closed = fields.get("closed", duration);
    let owed = fields.get("owed", positive_duration);
    let notifications = fields.get("notifications", duration_or_off);
    let notifications_bytes = fields.get("notifications_bytes", number::<u64>(0..=MAX_NOTIFICATIONS_BYTES));
    if let (Some(owed), Some(closed)) = (owed, closed)
        && owed < closed
    {
        let message = format!("`owed` ({}) is below `closed` ({})", format(owed), format(closed));
        let given = if fields.location_of("owed") == &Location::Default { "closed" } else { "owed" };
        let location = fields.location_of(given);
        let help = "raise `owed` or lower `closed`: what a rule owes on a target is kept at least as long as its \
                    closed episode there";
        fields.diagnostics.add_with_help(Code::Contradiction, location, message, help);
    }
    fields.finish();
    Some(Retention {
        decisions: decisions?,
        delivered: delivered?,
        closed: closed?,
        owed: owed?,
        notifications: notifications?,
        notifications_bytes: notifications_bytes?,
    })
}

pub(super) fn log(node: &Node, diagnostics: &mut Diagnostics) -> Option<Log> {
    let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    let mut fields = Fields::from_node(node, "log", diagnostics)?;
    let format = fields.get("format", keyword(&[("text", LogFormat::Text), ("json", LogFormat::Json)]));
    let level = fields.get("level", keyword(&levels.map(|level| (level.as_str(), level))));
    fields.finish();
    Some(Log { format: format?, level: level? })
}
