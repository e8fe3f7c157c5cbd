//! By a Lambda function: from a queue, and invoked by the bridge.

use std::process::Command;

use aws_sdk_lambda::Client;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{Environment, FunctionCode, FunctionResponseType, Runtime};
use scalebridge_scaler::runtime;
use serde_json::Value;

use crate::bridge::{ALERTS, Bridge, now};
use crate::by_worker::{double, event};
use crate::process::{eventually, program};
use crate::setup::{BEFORE, Cloud, scaler_config};

const FUNCTION: &str = "scaler";

/// The function's code, as `make scaler` packs it.
fn package() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let zip = directory.path().join("function.zip");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/package.sh");
    let packed = Command::new(script).arg(program("scalebridge-scaler")).arg(&zip).output().expect("bash");
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    std::fs::read(zip).unwrap()
}

async fn create_function(cloud: &Cloud) -> Client {
    let lambda = Client::new(&cloud.config);
    let mut environment =
        Environment::builder().variables("SCALEBRIDGE_SCALER_CONFIG", scaler_config(None, None));
    for (name, value) in cloud.environment() {
        environment = environment.variables(name, value);
    }
    let create = lambda.create_function().function_name(FUNCTION).runtime(Runtime::Providedal2023);
    let code = FunctionCode::builder().zip_file(Blob::new(package())).build();
    let create =
        create.handler("bootstrap").role("arn:aws:iam::000000000000:role/scaler").timeout(60).code(code);
    create.environment(environment.build()).send().await.unwrap();
    lambda
}

#[tokio::test]
async fn every_platform_changes_once_by_a_function_that_a_queue_invokes_twice() {
    let cloud = Cloud::start().await;
    let (sent, queue) = (cloud.queue("sent.fifo", 30).await, cloud.queue("scaling.fifo", 90).await);
    let lambda = create_function(&cloud).await;
    let arn = format!("arn:aws:sqs:eu-west-1:000000000000:{}", queue.rsplit('/').next().unwrap());
    let map = lambda.create_event_source_mapping().function_name(FUNCTION).event_source_arn(arn);
    map.function_response_types(FunctionResponseType::ReportBatchItemFailures).send().await.unwrap();
    let destination = format!("sqs: {{ queue_url: \"{sent}\" }}");
    let mut bridge = Bridge::start(&destination, &cloud.environment()).await;
    let started = now();
    for alert in ALERTS {
        bridge.notify(alert, &started, None).await;
    }
    double(&cloud, &sent, &queue, 3).await;
    eventually("deleted messages", async || cloud.is_empty(&queue).await.then_some(())).await;
    assert_eq!(cloud.capacities().await, [7, 8, 9]);
    for alert in ALERTS {
        bridge.notify(alert, &started, Some(&now())).await;
    }
    double(&cloud, &sent, &queue, 3).await;
    eventually("deleted messages", async || cloud.is_empty(&queue).await.then_some(())).await;
    assert_eq!(cloud.capacities().await, BEFORE);
}

#[tokio::test]
async fn a_decrease_that_was_overtaken_comes_again_under_a_new_id_if_the_bridge_reads_the_answer() {
    let cloud = Cloud::start().await;
    let lambda = create_function(&cloud).await;
    let destination = format!("lambda: {{ function: {FUNCTION}, invocation_type: request_response }}");
    let mut bridge = Bridge::start(&destination, &cloud.environment()).await;
    let started = now();
    bridge.notify(ALERTS[1], &started, None).await;
    eventually("the increase", async || (cloud.capacities().await[1] == 8).then_some(())).await;

    // Of another sender, whose clock is some seconds ahead.
    let ahead = runtime::now().as_millis() * 1_000 + 3_000_000;
    let mut other: Value = serde_json::from_str(&event(1, 1, "web")).unwrap();
    other["sequence"] = ahead.to_string().into();
    let invoke = lambda.invoke().function_name(FUNCTION).payload(Blob::new(other.to_string()));
    let answer = invoke.send().await.unwrap();
    let answer: Value = serde_json::from_slice(answer.payload.unwrap().as_ref()).unwrap();
    assert_eq!(
        (&answer["outcome"], &answer["from"], &answer["to"]),
        (&"applied".into(), &8.into(), &9.into())
    );

    bridge.notify(ALERTS[1], &started, Some(&now())).await;
    eventually("the answer", async || {
        let decisions = bridge.admin("/api/v1/decisions?limit=10").await.to_string();
        decisions.contains("cooling_down").then_some(())
    })
    .await;
    assert_eq!(cloud.capacities().await[1], 9);

    // The decrease waits for a call that succeeds; its new event is later than that of the other sender.
    eventually("a later time", async || (runtime::now().as_millis() * 1_000 > ahead).then_some(())).await;
    bridge.notify(ALERTS[0], &now(), None).await;
    eventually("the decrease", async || (cloud.capacities().await[1] == 6).then_some(())).await;
}
