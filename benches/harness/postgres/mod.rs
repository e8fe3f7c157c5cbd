//! The store on PostgreSQL beside SQLite, with one and several replicas; the growth of its cost; and a soak.
//!
//! Everything runs on one machine: the replicas, the server, the stub and the load share its processors, so several
//! replicas show what the store costs, not how a fleet scales.

mod growth;
mod run;
mod server;
#[path = "../../../tests/it/support/postgres.rs"]
#[allow(dead_code, clippy::expect_used, clippy::unwrap_used, reason = "shared with the tests")]
mod support;

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::bridge::Setup;
use super::report::{number, table};
use super::results::{Better, Figure};
use super::scenarios::{figure, log_progress, median};
use growth::growth;
use run::{Deployment, Fleet, Measured};
use server::{Server, statement_rows};

/// Alerts of a storm. `SCALEBRIDGE_BENCH_ALERTS` sets another number, to try it.
fn storm_alerts() -> u64 {
    let named = std::env::var("SCALEBRIDGE_BENCH_ALERTS").ok().and_then(|alerts| alerts.parse().ok());
    named.unwrap_or(60_000)
}
/// Alerts of a notification, see [`Load::new`](super::load::Load::new).
const ALERTS_PER_BODY: f64 = 20.0;
/// The places are measured by turns, since the machine's speed varies.
const TURNS: usize = 3;
const DEPLOYMENTS: [Deployment; 4] =
    [Deployment::Sqlite, Deployment::Postgres(1), Deployment::Postgres(2), Deployment::Postgres(4)];

/// The text of the results, and the figures that have goals.
pub(crate) struct Report {
    pub text: String,
    pub figures: Vec<Figure>,
}

/// Measures all parts, or only the given one.
pub(crate) fn measure(folder: &Path, only: Option<&str>) -> io::Result<Report> {
    let server = Server::start();
    let mut report = Report { text: format!("{}\n", server.describe()), figures: Vec::new() };
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    if wanted("storms") {
        storms(folder, &server, &mut report)?;
    }
    if wanted("trips") {
        round_trips(folder, &server, &mut report)?;
    }
    if wanted("growth") {
        growth(folder, &server, &mut report)?;
    }
    Ok(report)
}

fn storms(folder: &Path, server: &Server, report: &mut Report) -> io::Result<()> {
    let mut measured: [Vec<Measured>; DEPLOYMENTS.len()] = Default::default();
    for turn in 1..=TURNS {
        for (deployment, all) in DEPLOYMENTS.iter().zip(&mut measured) {
            log_progress(&format!("postgres: turn {turn} of {TURNS}, {deployment:?}"));
            let (folder, setup) = (folder.join("storm"), Setup::default());
            let done = match *deployment {
                Deployment::Sqlite => {
                    let fleet = Fleet::sqlite(&folder, &setup)?;
                    let done = fleet.storm(0, storm_alerts())?;
                    fleet.stop_and_verify(storm_alerts())?;
                    done
                }
                Deployment::Postgres(replicas) => {
                    let database = server.create_database(None);
                    let fleet = Fleet::postgres(&folder, &setup, replicas, (server, &database))?;
                    let done = fleet.storm(0, storm_alerts())?;
                    fleet.stop_and_verify(storm_alerts())?;
                    server.drop_database(&database);
                    done
                }
            };
            let Measured { accepted, delivered, bridge_us, server_us, .. } = done;
            log_progress(&format!(
                "  {accepted:.0} accepted/s, {delivered:.0} delivered/s, CPU of bridges {bridge_us:.0} µs/alert, of the \
                 server {server_us:.0}"
            ));
            all.push(done);
        }
    }
    report.add_storms(&measured);
    Ok(())
}

impl Report {
    fn add_storms(&mut self, measured: &[Vec<Measured>; DEPLOYMENTS.len()]) {
        let middle = |all: &[Measured], read: fn(&Measured) -> f64| median(all.iter().map(read).collect());
        let [sqlite, one, ..] = measured;
        let ratio = |all: &[Measured], read: fn(&Measured) -> f64| {
            median(all.iter().zip(sqlite).map(|(own, sqlite)| read(own) / read(sqlite)).collect())
        };
        let rows = DEPLOYMENTS.iter().zip(measured).map(|(deployment, all)| {
            let figures = [
                middle(all, |one| one.accepted),
                middle(all, |one| one.delivered),
                middle(all, |one| one.sent.median_us as f64 / 1e3),
                middle(all, |one| one.sent.p99_us as f64 / 1e3),
                middle(all, |one| one.bridge_us),
                middle(all, |one| one.server_us),
            ];
            let name = match deployment {
                Deployment::Sqlite => "SQLite".to_owned(),
                Deployment::Postgres(1) => "PostgreSQL, 1 replica".to_owned(),
                Deployment::Postgres(replicas) => format!("PostgreSQL, {replicas} replicas"),
            };
            let ratio = format!("× {:.2}", ratio(all, |one| one.delivered));
            std::iter::once(name).chain(figures.into_iter().map(number)).chain([ratio]).collect()
        });
        let heads = [
            "store",
            "accepted/s",
            "delivered/s",
            "200 median ms",
            "p99 ms",
            "bridge µs/alert",
            "server µs/alert",
            "delivered",
        ];
        let title = format!(
            "Storms of {} alerts, each its own target; medians of {TURNS} turns, ratios to SQLite within a turn",
            storm_alerts()
        );
        self.text += &table(&title, "<>>>>>>>", &heads, rows.collect());
        let (high, accepted) = (Better::Higher, middle(one, |one| one.accepted));
        self.figures.extend([
            figure("PostgreSQL: alerts accepted, 1 replica", "1/s", high, accepted, (8e3, 12e3)),
            figure(
                "PostgreSQL: alerts delivered, 1 replica",
                "1/s",
                high,
                middle(one, |one| one.delivered),
                (8e3, 12e3),
            ),
        ]);
    }
}

/// Counts round trips and statements, in a run of its own since counting costs something.
fn round_trips(folder: &Path, server: &Server, report: &mut Report) -> io::Result<()> {
    log_progress("postgres: round trips");
    let database = server.create_database(None);
    server.track_statements(&database);
    let setup = Setup { debug_log: true, ..Setup::default() };
    let fleet = Fleet::postgres(&folder.join("trips"), &setup, 1, (server, &database))?;
    server.reset_statements(&database);
    let before = server.transactions(&database)?;
    fleet.storm(0, storm_alerts())?;
    let logs = fleet.stop()?;
    let (transactions, statements) = (server.transactions(&database)? - before, server.statements(&database));
    let notifications = storm_alerts() as f64 / ALERTS_PER_BODY;
    let calls: f64 = statements.iter().map(|statement| statement.calls).sum();
    let of_decisions = logs.iter().find_map(|log| Decisions::read(log)).unwrap_or_default();
    let _ = write!(
        report.text,
        "\nRound trips of decisions: {:.1} a transaction, at most {}; {:.1} a notification of {ALERTS_PER_BODY} alerts; \
         {:.1} notifications a transaction.\nAll work, deliveries included, for a notification: {:.2} transactions, \
         {:.1} statements.\n",
        of_decisions.round_trips / of_decisions.transactions,
        of_decisions.max_round_trips,
        of_decisions.round_trips / of_decisions.commands,
        of_decisions.commands / of_decisions.transactions,
        transactions / notifications,
        calls / notifications,
    );
    let heads = ["statement", "calls/notification", "ms/call", "pages/call"];
    let rows = statement_rows(&statements, notifications);
    report.text += &table("The statements that cost most, on the server", "<>>>", &heads, rows);
    server.drop_database(&database);
    Ok(())
}

/// What a bridge logs about its decisions when it stops.
#[derive(Debug, Default)]
struct Decisions {
    transactions: f64,
    commands: f64,
    round_trips: f64,
    max_round_trips: f64,
}

impl Decisions {
    fn read(log: &str) -> Option<Self> {
        let line = log.lines().find(|line| line.contains("decisions written"))?;
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let field = |name: &str| line.get(name)?.as_f64();
        Some(Self {
            transactions: field("transactions")?,
            commands: field("commands")?,
            round_trips: field("round_trips")?,
            max_round_trips: field("max_round_trips")?,
        })
    }
}
