//! Random histories of the engine's reference model, decided by the bridge over each store. All stores lead to the same
//! decisions, deliveries and counts, and the events are those of the model.

use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::domain::control::{Pause, ReceptionGap};
use crate::domain::delivery::GiveUp;
use crate::domain::engine::tests::reference::model::{Config, Destination, OnFiring, OnResolved, Rule};
use crate::domain::engine::tests::reference::random::{configs, histories};
use crate::domain::engine::tests::reference::world::{Action, BridgeInput, World};
use crate::domain::engine::tests::{POLICY, at};
use crate::domain::notification::Envelope;
use crate::store::tests::postgres::Database;
use crate::store::{Claimed, DeliveryQueue as _, RecordQuery, RefusalReason, Settlement, Sqlite, Tally};

/// When the stores are created: no alert has started earlier.
const CREATED: i64 = -100_000;
/// The time after the last input.
const IDLE_SECONDS: i64 = 3 * 3600;
const RETRY_DELAY: Duration = Duration::from_mins(7);
const MAX_AGE: Duration = Duration::from_hours(1);
const SCALE_IN_MAX_AGE: Duration = Duration::from_mins(5);
const MAX_CLAIMED: usize = 100;
/// The maximum number of times that something is due in one instant.
const MAX_ROUNDS: usize = 200;

fn queue() -> Name {
    Name::new("queue").unwrap()
}

/// The clock of a store: it stands still between two steps.
struct SimulatedClock {
    now: Arc<AtomicI64>,
    database: Option<Database>,
    _dir: Option<TempDir>,
}

impl Default for SimulatedClock {
    fn default() -> Self {
        Self { now: Arc::new(AtomicI64::new(at(CREATED).as_nanos())), database: None, _dir: None }
    }
}

impl SimulatedClock {
    fn wall(&self) -> store::WallClock {
        let now = self.now.clone();
        Arc::new(move || Time::from_nanos(now.load(Ordering::Relaxed)))
    }

    fn now(&self) -> Time {
        Time::from_nanos(self.now.load(Ordering::Relaxed))
    }

    fn advance_to(&self, time: Time) {
        if time > self.now() {
            self.now.store(time.as_nanos(), Ordering::Relaxed);
            self.database.iter().for_each(|database| database.freeze_clock(time));
        }
    }
}

/// A bridge with one destination.
struct Simulation {
    bridge: Bridge,
    store: Store,
    clock: SimulatedClock,
    destination: Destination,
    /// When a delivery is tried again or given up.
    wakeups: BTreeSet<Time>,
    deliveries: Vec<String>,
    called: Vec<(String, Time)>,
}

/// What a history has led to.
#[derive(Debug, PartialEq)]
struct Outcome {
    decisions: Vec<String>,
    /// Events with the outcomes of their deliveries, in their order.
    deliveries: Vec<String>,
    /// The ids of events, and when they were called first.
    called: Vec<(String, Time)>,
    tally: Tally,
    undelivered: u64,
}

impl Simulation {
    async fn all(config: &Config) -> [Self; 3] {
        [Self::memory(config), Self::sqlite(config), Self::postgres(config).await]
    }

    fn memory(config: &Config) -> Self {
        let clock = SimulatedClock::default();
        let memory = Memory::new(&[queue()], clock.wall());
        Self::new(config, Store::Memory(memory), clock)
    }

    fn sqlite(config: &Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = SimulatedClock::default();
        let sqlite = Sqlite::open(&dir.path().join("bridge.db"), &[queue()], clock.wall()).unwrap();
        sqlite.follow_wall_clock();
        Self::new(config, Store::Sqlite(sqlite), SimulatedClock { _dir: Some(dir), ..clock })
    }

    async fn postgres(config: &Config) -> Self {
        let database = Database::new();
        database.freeze_clock(at(CREATED));
        // The schema is that of a template.
        database.execute(&format!("UPDATE store SET created = {}", at(CREATED).as_nanos()));
        let store = database.open(&[queue()]).await;
        Self::new(config, store, SimulatedClock { database: Some(database), ..SimulatedClock::default() })
    }

    fn new(config: &Config, store: Store, clock: SimulatedClock) -> Self {
        let settings = World::settings(config);
        let sources = settings.sources.into_iter().map(|(name, source)| (name, (*source).clone())).collect();
        let bridge = Bridge::new(store.clone(), Arc::new(settings.rules), sources, POLICY, Metrics::new());
        Self {
            bridge,
            store,
            clock,
            destination: Destination::Up,
            wakeups: BTreeSet::new(),
            deliveries: Vec::new(),
            called: Vec::new(),
        }
    }

    async fn run(mut self, inputs: &[(Time, BridgeInput)], until: Time) -> Outcome {
        for (time, input) in inputs {
            self.advance_to(*time).await;
            self.apply(input).await;
            self.process_now().await;
        }
        self.advance_to(until).await;
        self.outcome().await
    }

    async fn apply(&mut self, input: &BridgeInput) {
        let now = self.clock.now();
        match input.clone() {
            BridgeInput::Notification(alerts, is_truncated, sent_at) => {
                let handle = self.bridge.source("prod").unwrap();
                let truncated_alerts = u64::from(is_truncated);
                let envelope = Envelope::default();
                let notification = Notification { envelope, truncated_alerts, alerts, sent_at };
                self.bridge.ingest(&handle, notification, None).await.unwrap();
            }
            BridgeInput::Gap(until) => {
                let gap = ReceptionGap { from: now, until, cause: GapCause::Refused };
                let prod = Name::new("prod").unwrap();
                self.change_controls(move |controls| controls.record_gap(&prod, gap)).await;
            }
            BridgeInput::Pause => {
                let pause = Pause {
                    id: 0,
                    rule: None,
                    target: None,
                    direction: None,
                    since: now,
                    until: None,
                    author: "ana".into(),
                    reason: "the database moves".into(),
                };
                self.change_controls(move |controls| {
                    controls.pause(pause.clone());
                })
                .await;
            }
            BridgeInput::Resume => {
                self.change_controls(move |controls| {
                    let pauses: Vec<u64> = controls.pauses(now).map(|pause| pause.id).collect();
                    pauses.into_iter().for_each(|id| drop(controls.resume(id)));
                })
                .await;
            }
            BridgeInput::Destination(destination) => self.destination = destination,
        }
    }

    async fn change_controls(&self, change: impl Fn(&mut Controls) + Send + 'static) {
        let changed = self.store.transact(Keys::default(), move |view| {
            let mut controls = (*view.controls).clone();
            change(&mut controls);
            (Changes { controls: Some(Arc::new(controls)), ..Changes::default() }, ())
        });
        changed.await.unwrap();
    }

    /// Processes everything that is due until then.
    async fn advance_to(&mut self, until: Time) {
        while let Some(next) = self.next().filter(|next| *next <= until) {
            self.clock.advance_to(next);
            self.process_now().await;
        }
        self.clock.advance_to(until);
        self.process_now().await;
    }

    fn next(&self) -> Option<Time> {
        let due = *self.store.next_due().borrow();
        due.into_iter().chain(self.wakeups.first().copied()).min()
    }

    /// Does everything that can be done now.
    async fn process_now(&mut self) {
        let now = self.clock.now();
        // Decisions know what is delivered at their time.
        self.deliver().await;
        for _ in 0..MAX_ROUNDS {
            self.bridge.process_due().await.unwrap();
            let has_delivered = self.deliver().await;
            self.wakeups.retain(|wakeup| *wakeup > now);
            if !has_delivered && self.next().is_none_or(|next| next > now) {
                return;
            }
        }
        panic!("something is due again and again at {now}: {:?}", self.next());
    }

    /// Calls the destination with all events that can be sent now. Returns whether there were any.
    async fn deliver(&mut self) -> bool {
        let claimed = self.store.claim(&queue(), MAX_CLAIMED).await.unwrap();
        let leases = claimed.iter().map(|claimed| claimed.lease).collect();
        let refused = self.store.begin_calls(&queue(), leases).await.unwrap();
        let mut settled = Vec::new();
        for one in &claimed {
            let refused = refused.iter().find(|refused| refused.lease == one.lease);
            let settlement = self.call(one, refused.map(|refused| refused.reason));
            self.deliveries.push(format!("{} {settlement:?} {}", self.clock.now(), &*one.body));
            settled.push((one.lease, settlement));
        }
        self.store.settle(&queue(), settled).await.unwrap();
        !claimed.is_empty()
    }

    fn call(&mut self, claimed: &Claimed, refused: Option<RefusalReason>) -> Settlement {
        let withdrawn = |reason: &str| Settlement::Withdrawn { reason: reason.to_owned() };
        match refused {
            Some(RefusalReason::Suspended) => {
                return Settlement::NotCalled { delay: Duration::ZERO, stands_aside: true };
            }
            Some(_) => return withdrawn("superseded"),
            None if claimed.nothing_to_compensate => return withdrawn("nothing to compensate"),
            None => {}
        }
        let (header, now) = (claimed.body.header().unwrap(), self.clock.now());
        let max_age = if header.decreases_capacity() { SCALE_IN_MAX_AGE } else { MAX_AGE };
        let given_up_at = claimed.emitted_at.after(max_age).min(header.expirytime);
        if now >= given_up_at {
            return Settlement::Dead {
                error: "expired".to_owned(),
                cause: GiveUp::Expired,
                called: false,
                uncertain: false,
            };
        }
        if !self.called.iter().any(|(id, _)| **id == *header.id) {
            self.called.push((header.id.to_string(), now));
        }
        let uncertain = match self.destination {
            Destination::Up => return Settlement::Delivered { answer: None },
            Destination::Down => false,
            Destination::Unknown { .. } => true,
        };
        let delay = RETRY_DELAY.min(given_up_at.since(now));
        self.wakeups.insert(now.after(delay));
        Settlement::Retry { delay, error: "no answer".to_owned(), uncertain }
    }

    async fn outcome(self) -> Outcome {
        let query = RecordQuery { newest_first: false, max: usize::MAX, ..RecordQuery::default() };
        let records = self.store.records(query).await.unwrap().records;
        Outcome {
            decisions: records.into_iter().map(|record| record.body).collect(),
            deliveries: self.deliveries,
            called: self.called,
            tally: self.store.tally(),
            undelivered: self.store.undelivered(),
        }
    }
}

/// All stores lead to the same. Returns why not.
fn compare(config: &Config, history: &[(i64, Action)]) -> Result<(), TestCaseError> {
    let mut world = World::recording(config);
    for (step, action) in history {
        world.apply(*step, *action);
    }
    world.advance(IDLE_SECONDS);
    let inputs = world.inputs.take().unwrap_or_default();
    let until = at(world.now);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let [memory, others @ ..] = runtime.block_on(async {
        let [memory, sqlite, postgres] = Simulation::all(config).await;
        [
            memory.run(&inputs, until).await,
            sqlite.run(&inputs, until).await,
            postgres.run(&inputs, until).await,
        ]
    });
    let [sqlite, postgres] = &others;
    prop_assert_eq!(&memory, sqlite, "SQLite");
    prop_assert_eq!(&memory, postgres, "PostgreSQL");
    let is_up = |(_, input): &(Time, BridgeInput)| !matches!(input, BridgeInput::Destination(destination) if *destination != Destination::Up);
    if inputs.iter().all(is_up) {
        prop_assert_eq!(world.difference(), None);
        let sent = world.bridge.ledger.iter();
        let expected: Vec<_> = sent.map(|sent| (sent.id.to_string(), sent.emitted_at)).collect();
        prop_assert_eq!(&memory.called, &expected, "the model");
    }
    Ok(())
}

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").map_or(12, |text| text.parse().expect("a number"));
    ProptestConfig { cases, max_shrink_iters: 60, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_histories_lead_to_the_same_over_each_store(config in configs(), history in histories()) {
        compare(&config, &history)?;
    }

    /// While all calls succeed, events are called when the model emits them.
    #[test]
    fn random_histories_lead_to_the_events_of_the_model_over_each_store(
        config in configs(),
        history in histories(),
    ) {
        let is_call = |action: &Action| matches!(action, Action::Down | Action::Unknown(_));
        let history: Vec<_> = history.into_iter().filter(|(_, action)| !is_call(action)).collect();
        compare(&config, &history)?;
    }
}

/// Prometheus sends each firing alert again every minute. Such a repeat costs its answer and the state with the later
/// validity: nothing comes due because of it.
#[tokio::test]
async fn a_repeat_that_only_prolongs_what_its_sender_vouches_for_costs_its_answer_and_its_state() {
    const REPEATS: usize = 100;
    let config = Config::new(vec![
        Rule::new("a", OnFiring::IncreaseBy(2), OnResolved::Revert),
        Rule::new("b", OnFiring::IncreaseBy(2), OnResolved::Revert),
    ]);
    let mut world = World::recording(&config);
    for _ in 0..=REPEATS {
        world.apply(60, Action::Vouched(0));
    }
    let mut simulation = Simulation::sqlite(&config);
    for (time, input) in world.inputs.unwrap_or_default() {
        simulation.advance_to(time).await;
        simulation.apply(&input).await;
        simulation.process_now().await;
    }
    let last = simulation.clock.now();
    // The cooldown is over, and the alert expires in a day. The end of its validity is nothing to be done.
    let due = *simulation.store.next_due().borrow();
    assert_eq!(due, Some(last.after(Duration::from_hours(24))));
    let outcome = simulation.outcome().await;
    let repeats: Vec<&String> =
        outcome.decisions.iter().filter(|record| record.contains("duplicate")).collect();
    assert_eq!((repeats.len(), outcome.deliveries.len()), (REPEATS, 1), "one answer each, and one event");
    let bytes = repeats.iter().map(|record| record.len()).sum::<usize>() / REPEATS;
    eprintln!("{bytes} bytes of record for each repeat, before compression");
    assert!(bytes < 700, "{bytes}");
}
