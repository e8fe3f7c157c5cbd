use super::*;

#[tokio::test]
async fn every_message_is_handled_and_deleted_unless_it_is_tried_again() {
    let stub =
        queue([messages(&[("1", "a"), ("2", "b"), ("3", "c")]), messages(&[("4", "d"), ("5", "a")])]).await;
    let script = Arc::<Script>::default();
    script.answer("2", [Outcome::Refused]);
    script.answer("3", [Outcome::Retry]);
    script.answer("4", [Outcome::Expired]);
    let settings = Settings { poll_wait: DEFAULT_POLL_WAIT, ..settings(STANDARD) };
    let running = Running::start(settings, stub.config().await, &script).await;
    let deleted = calls(&stub, "DeleteMessage", 4).await;
    let mut deleted: Vec<&str> = deleted.iter().map(|call| call["ReceiptHandle"].as_str().unwrap()).collect();
    deleted.sort_unstable();
    assert_eq!(deleted, ["r1", "r2", "r4", "r5"]);
    let released = calls(&stub, "ChangeMessageVisibilityBatch", 1).await;
    assert_eq!(visibility(&released[0]), (vec!["r3"], vec![1]));

    let polls = calls(&stub, "ReceiveMessage", 3).await;
    assert_eq!(polls[0]["QueueUrl"], STANDARD);
    assert_eq!(polls[0]["VisibilityTimeout"], 60, "whatever the queue is configured to");
    // The first one finds out whether the queue answers.
    let waits: Vec<_> = polls.iter().map(|poll| poll["WaitTimeSeconds"].as_i64()).collect();
    assert_eq!(waits, [Some(0), Some(5), Some(5)]);
    assert_eq!(running.metric("events_in_progress").await, "0");
    assert_eq!(running.stop().await, Stopped { abandoned: 0 });
}

#[tokio::test]
async fn the_region_is_that_of_the_queue() {
    let config = config("https://sqs.eu-north-1.amazonaws.com/111122223333/scaling.fifo").await.unwrap();
    assert_eq!(config.region().map(AsRef::as_ref), Some("eu-north-1"));
}

#[tokio::test]
async fn a_retry_gives_back_the_later_messages_of_its_group() {
    let stub = queue([received(3, &[("1", "a"), ("2", "b"), ("3", "a"), ("4", "b"), ("5", "a")])]).await;
    let script = Arc::<Script>::default();
    script.answer("3", [Outcome::Retry]);
    let running = Running::start(settings(FIFO), stub.config().await, &script).await;
    calls(&stub, "DeleteMessage", 3).await;
    let released = calls(&stub, "ChangeMessageVisibilityBatch", 1).await;
    let (receipts, timeouts) = visibility(&released[0]);
    assert_eq!(receipts, ["r3", "r5"]);
    assert!(timeouts[0] == timeouts[1] && (2..=4).contains(&timeouts[0]), "{timeouts:?} at the third time");
    assert_eq!(script.log().len(), 8, "the fifth was not begun");
    running.stop().await;
}

#[tokio::test]
async fn events_of_a_group_are_handled_one_after_the_other_and_others_beside_it() {
    let stub =
        queue([messages(&[("1", "a"), ("2", "a"), ("3", "b")]), messages(&[("4", "a"), ("5", "c")])]).await;
    let script = Arc::<Script>::default();
    script.hold("1");
    let running = Running::start(settings(FIFO), stub.config().await, &script).await;
    script.until("-3").await;
    script.until("-5").await;
    running.until_metric("events_in_progress", "1").await;
    script.let_go("1");
    script.until("-4").await;
    let of_a = script.log().into_iter().filter(|entry| ["1", "2", "4"].contains(&&entry[1..]));
    assert_eq!(of_a.collect::<Vec<_>>(), ["+1", "-1", "+2", "-2", "+4", "-4"]);
    running.stop().await;
}

#[tokio::test]
async fn a_target_of_a_standard_queue_is_handled_by_one_at_a_time_and_in_order_as_far_as_the_queue_allows() {
    let stub = queue([received(3, &[("1", "a"), ("2", "a"), ("3", "b"), ("4", "a")])]).await;
    let script = Arc::<Script>::default();
    script.answer("2", [Outcome::Retry]);
    let running = Running::start(settings(STANDARD), stub.config().await, &script).await;
    calls(&stub, "DeleteMessage", 2).await;
    let released = calls(&stub, "ChangeMessageVisibilityBatch", 1).await;
    let (receipts, timeouts) = visibility(&released[0]);
    assert_eq!(receipts, ["r2", "r4"]);
    assert!(timeouts[0] == timeouts[1] && (2..=4).contains(&timeouts[0]), "{timeouts:?} at the third time");
    let of_a = script.log().into_iter().filter(|entry| &entry[1..] != "3");
    assert_eq!(of_a.collect::<Vec<_>>(), ["+1", "-1", "+2", "-2"], "the fourth was not begun");
    running.stop().await;
}

#[tokio::test]
async fn no_more_messages_are_received_than_can_be_handled() {
    let stub =
        queue([messages(&[("1", "a"), ("2", "b")]), messages(&[("3", "c")]), messages(&[("4", "d")])]).await;
    let script = Arc::<Script>::default();
    ["1", "2", "3"].iter().for_each(|id| script.hold(id));
    let settings = Settings { concurrency: 2, ..settings(STANDARD) };
    let running = Running::start(settings, stub.config().await, &script).await;
    script.until("+2").await;
    script.let_go("2");
    script.until("+3").await;
    script.let_go("3");
    script.until("-4").await;
    let polls = calls(&stub, "ReceiveMessage", 4).await;
    let asked: Vec<_> = polls.iter().map(|poll| poll["MaxNumberOfMessages"].as_i64().unwrap()).collect();
    assert_eq!(asked, [2, 1, 1, 1]);
    assert_eq!(script.most_at_once(), 2);
    script.let_go("1");
    running.stop().await;
}

#[tokio::test]
async fn messages_stay_hidden_as_long_as_the_worker_holds_them() {
    let stub = queue([messages(&[("1", "a"), ("2", "a"), ("3", "b")])]).await;
    let script = Arc::<Script>::default();
    script.hold("1");
    let settings = Settings { visibility: Duration::from_secs(2), ..settings(FIFO) };
    let running = Running::start(settings, stub.config().await, &script).await;
    calls(&stub, "DeleteMessage", 1).await;
    let earlier = stub.calls("ChangeMessageVisibilityBatch").len();
    let renewed = calls(&stub, "ChangeMessageVisibilityBatch", earlier + 2).await;
    assert_eq!(visibility(&renewed[earlier + 1]), (vec!["r1", "r2"], vec![2, 2]));
    script.let_go("1");
    calls(&stub, "DeleteMessage", 3).await;
    running.stop().await;
}

#[tokio::test]
async fn an_event_that_panics_is_tried_again_and_harms_no_other() {
    let stub = queue([messages(&[("1", "a"), ("2", "b")])]).await;
    let script = Arc::<Script>::default();
    script.panic("1");
    let running = Running::start(settings(STANDARD), stub.config().await, &script).await;
    let released = calls(&stub, "ChangeMessageVisibilityBatch", 1).await;
    assert_eq!(visibility(&released[0]).0, ["r1"]);
    calls(&stub, "DeleteMessage", 1).await;
    assert_eq!(running.stop().await, Stopped { abandoned: 0 });
}

#[tokio::test]
async fn probes_and_metrics_are_answered() {
    let stub = queue([]).await;
    let script = Arc::<Script>::default();
    let running = Running::start(settings(STANDARD), stub.config().await, &script).await;
    assert_eq!(running.get("/-/healthy").await, (200, "healthy\n".to_owned()));
    assert_eq!(running.get("/other").await.0, 404);
    assert_eq!(running.request("POST", "/metrics", "*/*").await.0, 405);
    let (status, metrics) =
        running.request("GET", "/metrics", "application/openmetrics-text;version=1.0.0").await;
    assert!(status == 200 && metrics.ends_with("# EOF\n"), "{metrics}");
    assert!(!running.get("/metrics").await.1.contains("# EOF"));
    running.stop().await;
}
