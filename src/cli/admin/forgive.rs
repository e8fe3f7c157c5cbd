//! `scalebridge forgive`.

use std::process::ExitCode;

use clap::Args;

use super::{author, cell};
use crate::cli::client::{ClientError, Raw, Server};
use crate::cli::output::{OutputArgs, print, table};
use crate::ops::api::{ForgiveRequest, Forgiven};

/// Forgive what rules owe on a target: nothing is taken back for it any more
///
/// A rule whose `on_resolved` decreases owes a decrease for each increase that it has emitted. `episodes --owing` lists
/// them. Deferred decreases end; one that is being sent is not sent again.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  The nodes were removed by hand, so no scale-in must follow
    scalebridge forgive eks/nodegroup/-/eu-west-1/prod-eu/-/workers --reason 'removed by hand'

Exit codes: 0 success, 1 no answer from the bridge, 2 unusable input")]
pub(crate) struct Forgive {
    #[command(flatten)]
    server: Server,
    /// Key of the target
    target: String,
    /// Only what this rule owes
    #[arg(long)]
    rule: Option<String>,
    /// Reason, for the log and the audit trail
    #[arg(long)]
    reason: String,
    /// Operator name, for the log and the audit trail. Default: $USER, or the name of the credential
    #[arg(long)]
    author: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

impl Forgive {
    pub(crate) fn run(&self) -> ExitCode {
        let request = ForgiveRequest {
            target: self.target.clone(),
            rule: self.rule.clone(),
            author: author(self.author.as_ref(), &self.server),
            reason: self.reason.clone(),
        };
        let forgiven: Result<Raw<Forgiven>, ClientError> = self.server.post_json("/api/v1/forgive", &request);
        match (forgiven, self.output.format) {
            (Ok(forgiven), format) if !format.is_text() => format.print_data(&forgiven),
            (Ok(forgiven), _) => {
                let rows =
                    forgiven.value.events.iter().map(|event| vec![cell(&event.rule), cell(&event.event)]);
                print(table(&["RULE", "FORGIVEN EVENT"], &rows.collect::<Vec<_>>()));
            }
            (Err(error), _) => return error.report(),
        }
        ExitCode::SUCCESS
    }
}
