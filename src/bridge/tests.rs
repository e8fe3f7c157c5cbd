//! Tests of the bridge's own parts; what it decides is tested through the simulator and in `tests/it`.

mod on_all_stores;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::*;
use crate::domain::rate::PerMinute;
use crate::domain::time::Time;
use crate::store::Memory;

async fn is_ready(future: impl Future<Output = ()>) -> bool {
    let mut future = pin!(future);
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}

#[tokio::test]
async fn retired_rules_are_released_by_their_last_user() {
    let name = Name::new("prod").unwrap();
    let source = Source {
        name: name.clone(),
        labels: Arc::default(),
        late_window: Duration::ZERO,
        occurrence_ttl: Duration::ZERO,
        heartbeat: None,
        ignore_labels: Vec::new(),
        permissions: crate::domain::source::SourcePermissions::default(),
    };
    let sources = BTreeMap::from([(name, source)]);
    let rules = Arc::new(RuleTable::new(Vec::new(), Default::default()));
    let policy = Policy {
        last_resolve_retention: Duration::ZERO,
        expired_episode_retention: Duration::ZERO,
        owed_retention: Duration::ZERO,
        probes_destinations: true,
        per_minute: PerMinute::default(),
    };
    let store = Store::Memory(Memory::new(&[], Arc::new(|| Time::from_millis(0))));
    let bridge = Bridge::new(store, rules.clone(), sources.clone(), policy, Metrics::new());
    let (first, second) = (bridge.source("prod"), bridge.source("prod"));
    let (retired_rules, rechecked) = bridge.reload(rules, sources, policy).await;
    rechecked.unwrap();
    let current = bridge.source("prod");
    drop(first);
    assert!(!is_ready(retired_rules.released()).await, "a notification still uses them");
    drop(second);
    assert!(is_ready(retired_rules.released()).await);
    drop(current);
}

/// Timers do not count the time in which the machine is suspended.
#[tokio::test(start_paused = true)]
async fn a_long_sleep_is_interrupted_to_read_the_clock_again() {
    let slept = async |delay: Duration| {
        let start = tokio::time::Instant::now();
        (sleep(Some(delay)).await, start.elapsed())
    };
    let (hour, three) = (Duration::from_secs(3600), Duration::from_secs(3));
    assert_eq!(slept(hour).await, (false, store::MAX_SLEEP));
    assert_eq!(slept(three).await, (true, three));
}
