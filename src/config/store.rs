//! Readers of the sections `store`, `engine`, `retention` and `log`.

use std::path::PathBuf;

use super::decode::Fields;
use super::diagnostic::{Code, Diagnostics, Location};
use super::scalar::{duration, duration_or_off, keyword, number, positive_duration, text};
use super::settings::{Engine, Log, LogFormat, LogLevel, Retention, Store};
use super::yaml::Node;
use crate::domain::duration::format;
use crate::domain::rate::PerMinute;

pub(super) fn store(node: &Node, diagnostics: &mut Diagnostics) -> Option<Store> {
    let mut fields = Fields::from_node(node, "store", diagnostics)?;
    let store = fields.get("sqlite", |node, diagnostics| {
        let mut fields = Fields::from_node(node, "store.sqlite", diagnostics)?;
        let path = fields.get_required("path", "path: data/scalebridge.db", text);
        fields.finish();
        Some(Store::Sqlite { path: PathBuf::from(path?) })
    });
    fields.finish();
    store
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
