//! The questions of an operator at three in the morning: each is answered by one command, whose text is tested here.
//! Those about files are in `tests/cmd`: `check --alertmanager`, `iam-policy`.

use std::fs;

use serde_json::{Value, json};

use crate::support::bridge::{Bridge, CONFIG, RULES, notification, now, pending_pod, resolved};
use crate::support::tools::{eventually, tool};

const MORE_RULES: &str = r#"
  - name: deploy-freeze
    matchers: [alertname = DeployInProgress]
    target: { name: "{{ labels.nodegroup }}" }
    on_firing: { hold: { blocks: [scale_out, scale_in], max_duration: 4h } }
  - name: to-broken
    matchers: [alertname = Broken]
    target: { platform: custom, kind: thing, name: "{{ labels.thing }}" }
    on_firing: { scale_out: { by: 1 } }
    send_to: [broken]
"#;

fn alert(labels: Value) -> Value {
    let fingerprint = labels.to_string();
    json!({ "status": "firing", "labels": labels, "annotations": {}, "startsAt": now(), "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "", "fingerprint": fingerprint })
}

/// A bridge that scales `workers` out and back, holds `others`, and cannot reach `broken`.
async fn busy_bridge() -> Bridge {
    let broken =
        "broken: { file: { path: taken/x.jsonl }, initial_backoff: 50ms, max_backoff: 60ms, max_age: 300ms }";
    let config = CONFIG.replace("destinations:\n", &format!("destinations:\n  {broken}\n"));
    let mut bridge = Bridge::new(&config, &format!("{RULES}{MORE_RULES}"));
    fs::write(bridge.dir().join("taken"), "").expect("a file in place of the directory");
    bridge.run().await;
    let freeze = alert(json!({ "alertname": "DeployInProgress", "nodegroup": "others" }));
    bridge.post(notification(&[freeze])).await;
    let pod = pending_pod("workers", "a");
    bridge.post(notification(&[pod.clone(), pending_pod("others", "b")])).await;
    bridge.post(notification(&[alert(json!({ "alertname": "Other", "severity": "info" }))])).await;
    let broken = alert(json!({ "alertname": "Broken", "thing": "x" }));
    bridge.post(notification(std::slice::from_ref(&broken))).await;
    bridge.wait_delivered("journal").await;
    // While an episode is open, its increase is not given up.
    bridge.post(notification(&[resolved(&pod), resolved(&broken)])).await;
    bridge.wait_delivered("journal").await;
    bridge
}

/// The text of a command that succeeds, with placeholders for times, ids and directories.
fn shown(bridge: &Bridge, words: &[&str]) -> String {
    let (code, out, notes) = bridge.cli(words);
    assert_eq!(code, Some(0), "{words:?}: {notes}");
    placeholders(bridge, &format!("{out}{notes}"))
}

fn placeholders(bridge: &Bridge, text: &str) -> String {
    let is_id = |word: &str| word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let word = |word: &str| {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        match bare {
            bare if bare.parse::<jiff::Timestamp>().is_ok() => word.replace(bare, "TIME"),
            bare if is_id(bare) => word.replace(bare, "ID"),
            _ => word.to_owned(),
        }
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    let text = text.lines().map(line).collect::<Vec<_>>().join("\n");
    text.replace(&bridge.admin_url(), "URL").replace(&bridge.dir().display().to_string(), "DIR")
}

#[tokio::test(flavor = "multi_thread")]
async fn why_did_it_not_scale_out() {
    let bridge = busy_bridge().await;
    insta::assert_snapshot!(shown(&bridge, &["decisions", "--target", "others", "--since", "1h"]), @r"
    TIME  held             scale_out  unschedulable-pods  eks/nodegroup/-/eu-west-1/prod-eu/-/others  KubePodsPending from prod-eu  held by rule deploy-freeze, until the hold ends
    TIME  no_action        deploy-freeze  hold on name=others  DeployInProgress from prod-eu  the hold begins, until TIME
    `others` (`*/others`) covers 1 target: eks/nodegroup/-/eu-west-1/prod-eu/-/others
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_scaled_by_which_rule_and_by_how_much() {
    let bridge = busy_bridge().await;
    insta::assert_snapshot!(shown(&bridge, &["decisions", "--verdict", "emitted", "--since", "yesterday"]), @r"
    TIME  emitted          scale_in -1  unschedulable-pods  eks/nodegroup/-/eu-west-1/prod-eu/-/workers  KubePodsPending from prod-eu  event ID
    TIME  emitted          scale_out +1  to-broken  custom/thing/-/-/-/-/x  Broken from prod-eu  event ID
    TIME  emitted          scale_out +2  unschedulable-pods  eks/nodegroup/-/eu-west-1/prod-eu/-/workers  KubePodsPending from prod-eu  event ID
    ");
    let scaled_in = shown(&bridge, &["decisions", "--action", "scale_in", "--source", "prod-eu"]);
    assert!(scaled_in.lines().count() == 1 && scaled_in.contains("scale_in -1"), "{scaled_in}");
    let (code, _, notes) =
        bridge.cli(&["decisions", "--action", "scale_in", "--since", "1h", "--until", "1h"]);
    assert_eq!((code, notes.as_str()), (Some(0), "no decisions found\n"));
    let (_, _, notes) = bridge.cli(&["decisions", "--verdict", "emitted", "--limit", "2"]);
    assert_eq!(notes, "2 of 3 shown; --limit shows more\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn which_alerts_does_no_rule_take() {
    let bridge = busy_bridge().await;
    insta::assert_snapshot!(shown(&bridge, &["decisions", "--verdict", "unmatched"]), @r#"
    TIME  unmatched        Other{cluster="prod-eu", region="eu-west-1", severity="info"} from prod-eu
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn which_rule_took_this_alert_and_why_not_that_one() {
    let bridge = busy_bridge().await;
    insta::assert_snapshot!(shown(&bridge, &["decisions", "alertname=KubePodsPending", "pod=a"]), @r"
    TIME  emitted          scale_in -1  unschedulable-pods  eks/nodegroup/-/eu-west-1/prod-eu/-/workers  KubePodsPending from prod-eu  event ID
    TIME  emitted          scale_out +2  unschedulable-pods  eks/nodegroup/-/eu-west-1/prod-eu/-/workers  KubePodsPending from prod-eu  event ID
    ");
    let words = ["explain", "alertname=Broken", "thing=y", "--url", &bridge.admin_url()];
    let explained = shown(&bridge, &words);
    let expected =
        r#"no  unschedulable-pods  alertname="KubePodsPending" does not match: the value is "Broken""#;
    assert!(explained.contains(expected) && explained.contains("yes to-broken "), "{explained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_until_when_and_behind_what() {
    let bridge = busy_bridge().await;
    bridge.cli(&["pause", "--all", "--for", "1h", "--reason", "network"]);
    bridge.post(notification(&[pending_pod("more", "a")])).await;
    // It lasts longer: what is shown at once is its end.
    bridge.cli(&["pause", "--all", "--for", "2h", "--reason", "storage"]);
    insta::assert_snapshot!(shown(&bridge, &["episodes", "--rule", "unschedulable-pods"]), @r"
    unschedulable-pods  eks/nodegroup/-/eu-west-1/prod-eu/-/others  firing since TIME  KubePodsPending (1 alert)  scale_out paused until TIME: pause 2 by ops: storage (covered by pause 1 too)
    unschedulable-pods  eks/nodegroup/-/eu-west-1/prod-eu/-/more  firing since TIME  KubePodsPending (1 alert)  scale_out paused until TIME: pause 2 by ops: storage (covered by pause 1 too)
    ");
    let (_, shown, _) = bridge.cli(&["episodes", "--target", "*/more", "-o", "json"]);
    let episodes: Value = serde_json::from_str(&shown).expect("JSON");
    let deferred = &episodes[0]["deferred"];
    assert_eq!((&deferred["blocked_by"]["id"], &deferred["blocked_by"]["others"]), (&json!(2), &json!([1])));
    let pauses = bridge.get_json("/api/v1/pauses").await;
    assert_eq!(deferred["until"], pauses[1]["until"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn did_the_event_arrive_when_and_after_how_many_attempts() {
    let bridge = busy_bridge().await;
    let id = bridge.journal()[0]["id"].as_str().expect("an id").to_owned();
    insta::assert_snapshot!(shown(&bridge, &["event", &id]), @r"
    event ID
      action   scale_out +2
      rule     unschedulable-pods
      target   eks/nodegroup/-/eu-west-1/prod-eu/-/workers
      reason   1 alert firing: KubePodsPending
      source   prod-eu
      emitted  TIME
      expires  TIME
      episode  ID

    deliveries
      journal  delivered TIME  1 attempt

    what helps
      scalebridge event ID -o json
          the event as it is delivered
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn why_is_this_dead_and_what_can_i_do() {
    let bridge = busy_bridge().await;
    let id = eventually("a dead letter", async || {
        let found = bridge.get_json("/api/v1/dead-letters").await;
        Some(found["dead_letters"][0]["id"].as_str()?.to_owned())
    })
    .await;
    let text = shown(&bridge, &["dead-letters", "show", &id]);
    for part in [
        "why          ",
        "taken/x.jsonl",
        &format!("redrive {id}"),
        &format!("discard {id} --reason"),
        "scale_out +1",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_scale_ins_until_six_and_is_it_in_force_and_who_did_it() {
    let bridge = busy_bridge().await;
    let words =
        ["pause", "--direction", "scale_in", "--until", "06:00", "--reason", "migration", "--author", "ann"];
    insta::assert_snapshot!(shown(&bridge, &words), @r"
    ID  COVERS    SINCE                     UNTIL                     AUTHOR  REASON
    1   scale_in  TIME  TIME  ann     migration
    covers 0 undelivered events; calls that may have been under way: 0
    to end it: scalebridge resume 1
    ");
    let until = bridge.get_json("/api/v1/pauses").await[0]["until"].as_str().expect("a time").to_owned();
    let local = until.parse::<jiff::Timestamp>().expect("a time").to_zoned(jiff::tz::TimeZone::system());
    // The duration is that of the client, the beginning that of the bridge.
    assert_eq!(local.round(jiff::Unit::Minute).expect("rounded").time().to_string(), "06:00:00");
    shown(&bridge, &words);
    let listed = shown(&bridge, &["pause"]);
    assert!(listed.contains("\n1   scale_in  TIME") && listed.contains("\n2   scale_in  TIME"), "{listed}");

    insta::assert_snapshot!(shown(&bridge, &["resume", "1", "--author", "ben"]), @r"
    pause 1 ended
    still paused by pause 2: scale_in
    ");
    shown(&bridge, &["resume", "2"]);
    insta::assert_snapshot!(shown(&bridge, &["pause", "--ended"]), @r"
    ID  COVERS    SINCE                     UNTIL                                  AUTHOR  REASON
    1   scale_in  TIME  ended TIME by ben  ann     migration
    2   scale_in  TIME  ended TIME by ops  ann     migration
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn undo_a_pause_or_a_hold() {
    let rules = format!("{RULES}{MORE_RULES}").replace("[broken]", "[journal]");
    let mut bridge = Bridge::new(CONFIG, &rules);
    bridge.run().await;
    let url = format!("http://{}/webhook/prod-eu", bridge.address());
    let send = |word: &'static str| {
        bridge.cli(&["send", "--url", &url, word, "alertname=DeployInProgress", "nodegroup=workers"]).0
    };
    assert_eq!(send("--firing"), Some(0));
    bridge.cli(&["pause", "--direction", "scale_out", "--reason", "storage", "--author", "ann"]);
    bridge.post(notification(&[pending_pod("workers", "a")])).await;
    insta::assert_snapshot!(shown(&bridge, &["episodes"]), @r"
    deploy-freeze  hold/-/-/-/-/-/-/workers  firing since TIME  DeployInProgress (1 alert)  ends when its alert resolves, at the latest TIME
    unschedulable-pods  eks/nodegroup/-/eu-west-1/prod-eu/-/workers  firing since TIME  KubePodsPending (1 alert)  scale_out paused until it is resumed: pause 1 by ann: storage
    ");
    shown(&bridge, &["resume", "1"]);
    insta::assert_snapshot!(shown(&bridge, &["episodes", "--rule", "unschedulable-pods"]), @"unschedulable-pods  eks/nodegroup/-/eu-west-1/prod-eu/-/workers  firing since TIME  KubePodsPending (1 alert)  scale_out held until the hold ends: held by rule deploy-freeze");
    assert_eq!(send("--resolved"), Some(0));
    eventually("the increase", async || (bridge.journal().len() == 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn is_it_healthy_and_how_far_behind() {
    let bridge = busy_bridge().await;
    eventually("a dead letter", async || {
        let found = bridge.get_json("/api/v1/destinations").await;
        (found[0]["dead_letters"] == 1 && found[0].get("failing").is_none()).then_some(())
    })
    .await;
    let text = shown(&bridge, &["status"]);
    for part in ["deferred            held 1", "DESTINATION  KIND  PENDING", "\nbroken", "SOURCE"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_if_this_alert_fired_now() {
    let bridge = busy_bridge().await;
    let words =
        ["explain", "alertname=KubePodsPending", "nodegroup=others", "pod=z", "--url", &bridge.admin_url()];
    let text = shown(&bridge, &words);
    assert!(
        text.contains("held unschedulable-pods scale_out") && text.contains("held by rule deploy-freeze"),
        "{text}"
    );
    assert_eq!(bridge.decisions("held").await.len(), 1, "nothing is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn is_a_source_quiet() {
    let bridge = busy_bridge().await;
    insta::assert_snapshot!(shown(&bridge, &["sources"]), @r"
    SOURCE   LAST NOTIFICATION         HEARTBEAT  LAST RECEPTION GAP  NO DECREASE BEFORE
    prod-eu  TIME  -          -                   -
    ");
    assert!(bridge.metric("scalebridge_last_notification_timestamp_seconds{source=\"prod-eu\"}").await > 1e9);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_and_destinations_are_listed() {
    let bridge = busy_bridge().await;
    insta::assert_snapshot!(shown(&bridge, &["rules"]), @r"
    RULE                MODE    ON FIRING                ON RESOLVED  OPEN  SEND TO
    unschedulable-pods  active  scale_out 2              scale_in 1   1     journal
    deploy-freeze       active  hold scale_out scale_in  -            1     -
    to-broken           active  scale_out 1              -            0     broken
    ");
    let yaml = bridge.cli(&["destinations", "-o", "yaml"]).1;
    assert!(yaml.starts_with("- name: broken\n  kind: file\n"), "{yaml}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_input_ends_with_2_wherever_it_is_found() {
    let bridge = Bridge::start().await;
    for words in [
        &["decisions", "--since", "tomorow"][..],
        &["decisions", "--verdict", "emited"],
        &["decisions", "--rule", "No Name"],
        &["decisions", "alertname"],
        &["pause", "--rule", "nobody", "--reason", "x"],
        &["pause", "--all", "--until", "2020-01-01", "--reason", "x"],
        &["event", "0123"],
        &["dead-letters", "show", "x"],
        &["explain", "alertname=X", "pod"],
    ] {
        let (code, _, error) = bridge.cli(words);
        assert_eq!(code, Some(2), "{words:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_a_line_for_what_acts_waits_or_ends_waiting() {
    let bridge = busy_bridge().await;
    let lines: Vec<Value> = bridge.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let decisions: Vec<&Value> = lines.iter().filter(|line| line["message"] == "decision").collect();
    let verdicts: Vec<&str> = decisions.iter().filter_map(|line| line["verdict"].as_str()).collect();
    assert_eq!(verdicts, ["no_action", "held", "emitted", "emitted", "emitted"], "unmatched is quiet");
    assert!(decisions.iter().all(|line| line["level"] == "INFO"), "{decisions:?}");
    assert_eq!(decisions[0]["detail"], "the hold begins");
    let held = decisions[1];
    assert_eq!(
        (&held["rule"], &held["blocked_by"]),
        (&json!("unschedulable-pods"), &json!("held by rule deploy-freeze"))
    );
    assert_eq!(
        (&held["target"], &held["source"]),
        (&json!("eks/nodegroup/-/eu-west-1/prod-eu/-/others"), &json!("prod-eu"))
    );
    let emitted = decisions[2];
    assert_eq!((&emitted["action"], &emitted["amount"]), (&json!("scale_out"), &json!("+2")));
    assert_eq!(emitted["event"], bridge.journal()[0]["id"]);
    assert!(!bridge.log().contains("severity"), "no labels");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_a_line_for_what_comes_due_by_itself() {
    let rules = RULES.replace("stabilization_window: 0s", "stabilization_window: 1s");
    let mut bridge = Bridge::new(CONFIG, &rules);
    bridge.run().await;
    let pod = pending_pod("workers", "a");
    bridge.post(notification(std::slice::from_ref(&pod))).await;
    bridge.wait_delivered("journal").await;
    bridge.post(notification(&[resolved(&pod)])).await;
    let lines = eventually("the decrease", async || {
        let lines: Vec<Value> =
            bridge.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        lines.iter().any(|line| line["action"] == "scale_in" && line["verdict"] == "emitted").then_some(lines)
    })
    .await;
    let waits = lines.iter().find(|line| line["verdict"] == "stabilizing").expect("the wait");
    assert!(waits["until"].is_string(), "{waits}");
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_nothing_to_say_about_the_metrics_and_series_exist_from_the_start() {
    let mut bridge = Bridge::new(CONFIG, RULES);
    bridge.run().await;
    let (_, text) = bridge.get_admin("/metrics").await;
    for series in [
        "scalebridge_notifications_total{source=\"prod-eu\",code=\"200\"} 0",
        "scalebridge_alerts_total{source=\"prod-eu\",status=\"resolved\"} 0",
        "scalebridge_decisions_total{rule=\"unschedulable-pods\",verdict=\"emitted\"} 0",
        "scalebridge_decisions_total{rule=\"\",verdict=\"unmatched\"} 0",
        "scalebridge_events_total{source=\"prod-eu\",rule=\"unschedulable-pods\",action=\"scale_in\"} 0",
        "scalebridge_deliveries_total{destination=\"journal\",result=\"dead\"} 0",
        "scalebridge_delivery_duration_seconds_count{destination=\"journal\"} 0",
        "scalebridge_alert_to_delivery_seconds_count{destination=\"journal\"} 0",
        "scalebridge_outbox_deliveries{destination=\"journal\",state=\"retrying\"} 0",
        "scalebridge_open_episodes{rule=\"unschedulable-pods\"} 0",
        "scalebridge_owed_decreases{rule=\"unschedulable-pods\"} 0",
        "scalebridge_last_notification_timestamp_seconds{source=\"prod-eu\"} 0.0",
        "scalebridge_source_heartbeat{source=\"prod-eu\"} 0",
        "scalebridge_store_up 1",
    ] {
        assert!(text.lines().any(|line| line == series), "{series} is missing:\n{text}");
    }
    let file = bridge.dir().join("metrics.txt");
    fs::write(&file, &text).expect("a file");
    let input = fs::File::open(file).expect("the file");
    let linted = tool("bin/promtool").args(["check", "metrics"]).stdin(input).output();
    let linted = linted.expect("promtool");
    let said =
        String::from_utf8_lossy(&linted.stdout).into_owned() + &String::from_utf8_lossy(&linted.stderr);
    assert!(linted.status.success() && said.is_empty(), "{said}");
}
