//! Readers of notifications and their alerts.

use std::collections::BTreeMap;

use super::super::decode::{Fields, entries, list, spanned};
use super::super::diagnostic::{Code, Diagnostics};
use super::super::names::name;
use super::super::scalar::{any_text, duration, keyword, number, owned_text};
use super::super::yaml::Node;
use super::times::relative_time;
use super::{TestAlert, TestNotification};
use crate::domain::notification::Status;
use crate::domain::time::Time;

pub(super) fn notify(node: &Node, start: Time, diagnostics: &mut Diagnostics) -> Option<TestNotification> {
    let mut fields = Fields::from_node(node, "tests.*.notify", diagnostics)?;
    let source = fields.get_required("source", "source: prod-eu", spanned(name));
    let truncated = fields.get("truncatedAlerts", number::<u64>(0..=i64::from(u32::MAX))).unwrap_or(0);
    let sent_at = fields.get("sent_at", relative_time(start));
    let envelope = ["receiver", "groupKey", "externalURL", "notification_reason"];
    let envelope = envelope.map(|key| (key, fields.get(key, owned_text)));
    let alerts =
        fields.get_required("alerts", "alerts: [{ status: firing, labels: { alertname: Disk } }]", {
            list(|node, diagnostics| alert(node, start, diagnostics))
        });
    fields.finish();
    let envelope = envelope.into_iter().filter_map(|(key, text)| Some((key, text?))).collect();
    let source = source?;
    let (source, source_location) = (source.value, source.location);
    Some(TestNotification { source, source_location, truncated, sent_at, envelope, alerts: alerts? })
}

fn alert(node: &Node, start: Time, diagnostics: &mut Diagnostics) -> Option<TestAlert> {
    let mut fields = Fields::from_node(node, "tests.*.alert", diagnostics)?;
    let words = [("firing", Status::Firing), ("resolved", Status::Resolved)];
    let status = fields.get_required("status", "status: firing", keyword(&words));
    let labels = fields.get_required("labels", "labels: { alertname: Disk }", string_map);
    let annotations = fields.get("annotations", string_map).unwrap_or_default();
    let starts_at = time_of(["startsAt", "starts_at"], start, &mut fields);
    let ends_at = time_of(["endsAt", "ends_at"], start, &mut fields);
    let absence = fields.get("absence", owned_text);
    let valid_for = fields.get("valid_for", duration);
    belongs_to("absence", Status::Resolved, status, &mut fields);
    belongs_to("valid_for", Status::Firing, status, &mut fields);
    let fingerprint = fields.get("fingerprint", owned_text);
    let generator_url = fields.get("generatorURL", owned_text);
    fields.finish();
    Some(TestAlert {
        status: status?,
        labels: labels?,
        annotations,
        starts_at,
        ends_at,
        absence,
        valid_for,
        fingerprint,
        generator_url,
    })
}

/// Checks that a key is that of an alert with this status.
fn belongs_to(key: &str, expected: Status, status: Option<Status>, fields: &mut Fields<'_, '_>) {
    if fields.has(key) && status.is_some_and(|status| status != expected) {
        let message = format!("`{key}` requires `status: {}`", expected.as_str());
        let location = fields.location_of(key);
        fields.diagnostics.add_with_help(
            Code::Contradiction,
            location,
            message,
            "remove it, or change the status",
        );
    }
}

/// Reads a time that can be given by Alertmanager's name or by that of decisions and events.
fn time_of(names: [&'static str; 2], start: Time, fields: &mut Fields<'_, '_>) -> Option<Time> {
    let [first, second] = names.map(|name| fields.get(name, relative_time(start)));
    if names.iter().all(|name| fields.has(name)) {
        let message = format!("`{}` and `{}` are two names of the same time", names[0], names[1]);
        let location = fields.location_of(names[1]);
        fields.diagnostics.add_with_help(Code::ExactlyOne, location, message, "keep only one of them");
    }
    first.or(second)
}

fn string_map(node: &Node, diagnostics: &mut Diagnostics) -> Option<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    for (key, value) in entries(node, diagnostics)? {
        if let Some(text) = any_text(value, diagnostics) {
            texts.insert(key.name.clone(), text.to_owned());
        }
    }
    Some(texts)
}
