//! `schema`: the JSON Schema of the configuration.

use super::{Exit, Io};
use crate::config;

pub(super) fn run(io: &mut Io<'_>) -> Exit {
    let text = serde_json::to_string_pretty(&config::schema()).unwrap_or_default();
    drop(writeln!(io.out, "{text}"));
    Exit::Success
}
