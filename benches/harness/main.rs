//! Load test of the whole bridge: figures next to their targets.
//!
//! `make bench` runs it: the release binary, an SQS stub (`stub`) and the load generator (`load`) are separate
//! processes on the same machine. Figures, ceilings and scaling behaviour are written as text, JSON and one SVG
//! to `benches/results/`. `make bench ONLY=storm` runs one scenario and writes no file; the scenarios are
//! `storm`, `secured`, `idle`, `large`, `coalesced`, `pending`, `million`, `polled`, `postgres` and `growth`. `polled`
//! writes its own file, `sqs-source.txt`, and `postgres` `postgres.txt`; its parts `postgres-storms`, `postgres-trips` and `postgres-growth` write none.
//!
//! After each run the harness checks that the store has a decision for every alert, that the stub has received
//! every event, and that the bridge has logged that its store commits with `synchronous=FULL`.

mod bridge;
mod ceilings;
mod check;
mod load;
mod machine;
mod plot;
mod polled;
mod postgres;
mod report;
mod results;
mod scenarios;
mod secured;
mod stub;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use results::Results;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["stub", ..] => stub::serve(),
        ["load", load, ..] => send(load),
        words => measure(words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "{error}"));
            ExitCode::FAILURE
        }
    }
}

fn send(load: &str) -> io::Result<()> {
    let load: load::Load = serde_json::from_str(load)?;
    writeln!(io::stdout(), "{}", serde_json::to_string(&load.send()?)?)
}

/// Fails if a promise is broken. A missed target is reported but is not a failure: a benchmark is not a test.
fn measure(words: &[&str]) -> io::Result<()> {
    let only = words.iter().position(|word| *word == "--only").and_then(|at| words.get(at + 1)).copied();
    let results = scenarios::run(only)?;
    let text = report::text(&results);
    writeln!(io::stdout(), "{text}")?;
    for figure in report::missed(&results) {
        writeln!(io::stderr(), "below its floor: {}", figure.name)?;
    }
    if let Some(postgres) = &results.postgres {
        let [machine, system] = report::machine(&results);
        let postgres = format!("{machine}\n{system}\n{postgres}");
        writeln!(io::stdout(), "\n{postgres}")?;
        if only.is_none_or(|only| only == "postgres") {
            std::fs::write(results_folder()?.join("postgres.txt"), postgres)?;
        }
    }
    if only == Some("polled") {
        let [machine, system] = report::machine(&results);
        std::fs::write(results_folder()?.join("sqs-source.txt"), format!("{machine}\n{system}\n{text}"))?;
    }
    if only.is_none() { write(&results, &text) } else { Ok(()) }
}

fn results_folder() -> io::Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn write(results: &Results, text: &str) -> io::Result<()> {
    let folder = results_folder()?;
    std::fs::write(folder.join("results.txt"), text)?;
    std::fs::write(folder.join("results.json"), report::json(results)?)?;
    std::fs::write(folder.join("results.svg"), plot::svg(results))
}
