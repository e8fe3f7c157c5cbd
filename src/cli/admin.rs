//! The verbs over the admin API: tables for people, the API's own JSON for programs.

use std::io::BufRead as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::{Refused, Server};
use super::decision;
use super::shell::{Format, Formatted, plain, print, print_json, table, unusable};
use crate::domain::duration;

type Pairs = Vec<(&'static str, String)>;

/// The query that these flags make; what is not given is left out.
fn query<const N: usize>(given: [(&'static str, Option<String>); N]) -> Pairs {
    given.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => plain(text),
        Some(Value::Array(items)) => {
            let items =
                items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), ToOwned::to_owned));
            let items: Vec<String> = items.collect();
            if items.is_empty() { "-".to_owned() } else { plain(&items.join(" ")) }
        }
        Some(other) => other.to_string(),
    }
}

fn rows(items: &Value, keys: &[&str]) -> Vec<Vec<String>> {
    let items = items.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| keys.iter().map(|key| text(item, key)).collect()).collect()
}

/// The items of all pages below `key`, up to `limit` of them.
fn pages(server: &Server, path: &str, query: &Pairs, key: &str, limit: usize) -> Result<Value, Refused> {
    let mut all = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut asked = query.clone();
        asked.push(("limit", (limit - all.len()).clamp(1, 1000).to_string()));
        asked.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let mut page = server.get(path, &asked)?;
        if let Some(Value::Array(items)) = page.get_mut(key).map(Value::take) {
            all.extend(items);
        }
        match page.get("next") {
            Some(Value::String(next)) if all.len() < limit => cursor = Some(next.clone()),
            Some(Value::Number(next)) if all.len() < limit => cursor = Some(next.to_string()),
            _ => {
                all.truncate(limit);
                return Ok(Value::Array(all));
            }
        }
    }
}

/// Who does it, if nobody says so.
fn author(given: Option<&String>) -> String {
    let named = given.cloned().or_else(|| std::env::var("USER").ok()).filter(|name| !name.is_empty());
    named.unwrap_or_else(|| "unknown".to_owned())
}

/// `--watch`: again and again.
#[derive(Debug, Clone, Copy, Args)]
struct Watch {
    /// Show it again every so often, until it is interrupted
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "2s", value_parser = duration::parse)]
    watch: Option<Duration>,
}

impl Watch {
    /// Shows once, or until something fails.
    fn show(self, format: Format, show: impl Fn() -> Result<(), Refused>) -> ExitCode {
        while let Some(every) = self.watch {
            if format == Format::Text {
                // From the top of an empty screen.
                print("\u{1b}[2J\u{1b}[H");
            }
            if let Err(refused) = show() {
                return refused.end();
            }
            std::thread::sleep(every.max(Duration::from_millis(100)));
        }
        show().map_or_else(Refused::end, |()| ExitCode::SUCCESS)
    }
}

/// Show how a running bridge stands
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    formatted: Formatted,
}

impl Status {
    pub fn run(&self) -> ExitCode {
        let format = self.formatted.format;
        self.watch.show(format, || {
            let status = self.server.get("/api/v1/status", &[])?;
            let destinations = self.server.get("/api/v1/destinations", &[])?;
            let sources = self.server.get("/api/v1/sources", &[])?;
            if format == Format::Json {
                print_json(&json!({ "status": status, "destinations": destinations, "sources": sources }));
                return Ok(());
            }
            let mut shown = format!(
                "scalebridge {} is {}, with {} rules, {} sources, {} destinations; configuration of {}\n",
                text(&status, "version"),
                text(&status, "phase"),
                status["rules"],
                status["sources"],
                status["destinations"],
                text(&status["configuration"], "loaded_at"),
            );
            if let Some(refused) = status["configuration"]["refused"].as_str() {
                shown += &format!(
                    "The configuration on disk is REFUSED, and the one before goes on:\n{refused}\n"
                );
            }
            if status["configuration"]["needs_restart"].is_array() {
                shown += &format!(
                    "A restart is needed for: {}\n",
                    text(&status["configuration"], "needs_restart")
                );
            }
            let counts = |key: &str| {
                let counts = status[key].as_object().map(|map| map.iter()).into_iter().flatten();
                let counts: Vec<String> = counts.map(|(name, count)| format!("{name} {count}")).collect();
                if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
            };
            shown += &format!("pauses: {}\n", status["pauses"]);
            shown += &format!("open episodes: {}\n", counts("open_episodes"));
            shown += &format!("waiting: {}\n\n", counts("deferred"));
            let keys = ["name", "kind", "pending", "retrying", "dead_letters", "oldest_seconds", "failing"];
            let heads = ["DESTINATION", "KIND", "PENDING", "RETRYING", "DEAD", "OLDEST S", "FAILING"];
            shown += &table(&heads, &rows(&destinations, &keys));
            shown.push('\n');
            let keys = ["name", "heartbeat", "heartbeat_open_since"];
            shown += &table(&["SOURCE", "HEARTBEAT", "OPEN SINCE"], &rows(&sources, &keys));
            print(shown);
            Ok(())
        })
    }
}

/// Show why it did or did not scale: the decisions of a running bridge, newest first
#[derive(Debug, Args)]
pub struct Decisions {
    #[command(flatten)]
    server: Server,
    /// Of this rule
    #[arg(long)]
    rule: Option<String>,
    /// About targets with this key, such as 'eks/nodegroup/*/workers'; `*` is any text
    #[arg(long, value_name = "PATTERN")]
    target: Option<String>,
    /// With this verdict, or one of several with commas between them
    #[arg(long)]
    verdict: Option<String>,
    /// About an alert with this fingerprint
    #[arg(long)]
    fingerprint: Option<String>,
    /// Not before: RFC 3339, or how long ago, such as 90m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Not after: RFC 3339, or how long ago
    #[arg(long, value_name = "TIME", conflicts_with = "watch")]
    until: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 50, conflicts_with = "watch")]
    limit: usize,
    /// Show each decision when it is made, until it is interrupted
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    formatted: Formatted,
}

impl Decisions {
    pub fn run(&self) -> ExitCode {
        let query = query([
            ("rule", self.rule.clone()),
            ("target", self.target.clone()),
            ("verdict", self.verdict.clone()),
            ("fingerprint", self.fingerprint.clone()),
            ("since", self.since.clone()),
            ("until", self.until.clone()),
        ]);
        if self.watch {
            return self.follow(&query).map_or_else(Refused::end, |()| ExitCode::SUCCESS);
        }
        match pages(&self.server, "/api/v1/decisions", &query, "decisions", self.limit.max(1)) {
            Ok(decisions) => {
                match self.formatted.format {
                    Format::Json => print_json(&decisions),
                    Format::Text => {
                        let lines = decisions.as_array().into_iter().flatten().map(line);
                        print(lines.collect::<Vec<_>>().join("\n"));
                    }
                }
                ExitCode::SUCCESS
            }
            Err(refused) => refused.end(),
        }
    }

    fn follow(&self, query: &Pairs) -> Result<(), Refused> {
        let lines = self.server.stream("/api/v1/decisions/stream", query)?.lines();
        for event in lines {
            let event = event.map_err(|error| Refused::No(format!("the stream has ended: {error}")))?;
            let Some(data) = event.strip_prefix("data:").map(str::trim_start) else { continue };
            match (self.formatted.format, serde_json::from_str::<Value>(data)) {
                (Format::Json, _) => print(data),
                (Format::Text, Ok(decision)) => print(line(&decision)),
                (Format::Text, Err(_)) => {}
            }
        }
        Err(Refused::No("the stream has ended: the bridge has stopped".to_owned()))
    }
}

fn line(decision: &Value) -> String {
    format!("{} {}", text(decision, "at"), decision::line(decision))
}

/// Show, redrive or discard deliveries that were given up
#[derive(Debug, Args)]
pub struct DeadLetters {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// List them, the oldest event first
    List {
        #[command(flatten)]
        server: Server,
        /// Of this destination
        #[arg(long)]
        destination: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        formatted: Formatted,
    },
    /// Show one with its event
    Show {
        #[command(flatten)]
        server: Server,
        /// As `list` shows it
        id: String,
    },
    /// Send them once more: the same events with their ids
    Redrive {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        which: Which,
        /// Consumers may act on them for so long from now. Without it one that has expired stays where it is
        #[arg(long, value_name = "DURATION")]
        valid_for: Option<String>,
        /// Also what takes capacity away
        #[arg(long)]
        force: bool,
        /// Who does it, for the log. Default: $USER
        #[arg(long)]
        author: Option<String>,
        #[command(flatten)]
        formatted: Formatted,
    },
    /// Throw them away
    Discard {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        which: Which,
        /// Who does it, for the log. Default: $USER
        #[arg(long)]
        author: Option<String>,
        #[command(flatten)]
        formatted: Formatted,
    },
}

/// Which dead letters: one by its id, or all that these flags describe.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Which {
    /// One, as `list` shows it
    #[arg(conflicts_with_all = ["destination", "rule", "action", "given_up_before", "all"])]
    id: Option<String>,
    /// All of this destination
    #[arg(long)]
    destination: Option<String>,
    /// All of this rule
    #[arg(long)]
    rule: Option<String>,
    /// All with this action
    #[arg(long)]
    action: Option<String>,
    /// All that were given up before: RFC 3339, or how long ago
    #[arg(long, value_name = "TIME")]
    given_up_before: Option<String>,
    /// Every one
    #[arg(long, conflicts_with_all = ["destination", "rule", "action", "given_up_before"])]
    all: bool,
}

impl Which {
    fn filter(&self) -> Value {
        let keys = [
            ("destination", &self.destination),
            ("rule", &self.rule),
            ("action", &self.action),
            ("given_up_before", &self.given_up_before),
        ];
        let mut filter: Map<String, Value> = keys
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value.as_deref()?.into())))
            .collect();
        if self.all {
            filter.insert("all".to_owned(), true.into());
        }
        Value::Object(filter)
    }
}

impl DeadLetters {
    pub fn run(&self) -> ExitCode {
        let done = match &self.act {
            Act::List { server, destination, limit, formatted } => {
                list(server, destination.clone(), *limit, *formatted)
            }
            Act::Show { server, id } => {
                server.get(&format!("/api/v1/dead-letters/{id}"), &[]).map(|one| print_json(&one))
            }
            Act::Redrive { server, which, valid_for, force, author: by, formatted } => {
                let how = json!({ "valid_for": valid_for, "force": force, "author": author(by.as_ref()) });
                match &which.id {
                    Some(id) => {
                        let done = server.post(
                            &format!("/api/v1/dead-letters/{id}/redrive"),
                            &[],
                            how.to_string().as_bytes(),
                        );
                        done.map(|_| print(format!("redrove {id}")))
                    }
                    None => {
                        let body = json!({ "which": which.filter(), "how": how });
                        let done =
                            server.post("/api/v1/dead-letters/redrive", &[], body.to_string().as_bytes());
                        done.map(|done| tell("redrove", &done, *formatted))
                    }
                }
            }
            Act::Discard { server, which, author: by, formatted } => match &which.id {
                Some(id) => {
                    let who = vec![("author", author(by.as_ref()))];
                    let done = server.delete(&format!("/api/v1/dead-letters/{id}"), &who);
                    done.map(|_| print(format!("discarded {id}")))
                }
                None => {
                    let body = json!({ "which": which.filter(), "author": author(by.as_ref()) });
                    let done = server.post("/api/v1/dead-letters/discard", &[], body.to_string().as_bytes());
                    done.map(|done| tell("discarded", &done, *formatted))
                }
            },
        };
        done.map_or_else(Refused::end, |()| ExitCode::SUCCESS)
    }
}

fn list(
    server: &Server,
    destination: Option<String>,
    limit: usize,
    formatted: Formatted,
) -> Result<(), Refused> {
    let query = query([("destination", destination)]);
    let letters = pages(server, "/api/v1/dead-letters", &query, "dead_letters", limit.max(1))?;
    match formatted.format {
        Format::Json => print_json(&letters),
        Format::Text => {
            let keys = ["id", "rule", "action", "subject", "given_up_at", "attempts", "error"];
            print(table(
                &["ID", "RULE", "ACTION", "TARGET", "GIVEN UP", "TRIED", "ERROR"],
                &rows(&letters, &keys),
            ));
        }
    }
    Ok(())
}

fn tell(word: &str, done: &Value, formatted: Formatted) {
    if formatted.format == Format::Json {
        return print_json(done);
    }
    let mut shown = format!("{word} {}; {} stay\n", done["done"], done["stay_total"]);
    for stays in done["stay"].as_array().into_iter().flatten() {
        shown += &format!("  {}: {}\n", text(stays, "id"), text(stays, "reason"));
    }
    print(shown);
}

/// Stop actions of a running bridge: all of them, or those of a rule, about a target, in a direction
///
/// What is stopped waits, and is decided again when the pause has ended. Without flags the pauses that are in
/// force are listed.
#[derive(Debug, Args)]
pub struct Pause {
    #[command(flatten)]
    server: Server,
    /// Everything
    #[arg(long, conflicts_with_all = ["rule", "target", "direction"])]
    all: bool,
    /// Actions of this rule
    #[arg(long)]
    rule: Option<String>,
    /// Actions about targets with this key, such as 'eks/*/prod-eu/*'; `*` is any text
    #[arg(long, value_name = "PATTERN")]
    target: Option<String>,
    /// Actions in this direction
    #[arg(long, value_parser = ["scale_out", "scale_in"])]
    direction: Option<String>,
    /// Ends by itself after this; without it the pause lasts until `resume`
    #[arg(long = "for", value_name = "DURATION")]
    ends_after: Option<String>,
    /// Why
    #[arg(long)]
    reason: Option<String>,
    /// Who. Default: $USER
    #[arg(long)]
    author: Option<String>,
    #[command(flatten)]
    formatted: Formatted,
}

const PAUSE: [&str; 8] = ["id", "rule", "target", "direction", "since", "until", "author", "reason"];
const PAUSE_HEADS: [&str; 8] = ["ID", "RULE", "TARGET", "DIRECTION", "SINCE", "UNTIL", "AUTHOR", "REASON"];

impl Pause {
    pub fn run(&self) -> ExitCode {
        let some = self.rule.is_some() || self.target.is_some() || self.direction.is_some();
        let shown = if some || self.all {
            let Some(reason) = &self.reason else {
                return unusable("say why: --reason 'node image is being exchanged'");
            };
            let given = [
                ("rule", &self.rule),
                ("target", &self.target),
                ("direction", &self.direction),
                ("ends_after", &self.ends_after),
            ];
            let mut body: Map<String, Value> = given
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value.as_deref()?.into())))
                .collect();
            body.insert("author".to_owned(), author(self.author.as_ref()).into());
            body.insert("reason".to_owned(), reason.as_str().into());
            let body = Value::Object(body).to_string();
            self.server.post("/api/v1/pauses", &[], body.as_bytes()).map(|pause| json!([pause]))
        } else if self.reason.is_some() || self.ends_after.is_some() {
            return unusable("say what to pause: --all, --rule, --target or --direction");
        } else {
            self.server.get("/api/v1/pauses", &[])
        };
        match (shown, self.formatted.format) {
            (Ok(pauses), Format::Json) => print_json(&pauses),
            (Ok(pauses), Format::Text) => print(table(&PAUSE_HEADS, &rows(&pauses, &PAUSE))),
            (Err(refused), _) => return refused.end(),
        }
        ExitCode::SUCCESS
    }
}

/// End a pause: what it has stopped is decided again at once
#[derive(Debug, Args)]
pub struct Resume {
    #[command(flatten)]
    server: Server,
    /// The pause's number, as `pause` shows it
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    id: Option<u64>,
    /// Every pause
    #[arg(long)]
    all: bool,
    /// Who. Default: $USER
    #[arg(long)]
    author: Option<String>,
}

impl Resume {
    pub fn run(&self) -> ExitCode {
        let ids = match self.id {
            Some(id) => Ok(vec![id.to_string()]),
            None => self
                .server
                .get("/api/v1/pauses", &[])
                .map(|pauses| rows(&pauses, &["id"]).into_iter().flatten().collect()),
        };
        let end = |id: &String| {
            let who = vec![("author", author(self.author.as_ref()))];
            let ended = self.server.delete(&format!("/api/v1/pauses/{id}"), &who);
            ended.map(|_| print(format!("pause {id} has ended")))
        };
        let ended = ids.and_then(|ids| ids.iter().try_for_each(end));
        ended.map_or_else(Refused::end, |()| ExitCode::SUCCESS)
    }
}

/// Show an event with its deliveries
#[derive(Debug, Args)]
pub struct Event {
    #[command(flatten)]
    server: Server,
    /// The event's id
    id: String,
}

impl Event {
    pub fn run(&self) -> ExitCode {
        let found = self.server.get(&format!("/api/v1/events/{}", self.id), &[]);
        found.map_or_else(Refused::end, |event| {
            print_json(&event);
            ExitCode::SUCCESS
        })
    }
}

/// Show the episodes that are open, and what waits
#[derive(Debug, Args)]
pub struct Episodes {
    #[command(flatten)]
    server: Server,
    /// Of this rule
    #[arg(long)]
    rule: Option<String>,
    /// About targets with this key; `*` is any text
    #[arg(long, value_name = "PATTERN")]
    target: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    formatted: Formatted,
}

impl Episodes {
    pub fn run(&self) -> ExitCode {
        let format = self.formatted.format;
        let query = query([("rule", self.rule.clone()), ("target", self.target.clone())]);
        self.watch.show(format, || {
            let episodes = pages(&self.server, "/api/v1/episodes", &query, "episodes", self.limit.max(1))?;
            if format == Format::Json {
                print_json(&episodes);
                return Ok(());
            }
            let row = |episode: &Value| {
                let alerts = episode["alerts"].as_array().map_or(0, Vec::len);
                let mut row =
                    ["rule", "subject", "phase", "opened_at"].map(|key| text(episode, key)).to_vec();
                row.push(alerts.to_string());
                row.push(text(episode, "emissions"));
                row.push(match &episode["waits"] {
                    Value::Null => "-".to_owned(),
                    waits => format!("{} until {}", text(waits, "verdict"), text(waits, "until")),
                });
                row
            };
            let rows: Vec<Vec<String>> = episodes.as_array().into_iter().flatten().map(row).collect();
            print(table(&["RULE", "TARGET", "PHASE", "OPENED", "ALERTS", "EVENTS", "WAITS"], &rows));
            Ok(())
        })
    }
}

/// Let a running bridge read its configuration again, all or nothing
#[derive(Debug, Args)]
pub struct Reload {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    formatted: Formatted,
}

impl Reload {
    pub fn run(&self) -> ExitCode {
        match (self.server.post("/-/reload", &[], b""), self.formatted.format) {
            (Ok(reloaded), Format::Json) => print_json(&reloaded),
            (Ok(reloaded), Format::Text) => {
                let lines = |key: &str| reloaded[key].as_array().cloned().unwrap_or_default();
                let mut shown = String::new();
                for changed in lines("changed") {
                    shown += &format!("{}\n", changed.as_str().unwrap_or_default());
                }
                if shown.is_empty() {
                    shown += "nothing has changed\n";
                }
                for key in lines("needs_restart") {
                    shown +=
                        &format!("{} has changed and needs a restart\n", key.as_str().unwrap_or_default());
                }
                for warning in lines("warnings") {
                    shown += &format!("{}\n", warning.as_str().unwrap_or_default());
                }
                print(shown);
            }
            (Err(refused), _) => return refused.end(),
        }
        ExitCode::SUCCESS
    }
}
