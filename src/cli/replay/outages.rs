//! When destinations failed, as far as the deliveries of events show it.

use std::time::Duration;

use super::scenario::{Action, Period, Step, floor_millis};
use crate::domain::delivery::DestinationState;
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::ops::api::DeliveryView;

/// A destination that fails for a shorter time is not simulated: nothing depends on it.
const MIN_OUTAGE: Duration = Duration::from_secs(1);

/// A delivery, as far as it shows whether its destination answers.
pub(super) struct Attempt {
    emitted_at: Time,
    /// When it arrived, if it did.
    delivered_at: Option<Time>,
    /// Whether calls have failed in a way that a retry can mend.
    has_failed: bool,
    /// Whether the destination has refused it: it answers.
    pub is_refused: bool,
}

impl Attempt {
    pub(super) fn new(emitted_at: Time, delivery: &DeliveryView) -> Self {
        let delivered_at = delivery.delivered_at.as_deref().and_then(|at| Time::parse(at).ok());
        let is_delivered = delivery.state == "delivered";
        let has_expired = delivery.error.as_deref().is_some_and(|error| error.starts_with("expired:"));
        let is_refused = delivery.state == "dead" && !has_expired;
        let has_failed = match is_delivered {
            true => delivery.attempts > 1,
            false => (delivery.attempts > 0 || has_expired) && !is_refused,
        };
        Self { emitted_at, delivered_at: delivered_at.map(floor_millis), has_failed, is_refused }
    }
}

/// The steps at which a destination begins and ceases to fail.
pub(super) fn outage_steps(name: &Name, attempts: &[Attempt], period: &Period) -> Vec<Step> {
    let first_success_after =
        |time: Time| attempts.iter().filter_map(|attempt| attempt.delivered_at).filter(|at| *at > time).min();
    let mut outages: Vec<(Time, Option<Time>)> = attempts
        .iter()
        .filter(|attempt| attempt.has_failed)
        .map(|attempt| {
            (attempt.emitted_at, attempt.delivered_at.or_else(|| first_success_after(attempt.emitted_at)))
        })
        .filter(|(from, until)| until.is_none_or(|until| until.since(*from) >= MIN_OUTAGE))
        .collect();
    outages.sort_unstable();
    let mut merged: Vec<(Time, Option<Time>)> = Vec::new();
    for (from, until) in outages {
        match merged.last_mut() {
            Some((_, end)) if end.is_none_or(|end| from <= end) => {
                *end = end.zip(until).map(|(one, other)| one.max(other));
            }
            _ => merged.push((from, until)),
        }
    }
    let step = |at, state| Step { at, action: Action::Destination(name.clone(), state) };
    let within = |(from, until): (Time, Option<Time>)| {
        let is_within = from <= period.until && until.is_none_or(|until| until > period.from);
        is_within.then_some((from.max(period.from), until.filter(|until| *until <= period.until)))
    };
    let merged = merged.into_iter().filter_map(within);
    let steps = merged.map(|(from, until)| {
        let down = step(from, DestinationState::Down);
        std::iter::once(down).chain(until.map(|until| step(until, DestinationState::Up)))
    });
    steps.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time::from_millis(second * 1000)
    }

    fn delivery(
        state: &'static str,
        attempts: u32,
        delivered_at: Option<i64>,
        error: Option<&str>,
    ) -> DeliveryView {
        DeliveryView {
            destination: "queue".to_owned(),
            state: state.into(),
            attempts,
            delivered_at: delivered_at.map(|second| at(second).to_millis_string()),
            error: error.map(str::to_owned),
            answer: None,
            suspended: false,
            uncertain: false,
            blocked_by: None,
            next_attempt_at: None,
        }
    }

    /// The steps of a period from 100 to 200 s, as `110 down`.
    fn steps(deliveries: &[(i64, DeliveryView)]) -> Vec<String> {
        let period = Period { from: at(100), until: at(200), source: None };
        let attempts: Vec<Attempt> =
            deliveries.iter().map(|(emitted, delivery)| Attempt::new(at(*emitted), delivery)).collect();
        let steps = outage_steps(&Name::new("queue").unwrap(), &attempts, &period);
        let shown = steps.iter().map(|step| match &step.action {
            Action::Destination(_, state) => format!("{} {}", step.at.as_millis() / 1000, state.as_str()),
            _ => unreachable!("an outage"),
        });
        shown.collect()
    }

    #[test]
    fn a_destination_fails_from_the_emission_until_the_delivery_that_took_retries() {
        let delivered = |attempts, second| delivery("delivered", attempts, Some(second), None);
        assert_eq!(steps(&[(110, delivered(1, 110)), (120, delivered(3, 140))]), ["120 down", "140 up"]);
        assert_eq!(steps(&[(120, delivered(2, 120))]), [""; 0], "shorter than a second");
        let overlapping = [(110, delivered(5, 140)), (120, delivered(3, 150)), (160, delivered(2, 170))];
        assert_eq!(steps(&overlapping), ["110 down", "150 up", "160 down", "170 up"]);
        assert_eq!(steps(&[(90, delivered(9, 130))]), ["100 down", "130 up"], "it failed before the period");
        assert_eq!(steps(&[(190, delivered(9, 230))]), ["190 down"], "it failed until after the period");
        assert_eq!(steps(&[(50, delivered(9, 90)), (210, delivered(9, 220))]), [""; 0]);
    }

    #[test]
    fn a_delivery_that_has_not_arrived_fails_until_the_next_success() {
        let delivered = delivery("delivered", 1, Some(150), None);
        let expired = delivery("dead", 4, None, Some("expired: not delivered in time"));
        let refused = delivery("dead", 1, None, Some("access denied"));
        assert_eq!(steps(&[(110, expired.clone()), (150, delivered.clone())]), ["110 down", "150 up"]);
        assert_eq!(steps(&[(110, expired)]), ["110 down"]);
        assert_eq!(steps(&[(110, delivery("retrying", 2, None, Some("timeout")))]), ["110 down"]);
        assert_eq!(steps(&[(110, delivery("pending", 0, None, None))]), [""; 0]);
        assert_eq!(steps(&[(110, refused.clone())]), [""; 0], "the destination answers");
        assert!(Attempt::new(at(110), &refused).is_refused);
    }
}
