//! Dead letters: listed, redriven and discarded one by one.

use serde_json::Value;

use super::Ops;
use super::act::Initiator;
use super::api::{
    AuditDetails, DeadLetterPage, DeadLetterView, ListDeadLettersParams, RedriveDetails, RedriveOptions,
};
use super::audit::{self, OperatorAct};
use super::error::Error;
use super::parse;
use crate::domain::header::EventHeader;
use crate::domain::name::Name;
use crate::store::{AuditWrite, DeadLetter, DeadLetterError, DeliveryId, EventSeq, Redrive};

pub(super) fn format_id(delivery_id: &DeliveryId) -> String {
    format!("{}-{}", delivery_id.seq.0, delivery_id.destination)
}

fn parse_id(text: &str) -> Result<DeliveryId, Error> {
    let parts = text
        .split_once('-')
        .and_then(|(seq, destination)| Some((seq.parse().ok()?, Name::new(destination).ok()?)));
    let (seq, destination) = parts.ok_or_else(|| {
        Error::Invalid(format!("invalid dead letter id `{text}`; expected the form 17-scaling-queue"))
    })?;
    Ok(DeliveryId { seq: EventSeq(seq), destination })
}

fn view(dead_letter: &DeadLetter) -> DeadLetterView {
    let header = EventHeader::read(&dead_letter.event).ok();
    DeadLetterView {
        id: format_id(&dead_letter.delivery_id),
        destination: dead_letter.delivery_id.destination.to_string(),
        event_id: dead_letter.id.clone(),
        rule: dead_letter.rule.clone(),
        subject: dead_letter.target.clone(),
        action: dead_letter.action.clone(),
        decreases_capacity: header.as_ref().is_some_and(EventHeader::decreases_capacity),
        emitted_at: dead_letter.emitted_at.to_millis_string(),
        expires_at: header.map(|header| header.expirytime.to_millis_string()),
        given_up_at: dead_letter.given_up_at.to_millis_string(),
        attempts: dead_letter.attempts,
        error: dead_letter.error.clone(),
        event: None,
    }
}

pub(super) fn redrive_options(options: &RedriveOptions) -> Result<Redrive, Error> {
    let valid_for = parse::duration("valid_for", options.valid_for.as_deref())?;
    Ok(Redrive { valid_for, force: options.force })
}

pub(super) fn redrive_details(options: &RedriveOptions) -> RedriveDetails {
    RedriveDetails { valid_for: options.valid_for.clone(), force: options.force }
}

impl Ops {
    /// Lists dead letters, oldest first.
    ///
    /// # Errors
    /// A parameter is invalid, or the store cannot be read.
    pub(crate) async fn dead_letters(&self, params: &ListDeadLettersParams) -> Result<DeadLetterPage, Error> {
        let max = parse::page_size(params.limit)?;
        let destination = parse::name("destination", params.destination.as_deref())?;
        let after = params.cursor.as_deref().map(parse_id).transpose()?;
        let found = self.0.store.dead_letters(destination.as_ref(), after.as_ref(), max).await?;
        let next = found.last().map(|last| format_id(&last.delivery_id)).filter(|_| found.len() == max);
        Ok(DeadLetterPage { dead_letters: found.iter().map(view).collect(), next })
    }

    /// A dead letter with its event.
    ///
    /// # Errors
    /// There is no such dead letter, or the store cannot be read.
    pub(crate) async fn dead_letter(&self, id: &str) -> Result<DeadLetterView, Error> {
        let found = self.0.store.dead_letter(&parse_id(id)?).await?;
        let dead_letter = found.ok_or(DeadLetterError::NotDead)?;
        let event =
            serde_json::from_str(&dead_letter.event).unwrap_or_else(|_| Value::from(&*dead_letter.event));
        Ok(DeadLetterView { event: Some(event), ..view(&dead_letter) })
    }

    /// Redrives a dead letter.
    ///
    /// # Errors
    /// The dead letter does not exist or cannot be redriven, or the store cannot write.
    pub(crate) async fn redrive(
        &self,
        by: &Initiator,
        id: &str,
        options: &RedriveOptions,
    ) -> Result<(), Error> {
        let delivery_id = parse_id(id)?;
        let details = AuditDetails {
            dead_letter: Some(format_id(&delivery_id)),
            redrive: Some(redrive_details(options)),
            ..AuditDetails::done()
        };
        let audit = AuditWrite::Add(audit::entry(OperatorAct::Redrive, by, details));
        self.0.store.redrive(&delivery_id, redrive_options(options)?, audit).await?;
        tracing::info!(
            dead_letter = id,
            author = by.actor.as_str(),
            reason = by.reason_text(),
            "dead letter redriven"
        );
        Ok(())
    }

    /// Discards a dead letter.
    ///
    /// # Errors
    /// The dead letter does not exist, or the store cannot write.
    pub(crate) async fn discard(&self, by: &Initiator, id: &str) -> Result<(), Error> {
        let delivery_id = parse_id(id)?;
        let details = AuditDetails { dead_letter: Some(format_id(&delivery_id)), ..AuditDetails::done() };
        let audit = AuditWrite::Add(audit::entry(OperatorAct::Discard, by, details));
        self.0.store.discard(&delivery_id, audit).await?;
        tracing::info!(
            dead_letter = id,
            author = by.actor.as_str(),
            reason = by.reason_text(),
            "dead letter discarded"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_parsed_back_for_any_destination_name() {
        for destination in ["queue", "a-b-c", "7-7"] {
            let one = DeliveryId { seq: EventSeq(17), destination: Name::new(destination).unwrap() };
            assert_eq!(parse_id(&format_id(&one)).unwrap(), one);
        }
        for text in ["", "17", "x-queue", "17-", "17-Not a name"] {
            parse_id(text).unwrap_err();
        }
    }
}
