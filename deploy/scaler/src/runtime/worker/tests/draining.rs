use std::io::Write as _;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::sync::Notify;

use super::*;

/// The process that gets a signal; see the test below.
#[tokio::test]
#[ignore = "waits for a signal"]
async fn process() {
    let stop = stop_signal().unwrap();
    std::io::stdout().write_all(b"\nit waits\n").unwrap();
    stop.cancelled().await;
}

#[tokio::test]
async fn a_signal_stops_the_worker() {
    for signal in ["TERM", "INT"] {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "runtime::worker::tests::draining::process", "--ignored", "--nocapture"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        while lines.next_line().await.unwrap().unwrap() != "it waits" {}
        let kill = format!("kill -{signal} {}", process.id().unwrap());
        assert!(Command::new("sh").args(["-c", &kill]).status().await.unwrap().success());
        while lines.next_line().await.unwrap().is_some() {}
        assert!(process.wait().await.unwrap().success(), "{signal}");
    }
}

#[tokio::test]
async fn a_stop_gives_back_what_has_not_begun_and_finishes_the_rest() {
    let stub = queue([messages(&[("1", "a"), ("2", "a"), ("3", "a"), ("4", "b")])]).await;
    let script = Arc::<Script>::default();
    script.hold("1");
    script.hold("4");
    script.answer("4", [Outcome::Retry]);
    let running = Running::start(settings(FIFO), stub.config().await, &script).await;
    running.until_ready().await;
    script.until("+4").await;
    let polls = calls(&stub, "ReceiveMessage", 2).await.len();
    running.stop.cancel();
    let released = calls(&stub, "ChangeMessageVisibilityBatch", 1).await;
    assert_eq!(visibility(&released[0]), (vec!["r2", "r3"], vec![0, 0]));
    assert_eq!(running.get("/-/ready").await, (503, "the worker stops\n".to_owned()));
    assert_eq!(running.get("/-/healthy").await.0, 200);
    script.let_go("4");
    let released = calls(&stub, "ChangeMessageVisibilityBatch", 2).await;
    assert_eq!(visibility(&released[1]), (vec!["r4"], vec![1]));
    script.let_go("1");
    assert_eq!(running.stop().await, Stopped { abandoned: 0 });
    assert_eq!(calls(&stub, "DeleteMessage", 1).await, [json!({ "QueueUrl": FIFO, "ReceiptHandle": "r1" })]);
    assert_eq!(script.begun(), ["1", "4"]);
    assert_eq!(stub.calls("ReceiveMessage").len(), polls, "nothing is asked for any more");
}

#[tokio::test]
async fn what_takes_longer_than_the_drain_timeout_is_abandoned() {
    let stub = queue([messages(&[("1", "a"), ("2", "b")])]).await;
    let script = Arc::<Script>::default();
    script.hold("1");
    script.hold("2");
    let settings = Settings { drain_timeout: Duration::from_millis(20), ..settings(STANDARD) };
    let running = Running::start(settings, stub.config().await, &script).await;
    script.until("+1").await;
    script.until("+2").await;
    assert_eq!(running.stop().await, Stopped { abandoned: 2 });
    assert_eq!(stub.calls("DeleteMessage").len(), 0);
}

#[tokio::test]
async fn what_the_last_poll_brings_is_given_back_at_once() {
    let answer = Arc::<Notify>::default();
    let Reply::Ok(late) = messages(&[("1", "a"), ("2", "a"), ("3", "b")]) else { panic!("an answer") };
    let stub = queue([Reply::Held(Arc::clone(&answer), late)]).await;
    let script = Arc::<Script>::default();
    // Longer than the test: the poll ends since it is answered.
    let (poll_wait, drain_timeout) = (HANG, HANG);
    let settings = Settings { poll_wait, drain_timeout, ..settings(FIFO) };
    let running = Running::start(settings, stub.config().await, &script).await;
    calls(&stub, "ReceiveMessage", 1).await;
    running.stop.cancel();
    while running.get("/-/ready").await.1 != "the worker stops\n" {
        pause().await;
    }
    answer.notify_one();
    assert_eq!(running.stop().await, Stopped { abandoned: 0 });
    let released = calls(&stub, "ChangeMessageVisibilityBatch", 1).await;
    assert_eq!(visibility(&released[0]), (vec!["r1", "r2", "r3"], vec![0, 0, 0]));
    assert_eq!((script.begun().len(), stub.calls("ReceiveMessage").len()), (0, 1));
}

#[tokio::test]
async fn a_stop_waits_for_a_poll_no_longer_than_the_drain_timeout() {
    let stub = queue([messages(&[])]).await;
    let script = Arc::<Script>::default();
    // The second poll has no answer, and would be awaited for longer than the test.
    let settings =
        Settings { poll_wait: HANG * 2, drain_timeout: Duration::from_millis(20), ..settings(STANDARD) };
    let running = Running::start(settings, stub.config().await, &script).await;
    calls(&stub, "ReceiveMessage", 2).await;
    let stopped = tokio::time::timeout(HANG, running.stop()).await;
    assert_eq!(stopped.unwrap(), Stopped { abandoned: 0 });
}
