//! A state that cannot be read is given up: what was counted and queued for it goes with it, in one commit.

use super::compression::similar_state;
use super::controls::{change_controls, due, is_due_now, put, recheck};
use super::tally::counted;
use super::*;
use crate::store::{AuditQuery, DropError, Error, StateCursor, UnreadableRow};

/// Bytes of a page of the file.
const PAGE_BYTES: usize = 8192;

/// A store with deferred actions on the targets `a`, `b` and `c`. The states of these targets cannot be read.
async fn damaged_store(unreadable: &[&str]) -> StoreHarness {
    damaged(StoreHarness::sqlite(), unreadable).await
}

/// The same of each store that outlives a process.
async fn damaged_stores(unreadable: &[&str]) -> [StoreHarness; 2] {
    let [one, other] = StoreHarness::durable().await;
    [damaged(one, unreadable).await, damaged(other, unreadable).await]
}

async fn damaged(mut harness: StoreHarness, unreadable: &[&str]) -> StoreHarness {
    put(&harness, "a", deferred_state("nodes", Verdict::Paused, false)).await;
    put(&harness, "b", deferred_state("nodes", Verdict::Held, false)).await;
    put(&harness, "c", deferred_state("pods", Verdict::Stabilizing, true)).await;
    harness.store.close().await;
    for target in unreadable {
        harness.damage(&format!("key = '{target}'"));
    }
    harness.restart().await;
    harness
}

impl StoreHarness {
    /// Makes the states of these targets unreadable.
    fn damage(&self, targets: &str) {
        let damage = self.table("dictionary = 99", "state = '{'");
        self.execute(&format!("UPDATE targets SET {damage} WHERE {targets}"));
    }
}

async fn find(harness: &StoreHarness, target: &str) -> UnreadableRow {
    let read = harness.store.transact(harness.keys(&[target]), |_| (Changes::default(), ())).await;
    assert!(matches!(read, Err(Error::Unreadable(_))), "{read:?}");
    let rows = harness.store.unreadable_rows();
    rows.into_iter().find(|row| row.target == Some(key(target))).unwrap()
}

fn audit() -> AuditWrite {
    AuditWrite::Add(AuditEntry { actor: "ann".into(), act: "drop_state".into(), body: "{}".into() })
}

async fn audited(harness: &StoreHarness) -> usize {
    harness.store.audit_trail(AuditQuery::default()).await.unwrap().entries.len()
}

#[tokio::test]
async fn after_a_drop_the_tally_and_the_recheck_queue_are_those_of_the_other_states() {
    for mut harness in damaged_stores(&["b"]).await {
        let row = find(&harness, "b").await;
        let states = harness.store.states(None, 10).await.unwrap();
        assert_eq!(harness.store.tally().deferred.len(), 3, "what it added is unknown, so it stays");
        assert_eq!(harness.store.drop_unreadable(row.id, audit()).await.unwrap(), row);
        for is_restarted in [false, true] {
            if is_restarted {
                harness.restart().await;
            }
            assert_eq!(harness.store.unreadable_rows(), []);
            assert_eq!(harness.store.tally(), counted(states.iter().map(|state| &state.state)));
            let to_recheck = harness.table("recheck_queue", "targets WHERE depends_on_controls");
            assert_eq!(harness.count(to_recheck), 2);
            let dropped = harness.store.states(Some(StateCursor::new(1)), 1).await.unwrap().remove(0);
            assert!(dropped.state.known_since.is_some_and(|since| since >= row.since), "{dropped:?}");
            assert_eq!(TargetState { known_since: None, ..dropped.state }, TargetState::default());
            assert_eq!(audited(&harness).await, 1);
        }
        for target in ["a", "c"] {
            recheck(&harness, target).await;
        }
        change_controls(&harness, true).await;
        assert_eq!(due(&harness).await, ["a", "c"]);

        // The target begins anew.
        let state = deferred_state("pods", Verdict::Held, false);
        put(&harness, "b", state.clone()).await;
        let all = harness.store.states(None, 10).await.unwrap();
        assert_eq!((all.len(), &all[1].state), (3, &state));
        assert_eq!(harness.store.tally(), counted(all.iter().map(|state| &state.state)));
    }
}

#[tokio::test]
async fn a_drop_counts_what_its_batch_has_written_before_it_and_writes_after_it() {
    let mut harness = damaged_store(&["b"]).await;
    let row = find(&harness, "b").await;
    let gate = Gate::new(&harness.store, true).await;
    let write = |target: &'static str, rule: &'static str| {
        let (store, keys) = (harness.store.clone(), harness.keys(&[target]));
        let state = deferred_state(rule, Verdict::CoolingDown, false);
        let changes = move |_: &View| {
            (Changes { states: vec![(key(target), state.clone())], ..Changes::default() }, ())
        };
        tokio::spawn(async move { store.transact(keys, changes).await.unwrap() })
    };
    let before = write("d", "before");
    let (store, id) = (harness.store.clone(), row.id);
    let dropped = tokio::spawn(async move { store.drop_unreadable(id, audit()).await.unwrap() });
    let after = [write("b", "again"), write("a", "after")];
    gate.open().await;
    before.await.unwrap();
    assert_eq!(dropped.await.unwrap(), row);
    for write in after {
        write.await.unwrap();
    }
    for is_restarted in [false, true] {
        if is_restarted {
            harness.restart().await;
        }
        let states = harness.store.states(None, 10).await.unwrap();
        assert_eq!(states.len(), 4);
        assert_eq!(harness.store.tally(), counted(states.iter().map(|state| &state.state)));
    }
}

/// Otherwise the task that processes due targets would ask again at once, and find nothing.
#[tokio::test]
async fn a_target_that_cannot_be_read_is_not_due() {
    for harness in damaged_stores(&["a", "b", "c"]).await {
        assert!(is_due_now(&harness), "that it cannot be read is not known yet");
        assert_eq!(due(&harness).await, [""; 0]);
        assert!(!is_due_now(&harness));
        assert_eq!(harness.store.unreadable_rows().len(), 3);
    }
}

/// A resume or a reload makes all targets due that depend on the controls, more than one query of due targets returns.
#[tokio::test]
async fn many_targets_that_cannot_be_read_hide_no_other_from_a_change_of_the_controls() {
    for mut harness in StoreHarness::durable().await {
        for number in 0..12 {
            put(&harness, &format!("{number:02}"), deferred_state("nodes", Verdict::Paused, false)).await;
        }
        harness.store.close().await;
        harness.damage("key < '10'");
        harness.restart().await;
        while harness.store.unreadable_rows().len() < 10 {
            due(&harness).await;
        }
        change_controls(&harness, true).await;
        assert_eq!(due(&harness).await, ["10", "11"], "ten at a time");
        for target in ["10", "11"] {
            recheck(&harness, target).await;
        }
        assert!(!is_due_now(&harness));
    }
}

#[tokio::test]
async fn only_a_row_in_quarantine_is_dropped_and_a_failed_drop_changes_nothing() {
    for harness in damaged_stores(&["b"]).await {
        let row = find(&harness, "b").await;
        for id in [row.id - 1, 99] {
            let rejected = harness.store.drop_unreadable(id, audit()).await;
            assert!(matches!(rejected, Err(DropError::NotUnreadable)), "{rejected:?}");
        }
        harness.break_inserts("audit", "true");
        let failed = harness.store.drop_unreadable(row.id, audit()).await;
        assert!(matches!(failed, Err(DropError::Store(Error::Unavailable(_)))), "{failed:?}");
        assert_eq!((harness.store.unreadable_rows(), harness.count("targets")), (vec![row.clone()], 3));
        harness.repair_inserts("audit");
        harness.store.drop_unreadable(row.id, audit()).await.unwrap();
        let again = harness.store.drop_unreadable(row.id, audit()).await;
        assert!(matches!(again, Err(DropError::NotUnreadable)), "{again:?}");
        assert_eq!((harness.count("targets"), audited(&harness).await), (3, 1));
    }
}

/// A page is filled with what can be read, so that a full page says that there may be more.
#[tokio::test]
async fn a_list_of_states_leaves_out_those_that_cannot_be_read_and_reaches_its_end() {
    for harness in damaged_stores(&["a", "b"]).await {
        let keys = async |after, max| {
            let states = harness.store.states(after, max).await.unwrap();
            states.into_iter().map(|state| state.key).collect::<Vec<_>>()
        };
        assert_eq!(keys(None, 1).await, [key("c")]);
        assert_eq!(keys(None, 10).await, [key("c")]);
        assert_eq!(keys(Some(StateCursor::new(3)), 1).await, []);
    }
}

/// A drop works also if more of the row is damaged than its state.
#[tokio::test]
async fn a_row_is_dropped_whatever_of_it_is_damaged() {
    for (damage, left) in [("alerts = 7", 3), ("key = x'ff'", 2), ("firing_events = 'text'", 3)] {
        // The start reads the list of alerts, so the row is damaged after it.
        let mut open = damaged_store(&["b"]).await;
        let update = format!("UPDATE targets SET {damage} WHERE dictionary = 99");
        assert_eq!(open.database().execute(&update, []).unwrap(), 1);
        let read = open.store.transact(open.keys(&["b"]), |_| (Changes::default(), ())).await;
        assert!(matches!(read, Err(Error::Unreadable(_))), "{damage}: {read:?}");
        let row = open.store.unreadable_rows().remove(0);
        open.store.drop_unreadable(row.id, audit()).await.unwrap();
        open.restart().await;
        assert_eq!(open.store.states(None, 10).await.unwrap().len(), left, "{damage}");
    }
}

/// A state of several pages, one of which is damaged: SQLite reports the file as corrupt.
#[tokio::test]
async fn a_damaged_page_concerns_the_rows_that_need_it() {
    let mut harness = damaged_store(&[]).await;
    let mut random = fastrand::Rng::with_seed(1);
    let noise: String = std::iter::repeat_with(|| random.alphanumeric()).take(40_000).collect();
    put(&harness, "large", similar_state("nodes", 1, &noise)).await;
    harness.store.close().await;
    let file = harness.dir.path().join("bridge.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let part = &noise.as_bytes()[20_000..20_100];
    let place = bytes.windows(part.len()).position(|window| window == part).unwrap();
    // The page begins with the number of the next one.
    let page = place / PAGE_BYTES * PAGE_BYTES;
    bytes[page..page + 4].copy_from_slice(&[0, 0xff, 0xff, 0xff]);
    std::fs::write(&file, bytes).unwrap();
    harness.restart().await;
    assert_eq!(harness.store.states(None, 10).await.unwrap().len(), 3);
    let row = find(&harness, "large").await;
    assert!(row.error.contains("malformed"), "{}", row.error);
    put(&harness, "a", state_with_last_resolve("a")).await;
    let dropped = harness.store.drop_unreadable(row.id, audit()).await;
    assert_eq!(dropped.unwrap(), row);
    harness.restart().await;
    assert_eq!(harness.store.states(None, 10).await.unwrap().len(), 4);
}
