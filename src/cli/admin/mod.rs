//! Commands that use the admin API of a running bridge. They print text, or with `-o json` the API's JSON.

mod audit;
mod dead_letters;
mod decisions;
mod event;
mod forgive;
mod inventory;
mod pauses;
mod replicas;
mod status;
mod store;
mod targets;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::client::{ClientError, Server};
use super::escape::escape_control_chars;
use super::output::{Format, print};
use crate::domain::duration;
use crate::ops::api::InitiatorParams;
pub(super) use audit::Audit;
pub(super) use dead_letters::DeadLetters;
pub(super) use decisions::Decisions;
pub(super) use event::Event;
pub(super) use forgive::Forgive;
pub(super) use inventory::{Destinations, Rules, Sources};
pub(super) use pauses::{Pause, Resume};
pub(super) use status::{Episodes, Reload, Status};
pub(super) use store::Store;

/// Maximum number of items that the bridge returns in one page.
const MAX_PAGE_SIZE: usize = 1000;

/// Who makes a change, and why.
#[derive(Debug, Args)]
struct InitiatorArgs {
    /// Operator name, for the log and the audit trail. Default: $USER, or the name of the credential
    #[arg(long)]
    author: Option<String>,
    /// Reason, for the log and the audit trail
    #[arg(long)]
    reason: Option<String>,
}

impl InitiatorArgs {
    fn params(&self, server: &Server) -> InitiatorParams {
        InitiatorParams { author: author(self.author.as_ref(), server), reason: self.reason.clone() }
    }
}

/// The operator's name: `--author`, else $USER. Credentials name the operator themselves.
fn author(flag: Option<&String>, server: &Server) -> Option<String> {
    let user = || match server.presents_credentials() {
        true => None,
        false => Some(std::env::var("USER").unwrap_or_default()),
    };
    let unknown = |name: String| if name.is_empty() { "unknown".to_owned() } else { name };
    flag.cloned().or_else(user).map(unknown)
}

/// A cell of a table.
fn cell(text: &str) -> String {
    escape_control_chars(text)
}

/// A cell whose value can be absent.
fn optional_cell(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), escape_control_chars)
}

/// A cell with several values.
fn list_cell(items: &[String]) -> String {
    if items.is_empty() { "-".to_owned() } else { escape_control_chars(&items.join(" ")) }
}

/// Fetches pages until there are `limit` items or no more pages. `fetch` gets the size of a page and the cursor.
fn fetch_pages<I, C>(
    limit: usize,
    fetch: impl Fn(usize, Option<C>) -> Result<(Vec<I>, Option<C>), ClientError>,
) -> Result<Vec<I>, ClientError> {
    let limit = limit.max(1);
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let (items, next) = fetch((limit - all.len()).clamp(1, MAX_PAGE_SIZE), cursor)?;
        all.extend(items);
        if next.is_none() || all.len() >= limit {
            all.truncate(limit);
            return Ok(all);
        }
        cursor = next;
    }
}

/// Items, and how many there are in all.
struct PagedItems<I> {
    items: Vec<I>,
    /// The number of all items, if there may be more; whether it is only a lower bound.
    total: Option<(u64, bool)>,
}

/// [`fetch_pages`], and the total if there may be more items than `limit`.
fn fetch_counted<I, C>(
    limit: usize,
    fetch: impl Fn(usize, Option<C>) -> Result<(Vec<I>, Option<C>), ClientError>,
    count: impl Fn() -> Result<Option<(u64, bool)>, ClientError>,
) -> Result<PagedItems<I>, ClientError> {
    let items = fetch_pages(limit, fetch)?;
    let total = if items.len() >= limit.max(1) { count()? } else { None };
    Ok(PagedItems { items, total })
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
            if format.is_text() {
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
