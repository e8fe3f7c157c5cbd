//! A source of kind `sqs`: what a bridge reads from a queue that was filled before it started.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::bridge::{self, Bridge, Setup};
use super::check;
use super::load::Load;
use super::results::{Better, Figure};
use super::scenarios::{ensure, figure, log_progress, stats};
use super::stub::{Stats, Stub};

/// Longer than any run takes on a slow machine.
const MAX_DURATION: Duration = Duration::from_secs(600);

/// Alerts in messages of 20, and 100,000 messages of one alert; each alert has its own target.
pub(super) fn measure(folder: &Path, figures: &mut Vec<Figure>) -> io::Result<()> {
    let high = Better::Higher;
    let run = drain(&folder.join("grouped"), 60_000, 20)?;
    figures.push(figure("alerts from a queue, 20 a message", "1/s", high, run.rate, (3e3, 10e3)));
    figures.push(figure("bridge CPU per alert from a queue", "µs", Better::Lower, run.cpu_us, (200.0, 60.0)));
    let run = drain(&folder.join("single"), 100_000, 1)?;
    figures.push(figure("messages from a queue, one alert each", "1/s", high, run.rate, (500.0, 1e3)));
    figures.push(figure(
        "100,000 waiting messages are read after",
        "s",
        Better::Lower,
        run.seconds,
        (200.0, 100.0),
    ));
    Ok(())
}

struct Drained {
    seconds: f64,
    /// Alerts a second, from the first call to the last deletion.
    rate: f64,
    cpu_us: f64,
}

fn drain(folder: &Path, alerts: u64, alerts_per_message: u64) -> io::Result<Drained> {
    log_progress(&format!("polled: {alerts} alerts, {alerts_per_message} a message"));
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    let stub = Stub::start()?;
    let load = Load { alerts_per_body: alerts_per_message, ..Load::new(stub.address, alerts) };
    bridge::post(stub.address, "/fill", &serde_json::to_string(&load)?)?;
    let setup = Setup { polled: true, ..Setup::default() };
    let bridge = Bridge::start(folder, &setup, stub.address)?;
    let messages = alerts.div_ceil(alerts_per_message);
    let read = wait(&stub, |stats| stats.deleted >= messages)?;
    wait(&stub, |stats| stats.messages >= alerts)?;
    let cpu_us = bridge.cpu_us()? as f64 / alerts as f64;
    ensure(read.deleted == messages, "each message is deleted once")?;
    let store = bridge.stop()?;
    let (_, distinct) = bridge::get(stub.address, "/distinct")?;
    ensure(distinct == alerts.to_string(), &format!("{distinct} of {alerts} events arrived"))?;
    let found = check::count_decisions(&store, |target| vec![format!("{target:016x}")])?;
    ensure(found == alerts, &format!("{found} of {alerts} decisions can be queried"))?;
    let seconds = read.last_deleted_us.saturating_sub(read.first_received_us) as f64 / 1e6;
    Ok(Drained { seconds, rate: alerts as f64 / seconds, cpu_us })
}

fn wait(stub: &Stub, is_over: impl Fn(&Stats) -> bool) -> io::Result<Stats> {
    let begun = Instant::now();
    loop {
        let stats = stats(stub.address)?;
        if is_over(&stats) {
            return Ok(stats);
        }
        if begun.elapsed() > MAX_DURATION {
            return Err(io::Error::other(format!("{} deleted, {} arrived", stats.deleted, stats.messages)));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
