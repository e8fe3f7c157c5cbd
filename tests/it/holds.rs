//! Holds and heartbeats: their beginning and end are decisions that say so, and a hold does not outlive its rule.

use serde_json::{Value, json};

use crate::support::bridge::{Bridge, CONFIG, RULES, notification, pending_pod, resolved};
use crate::support::tools::eventually;

const FREEZE: &str = "
  - name: freeze
    matchers: [alertname = DeployInProgress]
    target: { cluster: \"{{ labels.cluster }}\" }
    on_firing: { hold: { blocks: [scale_in] } }
";

/// An alert with the name, and no target.
fn alert(name: &str) -> Value {
    let mut alert = pending_pod("none", name);
    alert["labels"] = json!({ "alertname": name });
    alert
}

async fn details(bridge: &Bridge, name: &str) -> Vec<Value> {
    let mut decisions = bridge.all_decisions().await;
    decisions.reverse();
    let about = |decision: &&Value| {
        let alerts = decision["alerts"].as_array().expect("a list");
        alerts.iter().any(|alert| alert["labels"]["alertname"] == name)
    };
    decisions.iter().filter(about).map(|decision| decision["detail"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_beginning_and_the_end_of_a_hold_and_of_a_heartbeat_are_decisions_that_say_so() {
    let config = CONFIG.replace("prod-eu: {", "prod-eu: { heartbeat: ['alertname = \"Watchdog\"'],");
    let mut bridge = Bridge::new(&config, &(RULES.to_owned() + FREEZE));
    bridge.run().await;
    for name in ["DeployInProgress", "Watchdog"] {
        let alert = alert(name);
        for _ in 0..2 {
            bridge.post(notification(std::slice::from_ref(&alert))).await.verdicts();
        }
        bridge.post(notification(&[resolved(&alert)])).await.verdicts();
    }
    assert_eq!(
        details(&bridge, "DeployInProgress").await,
        [json!("the hold begins"), Value::Null, json!("the hold ends")]
    );
    assert_eq!(
        details(&bridge, "Watchdog").await,
        [json!("the heartbeat opens"), Value::Null, json!("the heartbeat ends")]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_hold_by_max_duration_is_shown_before_and_after_it() {
    let freeze = FREEZE.replace("[scale_in]", "[scale_in], max_duration: 1h");
    let mut bridge = Bridge::new(CONFIG, &(RULES.to_owned() + &freeze));
    bridge.run().await;
    bridge.post(notification(&[alert("DeployInProgress")])).await.verdicts();
    let begins = bridge.decisions("no_action").await.pop().expect("a decision");
    let holds = bridge.get_json("/api/v1/status").await["holds"].clone();
    assert_eq!(
        (&holds[0]["rule"], &holds[0]["covers"]),
        (&json!("freeze"), &json!({ "cluster": "prod-eu" }))
    );
    assert!(begins["until"].is_string() && holds[0]["until"] == begins["until"], "{begins} {holds}");
    let (code, shown, _) = bridge.cli(&["status"]);
    assert_eq!(code, Some(0));
    assert!(shown.contains("freeze on cluster=prod-eu until "), "{shown}");
    let (_, shown, _) = bridge.cli(&["episodes"]);
    assert!(shown.contains("at the latest"), "{shown}");

    // A shorter one, from the next occurrence on.
    bridge.post(notification(&[resolved(&alert("DeployInProgress"))])).await.verdicts();
    bridge.write("rules.yaml", &(RULES.to_owned() + &freeze.replace("1h", "1s")));
    assert_eq!(bridge.cli(&["reload"]).0, Some(0));
    let mut next = alert("DeployInProgress");
    next["startsAt"] = begins["until"].clone();
    bridge.post(notification(&[next])).await.verdicts();
    let over = eventually("its end", async || bridge.decisions("expired").await.pop()).await;
    assert_eq!(over["detail"], "the hold ends: its max_duration is over");
    assert_eq!(bridge.get_json("/api/v1/status").await["holds"], json!([]));
    let (_, shown, _) = bridge.cli(&["episodes"]);
    assert!(shown.contains("has ended: its max_duration is over"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hold_of_a_removed_rule_ends_with_the_reload() {
    let mut bridge = Bridge::new(CONFIG, &(RULES.to_owned() + FREEZE));
    bridge.run().await;
    let pod = pending_pod("workers", "a");
    bridge.post(notification(&[alert("DeployInProgress"), pod.clone()])).await.verdicts();
    bridge.wait_delivered("journal").await;
    assert_eq!(bridge.post(notification(&[resolved(&pod)])).await.verdicts(), json!({ "held": 1 }));
    bridge.write("rules.yaml", RULES);
    let (code, _, error) = bridge.cli(&["reload"]);
    assert_eq!(code, Some(0), "{error}");
    eventually("the scale-in", async || (bridge.journal().len() == 2).then_some(())).await;
    assert_eq!(bridge.journal()[1]["data"]["action"], "scale_in");

    // It does not come back with the rule: its alert has to be heard again.
    let ended = eventually("the end of the hold", async || bridge.decisions("withdrawn").await.pop()).await;
    assert_eq!(ended["rule"], "freeze", "{ended}");
    bridge.write("rules.yaml", &(RULES.to_owned() + FREEZE));
    assert_eq!(bridge.cli(&["reload"]).0, Some(0));
    let pod = pending_pod("workers", "b");
    bridge.post(notification(std::slice::from_ref(&pod))).await.verdicts();
    bridge.wait_delivered("journal").await;
    assert_eq!(bridge.post(notification(&[resolved(&pod)])).await.verdicts(), json!({ "emitted": 1 }));
}
