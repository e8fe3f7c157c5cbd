//! Managed node groups of EKS. EKS drains the nodes that it removes.

use aws_sdk_eks::Client;
use aws_sdk_eks::types::{Nodegroup, NodegroupScalingConfig, NodegroupStatus};

use super::aws::{Call, capacity, units};
use super::{Group, LeverKind};
use crate::apply::{Capacity, PlatformError};
use crate::aws::read_retries;
use crate::plan::Present;

/// A managed node group.
#[derive(Debug, Clone)]
pub struct NodeGroup {
    client: Client,
    cluster: String,
    name: String,
    kind: LeverKind,
    /// For people.
    description: String,
}

impl NodeGroup {
    pub fn new(client: Client, cluster: &str, name: &str, kind: LeverKind) -> Self {
        let description = format!("node group `{name}` of EKS cluster `{cluster}`");
        Self { client, cluster: cluster.to_owned(), name: name.to_owned(), kind, description }
    }

    fn present(&self, group: &Nodegroup) -> Result<Present, PlatformError> {
        use NodegroupStatus::{CreateFailed, Creating, DeleteFailed, Deleting, Updating};
        let description = &self.description;
        let refused = |why: &str| Err(PlatformError::Refused(format!("{description} {why}")));
        let busy = match group.status() {
            Some(Deleting) => return refused("is being deleted"),
            Some(CreateFailed) => return refused("could not be created: create it anew"),
            Some(DeleteFailed) => return refused("could not be deleted: delete it, or create it anew"),
            Some(status @ (Creating | Updating)) => {
                Some(format!("{description} is {}: it can be changed when that has ended", status.as_str()))
            }
            _ => None,
        };
        let Some(config) = group.scaling_config() else { return refused("has no scaling configuration") };
        let group = Group {
            min: units(config.min_size()),
            desired: units(config.desired_size()),
            max: units(config.max_size()),
        };
        Ok(Present {
            lever: self.kind.lever(group),
            revision: String::new(),
            limits: self.kind.limits(group),
            busy,
            refuses_increase: None,
            refuses_decrease: None,
        })
    }

    /// A minimum above the desired size is not accepted, so that a raised minimum raises that as well.
    fn scaling_config(&self, read: &Present, to: u32) -> Result<NodegroupScalingConfig, PlatformError> {
        let config = NodegroupScalingConfig::builder();
        let desired = read.lever.current();
        let config = match self.kind {
            LeverKind::Size => config.desired_size(capacity(to)?),
            LeverKind::Floor if to > desired => config.min_size(capacity(to)?).desired_size(capacity(to)?),
            LeverKind::Floor => config.min_size(capacity(to)?),
        };
        Ok(config.build())
    }
}

impl Capacity for NodeGroup {
    async fn read(&self) -> Result<Present, PlatformError> {
        let call = Call { action: "eks:DescribeNodegroup", of: &self.description };
        let describe =
            self.client.describe_nodegroup().cluster_name(&self.cluster).nodegroup_name(&self.name);
        let retries = aws_sdk_eks::config::Builder::new().retry_config(read_retries());
        let answer = describe.customize().config_override(retries).send().await;
        let answer = answer.map_err(|error| call.read_error(&error))?;
        match answer.nodegroup() {
            Some(group) => self.present(group),
            None => Err(PlatformError::Busy(format!("{} has an answer without a node group", call.action))),
        }
    }

    async fn set(&self, read: &Present, to: u32, token: &str) -> Result<(), PlatformError> {
        let call = Call { action: "eks:UpdateNodegroupConfig", of: &self.description };
        let update = self
            .client
            .update_nodegroup_config()
            .cluster_name(&self.cluster)
            .nodegroup_name(&self.name)
            .scaling_config(self.scaling_config(read, to)?)
            .client_request_token(token);
        update.send().await.map(drop).map_err(|error| call.write_error(&error))
    }
}
