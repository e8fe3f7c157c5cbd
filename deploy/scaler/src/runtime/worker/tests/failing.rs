use super::*;

const DOWN: Reply = Reply::Error(503, "ServiceUnavailable", "down");

#[tokio::test]
async fn a_queue_that_is_down_at_the_start_and_later_is_polled_again() {
    let stub = queue([DOWN, messages(&[("1", "a")]), DOWN, Reply::Close, messages(&[("2", "b")])]).await;
    let script = Arc::<Script>::default();
    let running = Running::start(settings(STANDARD), stub.config().await, &script).await;
    script.until("-1").await;
    running.until_ready().await;
    script.until("-2").await;
    assert_eq!(running.metric(r#"queue_errors_total{call="receive"}"#).await, "3");
    assert_ne!(running.metric("last_poll_timestamp_seconds").await, "0.0");
    calls(&stub, "DeleteMessage", 2).await;
    running.stop().await;
}

#[tokio::test]
async fn a_worker_that_reaches_no_queue_says_so_and_can_be_stopped() {
    // Nothing listens there.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let config = crate::test_support::config(&format!("http://{closed}")).await;
    let script = Arc::<Script>::default();
    let running = Running::start(settings(STANDARD), config, &script).await;
    while running.metric(r#"queue_errors_total{call="receive"}"#).await == "0" {
        pause().await;
    }
    let (status, text) = running.get("/-/ready").await;
    assert!(status == 503 && text.starts_with("the queue could not be polled for "), "{status} {text}");
    assert_eq!(running.get("/-/healthy").await.0, 200);
    running.stop().await;
}

#[tokio::test]
async fn a_ledger_that_cannot_be_read_makes_the_worker_unready() {
    let stub = queue([messages(&[("1", "a")])]).await;
    let script = Arc::<Script>::default();
    let ledger = Ledger(Some("AccessDeniedException: not for you"));
    let running = Running::start_with(settings(STANDARD), stub.config().await, &script, ledger).await;
    script.until("-1").await;
    let expected = "the ledger cannot be used: AccessDeniedException: not for you\n";
    assert_eq!(running.get("/-/ready").await, (503, expected.to_owned()));
    running.stop().await;
}

#[tokio::test]
async fn a_deletion_that_fails_is_repeated() {
    let stub = queue([messages(&[("1", "a"), ("2", "a")])]).await;
    stub.reply("DeleteMessage", [DOWN, Reply::Close, Reply::Ok("{}".to_owned())]);
    let script = Arc::<Script>::default();
    let running = Running::start(settings(FIFO), stub.config().await, &script).await;
    let deleted = calls(&stub, "DeleteMessage", 4).await;
    let receipts: Vec<_> = deleted.iter().map(|call| call["ReceiptHandle"].as_str().unwrap()).collect();
    assert_eq!(receipts, ["r1", "r1", "r1", "r2"]);
    assert_eq!(running.metric(r#"queue_errors_total{call="delete"}"#).await, "0");
    running.stop().await;
}

#[tokio::test]
async fn a_message_that_is_not_deleted_is_counted_and_the_next_one_is_handled() {
    let stub = queue([messages(&[("1", "a"), ("2", "a")])]).await;
    let denied = Reply::Error(403, "AccessDenied", "not for you");
    stub.reply("DeleteMessage", [denied, Reply::Ok("{}".to_owned())]);
    let script = Arc::<Script>::default();
    let running = Running::start(settings(FIFO), stub.config().await, &script).await;
    calls(&stub, "DeleteMessage", 2).await;
    assert_eq!(running.metric(r#"queue_errors_total{call="delete"}"#).await, "1");
    running.stop().await;
}
