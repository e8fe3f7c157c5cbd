//! `process_*` metrics, as in Prometheus' client libraries, read at each scrape.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Collector of the metrics of this process from `/proc`.
#[derive(Debug)]
pub(super) struct Process {
    start_time_seconds: Option<f64>,
}

impl Process {
    /// Reads the start time once.
    pub(super) fn new() -> Self {
        Self { start_time_seconds: start_time_seconds() }
    }
}

/// The start of the process as Unix time.
fn start_time_seconds() -> Option<f64> {
    let boot = procfs::boot_time_secs().ok()?;
    let ticks = procfs::process::Process::myself().ok()?.stat().ok()?.starttime;
    Some(boot as f64 + ticks as f64 / procfs::ticks_per_second() as f64)
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: Option<f64>| match value {
            None => Ok(()),
            Some(value) => {
                let metric = ConstGauge::new(value);
                metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
            }
        };
        let process = procfs::process::Process::myself().ok();
        let stat = process.as_ref().and_then(|process| process.stat().ok());
        let memory = stat.as_ref().map(|stat| (stat.rss * procfs::page_size()) as f64);
        gauge("process_resident_memory_bytes", "Resident memory size in bytes", memory)?;
        let memory = stat.as_ref().map(|stat| stat.vsize as f64);
        gauge("process_virtual_memory_bytes", "Virtual memory size in bytes", memory)?;
        let threads = stat.as_ref().map(|stat| stat.num_threads as f64);
        gauge("process_threads", "Number of OS threads", threads)?;
        gauge(
            "process_start_time_seconds",
            "Start time of the process as Unix time in seconds",
            self.start_time_seconds,
        )?;
        let open = process.as_ref().and_then(|process| process.fd_count().ok()).map(|count| count as f64);
        gauge("process_open_fds", "Number of open file descriptors", open)?;
        let max_fds = process.and_then(|process| process.limits().ok()).map(|limits| {
            match limits.max_open_files.soft_limit {
                procfs::process::LimitValue::Value(max_fds) => max_fds as f64,
                procfs::process::LimitValue::Unlimited => f64::INFINITY,
            }
        });
        gauge("process_max_fds", "Maximum number of open file descriptors", max_fds)?;
        let Some(stat) = stat else { return Ok(()) };
        let cpu = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
        let metric = ConstCounter::new(cpu);
        let name = "process_cpu_seconds";
        metric.encode(encoder.encode_descriptor(
            name,
            "Total user and system CPU time in seconds",
            None,
            metric.metric_type(),
        )?)
    }
}
