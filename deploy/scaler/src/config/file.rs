//! The checks of the file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use scalebridge::config::access::HttpClient;
use scalebridge::domain::target_pattern::TargetPattern;
use serde::de::DeserializeOwned;
use serde_saphyr::Spanned;

use super::form::{
    File, MAX_CONCURRENCY, RawAccount, RawCluster, RawDynamoDb, RawEks, RawLedger, RawMaxDecrease, RawNomad,
    RawQueue, RawSqlite, RawTarget,
};
use super::http::http_client;
use super::{
    Account, Cluster, Config, ConfigError, EksCluster, LedgerSettings, ManagedBy, Nomad, Queue,
    TargetSettings,
};
use crate::capacity::MaxDecrease;
use crate::event::Limits;
use crate::plan::Policy;

const DEFAULT_CONCURRENCY: usize = 8;
/// The platforms whose owner of the size is found out at the target.
const AUTO_PLATFORMS: [&str; 3] = ["kubernetes/", "ecs/", "nomad/"];
const BUFFER_FORM: &str =
    "`buffer` names a CapacityBuffer as namespace/name, for example scaling/spare-{{ name }}";

/// Collects errors.
#[derive(Default)]
pub(super) struct Errors(Vec<ConfigError>);

impl Errors {
    pub(super) fn add<T>(&mut self, at: &Spanned<T>, message: impl Into<String>) {
        let place = &at.referenced;
        self.0.push(ConfigError { line: place.line(), column: place.column(), message: message.into() });
    }
}

pub(super) fn read(text: &str) -> Result<Config, Vec<ConfigError>> {
    let file: File = from_yaml(text).map_err(|error| vec![form_error(&error)])?;
    let mut errors = Errors::default();
    let File { dry_run, queue, refusals, ledger, accounts, clusters, nomad, targets } = file;
    let accounts: BTreeMap<String, Account> =
        accounts.into_iter().map(|(id, raw)| (id.clone(), account(&id, raw, &mut errors))).collect();
    if targets.value.is_empty() {
        errors.add(&targets, "`targets` is empty, so every event is refused; add a pattern");
    }
    let config = Config {
        queue: queue.map(|raw| self::queue(raw.value, &mut errors)),
        refusals: refusals.map(|raw| url(raw.value.queue_url, &mut errors)),
        ledger: self::ledger(ledger, &mut errors),
        clusters: clusters
            .into_iter()
            .map(|(name, raw)| (name, cluster(raw, &accounts, &mut errors)))
            .collect(),
        nomad: nomad.into_iter().map(|(name, raw)| (name, self::nomad(raw.value, &mut errors))).collect(),
        targets: targets.value.into_iter().filter_map(|raw| target(raw, dry_run, &mut errors)).collect(),
        accounts,
    };
    errors.0.sort_by_key(|error| (error.line, error.column));
    if errors.0.is_empty() { Ok(config) } else { Err(errors.0) }
}

/// Reads YAML, with comments of any length.
pub(crate) fn from_yaml<T: DeserializeOwned>(text: &str) -> Result<T, serde_saphyr::Error> {
    let mut options = serde_saphyr::Options::default();
    // Nothing reads them, and a file with 33 lines of them in a row would be refused.
    options.emit_comments = false;
    serde_saphyr::from_str_with_options(text, options)
}

fn form_error(error: &serde_saphyr::Error) -> ConfigError {
    let place = error.location();
    let message = error.without_snippet().to_string();
    // One line; the place is a field.
    let message = message.lines().next().unwrap_or_default().to_owned();
    ConfigError {
        line: place.as_ref().map_or(0, serde_saphyr::Location::line),
        column: place.as_ref().map_or(0, serde_saphyr::Location::column),
        message,
    }
}

fn url(raw: Spanned<String>, errors: &mut Errors) -> String {
    if !raw.value.starts_with("https://") && !raw.value.starts_with("http://") {
        errors.add(&raw, format!("`{}` is not the URL of a queue, which begins with https://", raw.value));
    }
    raw.value
}

fn queue(raw: RawQueue, errors: &mut Errors) -> Queue {
    let concurrency = match &raw.concurrency {
        None => DEFAULT_CONCURRENCY,
        Some(raw) => {
            if !(1..=MAX_CONCURRENCY).contains(&raw.value) {
                errors.add(raw, format!("`concurrency` is {}; 1 to {MAX_CONCURRENCY} is allowed", raw.value));
            }
            raw.value
        }
    };
    Queue { queue_url: url(raw.queue_url, errors), concurrency }
}

fn ledger(raw: Spanned<RawLedger>, errors: &mut Errors) -> LedgerSettings {
    match (&raw.value.dynamodb, &raw.value.sqlite) {
        (Some(RawDynamoDb { table, region }), None) => {
            LedgerSettings::DynamoDb { table: table.clone(), region: region.clone() }
        }
        (None, Some(RawSqlite { path })) => LedgerSettings::Sqlite { path: path.clone() },
        _ => {
            errors.add(&raw, "`ledger` has exactly one of `dynamodb` and `sqlite`");
            LedgerSettings::Sqlite { path: PathBuf::new() }
        }
    }
}

fn account(id: &str, raw: Spanned<RawAccount>, errors: &mut Errors) -> Account {
    if id.len() != 12 || !id.bytes().all(|byte| byte.is_ascii_digit()) {
        errors.add(&raw, format!("`{id}` is not the id of an account: 12 digits in quotes"));
    }
    let RawAccount { role_arn, external_id } = raw.value;
    let parts: Vec<&str> = role_arn.value.splitn(6, ':').collect();
    let is_role = parts.len() == 6 && parts[0] == "arn" && parts[2] == "iam" && parts[5].starts_with("role/");
    if !is_role {
        errors.add(&role_arn, format!("`{}` is not the ARN of a role", role_arn.value));
    } else if parts[4] != id {
        errors.add(&role_arn, format!("the role is of account {}, not of {id}", parts[4]));
    }
    Account { role_arn: role_arn.value, external_id }
}

fn cluster(raw: Spanned<RawCluster>, accounts: &BTreeMap<String, Account>, errors: &mut Errors) -> Cluster {
    let RawCluster { eks, kubeconfig, context, in_cluster } = &raw.value;
    if let Some(context) = context.as_ref().filter(|_| kubeconfig.is_none()) {
        errors.add(context, "`context` is only for `kubeconfig`");
    }
    match (eks, kubeconfig, in_cluster) {
        (Some(RawEks { name, region, account }), None, false) => {
            if let Some(account) = account.as_ref().filter(|account| !accounts.contains_key(&account.value)) {
                errors.add(account, format!("account {} is not in `accounts`", account.value));
            }
            let account = account.as_ref().map(|account| account.value.clone());
            Cluster::Eks(EksCluster { name: name.clone(), region: region.clone(), account })
        }
        (None, Some(path), false) => Cluster::Kubeconfig {
            path: path.clone(),
            context: context.as_ref().map(|context| context.value.clone()),
        },
        (None, None, true) => Cluster::InCluster,
        _ => {
            errors.add(&raw, "a cluster has exactly one of `eks`, `kubeconfig` and `in_cluster: true`");
            Cluster::InCluster
        }
    }
}

fn nomad(raw: RawNomad, errors: &mut Errors) -> Nomad {
    let RawNomad { address, token_file, http } = raw;
    let http = http.map_or_else(HttpClient::default, |raw| http_client(raw, errors));
    let has_secret = token_file.is_some() || http.authorization.is_some();
    if has_secret && address.value.starts_with("http://") && !is_loopback(&address.value) {
        errors.add(&address, "the token would be sent over plain HTTP; use https://");
    }
    let is_url = ["https://", "http://"].iter().any(|scheme| address.value.starts_with(scheme));
    if !is_url {
        errors.add(
            &address,
            format!("`{}` is not the URL of a server, such as https://nomad:4646", address.value),
        );
    }
    Nomad { address: address.value, token_file, http }
}

fn is_loopback(address: &str) -> bool {
    let host = address.trim_start_matches("http://");
    ["127.", "localhost", "[::1]"].iter().any(|prefix| host.starts_with(prefix))
}

fn target(raw: Spanned<RawTarget>, dry_run: bool, errors: &mut Errors) -> Option<TargetSettings> {
    let raw = raw.value;
    let pattern = TargetPattern::new(&raw.pattern.value);
    if pattern.is_none() {
        errors.add(&raw.pattern, "`match` is empty or too long; * matches every target");
    }
    let managed_by = managed_by(&raw, errors);
    if let Some(buffer) = &raw.buffer {
        check_buffer(buffer, managed_by, errors);
    }
    if let Some(max) =
        raw.max_capacity.as_ref().filter(|max| raw.min_capacity.is_some_and(|min| min > max.value))
    {
        errors.add(max, format!("`max_capacity` {} is below `min_capacity`", max.value));
    }
    let max_decrease = raw.max_decrease.as_ref().and_then(|raw| max_decrease(raw, errors));
    let limits =
        Limits { min_capacity: raw.min_capacity, max_capacity: raw.max_capacity.map(|max| max.value) };
    Some(TargetSettings {
        pattern: pattern?,
        managed_by,
        buffer: raw.buffer.map(|buffer| buffer.value),
        allow_undrained: raw.allow_undrained,
        policy: Policy { limits, max_decrease, dry_run: dry_run || raw.dry_run },
    })
}

fn managed_by(raw: &RawTarget, errors: &mut Errors) -> ManagedBy {
    let pattern = &raw.pattern.value;
    let is_auto = AUTO_PLATFORMS.iter().any(|platform| pattern.starts_with(platform));
    match &raw.managed_by {
        None if is_auto => ManagedBy::Auto,
        None => {
            errors.add(
                &raw.pattern,
                "`managed_by` is required for node groups and Auto Scaling groups: nobody, cluster-autoscaler, \
                 karpenter or eks-auto-mode; two owners of one size work against each other",
            );
            ManagedBy::Nobody
        }
        Some(given) => {
            if given.value == ManagedBy::Auto && !is_auto {
                errors.add(given, "`managed_by: auto` is for patterns of kubernetes/, ecs/ and nomad/");
            }
            let has_no_group = matches!(given.value, ManagedBy::Karpenter | ManagedBy::EksAutoMode);
            if has_no_group && raw.buffer.is_none() && !pattern.starts_with("kubernetes/") {
                errors.add(
                    given,
                    "Karpenter and EKS Auto Mode have no groups whose size is set; name a CapacityBuffer in `buffer`, \
                     or scale a static NodePool as kubernetes/nodepools.karpenter.sh",
                );
            }
            given.value
        }
    }
}

fn check_buffer(buffer: &Spanned<String>, managed_by: ManagedBy, errors: &mut Errors) {
    let parts = buffer.value.split('/').filter(|part| !part.trim().is_empty()).count();
    if parts != 2 || buffer.value.matches('/').count() != 1 {
        errors.add(buffer, BUFFER_FORM);
    }
    if matches!(managed_by, ManagedBy::Nobody | ManagedBy::Auto) {
        errors.add(
            buffer,
            "`buffer` is for targets that an autoscaler of nodes manages: set `managed_by` to cluster-autoscaler, \
             karpenter or eks-auto-mode",
        );
    }
}

fn max_decrease(raw: &Spanned<RawMaxDecrease>, errors: &mut Errors) -> Option<MaxDecrease> {
    let text = match &raw.value {
        RawMaxDecrease::Units(units) => return Some(MaxDecrease::Units(*units)),
        RawMaxDecrease::Text(text) => text,
    };
    let percent = text.strip_suffix('%').and_then(|percent| percent.parse().ok());
    match percent.filter(|percent| (1..=100).contains(percent)) {
        Some(percent) => Some(MaxDecrease::Percent(percent)),
        None => {
            errors
                .add(raw, format!("`max_decrease` is `{text}`; a number of units or 1% to 100% is expected"));
            None
        }
    }
}
