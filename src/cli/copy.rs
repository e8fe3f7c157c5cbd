//! `scalebridge store copy`: moves a bridge from SQLite to PostgreSQL.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::output::{EXIT_FAILED, pluralize, print, print_note, usage_error};
use crate::app::wall_clock;
use crate::store::{self, Connector, Copied, PostgresSettings};
use crate::telemetry;

/// The difference between the clocks from which on it is told.
const MAX_AHEAD: Duration = Duration::from_secs(5);

/// Copy everything of a SQLite store to an empty PostgreSQL database
///
/// Stop the bridge first. States, pauses, events with their deliveries, dead letters, decisions, the audit trail and kept
/// notifications are copied in one transaction: after an error, nothing was. The SQLite file is kept; do not start a
/// bridge with it afterwards, since both would act. With the PostgreSQL store, the bridge continues where it was.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  Move a bridge to the database of the URL in a file
    scalebridge store copy --from sqlite:/var/lib/scalebridge/bridge.db --to postgres:/etc/scalebridge/database-url

Exit codes: 0 copied, 1 the database cannot be reached, 2 one of the stores cannot be used, is in use, or is not empty")]
pub(super) struct StoreCopy {
    /// The SQLite file, as `store.sqlite.path` of the configuration
    #[arg(long, value_name = "sqlite:FILE", value_parser = |text: &str| location("sqlite", text))]
    from: PathBuf,
    /// The file with the database's URL, as `store.postgres.url_file` of the configuration
    #[arg(long, value_name = "postgres:URL_FILE", value_parser = |text: &str| location("postgres", text))]
    to: PathBuf,
    /// Use a token of AWS IAM instead of a password, as `store.postgres.iam` of the configuration
    #[arg(long)]
    iam: bool,
}

fn location(kind: &str, text: &str) -> Result<PathBuf, String> {
    match text.split_once(':') {
        Some((found, path)) if found == kind && !path.is_empty() => Ok(PathBuf::from(path)),
        _ => Err(format!("write `{kind}:` before the path of the file")),
    }
}

impl StoreCopy {
    pub(super) fn run(&self) -> ExitCode {
        // Not shown, since it can contain the password: what is left of a URL after `postgres:`.
        if self.to.as_os_str().as_encoded_bytes().starts_with(b"//") {
            return usage_error(format_args!(
                "`--to` is a URL: write it into a file that only the bridge can read, and pass postgres:FILE"
            ));
        }
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return usage_error(format_args!("cannot start: {error}")),
        };
        let connector = Connector::from_file(self.to.clone(), self.iam);
        let settings = PostgresSettings { connector, max_connections: 1, notify: false };
        match runtime.block_on(store::copy(&self.from, settings, wall_clock())) {
            Ok(copied) => {
                print(copied.to_string());
                note_clocks(&copied);
                ExitCode::SUCCESS
            }
            Err(store::Error::Unavailable(error)) => {
                telemetry::print_to_stderr(format_args!("scalebridge: nothing was copied: {error}"));
                ExitCode::from(EXIT_FAILED)
            }
            Err(error) => usage_error(format_args!("nothing was copied: {error}")),
        }
    }
}

fn note_clocks(copied: &Copied) {
    if Duration::from_secs(copied.seconds_ahead) > MAX_AHEAD {
        let seconds = usize::try_from(copied.seconds_ahead).unwrap_or(usize::MAX);
        print_note(format_args!(
            "warning: the clock of the database is {} behind that of the SQLite store; until it has caught up, what waits \
             for a time waits longer",
            pluralize(seconds, "second")
        ));
    }
}
