//! The cost of a notification and of a claim, with many open episodes in the database. They are copies of the rows that the
//! bridge has written for one, made by SQL: the engine would need minutes for a million.

use std::io;
use std::path::Path;

use super::super::bridge::Setup;
use super::super::report::{number, table};
use super::super::scenarios::{ensure, log_progress, median};
use super::run::{Fleet, Measured};
use super::server::{Server, Statement};
use super::{ALERTS_PER_BODY, Report, storm_alerts};

/// The alert of which the rows are copied, and the first of the copies. All have seven digits.
const PROTOTYPE: u64 = 9_999_999;
const FIRST_COPY: u64 = 2_000_000;
const EPISODES: [u64; 3] = [1_000, 100_000, 1_000_000];
const TURNS: u64 = 2;

/// Rows of further targets with an open episode, whose event was delivered. `$FIRST` to `$LAST` are their alerts.
const COPY: &str = "
CREATE FUNCTION vary(text, event text, episode text, n bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT replace(replace(replace(replace($1, event, left(md5('event' || n), length(event))),
        episode, left(md5('episode' || n), length(episode))),
        lpad(to_hex(9999999), 16, '0'), lpad(to_hex(n), 16, '0')), '9999999', n::text) $$;
CREATE TABLE prototype AS
    SELECT t.id AS target, e.seq, e.id AS event, coalesce(e.episode, 'no episode') AS episode
    FROM targets t JOIN events e ON e.target = t.id WHERE t.key LIKE '%workers-9999999';
INSERT INTO targets (hash, key, last_at, due, recheck, depends_on_controls, generation, watch, waits, tally, state)
SELECT substring(sha256(convert_to(key, 'UTF8')), 1, 16), key, last_at, due, recheck, depends_on_controls, generation,
       watch, waits, tally, state
FROM (
    SELECT vary(t.key, p.event, p.episode, n) AS key, t.last_at, t.due, t.recheck, t.depends_on_controls, t.generation,
           t.watch, t.waits, t.tally, vary(t.state, p.event, p.episode, n) AS state
    FROM prototype p JOIN targets t ON t.id = p.target, generate_series($FIRST, $LAST) AS n
) AS copies;
INSERT INTO target_alerts (alert, target)
SELECT substring(sha256(convert_to('prod-eu', 'UTF8') || '\\x00'::bytea
                        || convert_to(lpad(to_hex(substring(key FROM '[0-9]+$')::bigint), 16, '0'), 'UTF8')), 1, 16), id
FROM targets WHERE id > (SELECT target FROM prototype);
INSERT INTO events (id, target, at, destinations, acting, may_decrease, episode, phase, compensates, tracked, body)
SELECT vary(e.id, p.event, p.episode, n), t.id, e.at, e.destinations, e.acting, e.may_decrease,
       vary(e.episode, p.event, p.episode, n), e.phase, e.compensates, e.tracked, vary(e.body, p.event, p.episode, n)
FROM prototype p JOIN events e ON e.seq = p.seq, targets t, substring(t.key FROM '[0-9]+$') AS digits,
     LATERAL (SELECT digits::bigint AS n) AS number
WHERE t.id > p.target;
INSERT INTO deliveries (destination, event, target, state, attempts, due, age_from, ended_at, expirytime, decreases)
SELECT d.destination, e.seq, e.target, d.state, d.attempts, d.due, d.age_from, d.ended_at, d.expirytime, d.decreases
FROM prototype p JOIN deliveries d ON d.event = p.seq, events e WHERE e.seq > p.seq";

/// The statements of a claim begin with these words; the first of them once a claim.
const CLAIM: [&str; 4] = [
    "WITH clock AS MATERIALIZED",
    "WITH judged AS MATERIALIZED",
    "SELECT now_ns(), (SELECT due FROM deliveries",
    "SELECT min(due) FROM (",
];

/// A database with so many open episodes.
struct Filled {
    episodes: u64,
    database: String,
    points: Vec<Point>,
    /// The next alert.
    next: u64,
}

struct Point {
    measured: Measured,
    ready_ms: f64,
    /// Time on the server for a notification and for a claim, and the pages that it reads. Unlike the time, they do not
    /// depend on what else the machine does.
    notification: [f64; 2],
    claim: [f64; 2],
}

pub(super) fn growth(folder: &Path, server: &Server, report: &mut Report) -> io::Result<()> {
    let mut all = Vec::new();
    for episodes in EPISODES {
        log_progress(&format!("postgres: {episodes} open episodes"));
        all.push(fill(folder, server, episodes)?);
    }
    for turn in 1..=TURNS {
        for filled in &mut all {
            log_progress(&format!("postgres: growth, turn {turn} of {TURNS}, {} episodes", filled.episodes));
            filled.measure(folder, server)?;
        }
    }
    let rows = all.iter().map(Filled::row).collect();
    let heads = [
        "episodes",
        "accepted/s",
        "delivered/s",
        "bridge µs",
        "server µs",
        "ms/notif.",
        "pages",
        "ms/claim",
        "pages",
        "start ms",
    ];
    let title = format!(
        "Growth: storms of {} alerts with open episodes in the database, 1 replica, means of {TURNS} turns; times on the server",
        storm_alerts() / 3
    );
    report.text += &table(&title, ">>>>>>>>>>", &heads, rows);
    for filled in all {
        server.drop_database(&filled.database);
    }
    Ok(())
}

/// The bridge writes the rows of one episode, which are copied.
fn fill(folder: &Path, server: &Server, episodes: u64) -> io::Result<Filled> {
    let database = server.create_database(None);
    let fleet = Fleet::postgres(&folder.join("growth"), &Setup::default(), 1, (server, &database))?;
    fleet.storm(PROTOTYPE, 1)?;
    fleet.stop()?;
    let (first, last) = (FIRST_COPY.to_string(), (FIRST_COPY + episodes - 2).to_string());
    server.sql(&database, &COPY.replace("$FIRST", &first).replace("$LAST", &last));
    server.sql(&database, "VACUUM ANALYZE");
    server.track_statements(&database);
    let fleet = Fleet::postgres(&folder.join("growth"), &Setup::default(), 1, (server, &database))?;
    fleet.repeat(FIRST_COPY, 100.min(episodes - 1))?;
    fleet.stop()?;
    let open = "SELECT count(*) FROM targets WHERE tally LIKE 'o %'";
    let found = server.number(&database, open)?;
    ensure(found == episodes as f64, &format!("{found} of {episodes} episodes are open"))?;
    Ok(Filled { episodes, database, points: Vec::new(), next: 0 })
}

impl Filled {
    fn measure(&mut self, folder: &Path, server: &Server) -> io::Result<()> {
        let alerts = storm_alerts() / 3;
        let on = (server, &*self.database);
        let fleet = Fleet::postgres(&folder.join("growth"), &Setup::default(), 1, on)?;
        let ready_ms = fleet.ready_after().as_secs_f64() * 1e3;
        // The first ones read what is not in memory yet.
        fleet.storm(self.next, alerts / 5)?;
        server.reset_statements(&self.database);
        let measured = fleet.storm(self.next + alerts / 5, alerts)?;
        let statements = server.statements(&self.database);
        fleet.stop()?;
        self.next += alerts / 5 + alerts;
        let is_of_claim =
            |statement: &&Statement| CLAIM.iter().any(|words| statement.text.starts_with(words));
        let of_claims: Vec<&Statement> = statements.iter().filter(is_of_claim).collect();
        let first = of_claims.iter().find(|statement| statement.text.starts_with(CLAIM[0]));
        let claims = first.map_or(f64::NAN, |statement| statement.calls);
        let notifications = alerts as f64 / ALERTS_PER_BODY;
        let per = |count: f64, all: &mut dyn Iterator<Item = &Statement>| {
            let [mut milliseconds, mut pages] = [0.0, 0.0];
            all.for_each(|statement| {
                (milliseconds, pages) = (milliseconds + statement.milliseconds, pages + statement.pages);
            });
            [milliseconds / count, pages / count]
        };
        let notification = per(notifications, &mut statements.iter());
        let claim = per(claims, &mut of_claims.iter().copied());
        self.points.push(Point { measured, ready_ms, notification, claim });
        Ok(())
    }

    fn row(&self) -> Vec<String> {
        let mean = |read: &dyn Fn(&Point) -> f64| {
            number(self.points.iter().map(read).sum::<f64>() / self.points.len() as f64)
        };
        vec![
            number(self.episodes as f64),
            mean(&|point| point.measured.accepted),
            mean(&|point| point.measured.delivered),
            mean(&|point| point.measured.bridge_us),
            mean(&|point| point.measured.server_us),
            mean(&|point| point.notification[0]),
            mean(&|point| point.notification[1]),
            mean(&|point| point.claim[0]),
            mean(&|point| point.claim[1]),
            number(median(self.points.iter().map(|point| point.ready_ms).collect())),
        ]
    }
}
