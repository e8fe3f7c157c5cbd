//! Reads from an encoded event the fields of an undelivered decrease that a transaction needs.

use super::alert_key::AlertKey;
use super::engine::UndeliveredDecrease;
use super::event::{Error, EventDocument};

impl UndeliveredDecrease {
    /// Reads an encoded event. Alerts that were left out to limit its size are missing.
    ///
    /// # Errors
    /// The text is not an event of scalebridge: not JSON, or without a rule.
    pub fn read(body: &str) -> Result<Self, Error> {
        let event = EventDocument::read(body)?;
        let alerts = event.notification_source().map(|source| {
            let key =
                |fingerprint: &str| AlertKey { source: source.clone(), fingerprint: fingerprint.into() };
            event.fingerprints().map(key).collect()
        });
        Ok(Self {
            id: event.id().unwrap_or_default().to_owned(),
            rule: event.rule_name()?,
            alerts: alerts.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_event_gives_its_rule_and_its_alerts() {
        let decrease = UndeliveredDecrease::read(include_str!("../../tests/fixtures/event.json")).unwrap();
        assert_eq!(decrease.id.len(), 32);
        assert_eq!(decrease.rule.as_str(), "unschedulable-pods");
        let alerts: Vec<String> = decrease.alerts.iter().map(|alert| format!("{alert:?}")).collect();
        assert_eq!(alerts, ["prod-eu/0000000000000000"]);
    }

    #[test]
    fn missing_fields_are_left_out_and_other_texts_are_rejected() {
        let decrease =
            UndeliveredDecrease::read(r#"{"data":{"rule":"nodes","alerts":[{"fingerprint":"a"}]}}"#).unwrap();
        assert_eq!((decrease.id.as_str(), decrease.alerts.len()), ("", 0));
        assert!(UndeliveredDecrease::read("xxxx").is_err());
        assert!(UndeliveredDecrease::read(r#"{"data":{}}"#).is_err());
    }
}
