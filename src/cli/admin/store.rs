//! `scalebridge store`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{author, cell};
use crate::cli::client::{ClientError, Raw, Server};
use crate::cli::copy::StoreCopy;
use crate::cli::output::{OutputArgs, print};
use crate::ops::api::{DropUnreadableState, UnreadableRowView};

/// Give up states that cannot be read, or move the store to another database
#[derive(Debug, Args)]
pub(crate) struct Store {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Give up the state of a target that cannot be read
    ///
    /// The state is deleted, with its deferred actions. Alerts about the target are accepted again: those that still
    /// fire increase capacity again and never decrease it. `status` lists the targets whose state cannot be read.
    Drop {
        #[command(flatten)]
        server: Box<Server>,
        /// Key of the target; or the number of the row, such as '#17', if the key cannot be read
        target: String,
        /// Reason, for the log and the audit trail
        #[arg(long)]
        reason: String,
        /// Operator name, for the log and the audit trail. Default: $USER, or the name of the credential
        #[arg(long)]
        author: Option<String>,
        #[command(flatten)]
        output: OutputArgs,
    },
    Copy(StoreCopy),
}

impl Store {
    pub(crate) fn run(&self) -> ExitCode {
        let (server, target, reason, flag, output) = match &self.command {
            StoreCommand::Drop { server, target, reason, author, output } => {
                (server, target, reason, author, output)
            }
            StoreCommand::Copy(copy) => return copy.run(),
        };
        let request = DropUnreadableState {
            target: target.clone(),
            author: author(flag.as_ref(), server),
            reason: reason.clone(),
        };
        let dropped: Result<Raw<UnreadableRowView>, ClientError> =
            server.post_json("/api/v1/unreadable-states/drop", &request);
        match (dropped, output.format) {
            (Ok(dropped), format) if !format.is_text() => format.print_data(&dropped),
            (Ok(dropped), _) => print(text(&dropped.value)),
            (Err(error), _) => return error.report(),
        }
        ExitCode::SUCCESS
    }
}

/// The target's key, or the row's number if the key cannot be read.
pub(super) fn name(row: &UnreadableRowView) -> String {
    row.target.as_deref().map_or_else(|| format!("#{}", row.row), cell)
}

fn text(dropped: &UnreadableRowView) -> String {
    let (name, row, since) = (name(dropped), dropped.row, cell(&dropped.since));
    let what_follows = match dropped.target {
        Some(_) => {
            "The target has no state now: alerts that still fire increase capacity again and never decrease it."
        }
        // Without its key, the target cannot be distinguished from a new one.
        None => "The target is a new one now: alerts that still fire increase capacity again.",
    };
    format!("dropped the state of {name} (row #{row}, unreadable since {since})\n{what_follows}\n")
}
