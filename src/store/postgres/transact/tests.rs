//! Transactions on a server, by one replica and by several.

mod locked_rows;
mod lost_commits;

use std::time::Duration;

use futures_util::future::join_all;

use super::*;
use crate::domain::control::Controls;
use crate::domain::name::Name;
use crate::domain::rate::{PerMinute, StepRates};
use crate::domain::rule::{Amount, Change};
use crate::domain::state::{LastResolve, TargetState};
use crate::domain::time::Time;
use crate::store::postgres::Postgres;
use crate::store::postgres::transaction::Transaction;
use crate::store::tests::postgres::Database;
use crate::store::{Changes, NewEvent, Record, Store, View};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn key(text: &str) -> TargetKey {
    TargetKey::from_stored(text)
}

fn alert(text: &str) -> AlertKey {
    AlertKey { source: name("prod"), fingerprint: text.into() }
}

fn keys(targets: &[&str], alerts: &[&str]) -> Keys {
    Keys {
        targets: targets.iter().map(|target| key(target)).collect(),
        alerts: alerts.iter().map(|text| alert(text)).collect(),
    }
}

fn shared(store: &Store) -> &Shared {
    let Store::Postgres(Postgres(shared)) = store else { panic!("another store") };
    shared
}

async fn replicas(database: &Database, count: usize) -> Vec<Store> {
    let mut stores = Vec::new();
    for _ in 0..count {
        stores.push(database.open(&[name("queue")]).await);
    }
    stores
}

/// A state with a counter, at which these alerts are known.
fn counter(count: u64, at: Time, alerts: &[&str]) -> TargetState {
    let ended = |text: &&str| LastResolve {
        alert: alert(text),
        ends_at: Time::from_nanos(0),
        was_open: true,
        closed_at: None,
        until: Time::from_nanos(i64::MAX),
    };
    let last_resolves = alerts.iter().map(ended).collect();
    TargetState { sequence: count, known_since: Some(at), last_resolves, ..TargetState::default() }
}

/// Counts at all targets that the view has, and at those of the keys.
fn count(view: &View, more: &[TargetKey]) -> Changes {
    let mut targets: Vec<TargetKey> = view.states.targets.keys().chain(more).cloned().collect();
    targets.sort();
    targets.dedup();
    let states = targets.into_iter().map(|target| {
        let before = view.states.targets.get(&target).map(|state| TargetState::clone(state));
        let mut state = before.unwrap_or_else(|| counter(0, view.now, &[]));
        assert!(state.known_since <= Some(view.now), "time went back");
        (state.sequence, state.known_since) = (state.sequence + 1, Some(view.now));
        (target, state)
    });
    Changes { states: states.collect(), ..Changes::default() }
}

async fn put(store: &Store, target: &str, state: TargetState) {
    let (keys, target) = (keys(&[target], &[]), key(target));
    let changes =
        move |_: &View| (Changes { states: vec![(target.clone(), state.clone())], ..Changes::default() }, ());
    store.transact(keys, changes).await.unwrap();
}

async fn counts(store: &Store) -> BTreeMap<String, u64> {
    let states = store.states(None, 1000).await.unwrap();
    states.into_iter().map(|stored| (stored.key.as_str().to_owned(), stored.state.sequence)).collect()
}

fn record(targets: &[&str], body: &str) -> Record {
    Record { targets: targets.iter().map(|target| key(target)).collect(), body: body.to_owned() }
}

fn event(target: &str, id: &str) -> NewEvent {
    let destinations: Arc<[Name]> = [name("queue")].into();
    NewEvent {
        target: key(target),
        acting: destinations.clone(),
        destinations,
        may_decrease_capacity: false,
        reverts: Arc::default(),
        episode_phase: None,
        body: format!("{{\"specversion\":\"1.0\",\"id\":\"{id}\"}}").as_str().into(),
    }
}

#[tokio::test]
async fn a_hundred_commands_share_a_transaction_of_at_most_six_round_trips() {
    let database = Database::new();
    let store = &replicas(&database, 1).await[0];
    for commands in [1, 100] {
        let write = |number: i32| {
            let target = format!("{commands}-{number}");
            let keys = keys(&[&target], &[&target]);
            store.transact(keys, move |view| {
                let (target, mut controls) = (target.as_str(), Controls::clone(&view.controls));
                controls.bump_generation();
                let changes = Changes {
                    states: vec![(key(target), counter(1, view.now, &[target]))],
                    events: vec![event(target, target)],
                    record: Some(record(&[target], "{}")),
                    controls: Some(controls.into()),
                    ..Changes::default()
                };
                (changes, ())
            })
        };
        join_all((0..commands).map(write)).await.into_iter().for_each(Result::unwrap);
    }
    let round_trips = shared(store).transactions.totals.max_round_trips();
    assert!((3..=6).contains(&round_trips), "{round_trips}");
    let transactions: u64 =
        database.execute("SELECT count(DISTINCT id >> 20) FROM records").unwrap().parse().unwrap();
    // The workers take what is queued when they are free.
    assert!((2..=4).contains(&transactions), "{transactions}");
    assert_eq!(database.execute("SELECT count(*) FROM deliveries").unwrap(), "101");
    assert_eq!(store.undelivered(), 101);
    assert_eq!(store.controls().generation, 101, "each has seen those before it");
}

#[tokio::test]
async fn transactions_about_one_target_are_serial_whichever_replicas_run_them() {
    let (database, seed) = (Database::new(), 7);
    let stores = replicas(&database, 2).await;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut expected = BTreeMap::<String, u64>::new();
    let mut running = Vec::new();
    for number in 0..120 {
        let targets: Vec<String> = (0..random.usize(1..4)).map(|_| format!("t{}", random.u8(0..6))).collect();
        let distinct: std::collections::BTreeSet<&str> = targets.iter().map(String::as_str).collect();
        distinct.iter().for_each(|target| *expected.entry((*target).to_owned()).or_default() += 1);
        let keys = keys(&distinct.into_iter().collect::<Vec<_>>(), &[]);
        let more = keys.targets.clone();
        let store = stores[number % 2].clone();
        running.push(tokio::spawn(async move {
            store.transact(keys, move |view| (count(view, &more), ())).await
        }));
    }
    for transaction in running {
        transaction.await.unwrap().unwrap();
    }
    assert_eq!(counts(&stores[0]).await, expected, "seed {seed}");
}

#[tokio::test]
async fn a_target_is_found_by_each_of_its_alerts_and_decided_once_at_a_time() {
    let database = Database::new();
    let stores = replicas(&database, 2).await;
    put(&stores[0], "a", counter(0, Time::from_nanos(0), &["1", "2"])).await;
    put(&stores[0], "b", counter(0, Time::from_nanos(0), &["2"])).await;
    let found = stores[1].locate(vec![alert("1"), alert("2"), alert("3")]).await.unwrap();
    assert_eq!(found, [(alert("1"), vec![key("a")]), (alert("2"), vec![key("a"), key("b")])].into());
    let by_alert = (0..40).map(|number| {
        let alerts = keys(&[], &[if number % 2 == 0 { "1" } else { "2" }]);
        stores[number / 2 % 2].transact(alerts, |view| (count(view, &[]), ()))
    });
    join_all(by_alert).await.into_iter().for_each(Result::unwrap);
    assert_eq!(counts(&stores[0]).await, [("a".to_owned(), 40), ("b".to_owned(), 20)].into());
    put(&stores[0], "a", counter(0, Time::from_nanos(0), &["1"])).await;
    let found = stores[1].locate(vec![alert("2")]).await.unwrap();
    assert_eq!(found, [(alert("2"), vec![key("b")])].into());
}

#[tokio::test]
async fn a_decision_can_write_targets_that_it_has_not_read() {
    let database = Database::new();
    let stores = replicas(&database, 2).await;
    let write = |number: usize| {
        let all = [key("x"), key("y")];
        stores[number % 2].transact(keys(&["a"], &[]), move |view| {
            let mut changes = count(view, &[key("a")]);
            changes.states.extend(all.iter().map(|target| (target.clone(), counter(5, view.now, &[]))));
            changes.record = Some(record(&["a", "z"], "{}"));
            (changes, ())
        })
    };
    join_all((0..10).map(write)).await.into_iter().for_each(Result::unwrap);
    let expected = [("a".to_owned(), 10), ("x".to_owned(), 5), ("y".to_owned(), 5)];
    assert_eq!(counts(&stores[0]).await, expected.into());
    let history =
        stores[0].history(&key("z"), Time::from_nanos(0), Time::from_nanos(i64::MAX)).await.unwrap();
    assert_eq!(history.len(), 10);
}

#[tokio::test]
async fn a_command_that_the_server_refuses_or_that_panics_fails_alone() {
    let database = Database::new();
    let store = &replicas(&database, 1).await[0];
    let write = |number: usize| {
        let target = format!("t{number}");
        let keys = keys(&[&target], &[]);
        store.transact(keys, move |view| {
            assert_ne!(number, 3, "a decision with a bug");
            // No text of the server has this character.
            let body = if number == 5 { "\0" } else { "{}" };
            let changes = count(view, &[key(&target)]);
            (Changes { record: Some(record(&[&target], body)), ..changes }, ())
        })
    };
    let done = join_all((0..10).map(write)).await;
    let failed: Vec<usize> = (0..10).filter(|number| done[*number].is_err()).collect();
    assert_eq!(failed, [3, 5], "{done:?}");
    assert_eq!(counts(store).await.len(), 8);
    assert_eq!(store.outage(), None, "the store accepts others");
}

/// The engine's step is not the only code that a command brings.
struct PanicsAtItsEnd;

impl Drop for PanicsAtItsEnd {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a bug outside of the decision");
    }
}

#[tokio::test]
async fn a_panic_outside_of_a_decision_fails_its_batch_and_ends_no_worker() {
    let database = Database::new();
    let store = &replicas(&database, 1).await[0];
    // More than there are workers.
    for _ in 0..10 {
        let bug = PanicsAtItsEnd;
        let failed = store.transact(keys(&["a"], &[]), move |view| {
            let _owned = &bug;
            (count(view, &[]), ())
        });
        let failed = failed.await;
        assert!(
            matches!(&failed, Err(Error::Unavailable(error)) if error.contains("panicked")),
            "{failed:?}"
        );
    }
    put(store, "a", counter(7, Time::from_nanos(0), &[])).await;
    assert_eq!(counts(store).await, [("a".to_owned(), 7)].into());
}

#[tokio::test]
async fn transactions_have_their_isolation_level_whatever_the_settings_of_the_database() {
    let database = Database::new();
    let set = "EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', current_database())";
    database.execute(&format!("DO $$ BEGIN {set}; END $$"));
    let store = &replicas(&database, 1).await[0];
    let pool = &shared(store).pool;
    for transaction in [Transaction::begin(pool).await, Transaction::begin_reading(pool).await] {
        let transaction = transaction.unwrap();
        let level = transaction.query_one("SHOW transaction_isolation", &[]).await.unwrap();
        assert_eq!(level.get::<_, &str>(0), "read committed");
        transaction.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn controls_and_rates_are_those_of_all_replicas() {
    let database = Database::new();
    let stores = replicas(&database, 2).await;
    let limits = PerMinute { scale_out: 7, scale_in: 0 };
    let emit = |number: usize| {
        let target = format!("t{number}");
        stores[number % 2].transact(keys(&[&target], &[]), move |view| {
            let mut controls = Controls::clone(&view.controls);
            controls.bump_generation();
            let snapshot = view.rates.clone().unwrap();
            let mut rates = StepRates::new(&snapshot, limits, view.now);
            let change = Change::ScaleOut(Amount::By(std::num::NonZeroU32::MIN));
            let is_emitted = rates.reserve_if_limited(&change, None).is_none();
            if is_emitted {
                rates.record_emission(&change);
            }
            let changes = count(view, &[key(&target)]);
            let controls = Some(controls.into());
            (Changes { controls, rates: rates.into_delta(), ..changes }, is_emitted)
        })
    };
    let emitted = join_all((0..40).map(emit)).await;
    let emitted = emitted.into_iter().filter(|emitted| *emitted.as_ref().unwrap()).count();
    assert_eq!(emitted, 7);
    let read = stores[1].transact(Keys::default(), |view| (Changes::default(), view.controls.generation));
    assert_eq!(read.await.unwrap(), 40);
}

#[tokio::test]
async fn due_targets_are_processed_by_one_replica_at_a_time() {
    let database = Database::new();
    let stores = replicas(&database, 2).await;
    for target in ["a", "b", "c"] {
        let mut state = counter(0, Time::from_nanos(0), &[]);
        state.cooldowns.after_increase = Some(Time::from_nanos(5));
        put(&stores[0], target, state).await;
    }
    assert_eq!(*stores[0].next_due().borrow(), Some(Time::from_nanos(5)));
    assert_eq!(stores[0].due(2).await.unwrap(), [key("a"), key("b")]);
    assert_eq!(stores[1].due(2).await.unwrap(), [key("c")]);
    assert_eq!(stores[0].due(9).await.unwrap(), [key("a"), key("b")], "its own claims do not hide them");
    let rechecked = |targets: Vec<TargetKey>| {
        let keys = Keys { targets: targets.clone(), alerts: Vec::new() };
        stores[0].transact(keys, move |_| {
            let states = targets.iter().map(|target| (target.clone(), counter(1, Time::from_nanos(0), &[])));
            let states = states.collect();
            (Changes { states, rechecked: targets.clone(), ..Changes::default() }, ())
        })
    };
    rechecked(vec![key("a"), key("b")]).await.unwrap();
    let next = stores[0].next_due().borrow().unwrap();
    assert!(next > stores[0].now(), "the other one is claimed for some seconds");
    rechecked(vec![key("c")]).await.unwrap();
    assert_eq!(*stores[0].next_due().borrow(), None);
    assert_eq!(stores[1].due(9).await.unwrap(), []);
}

#[tokio::test]
async fn time_does_not_go_back_for_a_target() {
    let database = Database::new();
    let store = &replicas(&database, 1).await[0];
    put(store, "a", counter(0, Time::from_nanos(0), &[])).await;
    database.execute("UPDATE targets SET last_at = last_at + 3600000000000");
    let now = |target: &str| {
        let target = key(target);
        let keys = Keys { targets: vec![target.clone()], alerts: Vec::new() };
        store.transact(keys, move |view| (count(view, std::slice::from_ref(&target)), view.clock()))
    };
    let (ahead, again, other) = (now("a").await.unwrap(), now("a").await.unwrap(), now("b").await.unwrap());
    assert!(ahead.now.since(ahead.wall) > Duration::from_secs(3500), "{ahead:?}");
    assert!(again.now >= ahead.now, "{again:?}");
    assert_eq!(other.now, other.wall);
}

#[tokio::test]
async fn what_is_queued_is_run_before_the_store_is_closed() {
    let database = Database::new();
    let store = &replicas(&database, 1).await[0];
    let write = |number: i32| {
        let target = key(&format!("t{number}"));
        let keys = Keys { targets: vec![target.clone()], alerts: Vec::new() };
        store.transact(keys, move |view| (count(view, std::slice::from_ref(&target)), ()))
    };
    let (done, ()) = tokio::join!(join_all((0..20).map(write)), store.close());
    done.into_iter().for_each(Result::unwrap);
    assert!(matches!(write(20).await, Err(Error::Closed)));
    assert_eq!(database.execute("SELECT count(*) FROM targets WHERE state IS NOT NULL").unwrap(), "20");
}
