//! Services of ECS. Where Application Auto Scaling chooses the number of tasks, its minimum is set.

use aws_sdk_applicationautoscaling as scaling;
use aws_sdk_applicationautoscaling::types::{ScalableDimension, ScalableTarget, ServiceNamespace};
use aws_sdk_ecs as ecs;
use aws_sdk_ecs::types::{SchedulingStrategy, Service as Description};

use super::aws::{Call, capacity, units};
use super::{Group, LeverKind};
use crate::apply::{Capacity, PlatformError};
use crate::aws::read_retries;
use crate::capacity::Lever;
use crate::event::Limits;
use crate::plan::Present;

/// A service.
#[derive(Debug, Clone)]
pub struct Service {
    ecs: ecs::Client,
    scaling: scaling::Client,
    cluster: String,
    name: String,
    owner: Owner,
    /// Of the scalable target.
    resource: String,
    /// For people.
    description: String,
}

/// Who else changes the number of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Application Auto Scaling, if it has a scalable target for the service.
    Auto,
    /// Nobody. If there is a scalable target nevertheless, all changes are refused.
    Nobody,
}

impl Service {
    /// The cluster may be given by its name or its ARN.
    pub fn new(ecs: ecs::Client, scaling: scaling::Client, cluster: &str, name: &str, owner: Owner) -> Self {
        let short = cluster.rsplit('/').next().unwrap_or(cluster);
        let resource = format!("service/{short}/{name}");
        let description = format!("service `{name}` of ECS cluster `{short}`");
        let (cluster, name) = (cluster.to_owned(), name.to_owned());
        Self { ecs, scaling, cluster, name, owner, resource, description }
    }

    async fn describe(&self) -> Result<u32, PlatformError> {
        let call = Call { action: "ecs:DescribeServices", of: &self.description };
        let describe = self.ecs.describe_services().cluster(&self.cluster).services(&self.name);
        let retries = ecs::config::Builder::new().retry_config(read_retries());
        let answer = describe.customize().config_override(retries).send().await;
        let answer = answer.map_err(|error| call.read_error(&error))?;
        let Some(service) = answer.services().first() else {
            let failure = answer.failures().first();
            let reason = failure.and_then(ecs::types::Failure::reason).unwrap_or("MISSING");
            return Err(match reason {
                "MISSING" => {
                    PlatformError::Refused(format!("{} does not exist in its region", self.description))
                }
                reason => PlatformError::Busy(format!("{} of {}: {reason}", call.action, self.description)),
            });
        };
        self.desired(service)
    }

    fn desired(&self, service: &Description) -> Result<u32, PlatformError> {
        let refused = |why: String| Err(PlatformError::Refused(format!("{} {why}", self.description)));
        if service.scheduling_strategy() == Some(&SchedulingStrategy::Daemon) {
            return refused("is a daemon service: it has one task on each instance".to_owned());
        }
        match service.status() {
            Some("ACTIVE") | None => Ok(units(Some(service.desired_count()))),
            Some(status) => refused(format!("is {status}: it is deleted")),
        }
    }

    async fn scalable_target(&self) -> Result<Option<ScalableTarget>, PlatformError> {
        let of = &self.description;
        let call = Call { action: "application-autoscaling:DescribeScalableTargets", of };
        let describe = self
            .scaling
            .describe_scalable_targets()
            .service_namespace(ServiceNamespace::Ecs)
            .resource_ids(&self.resource)
            .scalable_dimension(ScalableDimension::EcsServiceDesiredCount);
        let retries = scaling::config::Builder::new().retry_config(read_retries());
        let answer = describe.customize().config_override(retries).send().await;
        let targets = answer.map_err(|error| call.read_error(&error))?.scalable_targets.unwrap_or_default();
        Ok(targets.into_iter().find(|target| target.resource_id == self.resource))
    }

    fn present(&self, desired: u32, target: Option<&ScalableTarget>) -> Present {
        let (lever, limits) = match target {
            None => (Lever::Size(desired), Limits::default()),
            Some(target) => {
                let (min, max) = (Some(target.min_capacity()), Some(target.max_capacity()));
                let group = Group { min: units(min), desired, max: units(max) };
                (LeverKind::Floor.lever(group), LeverKind::Floor.limits(group))
            }
        };
        let refused = (target.is_some() && self.owner == Owner::Nobody).then(|| {
            format!(
                "{} has a scalable target of Application Auto Scaling, so that `managed_by: nobody` is not \
                 true: set `managed_by: auto`",
                self.description
            )
        });
        Present {
            lever,
            revision: String::new(),
            limits,
            busy: None,
            refuses_increase: refused.clone(),
            refuses_decrease: refused,
        }
    }
}

impl Capacity for Service {
    async fn read(&self) -> Result<Present, PlatformError> {
        // Beside each other: the time of a read is that of one call.
        let (desired, target) = tokio::try_join!(self.describe(), self.scalable_target())?;
        Ok(self.present(desired, target.as_ref()))
    }

    /// Neither service knows tokens or preconditions.
    async fn set(&self, read: &Present, to: u32, _: &str) -> Result<(), PlatformError> {
        let of = &self.description;
        let to = capacity(to)?;
        match read.lever {
            Lever::Size(_) => {
                let call = Call { action: "ecs:UpdateService", of };
                let update = self.ecs.update_service().cluster(&self.cluster).service(&self.name);
                let update = update.desired_count(to).send().await;
                update.map(drop).map_err(|error| call.write_error(&error))
            }
            // Application Auto Scaling raises a number of tasks below the new minimum at once.
            Lever::Floor { .. } => {
                let call = Call { action: "application-autoscaling:RegisterScalableTarget", of };
                let register = self
                    .scaling
                    .register_scalable_target()
                    .service_namespace(ServiceNamespace::Ecs)
                    .resource_id(&self.resource)
                    .scalable_dimension(ScalableDimension::EcsServiceDesiredCount)
                    .min_capacity(to);
                register.send().await.map(drop).map_err(|error| call.write_error(&error))
            }
        }
    }
}
