//! The actions that the scaler calls, and the resources that its patterns can lead to.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::parts::Parts;
use super::policy::{Policy, assume_actions};
use super::{Options, Principal};
use crate::config::{Cluster, Config, EksCluster, LedgerSettings, ManagedBy, TargetSettings};
use crate::runtime::worker::region::region_of;

/// The policies of all roles, as they are put together.
pub(super) struct Grants<'c> {
    config: &'c Config,
    options: &'c Options<'c>,
    /// By account; `None` is the scaler's own role.
    policies: BTreeMap<Option<&'c str>, Policy>,
}

impl<'c> Grants<'c> {
    pub(super) fn new(config: &'c Config, options: &'c Options<'c>) -> Self {
        Self { config, options, policies: BTreeMap::new() }
    }

    pub(super) fn policy_of(&self, account: Option<&str>) -> Value {
        self.policies.get(&account).map_or_else(|| Policy::default().to_json(), Policy::to_json)
    }

    /// Whether nothing is done in the account.
    pub(super) fn is_empty(&self, account: &str) -> bool {
        !self.policies.contains_key(&Some(account))
    }

    fn policy(&mut self, account: Option<&'c str>) -> &mut Policy {
        self.policies.entry(account).or_default()
    }

    /// The ARN of a resource. Its account is the one of the role.
    fn arn(&self, account: Option<&str>, service: &str, region: &str, resource: &str) -> String {
        let role = account.and_then(|id| self.config.accounts.get(id));
        let partition = match role {
            Some(role) => role.role_arn.split(':').nth(1).unwrap_or("aws"),
            None => partition(region),
        };
        let account = account.unwrap_or(self.options.account);
        format!("arn:{partition}:{service}:{region}:{account}:{resource}")
    }

    /// The queues, and the roles that are assumed.
    pub(super) fn add_events(&mut self) {
        let (config, options) = (self.config, self.options);
        let worker = config.queue.as_ref().map(|queue| queue.queue_url.as_str());
        let mut receive = |id, url, third| {
            let arn = self.queue_arn(url);
            self.policy(None).allow(id, &["sqs:ReceiveMessage", "sqs:DeleteMessage", third], arn);
        };
        // Whatever the principal: a configuration with a queue is one of a worker.
        if let Some(url) = worker {
            receive("ReceiveEvents", url, "sqs:ChangeMessageVisibility");
        }
        // Lambda's event source mapping, with the rights of the function.
        if options.principal == Principal::Lambda
            && let Some(url) = options.queue_url.or(worker)
        {
            let id = if worker == Some(url) { "ReceiveEvents" } else { "ReceiveEventsAsFunction" };
            receive(id, url, "sqs:GetQueueAttributes");
        }
        if let Some(url) = &config.refusals {
            let arn = self.queue_arn(url);
            self.policy(None).allow("SendRefusals", &["sqs:SendMessage"], arn);
        }
        self.add_queue_key();
        for account in config.accounts.values() {
            self.policy(None).allow("AssumeRoles", assume_actions(options.principal), &account.role_arn);
        }
    }

    fn add_queue_key(&mut self) {
        let Some(key) = self.options.kms_key_arn else { return };
        let sends = self.config.refusals.is_some();
        let is_invoked = self.options.principal == Principal::Lambda && self.options.queue_url.is_some();
        if sends || is_invoked || self.config.queue.is_some() {
            self.policy(None).allow("QueueKey", &["kms:Decrypt"], key);
        }
        if sends {
            self.policy(None).allow("QueueKey", &["kms:GenerateDataKey"], key);
        }
    }

    fn queue_arn(&self, url: &str) -> String {
        let region = region_of(url).unwrap_or(self.options.region);
        let mut path = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').skip(1);
        let (account, name) = (path.next().unwrap_or("*"), path.next().unwrap_or("*"));
        format!("arn:{}:sqs:{region}:{account}:{name}", partition(region))
    }

    pub(super) fn add_ledger(&mut self) {
        let LedgerSettings::DynamoDb { table, region } = &self.config.ledger else { return };
        let region = region.as_deref().unwrap_or(self.options.region);
        let arn = self.arn(None, "dynamodb", region, &format!("table/{table}"));
        let actions = ["dynamodb:BatchGetItem", "dynamodb:PutItem"];
        self.policy(None).allow("Ledger", &actions, arn);
    }

    pub(super) fn add_targets(&mut self) {
        for settings in &self.config.targets {
            for parts in Parts::of(&settings.pattern) {
                self.add_parts(&parts, settings);
            }
        }
    }

    fn add_parts(&mut self, parts: &Parts, settings: &TargetSettings) {
        if parts.has_platform("kubernetes") || settings.buffer.is_some() {
            self.add_clusters(parts);
        }
        // The group behind a buffer is left alone.
        if settings.buffer.is_some() {
            return;
        }
        if parts.has_platform("eks") && parts.has_kind("nodegroup") {
            self.add_node_groups(parts, settings.managed_by);
        }
        if parts.has_platform("ec2") && parts.has_kind("autoscaling-group") {
            self.add_groups(parts, settings.managed_by);
        }
        if parts.has_platform("ecs") && parts.has_kind("service") {
            self.add_services(parts, settings);
        }
    }

    /// The clusters of EKS whose API server is called.
    fn add_clusters(&mut self, parts: &Parts) {
        for (key, cluster) in &self.config.clusters {
            if let Cluster::Eks(EksCluster { name, region, account }) = cluster
                && parts.has_cluster(key)
            {
                let account = account.as_deref();
                let arn = self.arn(account, "eks", region, &format!("cluster/{name}"));
                self.policy(account).allow("FindClusters", &["eks:DescribeCluster"], arn);
            }
        }
    }

    fn add_node_groups(&mut self, parts: &Parts, managed_by: ManagedBy) {
        if matches!(managed_by, ManagedBy::Karpenter | ManagedBy::EksAutoMode) {
            return;
        }
        let Some(group) = parts.name() else { return };
        for (key, cluster) in &self.config.clusters {
            let Cluster::Eks(EksCluster { name, region, account }) = cluster else { continue };
            let account = account.as_deref();
            // An event may leave out the region and the account of a cluster.
            let has_account = parts.has_account(None) || parts.has_account(account);
            let has_region = parts.has_region("-") || parts.has_region(region);
            if parts.has_cluster(key) && has_account && has_region {
                let arn = self.arn(account, "eks", region, &format!("nodegroup/{name}/{group}/*"));
                let actions = ["eks:DescribeNodegroup", "eks:UpdateNodegroupConfig"];
                self.policy(account).allow("NodeGroups", &actions, arn);
            }
        }
    }

    /// The accounts whose targets the pattern matches.
    fn accounts(&self, parts: &Parts) -> Vec<Option<&'c str>> {
        let others = self.config.accounts.keys().map(|id| Some(id.as_str()));
        std::iter::once(None).chain(others).filter(|account| parts.has_account(*account)).collect()
    }

    fn add_groups(&mut self, parts: &Parts, managed_by: ManagedBy) {
        let (id, set) = match managed_by {
            ManagedBy::Nobody => ("AutoScalingGroups", "autoscaling:SetDesiredCapacity"),
            ManagedBy::ClusterAutoscaler => {
                ("AutoScalingGroupMinimums", "autoscaling:UpdateAutoScalingGroup")
            }
            ManagedBy::Auto | ManagedBy::Karpenter | ManagedBy::EksAutoMode => return,
        };
        let (Some(region), Some(name)) = (parts.region(), parts.name()) else { return };
        for account in self.accounts(parts) {
            let resource = format!("autoScalingGroup:*:autoScalingGroupName/{name}");
            let arn = self.arn(account, "autoscaling", &region, &resource);
            let policy = self.policy(account);
            policy.allow(id, &[set], arn);
            // IAM knows no resources of it.
            policy.allow("FindAutoScalingGroups", &["autoscaling:DescribeAutoScalingGroups"], "*");
        }
    }

    fn add_services(&mut self, parts: &Parts, settings: &TargetSettings) {
        let (Some(region), Some(cluster), Some(name)) = (parts.region(), parts.cluster(), parts.name())
        else {
            return;
        };
        // Given by its name or its ARN.
        let cluster = cluster.rsplit('/').next().unwrap_or("*");
        for account in self.accounts(parts) {
            let service = self.arn(account, "ecs", &region, &format!("service/{cluster}/{name}"));
            let target = self.arn(account, "application-autoscaling", &region, "scalable-target/*");
            let policy = self.policy(account);
            policy.allow("Services", &["ecs:DescribeServices", "ecs:UpdateService"], service);
            // IAM knows no resources of it.
            policy.allow("FindScalableTargets", &["application-autoscaling:DescribeScalableTargets"], "*");
            if settings.managed_by != ManagedBy::Nobody {
                let register = "application-autoscaling:RegisterScalableTarget";
                policy.allow("ScalableTargetMinimums", &[register], target);
                let of_services = json!({
                    "application-autoscaling:service-namespace": "ecs",
                    "application-autoscaling:scalable-dimension": "ecs:service:DesiredCount",
                });
                policy.limit("ScalableTargetMinimums", json!({ "StringEquals": of_services }));
            }
        }
    }
}

/// The partition of a region.
fn partition(region: &str) -> &'static str {
    match region {
        _ if region.starts_with("cn-") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ if region.starts_with("eusc-") => "aws-eusc",
        _ => "aws",
    }
}
