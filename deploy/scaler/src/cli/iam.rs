//! `iam-policy`: what the scaler needs to be granted.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::{Exit, Io, load};
use crate::config::{is_account, is_region, url_error};
use crate::iam::{Documents, Options, Principal, Role, documents};

/// The arguments of `iam-policy`.
#[derive(Args)]
pub(super) struct Arguments {
    /// What the scaler runs as; by default a Lambda function. What a worker needs is granted whenever the configuration
    /// has `queue`
    #[arg(long, value_name = "PRINCIPAL")]
    principal: Option<Principal>,
    /// The scaler's own account, 12 digits; `*` means any
    #[arg(long, value_name = "ID", default_value = "*", value_parser = account)]
    account: String,
    /// The region of queues and tables that are configured without one; `*` means any
    #[arg(long, value_name = "REGION", default_value = "*", value_parser = region)]
    region: String,
    /// The ARN of the scaler's own role, for the trust policies and access entries
    #[arg(long, value_name = "ARN")]
    role_arn: Option<String>,
    /// The queue of the function's event source mapping
    #[arg(long, value_name = "URL", value_parser = queue_url)]
    queue_url: Option<String>,
    /// The customer managed key that encrypts the queues
    #[arg(long, value_name = "ARN", value_parser = kms_key)]
    kms_key_arn: Option<String>,
    #[arg(long, short, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// The policy has it, the trust policy cannot.
const WORKER_NOTE: &str = "the configuration has `queue`, for a worker: pass --principal pod-identity, ec2 or ecs for the \
                           trust policy of what the worker runs as; this one is of a Lambda function";

fn account(text: &str) -> Result<String, String> {
    match text == "*" || is_account(text) {
        true => Ok(text.to_owned()),
        false => Err("12 digits or * are expected".to_owned()),
    }
}

fn region(text: &str) -> Result<String, String> {
    match text == "*" || is_region(text) {
        true => Ok(text.to_owned()),
        false => Err("the name of a region, such as eu-west-1, or * is expected".to_owned()),
    }
}

fn kms_key(text: &str) -> Result<String, String> {
    // IAM does not resolve aliases.
    match text.split(':').nth(2) == Some("kms") && text.contains(":key/") {
        true => Ok(text.to_owned()),
        false => Err("the ARN of a key is expected, such as arn:aws:kms:REGION:ACCOUNT:key/ID".to_owned()),
    }
}

fn queue_url(text: &str) -> Result<String, String> {
    match url_error(text, "the URL of a queue") {
        None => Ok(text.to_owned()),
        Some(error) => Err(format!("it {error}")),
    }
}

pub(super) fn run(arguments: &Arguments, config: Option<&Path>, io: &mut Io<'_>) -> Exit {
    let Ok((_, config)) = load(config, io) else { return Exit::Unusable };
    if arguments.queue_url.is_some() && arguments.queue_url == config.refusals {
        drop(writeln!(
            io.err,
            "error: --queue-url is the queue of `refusals`: each refusal would be refused again"
        ));
        return Exit::Unusable;
    }
    let options = Options {
        principal: arguments.principal.unwrap_or(Principal::Lambda),
        account: &arguments.account,
        region: &arguments.region,
        role_arn: arguments.role_arn.as_deref(),
        queue_url: arguments.queue_url.as_deref(),
        kms_key_arn: arguments.kms_key_arn.as_deref(),
    };
    let mut documents = documents(&config, &options);
    if config.queue.is_some() && arguments.principal.is_none() {
        documents.notes.push(WORKER_NOTE.to_owned());
    }
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
