//! What a transaction has to know of an event that was not sent yet, read back from the event as it was
//! encoded.

use serde::Deserialize;

use super::engine::Unsent;
use super::name::Name;
use super::state::AlertKey;

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    id: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    rule: Name,
    #[serde(default)]
    alerts: Vec<Alert>,
    notification: Option<Notification>,
}

#[derive(Deserialize)]
struct Alert {
    fingerprint: String,
}

#[derive(Deserialize)]
struct Notification {
    source: Name,
}

impl Unsent {
    /// Reads an encoded event. Of one that was cut to its size the alerts that were left out are missing.
    ///
    /// # Errors
    /// It is no event of ours: not JSON, or without a rule.
    pub fn read(body: &str) -> Result<Self, serde_json::Error> {
        let Document { id, data: Data { rule, alerts, notification } } = serde_json::from_str(body)?;
        let source = notification.map(|notification| notification.source);
        let alerts = alerts.into_iter().filter_map(|alert| {
            Some(AlertKey { source: source.clone()?, fingerprint: alert.fingerprint.into() })
        });
        Ok(Self { id, rule, alerts: alerts.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_event_tells_its_rule_and_its_alerts() {
        let unsent = Unsent::read(include_str!("../../tests/fixtures/event.json")).unwrap();
        assert_eq!(unsent.id.len(), 32);
        assert_eq!(unsent.rule.as_str(), "unschedulable-pods");
        let alerts: Vec<String> = unsent.alerts.iter().map(|alert| format!("{alert:?}")).collect();
        assert_eq!(alerts, ["prod-eu/0000000000000000"]);
    }

    #[test]
    fn what_is_missing_is_left_out_and_what_is_no_event_is_refused() {
        let unsent = Unsent::read(r#"{"data":{"rule":"nodes","alerts":[{"fingerprint":"a"}]}}"#).unwrap();
        assert_eq!((unsent.id.as_str(), unsent.alerts.len()), ("", 0));
        assert!(Unsent::read("xxxx").is_err());
        assert!(Unsent::read(r#"{"data":{}}"#).is_err());
    }
}
