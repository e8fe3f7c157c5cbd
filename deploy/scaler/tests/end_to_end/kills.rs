//! A worker that is killed after it has written down what it is about to do, and before it was done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::by_worker::{event, send};
use crate::process::{WAIT_TIMEOUT, eventually};
use crate::setup::{Cloud, Worker, scaler_config};

/// A proxy to an emulator that never passes the first call of an action on.
struct Proxy {
    url: String,
    met: Arc<Notify>,
}

impl Proxy {
    async fn start(to: &str, action: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (met, is_met) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let (to, notify) = (to.trim_start_matches("http://").to_owned(), Arc::clone(&met));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (to, notify, is_met) = (to.clone(), Arc::clone(&notify), Arc::clone(&is_met));
                tokio::spawn(async move {
                    let server = TcpStream::connect(to).await.unwrap();
                    let (mut from_server, mut to_server) = server.into_split();
                    let (mut from_client, mut to_client) = client.into_split();
                    tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
                    let (mut part, mut seen) = ([0; 8192], Vec::new());
                    while let Ok(length @ 1..) = from_client.read(&mut part).await {
                        seen.extend_from_slice(&part[..length]);
                        let is_call = String::from_utf8_lossy(&seen).contains(&format!("Action={action}"));
                        if is_call && !is_met.swap(true, Ordering::SeqCst) {
                            notify.notify_one();
                            return std::future::pending().await;
                        }
                        to_server.write_all(&part[..length]).await.unwrap();
                    }
                });
            }
        });
        Self { url, met }
    }
}

#[tokio::test]
async fn a_change_that_was_begun_before_a_kill_is_made_once_and_before_the_next_event() {
    let cloud = Cloud::start().await;
    let queue = cloud.queue("scaling", 5).await;
    let proxy = Proxy::start(&cloud.url(), "SetDesiredCapacity").await;
    let through = [("AWS_ENDPOINT_URL_AUTO_SCALING", proxy.url.clone())];
    let mut worker = Worker::start(&cloud, scaler_config(Some(&queue), None), &through).await;
    send(&cloud, &queue, event(1, 3, "web")).await;
    let call = tokio::time::timeout(WAIT_TIMEOUT, proxy.met.notified()).await;
    assert!(call.is_ok(), "the worker did not call");
    worker.process.kill();
    assert_eq!(cloud.capacities().await[1], 5, "the call did not arrive");

    send(&cloud, &queue, event(2, 4, "web")).await;
    worker.start_again().await;
    eventually("both answers", async || {
        (worker.outcomes("applied") + worker.outcomes("already_applied") == 2).then_some(())
    })
    .await;
    assert_eq!(cloud.capacities().await[1], 5 + 3 + 4);
    eventually("deleted messages", async || cloud.is_empty(&queue).await.then_some(())).await;
    // Whichever comes first has finished the change that was begun.
    let changes: Vec<_> = worker.lines("event").into_iter().filter(|line| line["to"] == 12).collect();
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(changes[0]["from"], 8);
}
