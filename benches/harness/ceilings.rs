//! Throughput of single components on this machine, measured in the same run: decoding JSON, durable inserts,
//! batches sent with the AWS SDK. The bridge cannot be faster than the slowest of them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hint::black_box;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::types::{MessageAttributeValue, SendMessageBatchRequestEntry};
use serde::Deserialize;

use super::load::Load;
use super::results::Ceiling;
use super::stub::Stub;

/// Duration of each measurement.
const MEASURE_DURATION: Duration = Duration::from_secs(2);
/// Concurrent SDK calls.
const MAX_CONCURRENT_CALLS: usize = 16;

/// Throughput of each component per second, in its own unit.
#[derive(Clone, Copy)]
pub(crate) struct ComponentRates {
    decoded: f64,
    inserted: f64,
    sent: f64,
}

impl ComponentRates {
    /// Measures all components in sequence.
    pub(crate) fn measure(folder: &Path) -> io::Result<Self> {
        Ok(Self { decoded: decode(), inserted: insert(folder)?, sent: send()? })
    }

    /// Mean of two measurements. The speed of a shared machine varies during a run.
    pub(crate) fn mean(self, other: Self) -> Self {
        Self {
            decoded: f64::midpoint(self.decoded, other.decoded),
            inserted: f64::midpoint(self.inserted, other.inserted),
            sent: f64::midpoint(self.sent, other.sent),
        }
    }

    /// Compares each component with the bridge, which acknowledges and delivers so many alerts per second.
    pub(crate) fn compare(self, acknowledged: f64, delivered: f64) -> Vec<Ceiling> {
        let ceiling = |part: &str, unit: &str, only_computes, alone, where_goals_were_set, bridge| Ceiling {
            part: part.to_owned(),
            unit: unit.to_owned(),
            is_cpu_bound: only_computes,
            alone,
            reference: where_goals_were_set,
            bridge,
        };
        let decoding = "decoding JSON, bodies of 20, one thread";
        let inserting = "durable inserts of 1 KiB, commits of 500";
        vec![
            ceiling(decoding, "alerts/s", true, self.decoded, 790_000.0, acknowledged),
            ceiling(inserting, "rows/s", false, self.inserted, 125_000.0, acknowledged),
            ceiling("AWS SDK, batches of ten", "messages/s", true, self.sent, 159_000.0, delivered),
        ]
    }
}

/// Operations per second of `work`, which performs `batch` of them per call.
fn rate(batch_size: u64, mut work: impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut done = 0;
    while begun.elapsed() < MEASURE_DURATION {
        work();
        done += batch_size;
    }
    done as f64 / begun.elapsed().as_secs_f64()
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    alerts: Vec<Alert<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "only decoded")]
struct Alert<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    labels: HashMap<Cow<'a, str>, String>,
    #[serde(borrow)]
    annotations: HashMap<Cow<'a, str>, String>,
    #[serde(borrow)]
    starts_at: Cow<'a, str>,
    #[serde(borrow)]
    fingerprint: Cow<'a, str>,
}

fn decode() -> f64 {
    let body = Load::example(20);
    rate(20, || {
        let read = serde_json::from_str::<Body<'_>>(black_box(&body));
        assert_eq!(read.map_or(0, |body| body.alerts.len()), 20, "it decodes its own text");
    })
}

fn insert(folder: &Path) -> io::Result<f64> {
    let path = folder.join("ceiling.db");
    let measure = || -> rusqlite::Result<f64> {
        let mut store = rusqlite::Connection::open(&path)?;
        store.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        store.pragma_update(None, "synchronous", "FULL")?;
        store.execute_batch("CREATE TABLE rows (id INTEGER PRIMARY KEY, body TEXT NOT NULL)")?;
        let body = "x".repeat(1024);
        let begun = Instant::now();
        let mut rows = 0;
        while begun.elapsed() < MEASURE_DURATION {
            let commit = store.transaction()?;
            {
                let mut insert = commit.prepare_cached("INSERT INTO rows (body) VALUES (?1)")?;
                for _ in 0..500 {
                    insert.execute([&body])?;
                }
            }
            commit.commit()?;
            rows += 500;
        }
        Ok(f64::from(rows) / begun.elapsed().as_secs_f64())
    };
    let rate = measure().map_err(io::Error::other)?;
    for end in ["", "-wal", "-shm"] {
        // SQLite removes its own files when it closes the database.
        drop(std::fs::remove_file(format!("{}{end}", path.display())));
    }
    Ok(rate)
}

fn send() -> io::Result<f64> {
    let stub = Stub::start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let url = format!("http://{}/123456789012/queue", stub.address);
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .credentials_provider(Credentials::new("bench", "bench", None, None, "bench"))
            .endpoint_url(format!("http://{}", stub.address))
            .build();
        let client = aws_sdk_sqs::Client::from_conf(config);
        let begun = Instant::now();
        let send = || {
            let (client, url) = (client.clone(), url.clone());
            tokio::spawn(async move {
                let mut sent = 0;
                while begun.elapsed() < MEASURE_DURATION {
                    let call = client.send_message_batch().queue_url(&url).set_entries(Some(entries()?));
                    call.send().await.map_err(io::Error::other)?;
                    sent += 10;
                }
                io::Result::Ok(sent)
            })
        };
        let mut sent = 0;
        for task in (0..MAX_CONCURRENT_CALLS).map(|_| send()).collect::<Vec<_>>() {
            sent += task.await??;
        }
        Ok(f64::from(sent) / begun.elapsed().as_secs_f64())
    })
}

/// Ten messages with the size and the attributes of events.
fn entries() -> io::Result<Vec<SendMessageBatchRequestEntry>> {
    let body = "x".repeat(1200);
    let entry = |id: usize| {
        let mut entry = SendMessageBatchRequestEntry::builder().id(id.to_string()).message_body(&body);
        for name in ["ce-id", "ce-type", "ce-source", "ce-subject", "rule"] {
            let value = MessageAttributeValue::builder().data_type("String").string_value("0".repeat(32));
            entry = entry.message_attributes(name, value.build().map_err(io::Error::other)?);
        }
        entry.build().map_err(io::Error::other)
    };
    (0..10).map(entry).collect()
}
