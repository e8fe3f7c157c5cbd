//! What a rule has added and not taken back is shown, and can be forgiven.

use std::process::Command;

use serde_json::json;

use crate::support::bridge::{Bridge, CONFIG, RULES, notification, pending_pod, program, resolved};
use crate::support::tools::eventually;

const TARGET: &str = "eks/nodegroup/-/eu-west-1/prod-eu/-/workers";

/// A bridge on whose target two nodes are owed and taken back in an hour.
async fn owing_bridge() -> Bridge {
    let rules = RULES
        .replace("cooldown: 0s }\n    on_resolved", "cooldown: 0s, repeat: never }\n    on_resolved")
        .replace(
            "scale_in: { by: 1 }, stabilization_window: 0s",
            "scale_in: { revert: true }, stabilization_window: 1h",
        );
    let mut bridge = Bridge::new(CONFIG, &rules);
    bridge.run().await;
    let pod = pending_pod("workers", "a");
    bridge.post(notification(std::slice::from_ref(&pod))).await;
    bridge.wait_delivered("journal").await;
    let verdicts = bridge.post(notification(&[resolved(&pod)])).await.verdicts();
    assert_eq!(verdicts, json!({ "stabilizing": 1 }));
    bridge
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_owed_is_shown_and_forgiven_once_with_author_and_reason() {
    let mut bridge = owing_bridge().await;
    let owed = "scalebridge_owed_decreases{rule=\"unschedulable-pods\"}";
    assert_eq!(bridge.metric(owed).await, 1.0);
    let episodes = bridge.get_json("/api/v1/episodes?owing=true").await["episodes"].clone();
    let added = bridge.journal()[0]["id"].clone();
    assert_eq!((&episodes[0]["owed"][0]["event"], &episodes[0]["owed"][0]["value"]), (&added, &json!(2)));
    let (_, shown, _) = bridge.cli(&["episodes", "--owing"]);
    assert!(
        shown.lines().next().is_some_and(|row| row.contains(TARGET) && row.contains("owes +2 in 1")),
        "{shown}"
    );

    let forgive = ["forgive", TARGET, "--author", "ann", "--reason", "resized by hand"];
    let (code, shown, error) = bridge.cli(&forgive);
    assert!(code == Some(0) && shown.contains(added.as_str().expect("an id")), "{shown}{error}");
    bridge.kill();
    bridge.run().await;
    assert_eq!(bridge.metric(owed).await, 0.0);
    assert_eq!(bridge.get_json("/api/v1/episodes?owing=true").await["episodes"], json!([]));
    let withdrawn = eventually("the decision", async || bridge.decisions("withdrawn").await.pop()).await;
    assert_eq!(withdrawn["detail"], "forgiven by ann: resized by hand");
    let entry = bridge.get_json("/api/v1/audit").await["entries"][0].clone();
    assert_eq!((&entry["act"], &entry["actor"]), (&json!("forgive"), &json!("ann")));
    assert_eq!(entry["forgive"]["events"][0]["event"], added);

    let (code, _, error) = bridge.cli(&forgive);
    assert!(code == Some(2) && error.contains("nothing is owed on target"), "{error}");
    assert_eq!(bridge.journal().len(), 1, "nothing was taken back");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_named_rule_owes_is_forgiven() {
    let bridge = owing_bridge().await;
    let request = json!({ "target": TARGET, "rule": "another", "reason": "test" });
    assert_eq!(bridge.api("POST", "/api/v1/forgive", Some(request)).await.0, 404);
    let request = json!({ "target": TARGET, "rule": "unschedulable-pods", "reason": " " });
    assert_eq!(bridge.api("POST", "/api/v1/forgive", Some(request)).await.0, 400);
    let request = json!({ "target": TARGET, "rule": "unschedulable-pods", "reason": "test" });
    assert_eq!(bridge.api("POST", "/api/v1/forgive", Some(request)).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_owed_is_forgotten_after_its_retention() {
    let rules = RULES.replace("stabilization_window: 0s", "stabilization_window: 1h");
    let mut bridge = Bridge::new(&format!("{CONFIG}retention: {{ owed: 2s, closed: 1s }}\n"), &rules);
    bridge.without_late_window();
    bridge.run().await;
    let pod = pending_pod("workers", "a");
    bridge.post(notification(std::slice::from_ref(&pod))).await.verdicts();
    bridge.wait_delivered("journal").await;
    let owed = "scalebridge_owed_decreases{rule=\"unschedulable-pods\"}";
    assert_eq!(bridge.metric(owed).await, 1.0);
    bridge.post(notification(&[resolved(&pod)])).await.verdicts();
    let expired = eventually("the decision", async || bridge.decisions("expired").await.pop()).await;
    assert_eq!((&expired["action"], &expired["rule"]), (&json!("scale_in"), &json!("unschedulable-pods")));
    assert_eq!(bridge.metric(owed).await, 0.0);
    assert_eq!(bridge.get_json("/api/v1/status").await["deferred"], json!({}));
    assert_eq!(bridge.journal().len(), 1, "nothing was taken back");
}

/// Histories in which other autoscalers, or this one, decreased on what they had not heard, or left capacity behind.
#[test]
fn the_recorded_histories_end_as_they_should() {
    for name in ["calm", "holds", "owed", "permissions", "sources"] {
        let file = format!("tests/cases/{name}.test.yaml");
        let output = Command::new(program()).args(["test", &file]).output().expect("the program runs");
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && shown.contains(" passed, 0 failed"), "{shown}");
    }
}
