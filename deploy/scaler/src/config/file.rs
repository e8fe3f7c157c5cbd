//! The checks of the file.

use std::collections::BTreeMap;
use std::ffi::OsStr;
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
use super::values::{is_account, is_loopback, is_region, pattern_error, url_error};
use super::yaml_error::form_error;
use super::{
    Account, Cluster, Config, ConfigError, EksCluster, LedgerSettings, ManagedBy, Nomad, Queue,
    TargetSettings, buffer,
};
use crate::capacity::MaxDecrease;
use crate::event::Limits;
use crate::plan::Policy;

const DEFAULT_CONCURRENCY: usize = 8;
/// Of a value in an error, in characters.
const MAX_SHOWN: usize = 100;
/// The platforms whose owner of the size is found out at the target.
const AUTO_PLATFORMS: [&str; 3] = ["kubernetes/", "ecs/", "nomad/"];
const A_QUEUE: &str = "the URL of a queue, which begins with https://, such as \
                       https://sqs.eu-west-1.amazonaws.com/111122223333/scaling";
const A_SERVER: &str = "the URL of a server, such as https://nomad:4646";

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
    let queue = queue.map(|raw| self::queue(raw.value, &mut errors));
    let config = Config {
        refusals: refusals.map(|raw| self::refusals(raw.value.queue_url, queue.as_ref(), &mut errors)),
        queue,
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

fn url(raw: Spanned<String>, key: &str, errors: &mut Errors) -> String {
    if let Some(error) = url_error(&raw.value, A_QUEUE) {
        errors.add(&raw, format!("`{key}` {error}"));
    }
    raw.value
}

/// A refused event would be received again, and refused again, for ever.
fn refusals(raw: Spanned<String>, queue: Option<&Queue>, errors: &mut Errors) -> String {
    let same = |url: &str| url.trim_end_matches('/').split_once("://").map(|(_, rest)| rest.to_lowercase());
    if queue.is_some_and(|queue| same(&queue.queue_url) == same(&raw.value)) {
        errors.add(
            &raw,
            "`refusals` is the queue that the worker receives from, so that each refusal would be refused again; name \
             another queue",
        );
    }
    url(raw, "refusals.queue_url", errors)
}

fn not_empty<T: AsRef<OsStr>>(raw: &Spanned<T>, key: &str, errors: &mut Errors) {
    if raw.value.as_ref().to_string_lossy().trim().is_empty() {
        errors.add(raw, format!("`{key}` is empty"));
    }
}

fn region(raw: Spanned<String>, errors: &mut Errors) -> String {
    if !is_region(&raw.value) {
        errors.add(&raw, "`region` is not the name of a region of AWS, such as eu-west-1");
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
    Queue { queue_url: url(raw.queue_url, "queue_url", errors), concurrency }
}

fn ledger(raw: Spanned<RawLedger>, errors: &mut Errors) -> LedgerSettings {
    if raw.value.dynamodb.is_some() == raw.value.sqlite.is_some() {
        errors.add(&raw, "`ledger` has exactly one of `dynamodb` and `sqlite`");
    }
    match raw.value {
        RawLedger { dynamodb: Some(RawDynamoDb { table, region }), .. } => {
            not_empty(&table, "table", errors);
            let region = region.map(|raw| self::region(raw, errors));
            LedgerSettings::DynamoDb { table: table.value, region }
        }
        RawLedger { sqlite: Some(RawSqlite { path }), .. } => {
            not_empty(&path, "path", errors);
            LedgerSettings::Sqlite { path: path.value }
        }
        RawLedger { dynamodb: None, sqlite: None } => LedgerSettings::Sqlite { path: PathBuf::new() },
    }
}

fn account(id: &str, raw: Spanned<RawAccount>, errors: &mut Errors) -> Account {
    if !is_account(id) {
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
    if let Some(external_id) = &external_id {
        not_empty(external_id, "external_id", errors);
    }
    Account { role_arn: role_arn.value, external_id: external_id.map(|id| id.value) }
}

fn cluster(raw: Spanned<RawCluster>, accounts: &BTreeMap<String, Account>, errors: &mut Errors) -> Cluster {
    let RawCluster { eks, kubeconfig, context, in_cluster } = &raw.value;
    if let Some(context) = context {
        not_empty(context, "context", errors);
        if kubeconfig.is_none() {
            errors.add(context, "`context` is only for `kubeconfig`");
        }
    }
    match (eks, kubeconfig, in_cluster) {
        (Some(RawEks { name, region, account }), None, false) => {
            if let Some(account) = account.as_ref().filter(|account| !accounts.contains_key(&account.value)) {
                errors.add(account, format!("account {} is not in `accounts`", account.value));
            }
            not_empty(name, "name", errors);
            let account = account.as_ref().map(|account| account.value.clone());
            let region = self::region(region.clone(), errors);
            Cluster::Eks(EksCluster { name: name.value.clone(), region, account })
        }
        (None, Some(path), false) => {
            not_empty(path, "kubeconfig", errors);
            let context = context.as_ref().map(|context| context.value.clone());
            Cluster::Kubeconfig { path: path.value.clone(), context }
        }
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
    if let Some(error) = url_error(&address.value, A_SERVER) {
        errors.add(&address, format!("`address` {error}"));
    }
    if let Some(file) = &token_file {
        not_empty(file, "token_file", errors);
    }
    Nomad { address: address.value, token_file: token_file.map(|file| file.value), http }
}

fn target(raw: Spanned<RawTarget>, dry_run: bool, errors: &mut Errors) -> Option<TargetSettings> {
    let raw = raw.value;
    let pattern = TargetPattern::new(&raw.pattern.value);
    if pattern.is_none() {
        errors.add(&raw.pattern, "`match` is empty or too long; * matches every target");
    } else if let Some(error) = pattern_error(&raw.pattern.value) {
        errors.add(&raw.pattern, error);
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

fn check_buffer(raw: &Spanned<String>, managed_by: ManagedBy, errors: &mut Errors) {
    if let Some(error) = buffer::error(&raw.value) {
        errors.add(raw, error);
    }
    if matches!(managed_by, ManagedBy::Nobody | ManagedBy::Auto) {
        errors.add(
            raw,
            "`buffer` is for targets that an autoscaler of nodes manages: set `managed_by` to cluster-autoscaler, \
             karpenter or eks-auto-mode",
        );
    }
}

fn max_decrease(raw: &Spanned<RawMaxDecrease>, errors: &mut Errors) -> Option<MaxDecrease> {
    let (decrease, text) = match &raw.value {
        RawMaxDecrease::Units(units) => {
            ((*units > 0).then_some(MaxDecrease::Units(*units)), units.to_string())
        }
        RawMaxDecrease::Text(text) => {
            let percent = text.strip_suffix('%').and_then(|percent| percent.parse().ok());
            let percent = percent.filter(|percent| (1..=100).contains(percent));
            (percent.map(MaxDecrease::Percent), text.chars().take(MAX_SHOWN).collect())
        }
    };
    if decrease.is_none() {
        errors.add(
            raw,
            format!(
                "`max_decrease` is `{text}`; a number of units or 1% to 100% is expected; against all decreases, there \
                 is `scalebridge-scaler freeze --direction decreases`"
            ),
        );
    }
    decrease
}
