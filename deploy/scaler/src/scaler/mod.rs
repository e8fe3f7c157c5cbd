//! Applies the events that arrive: reads, resolves, applies, and says what became of each.

mod connections;
mod observer;
mod refusals;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use scalebridge::domain::time::Time;
use serde::Deserialize;

use crate::apply::{PlatformError, apply};
use crate::config::Config;
use crate::event::ScalingEvent;
use crate::ledger::{Ledger, Pending};
use crate::outcome::{Answer, Outcome};
use crate::plan;
use crate::report::Received;
use crate::resolve::{Resolved, resolve};
use crate::runtime::Events;
pub use connections::Connections;
pub use observer::{LogOutput, Observer};
pub use refusals::Refusals;

/// The scaler, with everything that it needs for any event.
pub struct Scaler<L> {
    config: Arc<Config>,
    ledger: L,
    connections: Connections,
    observer: Observer,
    refusals: Option<Refusals>,
    clock: fn() -> Time,
    /// Numbers of workers, never 0: see [`apply`].
    random: fn() -> u64,
}

/// What [`Scaler::new`] is made of.
pub struct Parts<L> {
    pub config: Arc<Config>,
    pub ledger: L,
    pub connections: Connections,
    pub observer: Observer,
    pub refusals: Option<Refusals>,
    pub clock: fn() -> Time,
    pub random: fn() -> u64,
}

/// The id of a text that cannot be read as an event otherwise.
#[derive(Deserialize)]
struct Identified {
    id: String,
}

impl<L: Ledger> Scaler<L> {
    pub fn new(parts: Parts<L>) -> Self {
        let Parts { config, ledger, connections, observer, refusals, clock, random } = parts;
        Self { config, ledger, connections, observer, refusals, clock, random }
    }

    async fn apply(&self, event: &ScalingEvent) -> Answer {
        let resolved = match resolve(&self.config, event) {
            Ok(resolved) => resolved,
            Err(why) => return plan::refuse(event, why),
        };
        let Resolved { settings, .. } = resolved;
        let capacity = match self.connections.connect(&resolved, event).await {
            Ok(capacity) => capacity,
            Err(PlatformError::Refused(why)) => return plan::refuse(event, why),
            Err(PlatformError::Busy(why) | PlatformError::Unknown(why)) => return plan::retry(event, why),
        };
        let of_ledger = ScalingEvent { subject: resolved.ledger_key(&event.subject), ..event.clone() };
        let ledger = observer::Counted { ledger: &self.ledger, observer: &self.observer };
        let on_other = |pending: &Pending| self.observer.change(&event.subject, pending, (self.clock)());
        let worker = (self.random)();
        apply(worker, &of_ledger, &ledger, &capacity, &settings.policy, self.clock, on_other).await
    }
}

impl<L: Ledger + 'static> Events for Scaler<L> {
    async fn handle(&self, body: &str) -> Answer {
        let event = ScalingEvent::read(body);
        let answer = match &event {
            Ok(event) => self.apply(event).await,
            Err(malformed) => malformed_event(body, malformed.to_string()),
        };
        let received = event.as_ref().map_or(Received::Unreadable, Received::Event);
        let answer = self.kept(body, received, answer).await;
        self.observer.event(received, &answer, (self.clock)());
        answer
    }
}

impl<L: Ledger> Scaler<L> {
    /// Sends a refused event to the queue for those. While that does not take it, the event is to be tried again: it would
    /// be nowhere else. After its `expirytime`, or where it has none that can be read, it is in the log only, so that it
    /// does not block those behind it for ever.
    async fn kept(&self, body: &str, received: Received<'_>, answer: Answer) -> Answer {
        let Some(refusals) = &self.refusals else { return answer };
        if answer.outcome != Outcome::Refused {
            return answer;
        }
        let Err(error) = refusals.send(body, &answer).await else { return answer };
        let now = (self.clock)();
        self.observer.refusal_unsent(body, &answer, &error, now);
        match received {
            Received::Event(event) if now < event.expirytime => {
                let reason = format!(
                    "it is refused ({}), and the queue of refused events cannot be reached: {error}",
                    answer.reason
                );
                Answer { outcome: Outcome::Retry, reason, ..answer }
            }
            _ => answer,
        }
    }
}

fn malformed_event(body: &str, reason: String) -> Answer {
    let id = serde_json::from_str::<Identified>(body).map(|event| event.id);
    // A text of any length is not repeated in logs and answers.
    let id = id.ok().filter(|id| id.len() <= MAX_SHOWN_ID && !id.contains(char::is_control));
    Answer { id: id.unwrap_or_default(), outcome: Outcome::Refused, from: None, to: None, reason }
}

/// An id of CloudEvents has any length; ours have 32.
const MAX_SHOWN_ID: usize = 128;
