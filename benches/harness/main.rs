//! The whole bridge under load, measured beside its goals.
//!
//! `make bench` runs it: the release binary, a stand-in for SQS (`stub`) and the load (`load`) are processes
//! of their own that share the machine. Figures, ceilings and growth come out as text, JSON and one SVG in
//! `benches/results/`. `make bench ONLY=storm` measures a part and writes nothing; the parts are `storm`,
//! `idle`, `large`, `coalesced`, `pending`, `million` and `growth`.
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

/// Fails if a promise is broken; a goal that is missed is told and is no failure, since a benchmark is no
/// test.
fn measure(words: &[&str]) -> io::Result<()> {
    let only = words.iter().position(|word| *word == "--only").and_then(|at| words.get(at + 1)).copied();
    let results = scenarios::run(only)?;
    let text = report::text(&results);
    writeln!(io::stdout(), "{text}")?;
    for figure in report::missed(&results) {
        writeln!(io::stderr(), "below its floor: {}", figure.name)?;
    }
    if only.is_none() { write(&results, &text) } else { Ok(()) }
}

fn write(results: &Results, text: &str) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("results.txt"), text)?;
    std::fs::write(folder.join("results.json"), report::json(results)?)?;
    std::fs::write(folder.join("results.svg"), plot::svg(results))
}
