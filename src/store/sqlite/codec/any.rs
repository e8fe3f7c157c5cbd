//! Reads any bytes as one of the stored forms, and asserts what must hold of damaged ones: for the fuzzer.

use rusqlite::types::ValueRef;

use super::{event_blocks, firing_events, receipts, states, tracked_events};
use crate::domain::control::Controls;
use crate::domain::decision_record::DecisionRecord;
use crate::domain::state::TargetState;

/// The number of forms.
pub(crate) const STORED_FORMS: u8 = 7;

/// Reads `bytes` as the form with this number.
pub(crate) fn read_stored_form(form: u8, bytes: &[u8]) {
    match form {
        0 => state(ValueRef::Text(bytes), None),
        1 => state(ValueRef::Blob(bytes), Some(1)),
        2 => event_blocks::read_stored_form(bytes),
        3 => drop(receipts::decode(1, ValueRef::Blob(bytes))),
        4 => {
            // Damaged entries are left out, so what is left is written and read back.
            let events = tracked_events::TargetEvents::decode(bytes);
            let encoded = events.encode().unwrap_or_default();
            assert_eq!(tracked_events::TargetEvents::decode(&encoded), events);
        }
        5 => {
            let firing = firing_events::decode(bytes);
            assert_eq!(firing_events::decode(&firing_events::encode(&firing)), firing);
        }
        _ => {
            drop(serde_json::from_slice::<DecisionRecord>(bytes));
            drop(serde_json::from_slice::<Controls>(bytes));
        }
    }
}

/// A state that can be read is written in a form that can be read.
fn state(column: ValueRef<'_>, dictionary: Option<i64>) {
    let Ok(text) = states::decode(column, dictionary) else { return };
    let Ok(state) = serde_json::from_str::<TargetState>(&text) else { return };
    let written = serde_json::to_string(&state).unwrap_or_default();
    let again = serde_json::from_str::<TargetState>(&written);
    assert!(again.is_ok_and(|again| again == state), "{written}");
}
