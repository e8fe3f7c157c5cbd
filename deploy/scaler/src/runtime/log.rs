//! Lines of the log about the runtime itself, in the form of those about events. They go to stderr.

use std::fmt::Display;
use std::io::Write as _;

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
    // One write, so that lines of several tasks are not mixed.
    drop(std::io::stderr().write_all(format!("{}\n", Value::Object(line)).as_bytes()));
}
