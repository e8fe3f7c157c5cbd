//! Notifications that the bridge fetches from a queue of SQS: bare, and in envelopes of SNS.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::{Value, json};

use crate::support::bridge::{Bridge, CONFIG, RULES, notification, pending_pod, resolved};
use crate::support::prometheus::{Release, on_old_and_new};
use crate::support::queue::{create_queue, environment};
use crate::support::relay::{Network, Relay};
use crate::support::seed;
use crate::support::tools::{LocalAws, REGION, eventually, eventually_within, get};

on_old_and_new!(the_template_for_amazon_managed_prometheus_sends_every_character);

/// Messages are hidden for 30 seconds after they were received.
const REDELIVERY: Duration = Duration::from_secs(90);
const TOPIC: &str = "arn:aws:sns:eu-west-1:000000000000:alerts";

/// A topic, its queue with a dead-letter queue, and a bridge that reads it.
struct World {
    aws: LocalAws,
    bridge: Bridge,
    queue: String,
    dead_letters: String,
    _dir: tempfile::TempDir,
}

impl World {
    /// The bridge is not started.
    async fn new() -> Self {
        Self::with_receives(10).await
    }

    /// The same; a message that is received more often than this goes to the dead-letter queue.
    async fn with_receives(max_receives: u32) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let aws = LocalAws::start(dir.path()).await;
        let dead_letters = create_queue(&aws, "alerts-dead").await;
        let policy = json!({
            "deadLetterTargetArn": format!("arn:aws:sqs:{REGION}:000000000000:alerts-dead"), "maxReceiveCount": max_receives,
        });
        let created = aws.sqs().create_queue().queue_name("alerts");
        let created = created.attributes(QueueAttributeName::RedrivePolicy, policy.to_string()).send().await;
        let queue = created.expect("a queue").queue_url.expect("its URL");
        for topic in ["alerts", "other"] {
            create_topic(&aws, topic).await;
        }
        let mut bridge = Bridge::new(&Self::config(&queue, &aws.url()), RULES);
        environment(&aws).iter().for_each(|(name, value)| bridge.env(name, value));
        Self { aws, bridge, queue, dead_letters, _dir: dir }
    }

    /// A configuration whose source reads this queue at this endpoint.
    fn config(queue: &str, endpoint: &str) -> String {
        let sqs = format!(
            "kind: sqs, late_window: 2s, sqs: {{ queue_url: \"{queue}\", region: {REGION}, \
             endpoint_url: \"{endpoint}\", topic_arns: [\"{TOPIC}\"] }},"
        );
        CONFIG.replace("prod-eu: {", &format!("prod-eu: {{ {sqs}"))
    }

    /// Puts a body into the queue.
    async fn send(&self, body: &str) {
        self.aws.sqs().send_message().queue_url(&self.queue).message_body(body).send().await.expect("sent");
    }

    /// Publishes a message in a topic.
    async fn publish(&self, topic: &str, message: &str) {
        let arn = TOPIC.replace(":alerts", &format!(":{topic}"));
        sns(&self.aws).publish().topic_arn(arn).message(message).send().await.expect("published");
    }

    /// Waits until this many notifications were answered with a code.
    async fn wait_processed(&self, code: u16, count: usize) {
        let series = format!("scalebridge_notifications_total{{source=\"prod-eu\",code=\"{code}\"}}");
        eventually_within(REDELIVERY, "processed messages", async || {
            (self.bridge.metric(&series).await >= count as f64).then_some(())
        })
        .await;
    }

    /// The numbers of messages that are visible and hidden.
    async fn left(&self, queue: &str) -> (usize, usize) {
        use QueueAttributeName::{
            ApproximateNumberOfMessages as Visible, ApproximateNumberOfMessagesNotVisible as Hidden,
        };
        let asked = self.aws.sqs().get_queue_attributes().queue_url(queue);
        let answer = asked.attribute_names(QueueAttributeName::All).send().await.expect("an answer");
        let count =
            |name| answer.attributes().and_then(|all| all.get(&name)?.parse().ok()).expect("a number");
        (count(Visible), count(Hidden))
    }

    async fn wait_empty(&self) {
        eventually_within(REDELIVERY, "an empty queue", async || {
            (self.left(&self.queue).await == (0, 0)).then_some(())
        })
        .await;
    }

    /// The source as `sources` shows it.
    async fn source(&self) -> Value {
        self.bridge.get_json("/api/v1/sources").await[0].clone()
    }

    async fn wait_current(&self) {
        eventually_within(REDELIVERY, "a queue that is read", async || {
            (self.source().await["queue"]["is_current"] == true).then_some(())
        })
        .await;
    }
}

fn sns(aws: &LocalAws) -> aws_sdk_sns::Client {
    use aws_sdk_sns::config::{BehaviorVersion, Credentials, Region};
    let config = aws_sdk_sns::Config::builder().behavior_version(BehaviorVersion::latest());
    let config = config.region(Region::new(REGION)).endpoint_url(aws.url());
    let config = config.credentials_provider(Credentials::new("test", "test", None, None, "test"));
    aws_sdk_sns::Client::from_conf(config.build())
}

/// Creates a topic that sends to the queue `alerts`, in envelopes.
async fn create_topic(aws: &LocalAws, name: &str) {
    let topic = sns(aws).create_topic().name(name).send().await.expect("a topic");
    let queue = format!("arn:aws:sqs:{REGION}:000000000000:alerts");
    let subscribe = sns(aws).subscribe().topic_arn(topic.topic_arn().expect("its ARN"));
    subscribe.protocol("sqs").endpoint(queue).send().await.expect("a subscription");
}

/// The actions by node group, in the order of the events.
fn actions(events: &[Value]) -> BTreeMap<String, Vec<String>> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let mut actions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in events {
        let data = &event["data"];
        actions.entry(text(&data["target"]["name"])).or_default().push(text(&data["action"]));
    }
    actions
}

fn up_and_down() -> Vec<String> {
    vec!["scale_out".to_owned(), "scale_in".to_owned()]
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_their_ends_come_through_a_topic_and_bare() {
    let mut world = World::new().await;
    world.bridge.run().await;
    world.wait_current().await;
    let odd = "\" \\ \n \t é 🦀 \u{2028} </script> $1 {{ x }}";
    let mut through_topic = pending_pod("topic", "a");
    through_topic["annotations"]["summary"] = json!(odd);
    let bare = pending_pod("bare", "a");
    world.publish("alerts", &notification(&[through_topic.clone()])).await;
    world.send(&notification(std::slice::from_ref(&bare))).await;
    world.wait_processed(200, 2).await;
    let summary =
        world.bridge.events().await.into_iter().find(|event| event["data"]["target"]["name"] == "topic");
    assert_eq!(summary.expect("an event")["data"]["alerts"][0]["annotations"]["summary"], odd);

    world.send(&notification(&[resolved(&bare)])).await;
    world.publish("alerts", &notification(&[resolved(&through_topic)])).await;
    world.wait_processed(200, 4).await;
    // Standard queues repeat messages.
    world.publish("alerts", &notification(&[resolved(&through_topic)])).await;
    world.wait_processed(200, 5).await;
    world.bridge.wait_settled(&["journal"]).await;
    let expected = ["bare", "topic"].map(|name| (name.to_owned(), up_and_down()));
    assert_eq!(actions(&world.bridge.events().await), BTreeMap::from(expected));
    world.wait_empty().await;

    let source = world.source().await;
    assert_eq!(source["kind"], "sqs");
    assert_eq!(
        (&source["queue"]["address"], &source["queue"]["is_current"]),
        (&json!(world.queue), &json!(true))
    );
    assert_eq!(source["queue"]["last_error"], Value::Null);
    assert_eq!(source["auth"], json!([]));
    let (code, shown, _) = world.bridge.cli(&["sources", "-o", "wide"]);
    assert_eq!(code, Some(0));
    assert!(shown.contains("sqs") && shown.contains(&world.queue), "{shown}");
    assert_eq!(
        world
            .bridge
            .metric("scalebridge_source_reception_gaps_total{source=\"prod-eu\",cause=\"queue\"}")
            .await,
        1.0
    );
}

/// Standard queues reorder and repeat. What was sent before the end of an alert does not open it again, also if the bridge
/// has not known the alert.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_before_the_end_of_an_alert_is_stale() {
    let mut world = World::new().await;
    world.bridge.run().await;
    world.wait_current().await;
    let (known, unknown) = (pending_pod("known", "a"), pending_pod("unknown", "a"));
    // The envelope says when it was sent.
    let sent = jiff::Timestamp::now();
    let envelope = |alert: &Value| {
        json!({
            "Type": "Notification", "TopicArn": TOPIC, "Timestamp": sent.to_string(),
            "Message": notification(std::slice::from_ref(alert)),
        })
        .to_string()
    };
    world.send(&envelope(&known)).await;
    world.wait_processed(200, 1).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    for alert in [&known, &unknown] {
        world.send(&notification(&[resolved(alert)])).await;
    }
    world.wait_processed(200, 3).await;
    for alert in [&known, &unknown] {
        world.send(&envelope(alert)).await;
    }
    world.wait_processed(200, 5).await;
    world.bridge.wait_settled(&["journal"]).await;
    assert_eq!(world.bridge.decisions("stale").await.len(), 2);
    let expected = BTreeMap::from([("known".to_owned(), up_and_down())]);
    assert_eq!(actions(&world.bridge.events().await), expected);
    // It fires again.
    world.send(&notification(&[pending_pod("unknown", "a")])).await;
    world.wait_processed(200, 6).await;
    assert_eq!(actions(&world.bridge.events().await)["unknown"], ["scale_out"]);
}

/// The source accepts nothing else: a request would not have to show who sends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_a_queue_accepts_no_requests() {
    let mut world = World::new().await;
    world.bridge.run().await;
    let answer = world.bridge.post(notification(&[pending_pod("a", "a")])).await;
    assert_eq!(answer.status, 404, "{}", answer.body);
    assert!(answer.body.contains("queue"), "{}", answer.body);
    world.wait_current().await;
    assert_eq!(world.bridge.all_decisions().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_goes_to_the_dead_letter_queue_and_is_counted() {
    let mut world = World::with_receives(1).await;
    world.bridge.run().await;
    world.wait_current().await;
    let alert = pending_pod("a", "a");
    world.send("not JSON").await;
    world
        .send(&json!({ "Type": "SubscriptionConfirmation", "TopicArn": TOPIC, "Token": "x" }).to_string())
        .await;
    world.publish("other", &notification(std::slice::from_ref(&alert))).await;
    world.publish("alerts", "An alert fires").await;
    world.send(&notification(&[alert])).await;
    world.wait_processed(200, 1).await;
    world.wait_processed(400, 4).await;
    assert_eq!(world.bridge.events().await.len(), 1, "the topic that is not listed makes no event");
    let gap = &world.source().await["last_gap"];
    assert_eq!(gap["cause"], "refused", "what was in the messages is not known: {gap}");
    eventually_within(REDELIVERY, "dead letters", async || {
        (world.left(&world.dead_letters).await.0 == 4).then_some(())
    })
    .await;
    world.wait_empty().await;
    let log = world.bridge.log();
    assert!(log.contains("message cannot be read"), "{log}");
    assert!(!log.contains("no redrive policy"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_without_a_redrive_policy_is_warned_about_at_the_start() {
    let mut world = World::new().await;
    let config = World::config(&create_queue(&world.aws, "plain").await, &world.aws.url());
    world.bridge.write("scalebridge.yaml", &config);
    world.bridge.run().await;
    eventually("a warning", async || world.bridge.log().contains("no redrive policy").then_some(())).await;
}

/// What was sent while the bridge did not run is processed at the start, and nothing is decreased before.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_before_the_start_is_processed() {
    let mut world = World::new().await;
    world.bridge.run().await;
    world.wait_current().await;
    let alerts: Vec<Value> = (0..30).map(|at| pending_pod(&format!("group-{at}"), "a")).collect();
    for alert in &alerts {
        world.send(&notification(std::slice::from_ref(alert))).await;
    }
    world.wait_processed(200, 30).await;
    assert!(world.bridge.stop().await.success());
    for alert in &alerts {
        world.send(&notification(&[resolved(alert)])).await;
    }
    world.bridge.run().await;
    world.wait_processed(200, 30).await;
    world.wait_current().await;
    world.bridge.wait_settled(&["journal"]).await;
    let actions = actions(&world.bridge.events().await);
    assert_eq!(actions.len(), 30);
    assert!(actions.values().all(|actions| *actions == up_and_down()), "{actions:?}");
    world.wait_empty().await;
}

/// The process ends at any time: what it has received and not deleted is received again, and acts once.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_doubled_by_kills() {
    const KILLS: usize = 6;
    let mut rng = fastrand::Rng::with_seed(seed());
    let mut world = World::new().await;
    world.bridge.run().await;
    world.wait_current().await;
    let mut alerts = Vec::new();
    for kill in 0..KILLS {
        if kill > 0 {
            world.bridge.run().await;
        }
        let more: Vec<Value> = (0..20).map(|at| pending_pod(&format!("group-{kill}-{at}"), "a")).collect();
        for alert in &more {
            world.send(&notification(std::slice::from_ref(alert))).await;
        }
        alerts.extend(more);
        tokio::time::sleep(Duration::from_millis(rng.u64(..400))).await;
        world.bridge.kill();
    }
    world.bridge.run().await;
    // A kill can truncate a line of the file.
    let scaled_out = |world: &World| actions(&world.bridge.journal_after_kills()).len();
    eventually_within(REDELIVERY, "every event", async || (scaled_out(&world) == alerts.len()).then_some(()))
        .await;
    world.bridge.wait_settled(&["journal"]).await;
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    for event in world.bridge.journal_after_kills() {
        let target = event["data"]["target"]["name"].to_string();
        let id = event["id"].to_string();
        assert_eq!(*ids.entry(target).or_insert(id.clone()), id, "one event for each node group");
    }
    world.wait_empty().await;
    assert_eq!(world.left(&world.dead_letters).await, (0, 0));
}

/// While the queue cannot be read, nothing is decreased; nor before everything is read that was sent meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_queue_is_a_reception_gap() {
    let mut world = World::new().await;
    let server = world.aws.url().trim_start_matches("http://").to_owned();
    let relay = Relay::to(server).await;
    let endpoint = format!("http://127.0.0.1:{}", relay.port());
    world.bridge.write("scalebridge.yaml", &World::config(&world.queue, &endpoint));
    let rules = RULES.replace(
        "scale_in: { by: 1 }, stabilization_window: 0s",
        "scale_in: { by: 1 }, stabilization_window: 3s",
    );
    world.bridge.write("rules.yaml", &rules);
    world.bridge.run().await;
    world.wait_current().await;
    let alert = pending_pod("workers", "a");
    world.send(&notification(std::slice::from_ref(&alert))).await;
    world.wait_processed(200, 1).await;
    world.send(&notification(&[resolved(&alert)])).await;
    world.wait_processed(200, 2).await;
    relay.set(Network::Cut);
    let error = eventually("an error", async || {
        world.source().await["queue"]["last_error"].as_str().map(str::to_owned)
    })
    .await;
    assert!(!error.is_empty());
    // It fires again, which the bridge cannot know.
    let again = pending_pod("workers", "b");
    world.send(&notification(&[again])).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(actions(&world.bridge.events().await)["workers"], ["scale_out"], "the window is over");
    let source = world.source().await;
    assert_eq!(
        (&source["last_gap"]["cause"], &source["queue"]["is_current"]),
        (&json!("queue"), &json!(false))
    );
    assert_eq!(world.bridge.get_admin("/-/ready").await.0, 200, "the other sources are accepted");
    relay.set(Network::Up);
    world.wait_processed(200, 3).await;
    world.wait_current().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(actions(&world.bridge.events().await)["workers"], ["scale_out", "scale_out"]);
}

/// A message that the store refuses is processed when it accepts again, without being received again.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_waits_for_the_store() {
    let mut world = World::with_receives(1).await;
    world.bridge.run().await;
    world.wait_current().await;
    // The store notices that its file is gone.
    let file = world.bridge.dir().join("bridge.db");
    let away = world.bridge.dir().join("away.db");
    std::fs::rename(&file, &away).expect("renamed");
    world.send(&notification(&[pending_pod("a", "a")])).await;
    world.wait_processed(503, 2).await;
    assert_eq!(world.left(&world.queue).await, (0, 1), "it is hidden from others");
    std::fs::rename(&away, &file).expect("renamed");
    world.wait_processed(200, 1).await;
    world.wait_empty().await;
    assert_eq!(world.left(&world.dead_letters).await, (0, 0), "it was received once");
    assert_eq!(world.bridge.events().await.len(), 1);
}

/// The other alerts of such messages are decided, other messages are received, and the gap of the start ends. They are
/// processed when an operator has given the state up.
#[tokio::test(flavor = "multi_thread")]
async fn messages_about_an_unreadable_state_hold_up_nothing_else() {
    const VICTIM_KEY: &str = "eks/nodegroup/-/eu-west-1/prod-eu/-/victim";
    // More than one for each batch that is processed at the same time.
    const MESSAGES: usize = 20;
    let mut world = World::new().await;
    world.bridge.run().await;
    world.wait_current().await;
    world.send(&notification(&[pending_pod("victim", "a")])).await;
    world.wait_processed(200, 1).await;
    world.wait_empty().await;
    assert!(world.bridge.stop().await.success());
    {
        let file = world.bridge.dir().join("bridge.db");
        let database = rusqlite::Connection::open(file).expect("a database");
        let update = "UPDATE targets SET dictionary = 99 WHERE key = ?1";
        assert_eq!(database.execute(update, [VICTIM_KEY]).expect("an update"), 1);
    }
    for at in 0..MESSAGES {
        let victim = pending_pod("victim", &format!("pod-{at}"));
        world.send(&notification(&[victim, pending_pod(&format!("group-{at}"), "a")])).await;
    }
    world.send(&notification(&[pending_pod("neighbour", "a")])).await;
    world.bridge.run().await;
    // Those of the others, and the first one of the victim.
    let scaled_out = async |count: usize| {
        eventually_within(REDELIVERY, "events", async || {
            (actions(&world.bridge.events().await).len() == count).then_some(())
        })
        .await;
    };
    scaled_out(MESSAGES + 2).await;
    world.wait_current().await;
    world.send(&notification(&[pending_pod("later", "a")])).await;
    scaled_out(MESSAGES + 3).await;
    eventually("messages that are held", async || {
        (world.left(&world.queue).await == (0, MESSAGES)).then_some(())
    })
    .await;
    assert_eq!(world.source().await["last_gap"]["cause"], "store");
    assert_eq!(actions(&world.bridge.events().await)["victim"].len(), 1);

    let (code, _, error) = world.bridge.cli(&["store", "drop", VICTIM_KEY, "--reason", "test"]);
    assert_eq!(code, Some(0), "{error}");
    world.wait_empty().await;
    assert!(actions(&world.bridge.events().await)["victim"].len() > 1);
    assert_eq!(world.left(&world.dead_letters).await, (0, 0));
}

/// A reload changes which queue is read, and ends the reading of a queue that was removed.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_reads_another_queue() {
    let mut world = World::new().await;
    world.bridge.run().await;
    world.wait_current().await;
    let second = create_queue(&world.aws, "second").await;
    world.bridge.write("scalebridge.yaml", &World::config(&second, &world.aws.url()));
    eventually("the second queue", async || {
        (world.source().await["queue"]["address"] == json!(second)).then_some(())
    })
    .await;
    world.wait_current().await;
    let send = async |queue: &str, group: &str| {
        let body = notification(&[pending_pod(group, "a")]);
        world.aws.sqs().send_message().queue_url(queue).message_body(body).send().await.expect("sent");
    };
    send(&world.queue, "first").await;
    send(&second, "second").await;
    world.wait_processed(200, 1).await;
    assert_eq!(actions(&world.bridge.events().await).into_keys().collect::<Vec<_>>(), ["second"]);
    world.bridge.write("scalebridge.yaml", CONFIG);
    eventually("a source that accepts requests", async || {
        (world.source().await["kind"] == "alertmanager").then_some(())
    })
    .await;
    world.bridge.post(notification(&[pending_pod("third", "a")])).await.verdicts();
    send(&second, "fourth").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // The call that was waiting at the end can have received them; then they are visible again later.
    for queue in [&second, &world.queue] {
        let (visible, hidden) = world.left(queue).await;
        assert_eq!(visible + hidden, 1, "nothing reads it any more");
    }
}

/// `deploy/amp/alertmanager.yaml` as a configuration of Alertmanager, whose topics are in the local AWS.
fn amp_configuration(dir: &std::path::Path, aws: &LocalAws) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/amp/alertmanager.yaml");
    let definition = std::fs::read_to_string(path).expect("a definition");
    // Two keys, each with a block of text that is indented by two or four spaces.
    let (configuration, templates) = definition.split_once("\ntemplate_files:\n").expect("templates");
    let configuration = configuration.split_once("alertmanager_config: |\n").expect("a configuration").1;
    let unindented = |text: &str, by: usize| -> String {
        text.lines().map(|line| format!("{}\n", line.get(by..).unwrap_or_default())).collect()
    };
    let template = templates.split_once("  scalebridge: |\n").expect("a template").1;
    std::fs::write(dir.join("scalebridge"), unindented(template, 4)).expect("a file");
    let sigv4 = "sigv4:\n          access_key: test\n          secret_key: test\n";
    unindented(configuration, 2)
        .replace("  - scalebridge\n", &format!("  - {}\n", dir.join("scalebridge").display()))
        .replace("arn:aws:sns:eu-west-1:123456789012:alerts", TOPIC)
        .replace("sigv4:\n", sigv4)
        .replace("send_resolved: true\n", &format!("send_resolved: true\n        api_url: {}\n", aws.url()))
        .replace("group_wait: 10s", "group_wait: 0s")
        .replace("group_interval: 1m", "group_interval: 1s")
}

/// Real Alertmanagers, which make JSON by a template: every character of a label arrives, and the fingerprint is theirs.
async fn the_template_for_amazon_managed_prometheus_sends_every_character(release: Release) {
    let mut world = World::new().await;
    world.bridge.run().await;
    world.wait_current().await;
    let dir = tempfile::tempdir().expect("a directory");
    let configuration = amp_configuration(dir.path(), &world.aws);
    let alertmanager = release.start_alertmanager(dir.path(), &configuration).await;
    let controls: String = (1..0x20).filter_map(char::from_u32).collect();
    let odd = format!(
        "\" \\ \\\" \\n ' <&> % $1 ${{x}} {{{{ . }}}} é 🦀 \u{2028}\u{7f}\u{fffe}\u{ffff} {controls}"
    );
    let labels = json!({
        "alertname": "KubePodsPending", "nodegroup": "workers", "pod": "a", "odd": odd,
    });
    let mut alert = json!({
        "labels": labels, "annotations": { "summary": odd, "empty": "" }, "generatorURL": "http://prom:9090/graph?a=1&b=%22",
    });
    let post = async |alert: &Value| {
        let url = format!("{}/api/v2/alerts", alertmanager.url());
        let answer = crate::support::bridge::post(url, &[], json!([alert]).to_string().into_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    post(&alert).await;
    world.wait_processed(200, 1).await;
    let event = world.bridge.events().await.first().cloned().expect("an event");
    let sent = &event["data"]["alerts"][0];
    let mut expected = labels.clone();
    // Those of the source.
    expected["cluster"] = json!("prod-eu");
    expected["region"] = json!("eu-west-1");
    assert_eq!(sent["labels"], expected);
    assert_eq!(sent["annotations"]["summary"], odd);
    assert_eq!(sent["generator_url"], alert["generatorURL"]);
    let (_, known) = get(&format!("{}/api/v2/alerts", alertmanager.url())).await.expect("alerts");
    let known: Value = serde_json::from_str(&known).expect("JSON");
    assert_eq!(sent["fingerprint"], known[0]["fingerprint"], "{known}");
    let time = |value: &Value| value.as_str().expect("a time").parse::<jiff::Timestamp>().expect("a time");
    let difference = time(&sent["starts_at"]).duration_since(time(&known[0]["startsAt"])).abs();
    assert!(difference < jiff::SignedDuration::from_millis(1), "{sent} {known}");
    assert_eq!(event["data"]["notification"]["receiver"], "scalebridge");

    alert["endsAt"] = json!(crate::support::bridge::now());
    post(&alert).await;
    eventually("the end", async || (world.bridge.events().await.len() == 2).then_some(())).await;
    assert_eq!(actions(&world.bridge.events().await)["workers"], up_and_down());
    assert_eq!(
        world.bridge.metric("scalebridge_notifications_total{source=\"prod-eu\",code=\"400\"}").await,
        0.0
    );
}
