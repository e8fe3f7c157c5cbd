//! `iam-policy`: what the scaler needs to be granted.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::{Exit, Io, load};
use crate::iam::{Documents, Options, Principal, Role, documents};

/// The arguments of `iam-policy`.
#[derive(Args)]
pub(super) struct Arguments {
    /// What the scaler runs as
    #[arg(long, value_name = "PRINCIPAL", default_value = "lambda")]
    principal: Principal,
    /// The scaler's own account; `*` means any
    #[arg(long, value_name = "ID", default_value = "*")]
    account: String,
    /// The region of queues and tables that are configured without one; `*` means any
    #[arg(long, value_name = "REGION", default_value = "*")]
    region: String,
    /// The ARN of the scaler's own role, for the trust policies and access entries
    #[arg(long, value_name = "ARN")]
    role_arn: Option<String>,
    /// The queue of the function's event source mapping
    #[arg(long, value_name = "URL")]
    queue_url: Option<String>,
    #[arg(long, short, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

pub(super) fn run(arguments: &Arguments, config: Option<&Path>, io: &mut Io<'_>) -> Exit {
    let Ok((_, config)) = load(config, io) else { return Exit::Unusable };
    let options = Options {
        principal: arguments.principal,
        account: &arguments.account,
        region: &arguments.region,
        role_arn: arguments.role_arn.as_deref(),
        queue_url: arguments.queue_url.as_deref(),
    };
    let documents = documents(&config, &options);
    match arguments.output.as_str() {
        "json" => drop(writeln!(io.out, "{}", pretty(&documents))),
        _ => {
            drop(io.out.write_all(text(&documents).as_bytes()));
            // Not part of what is copied from the output.
            for note in &documents.notes {
                drop(writeln!(io.err, "note: {note}"));
            }
        }
    }
    Exit::Success
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn text(documents: &Documents) -> String {
    let Documents { role, accounts, clusters, .. } = documents;
    let of_role = |whose: &str, role: &Role| {
        let Role { role_arn, policy, trust_policy } = role;
        format!(
            "# {whose}, {role_arn}: its policy\n{}\n\n# {whose}, {role_arn}: its trust policy\n{}\n",
            pretty(policy),
            pretty(trust_policy)
        )
    };
    let own = std::iter::once(of_role("The scaler's role", role));
    let others = accounts.iter().map(|(id, role)| of_role(&format!("The role in account {id}"), role));
    let clusters = clusters.iter().map(|(key, access)| {
        let entry = access.create_access_entry.as_ref();
        let entry = entry.map(|command| format!("# Cluster {key}: its access entry\n{command}\n\n"));
        format!("{}# Cluster {key}: RBAC, for kubectl apply\n{}", entry.unwrap_or_default(), access.rbac)
    });
    own.chain(others).chain(clusters).collect::<Vec<_>>().join("\n")
}
