//! Placeholder until the report is written.
use super::results::*;
pub fn text(results: &Results) -> String {
    format!("{results:#?}")
}
pub fn missed(_: &Results) -> Vec<&Figure> {
    Vec::new()
}
pub fn json(results: &Results) -> serde_json::Result<String> {
    serde_json::to_string_pretty(results)
}
