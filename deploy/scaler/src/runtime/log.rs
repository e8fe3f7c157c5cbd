//! Lines of the log about the runtime itself, in the form of those about events. They go to stderr.

use std::fmt::Display;

use serde_json::{Map, Value};

#[derive(Debug, Clone, Copy)]
pub(super) enum Level {
    Info,
    Warn,
    Error,
}

/// Writes a line. One that cannot be written is dropped.
pub(super) fn log(level: Level, message: &str, fields: &[(&str, &dyn Display)]) {
    let mut line = Map::new();
    let level = match level {
        Level::Info => "INFO",
        Level::Warn => "WARN",
        Level::Error => "ERROR",
    };
    line.insert("timestamp".to_owned(), super::now().to_millis_string().into());
    line.insert("level".to_owned(), level.into());
    line.insert("message".to_owned(), message.into());
    for (name, value) in fields {
        line.insert((*name).to_owned(), value.to_string().into());
    }
    write(&format!("{}\n", Value::Object(line)));
}

/// One write, so that lines of several tasks are not mixed.
#[cfg(not(test))]
fn write(line: &str) {
    use std::io::Write as _;
    drop(std::io::stderr().write_all(line.as_bytes()));
}

/// Shown only if the test fails.
#[cfg(test)]
fn write(line: &str) {
    eprint!("{line}");
}
