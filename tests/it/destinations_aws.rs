//! Events reach event buses, topics and state machines of a local AWS, with their order, their answers and their names.

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sfn::types::ExecutionStatus;
use serde_json::{Value, json};

use crate::support::bridge::{Bridge, notification, pending_pod, resolved};
use crate::support::queue::{create_queue, environment, receive_all, receive_all_bodies};
use crate::support::tools::{LocalAws, REGION, eventually};

const ROLE: &str = "arn:aws:iam::000000000000:role/states";

/// The configuration of clients of the local AWS.
fn sdk_config(aws: &LocalAws) -> SdkConfig {
    let credentials = Credentials::new("test", "test", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(aws.url())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

fn sns(aws: &LocalAws) -> aws_sdk_sns::Client {
    aws_sdk_sns::Client::new(&sdk_config(aws))
}

fn sfn(aws: &LocalAws) -> aws_sdk_sfn::Client {
    aws_sdk_sfn::Client::new(&sdk_config(aws))
}

fn arn(service: &str, resource: &str) -> String {
    format!("arn:aws:{service}:{REGION}:000000000000:{resource}")
}

/// A bridge with this destination in the local AWS, which runs.
async fn bridge(aws: &LocalAws, destination: &str) -> Bridge {
    let mut bridge = Bridge::with_destinations(&[("it", destination.to_owned())]);
    environment(aws).iter().for_each(|(name, value)| bridge.env(name, value));
    bridge.run().await;
    bridge
}

/// Subscribes a queue to a topic, without an envelope.
async fn subscribe(aws: &LocalAws, topic: &str, queue: &str) {
    let subscribe = sns(aws).subscribe().topic_arn(topic).protocol("sqs").endpoint(arn("sqs", queue));
    subscribe.attributes("RawMessageDelivery", "true").send().await.expect("a subscription");
}

/// The answer that is kept with each delivery of the bridge, by the id of its event.
async fn answers(bridge: &Bridge) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for decision in bridge.decisions("emitted").await {
        let id = decision["event"].as_str().expect("an id").to_owned();
        let event = bridge.get_json(&format!("/api/v1/events/{id}")).await;
        let answer = event["deliveries"][0]["answer"].as_str().expect("an answer").to_owned();
        found.push((id, answer));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_takes_events_by_source_and_type_and_its_rules_match_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let aws = LocalAws::start(dir.path()).await;
    let url = create_queue(&aws, "matched").await;
    let events = aws_sdk_eventbridge::Client::new(&sdk_config(&aws));
    events.create_event_bus().name("scaling").send().await.expect("a bus");
    let pattern = json!({
        "source": ["/scalebridge/prod-eu"], "detail-type": ["io.scalebridge.scale_out.v1"],
        "detail": { "data": { "target": { "name": ["group-1", "group-2"] } } },
    });
    let rule = events.put_rule().name("some").event_bus_name("scaling").event_pattern(pattern.to_string());
    rule.send().await.expect("a rule");
    let target = aws_sdk_eventbridge::types::Target::builder().id("queue").arn(arn("sqs", "matched"));
    let targets = events.put_targets().rule("some").event_bus_name("scaling");
    targets.targets(target.build().expect("a target")).send().await.expect("a target");

    let bridge = bridge(&aws, &format!("eventbridge: {{ bus: scaling, region: {REGION} }}")).await;
    let alerts: Vec<Value> = (0..12).map(|at| pending_pod(&format!("group-{at}"), "a")).collect();
    assert_eq!(bridge.post(notification(&alerts)).await.verdicts(), json!({ "emitted": 12 }));
    bridge.wait_delivered("it").await;
    let answers = answers(&bridge).await;
    assert!(
        answers.iter().all(|(_, answer)| answer.len() > "EventId ".len() && answer.starts_with("EventId "))
    );
    let mut received = Vec::new();
    eventually("two events", async || {
        received.extend(receive_all_bodies(&aws, &url).await);
        (received.len() >= 2).then_some(())
    })
    .await;
    assert_eq!(received.len(), 2);
    for envelope in received {
        let event = &envelope["detail"];
        crate::support::schema::assert_valid_event(event);
        assert_eq!((&envelope["source"], &envelope["detail-type"]), (&event["source"], &event["type"]));
        assert!(answers.iter().any(|(id, _)| event["id"] == id.as_str()), "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standard_topic_passes_events_on_with_their_attributes() {
    let dir = tempfile::tempdir().expect("a directory");
    let aws = LocalAws::start(dir.path()).await;
    let url = create_queue(&aws, "subscribed").await;
    let topic = sns(&aws).create_topic().name("scaling").send().await.expect("a topic");
    let topic = topic.topic_arn.expect("its ARN");
    subscribe(&aws, &topic, "subscribed").await;
    let bridge = bridge(&aws, &format!("sns: {{ topic_arn: \"{topic}\" }}")).await;
    let alerts: Vec<Value> = (0..12).map(|at| pending_pod(&format!("group-{at}"), "a")).collect();
    assert_eq!(bridge.post(notification(&alerts)).await.verdicts(), json!({ "emitted": 12 }));
    bridge.wait_delivered("it").await;
    let received = receive_all(&aws, &url).await;
    assert_eq!(received.len(), 12);
    let answers = answers(&bridge).await;
    for message in &received {
        let event: Value = serde_json::from_str(message.body().expect("a body")).expect("an event");
        let attributes = message.message_attributes().expect("attributes");
        let attribute = |name: &str| attributes[name].string_value().expect("text");
        assert_eq!(event["id"], attribute("ce-id"));
        assert_eq!(event["type"], attribute("ce-type"));
        assert_eq!(attribute("content-type"), "application/cloudevents+json");
        let (_, answer) = answers.iter().find(|(id, _)| event["id"] == id.as_str()).expect("an answer");
        assert!(answer.starts_with("MessageId ") && answer.len() > "MessageId ".len(), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fifo_topic_passes_the_events_of_a_target_on_in_order() {
    use aws_sdk_sqs::types::MessageSystemAttributeName as System;
    let dir = tempfile::tempdir().expect("a directory");
    let aws = LocalAws::start(dir.path()).await;
    let url = aws.create_fifo_queue("subscribed.fifo").await;
    let topic = sns(&aws).create_topic().name("scaling.fifo").attributes("FifoTopic", "true");
    let topic = topic.send().await.expect("a topic").topic_arn.expect("its ARN");
    subscribe(&aws, &topic, "subscribed.fifo").await;
    let bridge = bridge(&aws, &format!("sns: {{ topic_arn: \"{topic}\" }}")).await;
    for count in 1..=3 {
        for group in ["a", "b"] {
            let pods: Vec<Value> = (0..count).map(|at| pending_pod(group, &format!("pod-{at}"))).collect();
            bridge.post(notification(&pods)).await.verdicts();
        }
        // Growth waits until the event before it is delivered, and further growth would replace it.
        bridge.wait_settled(&["it"]).await;
    }
    let received = receive_all(&aws, &url).await;
    assert_eq!(received.len(), 6);
    for group in ["a", "b"] {
        let mut sequences = Vec::new();
        for message in &received {
            let event: Value = serde_json::from_str(message.body().expect("a body")).expect("an event");
            if event["data"]["target"]["name"] != group {
                continue;
            }
            let system = message.attributes().expect("attributes");
            assert_eq!(event["subject"], system[&System::MessageGroupId].as_str());
            assert_eq!(event["id"], system[&System::MessageDeduplicationId].as_str());
            sequences.push(event["sequence"].as_str().and_then(|text| text.parse::<u64>().ok()));
        }
        assert!(sequences.len() == 3 && sequences.is_sorted(), "{group}: {sequences:?}");
    }
}

/// Creates a state machine that does nothing, and returns its ARN.
async fn create_state_machine(aws: &LocalAws) -> String {
    let definition = json!({ "StartAt": "Done", "States": { "Done": { "Type": "Pass", "End": true } } });
    let created = sfn(aws).create_state_machine().name("scaling").role_arn(ROLE);
    let created = created.definition(definition.to_string()).send().await;
    created.expect("a state machine").state_machine_arn
}

/// The name and the input of each execution, by name.
async fn executions(aws: &LocalAws, state_machine: &str) -> Vec<(String, Value)> {
    let listed = sfn(aws).list_executions().state_machine_arn(state_machine).send().await;
    let mut found = Vec::new();
    for execution in listed.expect("executions").executions {
        let described = sfn(aws).describe_execution().execution_arn(&execution.execution_arn).send().await;
        let described = described.expect("an execution");
        let input = serde_json::from_str(described.input().expect("an input")).expect("an event");
        found.push((execution.name, input));
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_an_execution_of_a_state_machine_with_its_id_as_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let aws = LocalAws::start(dir.path()).await;
    let state_machine = create_state_machine(&aws).await;
    let bridge = bridge(&aws, &format!("step_functions: {{ state_machine_arn: \"{state_machine}\" }}")).await;
    let alerts: Vec<Value> = (0..5).map(|at| pending_pod(&format!("group-{at}"), "a")).collect();
    assert_eq!(bridge.post(notification(&alerts)).await.verdicts(), json!({ "emitted": 5 }));
    bridge.wait_delivered("it").await;
    let executions = executions(&aws, &state_machine).await;
    let mut answers = answers(&bridge).await;
    answers.sort();
    assert_eq!((executions.len(), answers.len()), (5, 5));
    for ((name, input), (id, answer)) in executions.iter().zip(&answers) {
        crate::support::schema::assert_valid_event(input);
        assert_eq!((name, &input["id"]), (id, &json!(id)));
        let execution = answer.strip_prefix("executionArn ").expect("an ARN");
        let described = sfn(&aws).describe_execution().execution_arn(execution).send().await;
        assert_ne!(described.expect("an execution").status, ExecutionStatus::Failed);
    }
}

/// A name starts one execution. A redrive that sets another `expirytime` starts another one, by another name.
#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_that_sets_another_expirytime_starts_an_execution_with_its_number() {
    let dir = tempfile::tempdir().expect("a directory");
    let aws = LocalAws::start(dir.path()).await;
    let state_machine = arn("states", "stateMachine:scaling");
    let destination = format!("step_functions: {{ state_machine_arn: \"{state_machine}\" }}, max_age: 3s");
    let bridge = bridge(&aws, &destination).await;
    let alerts = ["a", "b"].map(|group| pending_pod(group, "a"));
    bridge.post(notification(&alerts)).await;
    bridge.post(notification(&alerts.each_ref().map(resolved))).await;
    let dead_letters = eventually("dead letters", async || {
        let found = bridge.get_json("/api/v1/dead-letters").await["dead_letters"].clone();
        found.as_array().filter(|found| found.len() == 2).cloned()
    })
    .await;
    assert_eq!(create_state_machine(&aws).await, state_machine);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let ids: Vec<String> = dead_letters.iter().map(|letter| text(&letter["event_id"])).collect();
    let redrive = async |letter: &Value, more: &[&str]| {
        let id = text(&letter["id"]);
        let words = ["dead-letters", "redrive", &id, "--force"];
        let (code, _, error) = bridge.cli(&[&words[..], more].concat());
        assert_eq!(code, Some(0), "{error}");
        bridge.wait_delivered("it").await;
    };
    redrive(&dead_letters[0], &["--valid-for", "15m"]).await;
    redrive(&dead_letters[1], &[]).await;
    // What was delivered after its alert has resolved is taken back.
    let all = executions(&aws, &state_machine).await.into_iter();
    let increases = all.filter(|(_, event)| event["data"]["action"] == "scale_out");
    let mut names: Vec<String> = increases.map(|(name, _)| name).collect();
    names.sort();
    let mut expected = vec![format!("{}-1", ids[0]), ids[1].clone()];
    expected.sort();
    assert_eq!(names, expected);
}

/// A pause takes a decrease back that no answer has confirmed. After it, the decrease is sent once.
#[tokio::test(flavor = "multi_thread")]
async fn a_decrease_is_withheld_at_a_state_machine_while_a_pause_covers_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let aws = LocalAws::start(dir.path()).await;
    let state_machine = create_state_machine(&aws).await;
    let bridge = bridge(&aws, &format!("step_functions: {{ state_machine_arn: \"{state_machine}\" }}")).await;
    let pod = pending_pod("a", "a");
    bridge.post(notification(std::slice::from_ref(&pod))).await;
    bridge.wait_delivered("it").await;
    let delete = sfn(&aws).delete_state_machine().state_machine_arn(&state_machine);
    delete.send().await.expect("no state machine");
    bridge.post(notification(&[resolved(&pod)])).await;
    let retries = "scalebridge_deliveries_total{destination=\"it\",result=\"retry\"}";
    eventually("a retry", async || (bridge.metric(retries).await >= 1.0).then_some(())).await;
    let pause = json!({ "direction": "scale_in", "author": "ann", "reason": "not now" });
    let (status, pause) = bridge.api("POST", "/api/v1/pauses", Some(pause)).await;
    assert_eq!(status, 201, "{pause}");
    eventually("a decrease that waits", async || {
        let superseded = bridge.decisions("superseded").await.len();
        (superseded == 1).then_some(())
    })
    .await;
    create_state_machine(&aws).await;
    bridge.post(notification(&[pending_pod("b", "b")])).await;
    let count = async |action: &str, target: &str| {
        let all = executions(&aws, &state_machine).await.into_iter();
        all.filter(|(_, event)| {
            event["data"]["action"] == action && event["data"]["target"]["name"] == target
        })
        .count()
    };
    // The outbox is not empty if the decrease was taken back during a call.
    eventually("the increase", async || (count("scale_out", "b").await == 1).then_some(())).await;
    assert_eq!(count("scale_in", "a").await, 0, "while the pause covers it");

    assert_eq!(bridge.api("DELETE", &format!("/api/v1/pauses/{}", pause["id"]), None).await.0, 200);
    bridge.wait_settled(&["it"]).await;
    assert_eq!(count("scale_in", "a").await, 1);
}
