//! Reader of destinations: the settings that all kinds have. Those of a kind are read by the kind.

use std::time::Duration;

use super::decode::Fields;
use super::delivery;
use super::diagnostic::Diagnostics;
use super::kinds::DestinationSettings;
use super::scalar::{number, positive_duration};
use super::settings::{Delivery, Destination};
use super::yaml::Node;
use crate::domain::name::Name;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// The maximum of `concurrency`, unless the kind has a lower one.
const MAX_CONCURRENCY: usize = 256;

/// A complete setting of a destination that needs no other service, for messages.
pub(super) fn example<D: DestinationSettings>() -> &'static str {
    let mut kinds = D::KINDS.iter();
    kinds.find(|kind| !kind.acting).or(D::KINDS.first()).map_or("", |kind| kind.example)
}

pub(super) fn destination<D: DestinationSettings>(
    name: Name,
    node: &Node,
    common: Delivery,
    diagnostics: &mut Diagnostics,
) -> Option<Destination<D>> {
    let mut fields = Fields::from_node(node, "destinations.*", diagnostics)?;
    let keys: Vec<&'static str> = D::KINDS.iter().map(|kind| kind.key).collect();
    let selected = fields.one_of(&keys, &format!("add one, for example `{}`", example::<D>()));
    let kind = selected.and_then(|(key, node)| Some((D::KINDS.iter().find(|kind| kind.key == key)?, node)));
    let settings = kind.and_then(|(kind, node)| (kind.read)(node, fields.diagnostics));
    // Also if several kinds are given, which is an error by itself.
    let given = D::KINDS.iter().filter(|kind| fields.has(kind.key));
    let max_concurrency = given.map(|kind| kind.max_concurrency).min().unwrap_or(MAX_CONCURRENCY);
    let concurrency = fields.get("concurrency", number(1..=max_concurrency.min(MAX_CONCURRENCY) as i64));
    let timeout = fields.get("timeout", positive_duration).unwrap_or(DEFAULT_TIMEOUT);
    let max_backlog = fields.get("max_backlog", delivery::backlog);
    let delivery = delivery::with_overrides(common, &mut fields);
    fields.finish();
    let ((kind, _), settings) = kind.zip(settings)?;
    let concurrency = concurrency.unwrap_or(kind.default_concurrency);
    Some(Destination { name, settings, acting: kind.acting, delivery, max_backlog, concurrency, timeout })
}
