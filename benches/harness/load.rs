//! Load generator: sends Alertmanager notifications, one at a time on each connection.
//!
//! Runs as a separate process and prints its result as JSON on stdout.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::secured;
use super::stub::now_us;

/// Parameters of a load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Load {
    pub bridge: SocketAddr,
    /// Further replicas: the connections take turns.
    pub others: Vec<SocketAddr>,
    pub alerts: u64,
    /// Alerts per notification.
    pub alerts_per_body: u64,
    pub connections: u64,
    /// Number of the first alert. The number determines the fingerprint.
    pub first: u64,
    /// Number of targets. Each notification is about one of them, round robin; 0 gives each alert its own target.
    pub targets: u64,
    /// Whether notifications about the same target are identical, as when Alertmanager repeats a group.
    pub repeats: bool,
    /// Pause between a response and the next request, in microseconds.
    pub pause_us: u64,
    /// The certificate of a bridge that is called with TLS and a bearer token.
    pub certificate: Option<PathBuf>,
}

/// Result of a load.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Sent {
    /// Start of the first request and end of the last response, in microseconds since 1970.
    pub first_us: u64,
    pub last_us: u64,
    /// Requests that were answered with 503 and repeated.
    pub retried: u64,
    /// Latency of the 200, in microseconds.
    pub median_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

impl Load {
    /// Notifications of 20 alerts over 8 connections; each alert has its own target.
    pub(crate) fn new(bridge: SocketAddr, alerts: u64) -> Self {
        Self {
            bridge,
            others: Vec::new(),
            alerts,
            alerts_per_body: 20,
            connections: 8,
            first: 0,
            targets: 0,
            repeats: false,
            pause_us: 0,
            certificate: None,
        }
    }

    /// Sends the load from a child process, this program with the argument `load`.
    pub(crate) fn run(&self) -> io::Result<Sent> {
        let load = serde_json::to_string(self)?;
        let output = Command::new(std::env::current_exe()?).args(["load", &load]).output()?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Sends the load from this process.
    pub(crate) fn send(&self) -> io::Result<Sent> {
        let starts_at = jiff::Timestamp::now().to_string();
        let (next, retried) = (AtomicU64::new(0), AtomicU64::new(0));
        let first_us = now_us();
        let times = std::thread::scope(|scope| {
            let (starts_at, next, retried) = (&*starts_at, &next, &retried);
            let bridges = std::iter::once(self.bridge).chain(self.others.iter().copied()).cycle();
            let send =
                |bridge| scope.spawn(move || self.send_on_connection(bridge, starts_at, next, retried));
            let threads: Vec<_> = bridges.take(self.connections as usize).map(send).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, io::Result<Vec<u64>>>| {
                thread.join().unwrap_or_else(|_| Err(io::Error::other("a sender ended with a panic")))
            };
            threads.into_iter().map(join).collect::<io::Result<Vec<_>>>()
        })?;
        let last_us = now_us();
        let mut times = times.concat();
        times.sort_unstable();
        let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied().unwrap_or_default();
        Ok(Sent {
            first_us,
            last_us,
            retried: retried.into_inner(),
            median_us: at(0.5),
            p99_us: at(0.99),
            max_us: times.last().copied().unwrap_or_default(),
        })
    }

    /// Sends the share of one connection.
    fn send_on_connection(
        &self,
        bridge: SocketAddr,
        starts_at: &str,
        next: &AtomicU64,
        retried: &AtomicU64,
    ) -> io::Result<Vec<u64>> {
        let stream = TcpStream::connect(bridge)?;
        stream.set_nodelay(true)?;
        let mut reader: BufReader<Box<dyn Stream>> = BufReader::new(match &self.certificate {
            Some(certificate) => Box::new(secured::connect(stream, certificate)?),
            None => Box::new(stream),
        });
        let authorization = match self.certificate {
            Some(_) => format!("authorization: Bearer {}\r\n", secured::TOKEN),
            None => String::new(),
        };
        let bodies = self.alerts.div_ceil(self.alerts_per_body);
        let (mut times, mut request) = (Vec::new(), Vec::new());
        let mut body = String::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= bodies {
                return Ok(times);
            }
            self.write_body(&mut body, number, starts_at);
            request.clear();
            write!(
                request,
                "POST /webhook/prod-eu HTTP/1.1\r\nhost: bridge\r\nuser-agent: Alertmanager/0.28.1\r\n\
                 content-type: application/json\r\n{authorization}content-length: {}\r\n\r\n",
                body.len()
            )?;
            request.extend_from_slice(body.as_bytes());
            loop {
                let begun = Instant::now();
                reader.get_mut().write_all(&request)?;
                reader.get_mut().flush()?;
                match read_answer(&mut reader)? {
                    200 => {
                        times.push(begun.elapsed().as_micros() as u64);
                        break;
                    }
                    503 => {
                        retried.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    status => return Err(io::Error::other(format!("the bridge answered {status}"))),
                }
            }
            if self.pause_us > 0 {
                std::thread::sleep(Duration::from_micros(self.pause_us));
            }
        }
    }

    /// A notification of `alerts` alerts.
    pub(crate) fn example(alerts: u64) -> String {
        let bridge = SocketAddr::from(([127, 0, 0, 1], 0));
        let load = Self { alerts_per_body: alerts, ..Self::new(bridge, alerts) };
        let mut body = String::new();
        load.write_body(&mut body, 0, "2026-11-22T16:55:15.05042Z");
        body
    }

    pub(crate) fn write_body(&self, body: &mut String, number: u64, starts_at: &str) {
        let target = number.checked_rem(self.targets);
        let begin = match target {
            Some(target) if self.repeats => target * self.alerts_per_body,
            _ => number * self.alerts_per_body,
        };
        let end = (begin + self.alerts_per_body).min(begin + self.alerts);
        body.clear();
        body.push_str(r#"{"receiver":"scaling","status":"firing","alerts":["#);
        for alert in begin..end {
            let alert = self.first + alert;
            if !body.ends_with('[') {
                body.push(',');
            }
            push_alert(body, alert, target.unwrap_or(alert), starts_at);
        }
        body.push_str(
            r#"],"groupLabels":{"alertname":"KubePodUnschedulable"},"commonLabels":{"alertname":"KubePodUnschedulable","severity":"warning"},"commonAnnotations":{},"externalURL":"http://alertmanager:9093","version":"4","groupKey":"{}/{severity=\"warning\"}:{alertname=\"KubePodUnschedulable\"}","truncatedAlerts":0}"#,
        );
    }
}

/// About 600 bytes, the size of a kube-state-metrics alert.
fn push_alert(body: &mut String, alert: u64, target: u64, starts_at: &str) {
    use std::fmt::Write as _;
    // Writing to a String cannot fail.
    let _ = write!(
        body,
        r#"{{"status":"firing","labels":{{"alertname":"KubePodUnschedulable","cluster":"prod-eu","namespace":"shop","nodegroup":"workers-{target}","pod":"web-7d4b9c6f8-{alert:07}","prometheus":"monitoring/k8s","region":"eu-west-1","severity":"warning"}},"annotations":{{"description":"Pod shop/web-7d4b9c6f8-{alert:07} has been unschedulable for more than five minutes.","summary":"Pod unschedulable.","value":"3"}},"startsAt":"{starts_at}","endsAt":"0001-01-01T00:00:00Z","generatorURL":"http://prometheus:9090/graph?g0.expr=kube_pod_status_unschedulable+%3E+0","fingerprint":"{alert:016x}"}}"#
    );
}

/// A connection, with or without TLS.
trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

/// Reads the next response and returns its status.
fn read_answer(reader: &mut BufReader<Box<dyn Stream>>) -> io::Result<u16> {
    let (mut line, mut status, mut length) = (String::new(), 0, 0);
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::Error::other("the bridge closed the connection"));
        }
        if line == "\r\n" {
            break;
        }
        if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
            status = rest.get(..3).and_then(|code| code.parse().ok()).unwrap_or_default();
        } else if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    io::copy(&mut reader.take(length), &mut io::sink())?;
    Ok(status)
}
