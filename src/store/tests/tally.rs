//! The tally of open episodes and deferred actions is exact.

use proptest::prelude::*;

use super::*;
use crate::store::Tally;

pub(super) fn counted<'a>(states: impl IntoIterator<Item = &'a TargetState>) -> Tally {
    let mut tally = Tally::default();
    for state in states {
        for rule in state.open_episodes() {
            *tally.open_episodes.entry(rule.clone()).or_default() += 1;
        }
        for verdict in state.deferred_verdicts() {
            *tally.deferred.entry(verdict).or_default() += 1;
        }
    }
    tally
}

fn states() -> impl Strategy<Value = TargetState> {
    let verdict = prop::sample::select(vec![Verdict::Paused, Verdict::CoolingDown, Verdict::Held]);
    let part = (prop::sample::select(vec!["nodes", "pods"]), verdict, any::<bool>());
    prop::collection::vec(part, 0..3).prop_map(|parts| {
        let mut state = TargetState::default();
        for (rule, verdict, closing) in parts {
            state.rules.extend(deferred_state(rule, verdict, closing).rules);
        }
        state
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Also if a transaction writes a target twice, or one that is not in its keys.
    #[test]
    fn the_tally_counts_all_states(
        writes in prop::collection::vec((prop::collection::vec((0..4_usize, states()), 1..4), any::<bool>()), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for mut harness in StoreHarness::durable().await {
                let mut known = vec![TargetState::default(); 4];
                for (states, restart) in writes.clone() {
                    for (at, state) in &states {
                        known[*at] = state.clone();
                    }
                    let states: Vec<_> =
                        states.into_iter().map(|(at, state)| (key(&format!("t{at}")), state)).collect();
                    harness
                        .write(&[], move |_| Changes { states: states.clone(), ..Changes::default() })
                        .await;
                    if restart {
                        harness.restart().await;
                    }
                    prop_assert_eq!(harness.store.tally(), counted(&known));
                }
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_store_in_memory_counts_too() {
    let harness = StoreHarness::memory();
    let state = deferred_state("nodes", Verdict::Paused, false);
    let written = state.clone();
    harness
        .write(&[], move |_| Changes { states: vec![(key("a"), written.clone())], ..Changes::default() })
        .await;
    assert_eq!(harness.store.tally(), counted([&state]));
}
