//! Deliveries in simulated time.

use serde_json::json;

use super::*;
use crate::domain::duration;
use crate::domain::rate::PerMinute;
use crate::domain::template::Templates;
use crate::testing;

const CONFIG: &str = "
sources: { prod: {} }
destinations: { queue: { file: { path: queue.jsonl } }, other: { file: { path: other.jsonl } } }
rules: [rules.yaml]
";
const RULES: &str = r#"
defaults: { send_to: [queue] }
rules:
  - name: pods
    matchers: [alertname = Pods]
    target: { platform: custom, kind: pool, name: workers }
    on_firing: { scale_out: { by: 2 } }
  - name: idle
    matchers: [alertname = Idle]
    target: { platform: custom, kind: pool, name: workers }
    on_firing: { scale_in: { by: 1 }, stabilization_window: 0s }
"#;
const BEGINNING: Time = Time::from_millis(1_795_366_500_000);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn settings(rules: &str) -> testing::BridgeSettings {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("scalebridge.yaml"), CONFIG).unwrap();
    std::fs::write(dir.path().join("rules.yaml"), rules).unwrap();
    testing::load(&dir.path().join("scalebridge.yaml")).unwrap()
}

fn policy() -> Policy {
    Policy {
        last_resolve_retention: Duration::from_hours(1),
        expired_episode_retention: Duration::from_hours(1),
        owed_retention: Duration::from_hours(1),
        probes_destinations: true,
        per_minute: PerMinute::default(),
    }
}

fn simulator() -> Simulator {
    let testing::BridgeSettings { rules, sources } = settings(RULES);
    Simulator::new(rules, sources, policy(), BEGINNING)
}

/// Sends an alert. Returns the ids of the events that are emitted.
async fn send(simulator: &mut Simulator, alert: serde_json::Value) -> Vec<String> {
    let body = json!({ "version": "4", "alerts": [alert] }).to_string();
    let notification = testing::parse_notification(body.as_bytes()).unwrap();
    ids(&simulator.notify("prod", notification).await.unwrap())
}

fn ids(decisions: &[ExplainedDecision]) -> Vec<String> {
    let id = |decision| serde_json::to_value(decision).unwrap()["event"]["id"].as_str().map(str::to_owned);
    decisions.iter().filter_map(id).collect()
}

/// Fires an alert. Returns the id of its event.
async fn fire(simulator: &mut Simulator, alertname: &str) -> String {
    let alert = json!({
        "status": "firing", "labels": { "alertname": alertname }, "annotations": {},
        "startsAt": simulator.now().to_millis_string(), "fingerprint": alertname,
    });
    send(simulator, alert).await.remove(0)
}

/// The state of the event's delivery, and the number of calls.
async fn delivery(simulator: &Simulator, id: &str) -> (&'static str, u32) {
    let event = simulator.store.event(id).await.unwrap().unwrap();
    (event.deliveries[0].state.as_str(), event.deliveries[0].attempts)
}

fn after(delay: Duration) -> Time {
    BEGINNING.after(delay)
}

#[tokio::test]
async fn an_event_is_delivered_at_once_or_when_calls_succeed_again() {
    let mut simulator = simulator();
    simulator.set_destination(name("queue"), DestinationState::Down);
    let id = fire(&mut simulator, "Pods").await;
    assert_eq!(delivery(&simulator, &id).await, ("retrying", 1));
    // After half a second, and after one, two, four, eight and sixteen more.
    simulator.advance_to(after(Duration::from_secs(32))).await.unwrap();
    assert_eq!(delivery(&simulator, &id).await, ("retrying", 7));
    simulator.set_destination(name("queue"), DestinationState::Up);
    simulator.advance_to(after(Duration::from_secs(33))).await.unwrap();
    assert_eq!(delivery(&simulator, &id).await, ("delivered", 8));
    let event = simulator.store.event(&id).await.unwrap().unwrap();
    assert_eq!(event.deliveries[0].delivered_at, Some(after(Duration::from_secs(32))));
}

#[tokio::test]
async fn after_a_change_of_send_to_a_decrease_goes_to_the_destination_of_what_it_takes_back() {
    let rules = |send_to: &str| {
        let rules = r#"
rules:
  - name: pods
    matchers: [alertname = Pods]
    target: { platform: custom, kind: pool, name: workers }
    on_firing: { scale_out: { by: 2 }, cooldown: 0s }
    on_resolved: { scale_in: { revert: true }, stabilization_window: 0s }
    send_to: [SEND_TO]
  - name: rest
    matchers: [alertname = Rest]
    target: { platform: custom, kind: pool, name: workers }
    on_firing: { notify: {} }
    send_to: [queue, other]
"#;
        settings(&rules.replace("SEND_TO", send_to))
    };
    let testing::BridgeSettings { rules: before, sources } = rules("queue");
    let mut simulator = Simulator::new(before, sources, policy(), BEGINNING);
    let first = fire(&mut simulator, "Pods").await;
    let starts_at = simulator.now().to_millis_string();
    simulator.advance_to(after(Duration::from_mins(10))).await.unwrap();
    let testing::BridgeSettings { rules: changed, sources } = rules("other");
    simulator.bridge.reload(changed, sources, policy()).await.1.unwrap();
    let alert = json!({
        "status": "resolved", "labels": { "alertname": "Pods" }, "annotations": {}, "fingerprint": "Pods",
        "startsAt": starts_at, "endsAt": after(Duration::from_mins(9)).to_millis_string(),
    });
    let mut emitted = send(&mut simulator, alert).await;
    emitted.extend(ids(&simulator.advance_to(after(Duration::from_mins(30))).await.unwrap()));
    let [decrease] = &emitted[..] else { panic!("{emitted:?}") };
    let event = simulator.store.event(decrease).await.unwrap().unwrap();
    let destinations: Vec<_> =
        event.deliveries.iter().map(|it| (it.destination.as_str(), it.state.as_str())).collect();
    assert_eq!(destinations, [("queue", "delivered")]);
    let body: serde_json::Value = serde_json::from_str(&event.body).unwrap();
    assert_eq!(body["data"]["reverts"], json!([first]));
}

#[tokio::test]
async fn a_decrease_is_given_up_at_its_maximum_age_and_the_increase_of_an_open_episode_is_not() {
    for (alertname, limit, state) in
        [("Pods", Duration::from_hours(1), "retrying"), ("Idle", Duration::from_mins(5), "dead")]
    {
        let mut simulator = simulator();
        simulator.set_destination(name("queue"), DestinationState::Unknown);
        let id = fire(&mut simulator, alertname).await;
        simulator.advance_to(after(limit - Duration::from_millis(1))).await.unwrap();
        assert_eq!(delivery(&simulator, &id).await.0, "retrying");
        simulator.advance_to(after(limit)).await.unwrap();
        assert_eq!(delivery(&simulator, &id).await.0, state, "{alertname}");
        let event = simulator.store.event(&id).await.unwrap().unwrap();
        assert!(event.deliveries[0].is_uncertain);
        simulator.set_destination(name("queue"), DestinationState::Up);
        simulator.advance_to(after(limit + Duration::from_mins(1))).await.unwrap();
        let expected = if state == "dead" { "dead" } else { "delivered" };
        assert_eq!(delivery(&simulator, &id).await.0, expected, "{alertname}");
    }
}

fn without_rules(start: Time) -> Simulator {
    let source = |source: &str| Source {
        name: name(source),
        labels: Arc::default(),
        late_window: Duration::from_mins(6),
        occurrence_ttl: Duration::from_hours(24),
        heartbeat: None,
        ignore_labels: Vec::new(),
        permissions: crate::domain::source::SourcePermissions::default(),
    };
    let sources = ["prod", "test"].map(|it| (name(it), source(it))).into();
    let policy = Policy {
        last_resolve_retention: Duration::ZERO,
        expired_episode_retention: Duration::ZERO,
        owed_retention: Duration::ZERO,
        probes_destinations: true,
        per_minute: PerMinute { scale_out: 0, scale_in: 0 },
    };
    Simulator::new(Arc::new(RuleTable::new(Vec::new(), Templates::new())), sources, policy, start)
}

#[tokio::test]
async fn a_gap_is_recorded_for_its_sources_and_the_clock_is_at_its_end() {
    let start = Time::from_millis(0);
    let at = |text: &str| start.after(duration::parse(text).unwrap());
    let mut simulator = without_rules(start);
    let last = |simulator: &Simulator, source: &str| {
        simulator.store.controls().reception_gaps(&name(source)).map(|gaps| gaps.last)
    };

    simulator.gap(Some(&name("prod")), Duration::from_mins(3)).await.unwrap();
    assert_eq!(simulator.now(), at("3m"));
    let refused = ReceptionGap { from: start, until: at("3m"), cause: GapCause::Refused };
    assert_eq!((last(&simulator, "prod"), last(&simulator, "test")), (Some(refused), None));

    simulator.advance_to(at("10m")).await.unwrap();
    simulator.restart(Duration::from_secs(10)).await.unwrap();
    let restarted = ReceptionGap { from: at("10m"), until: at("10m10s"), cause: GapCause::NotRunning };
    assert_eq!((last(&simulator, "prod"), last(&simulator, "test")), (Some(restarted), Some(restarted)));

    simulator.advance_to(at("20m")).await.unwrap();
    simulator.gap(None, Duration::from_mins(1)).await.unwrap();
    let all = ReceptionGap { from: at("20m"), until: at("21m"), cause: GapCause::Refused };
    assert_eq!((last(&simulator, "prod"), last(&simulator, "test")), (Some(all), Some(all)));
    assert!(simulator.gap(Some(&name("other")), Duration::from_mins(1)).await.is_err());
}

#[test]
fn a_destination_keeps_its_state_until_it_is_set_again() {
    let mut simulator = without_rules(Time::from_millis(0));
    for state in [DestinationState::Down, DestinationState::Unknown, DestinationState::Up] {
        simulator.set_destination(name("queue"), state);
        assert_eq!(simulator.destination_states.get(&name("queue")), Some(&state));
    }
}
