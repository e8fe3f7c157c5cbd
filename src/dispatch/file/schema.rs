//! The JSON Schema of the settings.

#![expect(dead_code, reason = "the types only describe the schema and are never constructed")]

use schemars::JsonSchema;

/// A file or stdout, one event per line.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(in crate::dispatch) struct File {
    /// Path, relative to the working directory; `-` is stdout.
    path: String,
}
