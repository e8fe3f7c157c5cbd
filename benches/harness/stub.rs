//! A cheap stub of SQS and Lambda that accepts and counts every message.
//!
//! Runs as a separate process with one thread per connection. It implements `SendMessage`,
//! `SendMessageBatch` and `Invoke` of the AWS SDK, a queue that is read, and `GET /stats`, `GET /distinct`, `POST /refuse` and `POST /fill` for the
//! harness.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::load::Load;

/// Messages received so far.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Stats {
    pub calls: u64,
    pub messages: u64,
    /// Arrival of the last message, in microseconds since 1970.
    pub last_us: u64,
    /// Messages that were received from the stub and deleted.
    pub deleted: u64,
    /// The first call that received messages, and the last one that deleted some, in microseconds since 1970.
    pub first_received_us: u64,
    pub last_deleted_us: u64,
}

/// Microseconds since 1970. All processes of a run use the same clock.
pub(crate) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

#[derive(Default)]
struct Counters {
    calls: AtomicU64,
    messages: AtomicU64,
    last_us: AtomicU64,
    refusing: AtomicBool,
    /// The notifications of the queue, and the next one to be received.
    filled: Mutex<Option<Load>>,
    next: AtomicU64,
    deleted: AtomicU64,
    first_received_us: AtomicU64,
    last_deleted_us: AtomicU64,
    /// Event ids, truncated to 64 bits.
    ids: Mutex<Vec<u64>>,
}

/// Prints the address on stdout and serves until the process is killed.
pub(crate) fn serve() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    writeln!(io::stdout(), "{}", listener.local_addr()?)?;
    let counters: &'static Counters = Box::leak(Box::default());
    loop {
        let (stream, _) = listener.accept()?;
        // A broken connection is the client's error.
        std::thread::spawn(move || drop(serve_connection(counters, stream)));
    }
}

struct Request {
    head: String,
    body: Vec<u8>,
}

fn read_request(reader: &mut BufReader<TcpStream>, request: &mut Request) -> io::Result<bool> {
    request.head.clear();
    let mut length = 0;
    loop {
        let begun = request.head.len();
        if reader.read_line(&mut request.head)? == 0 {
            return Ok(false);
        }
        let line = &request.head[begun..];
        if line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body)?;
    Ok(true)
}

fn serve_connection(counters: &Counters, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(64 * 1024, stream);
    let mut request = Request { head: String::new(), body: Vec::new() };
    while read_request(&mut reader, &mut request)? {
        let (status, body) = answer(counters, &request);
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/x-amz-json-1.0\r\n");
        let answer = format!("{head}content-length: {length}\r\n\r\n{body}");
        writer.write_all(answer.as_bytes())?;
    }
    Ok(())
}

fn answer(counters: &Counters, request: &Request) -> (&'static str, String) {
    let head = &request.head;
    if head.starts_with("GET /stats ") {
        let load = |count: &AtomicU64| count.load(Ordering::Acquire);
        let stats = Stats {
            calls: load(&counters.calls),
            messages: load(&counters.messages),
            last_us: load(&counters.last_us),
            deleted: load(&counters.deleted),
            first_received_us: load(&counters.first_received_us),
            last_deleted_us: load(&counters.last_deleted_us),
        };
        return ("200 OK", serde_json::to_string(&stats).unwrap_or_default());
    }
    if head.starts_with("GET /distinct ") {
        let mut ids = counters.ids.lock().clone();
        ids.sort_unstable();
        ids.dedup();
        return ("200 OK", ids.len().to_string());
    }
    if head.starts_with("POST /refuse ") {
        counters.refusing.store(true, Ordering::Release);
        return ("200 OK", String::new());
    }
    if head.starts_with("POST /fill ") {
        *counters.filled.lock() = serde_json::from_slice(&request.body).ok();
        return ("200 OK", String::new());
    }
    if let Some(answer) = answer_of_queue(counters, request) {
        return ("200 OK", answer);
    }
    counters.calls.fetch_add(1, Ordering::AcqRel);
    if counters.refusing.load(Ordering::Acquire) {
        return ("503 Service Unavailable", String::new());
    }
    let ids = event_ids(&request.body);
    counters.messages.fetch_add(ids.len() as u64, Ordering::AcqRel);
    counters.last_us.store(now_us(), Ordering::Release);
    counters.ids.lock().extend(ids);
    if head.contains("/invocations ") {
        return ("202 Accepted", String::new());
    }
    ("200 OK", send_response(&request.body))
}

/// The answer to a call that reads the queue; `None` for other calls.
fn answer_of_queue(counters: &Counters, request: &Request) -> Option<String> {
    let operation = request.head.split_once("AmazonSQS.")?.1.split(['\r', '\n']).next()?;
    match operation {
        "ReceiveMessage" => Some(receive(counters)),
        "DeleteMessageBatch" | "ChangeMessageVisibilityBatch" => {
            if operation == "DeleteMessageBatch" {
                let count = values_after(&request.body, br#""Id":""#).count() as u64;
                counters.deleted.fetch_add(count, Ordering::AcqRel);
                counters.last_deleted_us.store(now_us(), Ordering::Release);
            }
            Some(send_response(&request.body))
        }
        "GetQueueAttributes" => Some(r#"{"Attributes":{"RedrivePolicy":"{}"}}"#.to_owned()),
        _ => None,
    }
}

/// Up to ten messages. If there are none, the call waits a little.
fn receive(counters: &Counters) -> String {
    let filled = counters.filled.lock().clone();
    let messages = filled.as_ref().map_or(0, |load| load.alerts.div_ceil(load.alerts_per_body));
    let first = counters.next.fetch_add(10, Ordering::AcqRel);
    let Some(load) = filled.filter(|_| first < messages) else {
        std::thread::sleep(std::time::Duration::from_millis(200));
        return r#"{"Messages":[]}"#.to_owned();
    };
    if first == 0 {
        counters.first_received_us.store(now_us(), Ordering::Release);
    }
    let starts_at = jiff::Timestamp::now().to_string();
    let message = |number: u64| {
        let mut body = String::new();
        load.write_body(&mut body, number, &starts_at);
        let (body, sent) = (serde_json::Value::from(body), now_us() / 1000);
        format!(
            r#"{{"MessageId":"m-{number}","ReceiptHandle":"r-{number}","Body":{body},"Attributes":{{"SentTimestamp":"{sent}"}}}}"#
        )
    };
    let messages: Vec<String> = (first..messages.min(first + 10)).map(message).collect();
    format!(r#"{{"Messages":[{}]}}"#, messages.join(","))
}

/// The text between each occurrence of `mark` and the next quotation mark.
fn values_after<'a>(text: &'a [u8], mark: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    memchr::memmem::find_iter(text, mark).map(move |at| {
        let rest = &text[at + mark.len()..];
        &rest[..memchr::memchr(b'"', rest).unwrap_or(rest.len())]
    })
}

/// The event ids of a call: from the message attributes, or from the payload of a function.
fn event_ids(body: &[u8]) -> Vec<u64> {
    let id = |hex: &[u8]| {
        let hex = std::str::from_utf8(hex.get(..16)?).ok()?;
        u64::from_str_radix(hex, 16).ok()
    };
    let attribute = memchr::memmem::find_iter(body, br#""ce-id":{"#);
    let mut ids: Vec<u64> = attribute
        .filter_map(|at| {
            let rest = &body[at..];
            id(values_after(rest, br#""StringValue":""#).next()?)
        })
        .collect();
    if ids.is_empty() {
        ids.extend(values_after(body, br#""specversion":"1.0","id":""#).filter_map(id));
    }
    ids
}

/// A response that is valid for `SendMessageBatch` and for `SendMessage`.
fn send_response(body: &[u8]) -> String {
    const MD5: &str = "00000000000000000000000000000000";
    let mut text = String::from("{\"Successful\":[");
    // Quotation marks inside message bodies are escaped, so this matches entries only.
    for (at, id) in values_after(body, br#""Id":""#).enumerate() {
        let id = std::str::from_utf8(id).unwrap_or_default();
        let comma = if at == 0 { "" } else { "," };
        text += &format!(r#"{comma}{{"Id":"{id}","MessageId":"m-{id}","MD5OfMessageBody":"{MD5}"}}"#);
    }
    text + &format!(r#"],"Failed":[],"MessageId":"m","MD5OfMessageBody":"{MD5}"}}"#)
}

/// The stub process; killed on drop.
pub(crate) struct Stub {
    process: Child,
    pub address: SocketAddr,
}

impl Stub {
    /// Starts this program with the argument `stub`.
    pub(crate) fn start() -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut process = command.arg("stub").stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(out) = process.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let address = line.trim().parse().map_err(io::Error::other)?;
        Ok(Self { process, address })
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        // Fails if the process has exited.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
