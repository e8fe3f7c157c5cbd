//! Policies of IAM.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Principal;

const VERSION: &str = "2012-10-17";

/// The policy of one role: statements by their ids.
#[derive(Debug, Default)]
pub(super) struct Policy(BTreeMap<&'static str, Statement>);

#[derive(Debug, Default)]
struct Statement {
    actions: BTreeSet<&'static str>,
    resources: BTreeSet<String>,
    condition: Option<Value>,
}

impl Policy {
    /// Allows the actions on the resource, beside what the statement allows already.
    pub(super) fn allow(&mut self, id: &'static str, actions: &[&'static str], resource: impl Into<String>) {
        let statement = self.0.entry(id).or_default();
        statement.actions.extend(actions);
        statement.resources.insert(resource.into());
    }

    /// The statement holds only under this condition.
    pub(super) fn limit(&mut self, id: &'static str, condition: Value) {
        self.0.entry(id).or_default().condition = Some(condition);
    }

    pub(super) fn to_json(&self) -> Value {
        let statements = self.0.iter().map(|(id, statement)| {
            let Statement { actions, resources, condition } = statement;
            let mut statement =
                json!({ "Sid": id, "Effect": "Allow", "Action": actions, "Resource": resources });
            if let Some(condition) = condition {
                statement["Condition"] = condition.clone();
            }
            statement
        });
        json!({ "Version": VERSION, "Statement": statements.collect::<Vec<_>>() })
    }
}

/// Pods bring tags of their session, which go on to the roles that they assume.
pub(super) fn assume_actions(principal: Principal) -> &'static [&'static str] {
    match principal {
        Principal::PodIdentity => &["sts:AssumeRole", "sts:TagSession"],
        Principal::Lambda | Principal::Ec2 | Principal::Ecs => &["sts:AssumeRole"],
    }
}

pub(super) fn trust_of_service(principal: Principal) -> Value {
    let service = match principal {
        Principal::Lambda => "lambda.amazonaws.com",
        Principal::PodIdentity => "pods.eks.amazonaws.com",
        Principal::Ec2 => "ec2.amazonaws.com",
        Principal::Ecs => "ecs-tasks.amazonaws.com",
    };
    let statement = json!({
        "Sid": "Scaler", "Effect": "Allow", "Principal": { "Service": service },
        "Action": assume_actions(principal),
    });
    json!({ "Version": VERSION, "Statement": [statement] })
}

/// Of a role in another account that `role` assumes.
pub(super) fn trust_of_account(role: &str, external_id: Option<&str>, principal: Principal) -> Value {
    let mut statement = json!({
        "Sid": "Scaler", "Effect": "Allow", "Principal": { "AWS": role }, "Action": "sts:AssumeRole",
    });
    if let Some(id) = external_id {
        statement["Condition"] = json!({ "StringEquals": { "sts:ExternalId": id } });
    }
    let mut statements = vec![statement];
    if principal == Principal::PodIdentity {
        // Without the condition: only the call that assumes the role has an external id.
        statements.push(json!({
            "Sid": "ScalerTags", "Effect": "Allow", "Principal": { "AWS": role }, "Action": "sts:TagSession",
        }));
    }
    json!({ "Version": VERSION, "Statement": statements })
}
