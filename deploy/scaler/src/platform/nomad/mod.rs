//! Nomad: the count of a job's task group.
//!
//! Reads the job's scale and its scaling policies, and sets the count with the JobModifyIndex that was read as
//! precondition.

mod failure;
mod server;
mod tls;

use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;

use super::call::{read_in_time, write_in_time};
use crate::apply::{Capacity, PlatformError};
use crate::capacity::Lever;
use crate::event::Limits;
use crate::plan::Present;
pub use server::NomadServer;

const DEFAULT_NAMESPACE: &str = "default";

/// A task group of a job.
pub struct TaskGroup {
    server: Arc<NomadServer>,
    namespace: String,
    job: String,
    /// `None` is the only one of the job.
    group: Option<String>,
    event: String,
    reason: String,
}

/// `GET /v1/job/{id}/scale`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct JobScale {
    job_modify_index: u64,
    #[serde(default)]
    job_stopped: bool,
    task_groups: serde_json::Map<String, serde_json::Value>,
}

/// What is needed of `GET /v1/job/{id}`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Job {
    job_modify_index: u64,
    task_groups: Option<Vec<Group>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Group {
    name: String,
    scaling: Option<Scaling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Scaling {
    min: Option<i64>,
    max: Option<i64>,
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default)]
    policy: Option<serde_json::Map<String, serde_json::Value>>,
}

impl TaskGroup {
    /// `name` is `JOB/GROUP`, or `JOB` if it has one group only. Nomad shows `reason`, that of the event `event`, with the
    /// change.
    ///
    /// A slash in a job's name cannot be told from the one before the group: the last slash is it, unless the name ends
    /// with it.
    pub fn new(
        server: Arc<NomadServer>,
        namespace: Option<&str>,
        name: &str,
        (event, reason): (&str, &str),
    ) -> Self {
        let (job, group) = match name.rsplit_once('/') {
            Some((job, "")) => (job, None),
            Some((job, group)) => (job, Some(group.to_owned())),
            None => (name, None),
        };
        Self {
            server,
            namespace: namespace.unwrap_or(DEFAULT_NAMESPACE).to_owned(),
            job: job.to_owned(),
            group,
            event: event.to_owned(),
            reason: reason.to_owned(),
        }
    }

    /// For people: `job web, group api`.
    fn label(&self) -> String {
        match &self.group {
            Some(group) => format!("job {}, group {group}", self.job),
            None => format!("job {}", self.job),
        }
    }

    fn path(&self, suffix: &str) -> String {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        format!("/v1/job/{}{suffix}?namespace={}", encoded(&self.job), encoded(&self.namespace))
    }

    async fn look(&self) -> Result<Present, PlatformError> {
        let label = self.label();
        let unreadable = |failure: failure::Failure| failure.of_read(&label);
        let scale: JobScale = self.server.get(&self.path("/scale")).await.map_err(unreadable)?;
        if scale.job_stopped {
            return Err(PlatformError::Refused(format!("{label}: the job is stopped")));
        }
        let group = self.choose(&scale)?;
        let Some(desired) =
            scale.task_groups[&group]["Desired"].as_u64().and_then(|count| count.try_into().ok())
        else {
            return Err(PlatformError::Busy(format!("{label}: the answer has no count")));
        };
        let job: Job = self.server.get(&self.path("")).await.map_err(unreadable)?;
        if job.job_modify_index != scale.job_modify_index {
            return Err(PlatformError::Busy(format!("{label} was changed while it was read")));
        }
        let scaling = job
            .task_groups
            .into_iter()
            .flatten()
            .find(|found| found.name == group)
            .and_then(|found| found.scaling);
        let refusal = scaling.as_ref().filter(|scaling| scaling.is_autoscaled()).map(|_| {
            format!(
                "{label}: Nomad Autoscaler owns the count by the group's scaling policy: set `enabled = false` there, or \
                 scale with its policy"
            )
        });
        Ok(Present {
            lever: Lever::Size(desired),
            revision: format!("{} {group}", scale.job_modify_index),
            limits: scaling.map_or_else(Limits::default, |scaling| scaling.limits()),
            busy: None,
            refuses_increase: refusal.clone(),
            refuses_decrease: refusal,
        })
    }

    /// The name of the group.
    fn choose(&self, scale: &JobScale) -> Result<String, PlatformError> {
        let names: Vec<_> = scale.task_groups.keys().map(String::as_str).collect();
        match (&self.group, names.as_slice()) {
            (Some(group), names) if names.contains(&group.as_str()) => Ok(group.clone()),
            (None, [only]) => Ok((*only).to_owned()),
            (Some(_), names) => Err(PlatformError::Refused(format!(
                "{}: the job has no such group; it has {}",
                self.label(),
                names.join(", ")
            ))),
            (None, names) => Err(PlatformError::Refused(format!(
                "{}: the job has the groups {}; name one: `{}/GROUP`",
                self.label(),
                names.join(", "),
                self.job
            ))),
        }
    }

    async fn scale(&self, read: &Present, to: u32, token: &str) -> Result<(), PlatformError> {
        let label = self.label();
        let parts =
            read.revision.split_once(' ').and_then(|(index, group)| Some((index.parse().ok()?, group)));
        let Some((index, group)): Option<(u64, &str)> = parts else {
            return Err(PlatformError::Refused(format!("{label} was read without its index")));
        };
        let message = match token == self.event {
            true => self.reason.clone(),
            false => format!("completes event {token}"),
        };
        let request = json!({
            "Count": to,
            "Target": { "Group": group },
            "Message": format!("scalebridge: {message}"),
            "Meta": { "scalebridge_event": token },
            "JobModifyIndex": index,
        });
        self.server.post(&self.path("/scale"), &request).await.map_err(|failure| failure.of_write(&label))
    }
}

impl Scaling {
    /// The policy is an autoscaler's. A block without one only has the bounds.
    fn is_autoscaled(&self) -> bool {
        self.enabled != Some(false) && self.policy.as_ref().is_some_and(|policy| !policy.is_empty())
    }

    /// Nomad keeps to them whether the policy is enabled or not.
    fn limits(&self) -> Limits {
        let bound = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
        Limits { min_capacity: bound(self.min), max_capacity: bound(self.max) }
    }
}

impl Capacity for TaskGroup {
    async fn read(&self) -> Result<Present, PlatformError> {
        read_in_time(&self.label(), self.look()).await
    }

    async fn set(&self, read: &Present, to: u32, token: &str) -> Result<(), PlatformError> {
        write_in_time(&self.label(), self.scale(read, to, token)).await
    }
}
