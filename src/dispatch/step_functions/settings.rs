//! The settings of state machines.

use super::super::aws::{self, Access, Arn, Permission, is_identifier};
use super::MAX_INPUT_BYTES;
use crate::config::read::{Code, Diagnostics, Fields, Node, owned_text, text};
use crate::domain::size_limit::SizeLimit;

/// Settings of a state machine of Step Functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `arn:PARTITION:states:REGION:ACCOUNT:stateMachine:NAME`, optionally with a version or an alias.
    pub state_machine_arn: String,
    /// Region, endpoint and role.
    pub access: Access,
}

impl Settings {
    pub(crate) fn size_limit() -> SizeLimit {
        SizeLimit::of_body(MAX_INPUT_BYTES)
    }

    /// IAM checks the ARN of the state machine, also for a version or an alias.
    pub(crate) fn permission(&self) -> Permission<'_> {
        let resource = match StateMachine::parse(&self.state_machine_arn) {
            Some(StateMachine { arn: Arn { partition, region, account, .. }, name }) => {
                format!("arn:{partition}:states:{region}:{account}:stateMachine:{name}")
            }
            None => self.state_machine_arn.clone(),
        };
        Permission { role: self.access.role.as_ref(), action: "states:StartExecution", resource }
    }
}

/// Reads and checks the settings.
pub(crate) fn read(node: &Node, diagnostics: &mut Diagnostics) -> Option<Settings> {
    let mut fields = Fields::from_node(node, "destinations.*.step_functions", diagnostics)?;
    let arn = fields.get_required("state_machine_arn", STATE_MACHINE_ARN, state_machine_arn);
    let region = fields.get("region", owned_text);
    let endpoint_url = fields.get("endpoint_url", aws::endpoint);
    let role = aws::role(&mut fields);
    fields.finish();
    let state_machine_arn = arn?;
    let arn_region = StateMachine::parse(&state_machine_arn).map(|parsed| parsed.arn.region);
    let region = aws::effective_region(node, region, arn_region, "state_machine_arn", diagnostics);
    Some(Settings { state_machine_arn, access: Access { region, endpoint_url, role } })
}

const STATE_MACHINE_ARN: &str =
    "state_machine_arn: arn:aws:states:eu-west-1:123456789012:stateMachine:scaling";

/// A parsed ARN of a state machine, or of a version or an alias of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StateMachine<'t> {
    arn: Arn<'t>,
    name: &'t str,
}

impl<'t> StateMachine<'t> {
    /// `None` also for the ARN of an execution, an activity or a map run.
    fn parse(text: &'t str) -> Option<Self> {
        let arn = Arn::parse(text, "states")?;
        let parts: Vec<&str> = arn.resource.split(':').collect();
        let (name, qualifier) = match parts[..] {
            ["stateMachine", name] => (name, None),
            ["stateMachine", name, qualifier] => (name, Some(qualifier)),
            _ => return None,
        };
        let is_alias = |text: &str| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            (1..=80).contains(&text.len()) && text.bytes().all(allowed)
        };
        (is_identifier(name, 80) && qualifier.is_none_or(is_alias)).then_some(Self { arn, name })
    }
}

fn state_machine_arn(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = text(node, diagnostics)?;
    if StateMachine::parse(text).is_some() {
        return Some(text.to_owned());
    }
    let message = format!("`{text}` is not a valid state machine ARN");
    let help = format!(
        "copy it from Step Functions, for example `{STATE_MACHINE_ARN}`; a version (`:3`) or an alias (`:live`) can follow"
    );
    diagnostics.add_with_help(Code::Value, &node.location, message, help);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_machine_has_an_arn_which_can_name_a_version_or_an_alias() {
        let arn = |resource: &str| format!("arn:aws:states:eu-west-1:123456789012:{resource}");
        for resource in ["stateMachine:scaling", "stateMachine:scaling:3", "stateMachine:scaling:live-1.x"] {
            let state_machine_arn = arn(resource);
            let settings = Settings { state_machine_arn, access: Access::default() };
            assert!(StateMachine::parse(&settings.state_machine_arn).is_some(), "{resource}");
            assert_eq!(settings.permission().resource, arn("stateMachine:scaling"));
        }
        let long = format!("stateMachine:{}", "x".repeat(81));
        for resource in [
            "stateMachine",
            "stateMachine:",
            "stateMachine:scaling:",
            "stateMachine:scaling:live:3",
            "stateMachine:scaling/map",
            "statemachine:scaling",
            "execution:scaling:b3f0",
            "express:scaling:b3f0:1",
            "activity:scaling",
            &long,
        ] {
            assert_eq!(StateMachine::parse(&arn(resource)), None, "{resource}");
        }
    }
}
