//! The whole bridge under load, measured beside its goals.
//!
//! `make bench` runs it: the release binary, a stand-in for SQS (`stub`) and the load (`load`) are processes
//! of their own that share the machine. Figures, ceilings and growth come out as text, JSON and one SVG in
//! `benches/results/`. `cargo bench --bench harness -- --only storm` measures a part and writes nothing.
//!
//! After each run every alert's decision is looked for in the store, every event in what the stub has taken,
//! and the bridge has to have said that its store commits with `synchronous=FULL`.

mod bridge;
mod ceilings;
mod check;
mod load;
mod machine;
mod plot;
mod report;
mod results;
mod scenarios;
mod stub;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use results::Results;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["stub", ..] => stub::serve().map(|()| true),
        ["load", load, ..] => send(load).map(|()| true),
        words => measure(words),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
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

/// Whether no goal was missed.
fn measure(words: &[&str]) -> io::Result<bool> {
    let only = words.iter().position(|word| *word == "--only").and_then(|at| words.get(at + 1)).copied();
    let results = scenarios::run(only)?;
    let text = report::text(&results);
    writeln!(io::stdout(), "{text}")?;
    if only.is_none() {
        write(&results, &text)?;
    }
    Ok(report::missed(&results).is_empty())
}

fn write(results: &Results, text: &str) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("results.txt"), text)?;
    std::fs::write(folder.join("results.json"), report::json(results)?)?;
    std::fs::write(folder.join("results.svg"), plot::svg(results))
}
