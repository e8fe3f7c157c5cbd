//! Auto Scaling groups. Nothing drains the nodes of a cluster that a smaller group ends.

use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::types::AutoScalingGroup as Description;

use super::aws::{Call, capacity, units};
use super::{Group, LeverKind};
use crate::apply::{Capacity, PlatformError};
use crate::aws::read_retries;
use crate::plan::Present;

/// The group of nodes of this cluster.
const CLUSTER_TAG: &str = "kubernetes.io/cluster/";
/// The group belongs to this node group of EKS.
const NODEGROUP_TAG: &str = "eks:nodegroup-name";

/// An Auto Scaling group.
#[derive(Debug, Clone)]
pub struct AutoScalingGroup {
    client: Client,
    name: String,
    kind: LeverKind,
    allow_undrained: bool,
    /// For people.
    description: String,
}

impl AutoScalingGroup {
    /// `allow_undrained`: whether nodes of a cluster may be ended without draining them.
    pub fn new(client: Client, name: &str, kind: LeverKind, allow_undrained: bool) -> Self {
        let description = format!("Auto Scaling group `{name}`");
        Self { client, name: name.to_owned(), kind, allow_undrained, description }
    }

    fn present(&self, group: &Description) -> Result<Present, PlatformError> {
        if let Some(status) = group.status() {
            return Err(PlatformError::Refused(format!("{} has the status `{status}`", self.description)));
        }
        let size = Group {
            min: units(group.min_size()),
            desired: units(group.desired_capacity()),
            max: units(group.max_size()),
        };
        Ok(Present {
            lever: self.kind.lever(size),
            revision: String::new(),
            limits: self.kind.limits(size),
            busy: None,
            refuses_increase: self.suspended(group, "Launch"),
            refuses_decrease: self.refuses_decrease(group),
        })
    }

    /// Why the process does not run, so that the group would not become what it should be.
    fn suspended(&self, group: &Description, process: &str) -> Option<String> {
        let suspended = group.suspended_processes().iter().find(|of| of.process_name() == Some(process))?;
        let why = suspended.suspension_reason().map_or_else(String::new, |reason| format!(" ({reason})"));
        Some(format!("the process `{process}` of {} is suspended{why}: resume it", self.description))
    }

    /// A lower minimum ends no instance by itself: the autoscaler that owns the group does, and drains it.
    fn refuses_decrease(&self, group: &Description) -> Option<String> {
        if self.kind == LeverKind::Floor {
            return None;
        }
        self.suspended(group, "Terminate").or_else(|| self.undrained(group))
    }

    fn undrained(&self, group: &Description) -> Option<String> {
        let has =
            |prefix| group.tags().iter().find_map(|tag| tag.key().filter(|key| key.starts_with(prefix)));
        let tag = has(CLUSTER_TAG).filter(|_| !self.allow_undrained)?;
        let help = match has(NODEGROUP_TAG) {
            Some(_) => "change its node group by `eks/nodegroup`, which drains them",
            None => "let an autoscaler of the cluster decrease it, or set `allow_undrained: true`",
        };
        Some(format!(
            "{} has nodes of a cluster (tag `{tag}`), which would not be drained: {help}",
            self.description
        ))
    }
}

impl Capacity for AutoScalingGroup {
    async fn read(&self) -> Result<Present, PlatformError> {
        let call = Call { action: "autoscaling:DescribeAutoScalingGroups", of: &self.description };
        let describe = self.client.describe_auto_scaling_groups().auto_scaling_group_names(&self.name);
        let retries = aws_sdk_autoscaling::config::Builder::new().retry_config(read_retries());
        let answer = describe.customize().config_override(retries).send().await;
        let answer = answer.map_err(|error| call.read_error(&error))?;
        let mut groups = answer.auto_scaling_groups().iter();
        match groups.find(|group| group.auto_scaling_group_name() == Some(&self.name)) {
            Some(group) => self.present(group),
            None => Err(PlatformError::Refused(format!("{} does not exist in its region", self.description))),
        }
    }

    /// Auto Scaling knows no tokens and no preconditions.
    async fn set(&self, _: &Present, to: u32, _: &str) -> Result<(), PlatformError> {
        let of = &self.description;
        let to = capacity(to)?;
        match self.kind {
            LeverKind::Size => {
                let call = Call { action: "autoscaling:SetDesiredCapacity", of };
                let set = self.client.set_desired_capacity().auto_scaling_group_name(&self.name);
                let set = set.desired_capacity(to).honor_cooldown(false).send().await;
                set.map(drop).map_err(|error| call.write_error(&error))
            }
            // A size below the new minimum becomes the minimum.
            LeverKind::Floor => {
                let call = Call { action: "autoscaling:UpdateAutoScalingGroup", of };
                let update = self.client.update_auto_scaling_group().auto_scaling_group_name(&self.name);
                let update = update.min_size(to).send().await;
                update.map(drop).map_err(|error| call.write_error(&error))
            }
        }
    }
}
