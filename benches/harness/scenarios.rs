//! The scenarios and their figures.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::bridge::{self, Bridge, RUN_TIMEOUT, Setup};
use super::ceilings::ComponentRates;
use super::load::{Load, Sent};
use super::results::{Better, CpuTime, Figure, Growth, Point, Results};
use super::stub::{Stats, Stub};
use super::{check, machine, polled, postgres};

/// Alerts of the scenario `storm`, for which the targets are set.
const STORM_ALERTS: u64 = 300_000;
/// Alerts of each run of the scenario `growth`.
const SAMPLE_ALERTS: u64 = 60_000;
const MILLION: u64 = 1_000_000;

/// Result of one run.
#[derive(Debug, Clone, Copy)]
struct Measured {
    sent: Sent,
    acknowledged: f64,
    delivered: f64,
    /// CPU time of the bridge per alert.
    cpu_us: f64,
    calls_per_thousand: f64,
    peak_mb: f64,
}

/// A bridge and its SQS stub.
struct Run {
    bridge: Bridge,
    stub: Stub,
    setup: Setup,
}

impl Run {
    fn start(folder: &Path, setup: Setup) -> io::Result<Self> {
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
        let stub = Stub::start()?;
        let bridge = Bridge::start(folder, &setup, stub.address)?;
        Ok(Self { bridge, stub, setup })
    }

    /// Sends a load that causes `events` events and waits until all of them have arrived.
    fn run_load(&self, load: &Load, events: u64) -> io::Result<Measured> {
        let (before, cpu_before) = (stats(self.stub.address)?, self.bridge.cpu_us()?);
        self.bridge.reset_peak()?;
        let sent = load.run()?;
        let messages = events * self.setup.destinations as u64;
        let after = wait_for(self.stub.address, before.messages + messages)?;
        let cpu = self.bridge.cpu_us()? - cpu_before;
        let alerts = load.alerts as f64;
        let seconds = |until: u64| until.saturating_sub(sent.first_us) as f64 / 1e6;
        let last = if events == 0 { sent.last_us } else { after.last_us };
        Ok(Measured {
            sent,
            acknowledged: alerts / seconds(sent.last_us),
            delivered: alerts / seconds(last),
            cpu_us: cpu as f64 / alerts,
            calls_per_thousand: (after.calls - before.calls) as f64 * 1e3 / messages as f64,
            peak_mb: self.bridge.peak_mb()?,
        })
    }

    /// Stops the bridge and checks that the first `decided` alerts, each with its own target, have a decision and
    /// an event.
    fn stop_and_verify(self, decided: u64) -> io::Result<()> {
        let Self { bridge, stub, .. } = self;
        ensure(bridge.has_full_synchronous()?, "the store commits with synchronous=FULL")?;
        let store = bridge.stop()?;
        let (_, distinct) = bridge::get(stub.address, "/distinct")?;
        ensure(distinct == decided.to_string(), &format!("{distinct} of {decided} events arrived"))?;
        let found = check::count_decisions(&store, |target| vec![format!("{target:016x}")])?;
        ensure(found == decided, &format!("{found} of {decided} decisions can be queried"))
    }
}

pub(crate) fn ensure(holds: bool, what: &str) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::Error::other(format!("a promise is broken: {what}"))) }
}

pub(crate) fn stats(stub: SocketAddr) -> io::Result<Stats> {
    Ok(serde_json::from_str(&bridge::get(stub, "/stats")?.1)?)
}

pub(crate) fn wait_for(stub: SocketAddr, messages: u64) -> io::Result<Stats> {
    let begun = Instant::now();
    loop {
        let stats = stats(stub)?;
        if stats.messages >= messages {
            return Ok(stats);
        }
        if begun.elapsed() > RUN_TIMEOUT {
            return Err(io::Error::other(format!("{} of {messages} messages arrived", stats.messages)));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn figure(name: &str, unit: &str, better: Better, measured: f64, goals: (f64, f64)) -> Figure {
    let (floor, aim) = goals;
    Figure { name: name.to_owned(), unit: unit.to_owned(), better, measured, floor, aim }
}

pub(crate) fn log_progress(text: &str) {
    drop(writeln!(io::stderr(), "{text}"));
}

/// Runs all scenarios, or only the given one.
pub(crate) fn run(only: Option<&str>) -> io::Result<Results> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
    std::fs::create_dir_all(&folder)?;
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    let mut results = Results {
        machine: machine::describe(&folder)?,
        figures: Vec::new(),
        ceilings: Vec::new(),
        growth: Vec::new(),
        cpu_time: None,
        postgres: None,
    };
    let figures = &mut results.figures;
    if wanted("storm") {
        let measure = || {
            log_progress("ceilings");
            ComponentRates::measure(&folder)
        };
        let before = measure()?;
        let storm = storm(&folder.join("storm"), figures)?;
        let alone = before.mean(measure()?);
        results.ceilings = alone.compare(storm.acknowledged, storm.delivered);
        results.cpu_time = CpuTime::from_ceilings(storm.cpu_us, &results.ceilings);
    }
    if wanted("secured") {
        secured(&folder.join("secured"), figures)?;
    }
    if wanted("idle") {
        idle(&folder.join("idle"), figures)?;
    }
    if wanted("large") {
        large(&folder.join("large"), figures)?;
    }
    if wanted("coalesced") {
        coalesced(&folder.join("coalesced"), figures)?;
    }
    if wanted("pending") {
        pending(&folder.join("pending"), figures)?;
    }
    let mut episodes = Vec::new();
    if wanted("million") {
        episodes = million(&folder.join("million"), figures)?;
    }
    if wanted("polled") {
        polled::measure(&folder.join("polled"), figures)?;
    }
    let part = only.and_then(|only| only.strip_prefix("postgres-"));
    if wanted("postgres") || part.is_some() {
        let report = postgres::measure(&folder.join("postgres"), part)?;
        figures.extend(report.figures);
        results.postgres = Some(report.text);
    }
    if wanted("growth") {
        results.growth = growth(&folder)?;
    }
    if !episodes.is_empty() {
        let (title, axis) = ("open episodes".to_owned(), "episodes open before".to_owned());
        results.growth.push(Growth { title, axis, points: episodes });
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(results)
}

fn storm(folder: &Path, figures: &mut Vec<Figure>) -> io::Result<Measured> {
    log_progress("storm: 300,000 alerts, each its own target");
    let run = Run::start(folder, Setup::default())?;
    let idle = run.bridge.memory_mb()?;
    let storm = run.run_load(&Load::new(run.bridge.webhook, STORM_ALERTS), STORM_ALERTS)?;
    run.stop_and_verify(STORM_ALERTS)?;
    let Measured { sent, acknowledged, delivered, cpu_us, calls_per_thousand, peak_mb } = storm;
    let ms = |us: u64| us as f64 / 1e3;
    let (high, low) = (Better::Higher, Better::Lower);
    figures.extend([
        figure("alerts delivered", "1/s", high, delivered, (25e3, 40e3)),
        figure("bridge CPU per alert", "µs", low, cpu_us, (40.0, 30.0)),
        figure("alerts acknowledged", "1/s", high, acknowledged, (30e3, 50e3)),
        figure("time to the 200, median", "ms", low, ms(sent.median_us), (5.0, 3.0)),
        figure("time to the 200, p99", "ms", low, ms(sent.p99_us), (20.0, 10.0)),
        figure("SQS calls per 1,000 events", "calls", low, calls_per_thousand, (120.0, 102.0)),
        figure("peak memory", "MB", low, peak_mb, (128.0, 96.0)),
        figure("idle memory", "MB", low, idle, (30.0, 20.0)),
    ]);
    Ok(storm)
}

/// The storm with TLS and a bearer token, as a ratio to the plain one: by turns, since the machine's speed varies.
fn secured(folder: &Path, figures: &mut Vec<Figure>) -> io::Result<()> {
    const ALERTS: u64 = 150_000;
    const TURNS: usize = 5;
    log_progress("secured: 5 turns of 150,000 alerts without and with TLS and a bearer token");
    let measure = |secured: bool| {
        let run = Run::start(folder, Setup { secured, ..Setup::default() })?;
        let certificate = run.bridge.certificate.clone();
        let measured =
            run.run_load(&Load { certificate, ..Load::new(run.bridge.webhook, ALERTS) }, ALERTS)?;
        run.stop_and_verify(ALERTS)?;
        io::Result::Ok(measured)
    };
    let (mut cpu, mut delivered) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let (plain, secured) = (measure(false)?, measure(true)?);
        cpu.push(secured.cpu_us / plain.cpu_us);
        delivered.push(plain.delivered / secured.delivered);
    }
    figures.extend([
        figure("CPU with TLS and bearer, to plain", "×", Better::Lower, median(cpu), (1.15, 1.1)),
        figure(
            "time of a storm with TLS and bearer, to plain",
            "×",
            Better::Lower,
            median(delivered),
            (1.15, 1.1),
        ),
    ]);
    Ok(())
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn idle(folder: &Path, figures: &mut Vec<Figure>) -> io::Result<()> {
    log_progress("idle: single alerts, one after the other");
    let run = Run::start(folder, Setup::default())?;
    let ready = run.bridge.ready_after.as_secs_f64() * 1e3;
    let load =
        Load { alerts_per_body: 1, connections: 1, pause_us: 5_000, ..Load::new(run.bridge.webhook, 1_000) };
    let sent = run.run_load(&load, 1_000)?.sent;
    run.stop_and_verify(1_000)?;
    let ms = |us: u64| us as f64 / 1e3;
    figures.extend([
        figure(
            "time to the 200 of a single alert, idle, median",
            "ms",
            Better::Lower,
            ms(sent.median_us),
            (2.0, 1.0),
        ),
        figure(
            "time to the 200 of a single alert, idle, p99",
            "ms",
            Better::Lower,
            ms(sent.p99_us),
            (5.0, 3.0),
        ),
        figure("start to ready, empty store", "ms", Better::Lower, ready, (100.0, 50.0)),
    ]);
    Ok(())
}

fn large(folder: &Path, figures: &mut Vec<Figure>) -> io::Result<()> {
    log_progress("large: one body of 100,000 alerts");
    let bytes = Load::example(100_000).len() as u64;
    let setup = Setup { max_body_bytes: Some(bytes + bytes / 20), ..Setup::default() };
    let run = Run::start(folder, setup)?;
    let load = Load { alerts_per_body: 100_000, connections: 1, ..Load::new(run.bridge.webhook, 100_000) };
    let measured = run.run_load(&load, 100_000)?;
    run.stop_and_verify(100_000)?;
    let (seconds, times) = (measured.sent.max_us as f64 / 1e6, measured.peak_mb * 1e6 / bytes as f64);
    figures.extend([
        figure("one body of 100,000 alerts, time to the 200", "s", Better::Lower, seconds, (6.0, 3.0)),
        figure("one body of 100,000 alerts, peak memory", "× body", Better::Lower, times, (8.0, 5.0)),
    ]);
    Ok(())
}

fn coalesced(folder: &Path, figures: &mut Vec<Figure>) -> io::Result<()> {
    log_progress("coalesced: each body's 20 alerts of one of 1,000 targets");
    let run = Run::start(folder, Setup::default())?;
    let load = Load { targets: 1_000, repeats: true, ..Load::new(run.bridge.webhook, MILLION) };
    let measured = run.run_load(&load, 1_000)?;
    drop(run);
    figures.push(figure(
        "coalesced: alerts acknowledged",
        "1/s",
        Better::Higher,
        measured.acknowledged,
        (80e3, 150e3),
    ));
    Ok(())
}

fn pending(folder: &Path, figures: &mut Vec<Figure>) -> io::Result<()> {
    log_progress("pending: start with 1,000,000 pending deliveries");
    let setup = Setup { max_backlog: Some(2 * MILLION), ..Setup::default() };
    let run = Run::start(folder, setup)?;
    bridge::request(run.stub.address, "POST", "/refuse")?;
    Load::new(run.bridge.webhook, MILLION).run()?;
    let Run { bridge, stub, .. } = run;
    bridge.stop()?;
    let again = Bridge::start(folder, &setup, stub.address)?;
    let ready = again.ready_after.as_secs_f64();
    figures.push(figure(
        "start to ready, 1,000,000 pending deliveries",
        "s",
        Better::Lower,
        ready,
        (5.0, 2.0),
    ));
    Ok(())
}

/// Returns the throughput with 10³, 10⁵ and 10⁶ open episodes.
fn million(folder: &Path, figures: &mut Vec<Figure>) -> io::Result<Vec<Point>> {
    log_progress("million: 1,000,000 open episodes");
    let setup = Setup { max_backlog: Some(2 * MILLION), ..Setup::default() };
    let run = Run::start(folder, setup)?;
    let (mut points, mut open) = (Vec::new(), 0);
    for episodes in [1_000, 100_000, MILLION] {
        let fill = Load { first: open, ..Load::new(run.bridge.webhook, episodes - open) };
        run.run_load(&fill, fill.alerts)?;
        let load = Load { first: episodes, ..Load::new(run.bridge.webhook, SAMPLE_ALERTS) };
        points.push(point(episodes as f64, &run.run_load(&load, SAMPLE_ALERTS)?));
        open = episodes + SAMPLE_ALERTS;
    }
    let Run { bridge, stub, .. } = run;
    bridge.stop()?;
    let again = Bridge::start(folder, &setup, stub.address)?;
    let ready = again.ready_after.as_secs_f64();
    let run = Run { bridge: again, stub, setup };
    let load = Load { first: open, ..Load::new(run.bridge.webhook, SAMPLE_ALERTS) };
    run.run_load(&load, SAMPLE_ALERTS)?;
    let memory = run.bridge.peak_mb()?;
    run.stop_and_verify(open + SAMPLE_ALERTS)?;
    let part = points.last().map_or(f64::NAN, |last| last.delivered / points[0].delivered * 100.0);
    figures.extend([
        figure("1,000,000 open episodes, throughput against 1,000", "%", Better::Higher, part, (60.0, 80.0)),
        figure("1,000,000 open episodes, restart to ready", "s", Better::Lower, ready, (15.0, 5.0)),
        figure("1,000,000 open episodes, memory under load", "MB", Better::Lower, memory, (384.0, 256.0)),
    ]);
    Ok(points)
}

fn point(at: f64, measured: &Measured) -> Point {
    let Measured { acknowledged, delivered, cpu_us, .. } = *measured;
    Point { at, acknowledged, delivered, cpu_us }
}

/// Cost as a function of body size, connections, rules and destinations.
fn growth(folder: &Path) -> io::Result<Vec<Growth>> {
    let grow = |title: &str, axis: &str, values: &[u64], with: &dyn Fn(u64) -> (Setup, Load)| {
        let mut points = Vec::new();
        for &value in values {
            log_progress(&format!("growth: {title}, {value}"));
            let (setup, load) = with(value);
            let run = Run::start(&folder.join("growth"), setup)?;
            let load = Load { bridge: run.bridge.webhook, ..load };
            points.push(point(value as f64, &run.run_load(&load, load.alerts)?));
        }
        io::Result::Ok(Growth { title: title.to_owned(), axis: axis.to_owned(), points })
    };
    let usual = || Load::new(SocketAddr::from(([127, 0, 0, 1], 0)), SAMPLE_ALERTS);
    Ok(vec![
        grow("body size", "alerts in a body", &[1, 20, 500, 5_000], &|body| {
            (Setup::default(), Load { alerts_per_body: body, ..usual() })
        })?,
        grow("connections", "connections", &[1, 8, 64], &|connections| {
            (Setup::default(), Load { connections, ..usual() })
        })?,
        grow("rules", "rules", &[10, 100, 1_000], &|rules| {
            (Setup { rules: rules as usize, ..Setup::default() }, usual())
        })?,
        grow("destinations", "destinations of an event", &[1, 2, 4], &|destinations| {
            (Setup { destinations: destinations as usize, ..Setup::default() }, usual())
        })?,
    ])
}
