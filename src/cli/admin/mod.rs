//! Commands that use the admin API of a running bridge. They print tables, or with `--format json` the API's JSON.

mod dead_letters;
mod decisions;
mod pauses;
mod status;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::client::{ClientError, Server};
use super::output::{Format, escape_control_chars, print};
use crate::domain::duration;
pub(super) use dead_letters::DeadLetters;
pub(super) use decisions::{Decisions, Event};
pub(super) use pauses::{Pause, Resume};
pub(super) use status::{Episodes, Reload, Status};

type QueryParams = Vec<(&'static str, String)>;

/// Builds a query from flags; absent flags are omitted.
fn query_params<const N: usize>(flags: [(&'static str, Option<String>); N]) -> QueryParams {
    flags.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => escape_control_chars(text),
        Some(Value::Array(items)) => {
            let items =
                items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), ToOwned::to_owned));
            let items: Vec<String> = items.collect();
            if items.is_empty() { "-".to_owned() } else { escape_control_chars(&items.join(" ")) }
        }
        Some(other) => other.to_string(),
    }
}

fn rows(items: &Value, keys: &[&str]) -> Vec<Vec<String>> {
    let items = items.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| keys.iter().map(|key| text(item, key)).collect()).collect()
}

/// Fetches pages until there are `limit` items or no more pages; `key` is the list's field in a page.
fn fetch_pages(
    server: &Server,
    path: &str,
    query: &QueryParams,
    key: &str,
    limit: usize,
) -> Result<Value, ClientError> {
    let mut all = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut page_query = query.clone();
        page_query.push(("limit", (limit - all.len()).clamp(1, 1000).to_string()));
        page_query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let mut page = server.get(path, &page_query)?;
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

/// The operator's name: `--author`, else $USER.
fn author(flag: Option<&String>) -> String {
    let named = flag.cloned().or_else(|| std::env::var("USER").ok()).filter(|name| !name.is_empty());
    named.unwrap_or_else(|| "unknown".to_owned())
}

#[derive(Debug, Clone, Copy, Args)]
struct Watch {
    /// Refresh at this interval until interrupted
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "2s", value_parser = duration::parse)]
    watch: Option<Duration>,
}

impl Watch {
    /// Shows once, or repeatedly until a request fails.
    fn show(self, format: Format, show: impl Fn() -> Result<(), ClientError>) -> ExitCode {
        while let Some(interval) = self.watch {
            if format == Format::Text {
                // Clear the screen and move the cursor to the top left.
                print("\u{1b}[2J\u{1b}[H");
            }
            if let Err(error) = show() {
                return error.report();
            }
            std::thread::sleep(interval.max(Duration::from_millis(100)));
        }
        show().map_or_else(ClientError::report, |()| ExitCode::SUCCESS)
    }
}
