//! `scalebridge iam-policy`: a least-privilege IAM policy for the configured destinations and sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::check::render_diagnostics;
use super::output::{ConfigArgs, EXIT_USAGE, environment, print_json, usage_error};
use crate::config::{self, DatabaseServer, DatabaseUrl, ServerAddress};
use crate::dispatch::{ArnDefaults, Permission, partition};
use crate::kinds;
use crate::sources::SourceKind;
use crate::store::rds_region;
use crate::telemetry;

/// Print a least-privilege IAM policy
///
/// For destinations and queues of sources with a `role_arn`, the bridge itself only needs permission to assume the role;
/// --role prints the policy of that role. A queue, topic or state machine that is encrypted with a customer managed key needs
/// rights on that key too: pass --kms-key-arn.
/// For a store with `iam: true`, the id of the database is `*`: replace it by the resource id of the instance, cluster or
/// proxy.
#[derive(Debug, Args)]
pub(super) struct IamPolicy {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print the policy of this role of a destination or source instead
    #[arg(long, value_name = "ARN")]
    role: Option<String>,
    /// AWS account of functions and event buses that are configured by name only; `*` means any
    #[arg(long, value_name = "ID", default_value = "*")]
    account: String,
    /// Region of functions, event buses and queues configured without one; `*` means any
    #[arg(long, value_name = "REGION", env = "AWS_REGION", default_value = "*")]
    region: String,
    /// The customer managed key that encrypts the queues, topics and state machines
    #[arg(long, value_name = "ARN", value_parser = kms_key)]
    kms_key_arn: Option<String>,
}

/// What services do with the key of a queue, topic or state machine, with the rights of their caller, for this action.
/// EventBridge uses the key of a bus by itself.
fn kms_actions(action: &str) -> &'static [&'static str] {
    match action {
        "sqs:ReceiveMessage" => &["kms:Decrypt"],
        "sqs:SendMessage" => &["kms:Decrypt", "kms:GenerateDataKey"],
        action if action.starts_with("sns:") || action.starts_with("states:") => {
            &["kms:Decrypt", "kms:GenerateDataKey"]
        }
        _ => &[],
    }
}

fn kms_key(text: &str) -> Result<String, &'static str> {
    // IAM does not resolve aliases.
    match text.split(':').nth(2) == Some("kms") && text.contains(":key/") {
        true => Ok(text.to_owned()),
        false => Err("the ARN of a key is expected, such as arn:aws:kms:REGION:ACCOUNT:key/ID"),
    }
}

impl IamPolicy {
    pub(super) fn run(&self) -> ExitCode {
        let settings = match kinds::load(&self.config.config, environment()) {
            Ok(loaded) => loaded.settings,
            Err(diagnostics) => {
                telemetry::print_to_stderr(render_diagnostics(&diagnostics).trim_end());
                return ExitCode::from(EXIT_USAGE);
            }
        };
        // The actions of each principal with their resources; `None` is the bridge itself.
        let mut permissions: BTreeMap<Option<String>, BTreeMap<&str, BTreeSet<String>>> = BTreeMap::new();
        let mut require = |principal: Option<String>, action, resource| {
            permissions.entry(principal).or_default().entry(action).or_default().insert(resource);
        };
        let defaults = ArnDefaults { account: &self.account, region: &self.region };
        let of_destinations = settings.destinations.values();
        let of_destinations = of_destinations.filter_map(|it| it.settings.permission(&defaults));
        let of_sources = settings.source_kinds.values().filter_map(SourceKind::queue);
        let of_sources = of_sources.flat_map(|queue| queue.permissions(&defaults));
        for Permission { role, action, resource } in of_destinations.chain(of_sources) {
            let role = role.map(|role| role.arn.clone());
            if let Some(arn) = &role {
                require(None, "sts:AssumeRole", arn.clone());
            }
            if let Some(key) = &self.kms_key_arn {
                let kms_actions = kms_actions(action).iter();
                kms_actions.for_each(|action| require(role.clone(), *action, key.clone()));
            }
            require(role, action, resource);
        }
        if let config::Store::Postgres(store) = &settings.store
            && store.iam
        {
            database_resources(&store.url_file, &defaults)
                .into_iter()
                .for_each(|resource| require(None, "rds-db:connect", resource));
        }
        for role in permissions.keys().flatten().filter(|_| self.role.is_none()) {
            telemetry::print_to_stderr(format_args!("for the policy of {role}, use --role {role}"));
        }
        if self.role.is_some() && !permissions.contains_key(&self.role) {
            return usage_error(format_args!(
                "no destination or source with role {}",
                self.role.as_deref().unwrap_or_default()
            ));
        }
        let statements = permissions.remove(&self.role).unwrap_or_default();
        if statements.is_empty() {
            telemetry::print_to_stderr("this configuration needs no AWS permissions");
        }
        let statement = |(action, resources): (&str, BTreeSet<String>)| {
            let id: String = action.chars().filter(char::is_ascii_alphanumeric).collect();
            json!({ "Sid": id, "Effect": "Allow", "Action": action, "Resource": resources })
        };
        let statements: Vec<Value> = statements.into_iter().map(statement).collect();
        print_json(&json!({ "Version": "2012-10-17", "Statement": statements }));
        ExitCode::SUCCESS
    }
}

/// The database users of the URL, one for each server. The name of an endpoint does not contain the id of its database, so
/// `*` stands for it.
fn database_resources(url_file: &Path, defaults: &ArnDefaults<'_>) -> BTreeSet<String> {
    let arn = |region: &str, user: &str| {
        format!("arn:{}:rds-db:{region}:{}:dbuser:*/{user}", partition(region), defaults.account)
    };
    // The configuration was valid, so only a file that is missing or unreadable has no URL.
    let url = std::fs::read_to_string(url_file).ok().and_then(|text| DatabaseUrl::parse(&text, true).ok());
    let Some(url) = url else {
        telemetry::print_to_stderr(format_args!(
            "cannot read {}: the policy allows every database user",
            url_file.display()
        ));
        return BTreeSet::from([arn(defaults.region, "*")]);
    };
    let region = |server: &DatabaseServer| match &server.address {
        ServerAddress::Tcp { host, .. } => rds_region(host).unwrap_or(defaults.region).to_owned(),
        ServerAddress::Socket(_) => defaults.region.to_owned(),
    };
    url.servers.iter().map(|server| arn(&region(server), &url.user)).collect()
}
