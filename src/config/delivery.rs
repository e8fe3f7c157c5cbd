//! Delivery settings: backoff, maximum age and backlog.

use super::decode::Fields;
use super::diagnostic::{Code, Diagnostics};
use super::scalar::{number, positive_duration};
use super::settings::Delivery;
use super::yaml::Node;
use crate::domain::duration::format;

const KEYS: [&str; 4] = ["initial_backoff", "max_backoff", "max_age", "scale_in_max_age"];

/// Reads a maximum number of unsettled deliveries. It is at least 1, since 0 would reject everything.
pub(super) fn backlog(node: &Node, diagnostics: &mut Diagnostics) -> Option<u64> {
    number(1..=i64::MAX)(node, diagnostics)
}

/// Reads the `delivery` section: the defaults of each destination, and the backlog limit of all of them
/// together. The built-in defaults set every key.
pub(super) fn delivery(node: &Node, diagnostics: &mut Diagnostics) -> Option<(Delivery, u64)> {
    let mut fields = Fields::from_node(node, "delivery", diagnostics)?;
    let [initial_backoff, max_backoff, max_age, scale_in_max_age] =
        KEYS.map(|key| fields.get(key, positive_duration));
    let max_backlog = fields.get("max_backlog", backlog);
    let read = || {
        Some(Delivery {
            initial_backoff: initial_backoff?,
            max_backoff: max_backoff?,
            max_age: max_age?,
            scale_in_max_age: scale_in_max_age?,
        })
    };
    let delivery = read();
    if let Some(delivery) = &delivery {
        check(delivery, &mut fields);
    }
    fields.finish();
    delivery.zip(max_backlog)
}

/// The delivery settings of one destination: its own keys override `common`.
pub(super) fn with_overrides(common: Delivery, fields: &mut Fields<'_, '_>) -> Delivery {
    let [initial_backoff, max_backoff, max_age, scale_in_max_age] =
        KEYS.map(|key| fields.get(key, positive_duration));
    let own = Delivery {
        initial_backoff: initial_backoff.unwrap_or(common.initial_backoff),
        max_backoff: max_backoff.unwrap_or(common.max_backoff),
        max_age: max_age.unwrap_or(common.max_age),
        scale_in_max_age: scale_in_max_age.unwrap_or(common.scale_in_max_age),
    };
    if initial_backoff.is_some() || max_backoff.is_some() {
        check(&own, fields);
    }
    own
}

fn check(delivery: &Delivery, fields: &mut Fields<'_, '_>) {
    let Delivery { initial_backoff, max_backoff, .. } = *delivery;
    if initial_backoff > max_backoff {
        let location =
            fields.location_of(if fields.has("initial_backoff") { "initial_backoff" } else { "max_backoff" });
        let message = format!(
            "`initial_backoff` ({}) exceeds `max_backoff` ({})",
            format(initial_backoff),
            format(max_backoff)
        );
        let help =
            "the backoff grows from `initial_backoff` to `max_backoff`: lower the first or raise the second";
        fields.diagnostics.add_with_help(Code::Contradiction, location, message, help);
    }
}
