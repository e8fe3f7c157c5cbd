//! The worker against a queue that answers as a test wants it, and against an emulated one.

mod draining;
mod emulated;
mod failing;
mod handling;

use aws_config::SdkConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::outcome::Outcome;
use crate::runtime::script::{HANG, Script};
use crate::test_support::stub::{Reply, Stub};

const STANDARD: &str = "http://127.0.0.1/000000000000/scaling";
const FIFO: &str = "http://127.0.0.1/000000000000/scaling.fifo";

fn settings(queue_url: &str) -> Settings {
    Settings {
        queue_url: queue_url.to_owned(),
        concurrency: 8,
        listen: DEFAULT_LISTEN,
        drain_timeout: DEFAULT_DRAIN_TIMEOUT,
        visibility: DEFAULT_VISIBILITY,
        // A queue without an answer is awaited no longer than that at the end.
        poll_wait: Duration::ZERO,
    }
}

struct Ledger(Option<&'static str>);

impl LedgerProbe for Ledger {
    async fn check(&self) -> Result<(), String> {
        self.0.map_or(Ok(()), |error| Err(error.to_owned()))
    }
}

/// A worker that is running.
struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    worker: JoinHandle<Stopped>,
}

impl Running {
    async fn start(settings: Settings, config: SdkConfig, script: &Arc<Script>) -> Self {
        Self::start_with(settings, config, script, Ledger(None)).await
    }

    async fn start_with(settings: Settings, config: SdkConfig, script: &Arc<Script>, ledger: Ledger) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, script) = (CancellationToken::new(), Arc::clone(script));
        let stopped = stop.clone();
        let worker = tokio::spawn(async move {
            run_at(listener, settings, &config, script, Metrics::new(), ledger, stopped).await
        });
        Self { address, stop, worker }
    }

    /// The status and body of an answer.
    async fn get(&self, path: &str) -> (u16, String) {
        self.request("GET", path, "*/*").await
    }

    async fn request(&self, method: &str, path: &str, accept: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn until_ready(&self) {
        while self.get("/-/ready").await != (200, "ready\n".to_owned()) {
            pause().await;
        }
    }

    /// The value of a metric of the scaler.
    async fn metric(&self, series: &str) -> String {
        let (_, text) = self.get("/metrics").await;
        let prefix = format!("scalebridge_scaler_{series} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&prefix));
        value.unwrap_or_else(|| panic!("no {series} in {text}")).to_owned()
    }

    async fn until_metric(&self, series: &str, value: &str) {
        while self.metric(series).await != value {
            pause().await;
        }
    }

    async fn stop(self) -> Stopped {
        self.stop.cancel();
        self.worker.await.unwrap()
    }
}

/// Between two looks at something that has no way to say that it has changed.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// The bodies of the calls of an action, as soon as there are at least `count`.
async fn calls(stub: &Stub, action: &str, count: usize) -> Vec<Value> {
    let start = Instant::now();
    loop {
        let calls = stub.calls(action);
        if calls.len() >= count {
            return calls.iter().map(|call| serde_json::from_str(&call.body).unwrap()).collect();
        }
        assert!(start.elapsed() < HANG, "{count} calls of {action} are expected: {calls:?}");
        pause().await;
    }
}

/// The event of a group, or target.
fn event(id: &str, group: &str) -> String {
    json!({ "id": id, "subject": group }).to_string()
}

/// An answer with the messages of events, each with its group or target.
fn messages(events: &[(&str, &str)]) -> Reply {
    received(1, events)
}

/// The same, received for the nth time.
fn received(receives: u32, events: &[(&str, &str)]) -> Reply {
    let message = |(id, group): &(&str, &str)| {
        json!({
            "MessageId": id, "ReceiptHandle": format!("r{id}"), "Body": event(id, group),
            "Attributes": { "ApproximateReceiveCount": receives.to_string(), "MessageGroupId": group },
        })
    };
    Reply::Ok(json!({ "Messages": events.iter().map(message).collect::<Vec<_>>() }).to_string())
}

/// A queue that has these answers to polls, then none, and accepts everything else.
async fn queue(polls: impl IntoIterator<Item = Reply>) -> Stub {
    let stub = Stub::start().await;
    stub.reply("ReceiveMessage", polls.into_iter().chain([Reply::Silence]));
    stub.reply("DeleteMessage", [Reply::Ok("{}".to_owned())]);
    let changed = Reply::Ok(r#"{"Successful":[],"Failed":[]}"#.to_owned());
    stub.reply("ChangeMessageVisibilityBatch", [changed]);
    stub
}

/// The receipt handles and the new visibility of a call.
fn visibility(call: &Value) -> (Vec<&str>, Vec<i64>) {
    let entries = call["Entries"].as_array().unwrap();
    let receipts = entries.iter().map(|entry| entry["ReceiptHandle"].as_str().unwrap());
    let timeouts = entries.iter().map(|entry| entry["VisibilityTimeout"].as_i64().unwrap());
    (receipts.collect(), timeouts.collect())
}
