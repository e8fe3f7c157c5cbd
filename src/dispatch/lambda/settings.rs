//! The settings of Lambda functions.

use super::super::aws::{self, Access, ArnDefaults, Permission};
use super::name::{FunctionName, is_qualifier};
use crate::config::read::{Code, Diagnostics, Fields, Node, flag, keyword, number, owned_text, text};
use crate::domain::size_limit::SizeLimit;

/// Settings of a Lambda function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The name or ARN, in a form that Lambda accepts.
    pub function: String,
    /// An alias, a version or `$LATEST`.
    pub qualifier: Option<String>,
    /// Whether the bridge waits for the function's response.
    pub invocation_type: InvocationType,
    /// Maximum number of events per call, from 1 to [`Settings::MAX_EVENTS`]. If above 1, the payload is an
    /// array.
    pub max_events: usize,
    /// Whether the function is durable: each event starts the execution that has its id as name.
    pub durable: bool,
    /// Region, endpoint and role.
    pub access: Access,
}

/// The invocation type of a Lambda function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum InvocationType {
    /// Asynchronous: Lambda queues the event and responds immediately.
    #[default]
    Event,
    /// Synchronous: the bridge waits for the response, and a `FunctionError` is a failure.
    RequestResponse,
}

impl InvocationType {
    /// Maximum payload of one call: Lambda's limits, in decimal bytes.
    pub(crate) const fn max_payload_bytes(self) -> usize {
        match self {
            Self::Event => 1_000_000,
            Self::RequestResponse => 6_000_000,
        }
    }
}

impl Settings {
    /// More events would exceed the payload limit in most cases.
    pub(crate) const MAX_EVENTS: usize = 100;

    pub(crate) fn size_limit(&self) -> SizeLimit {
        // The brackets of the array.
        let brackets = if self.max_events > 1 { 2 } else { 0 };
        SizeLimit::of_body(self.invocation_type.max_payload_bytes() - brackets)
    }

    /// The function as operators see it.
    pub(crate) fn address(&self) -> String {
        let qualifier = self.qualifier.iter().map(|qualifier| format!(":{qualifier}"));
        format!("{}{}", self.function, qualifier.collect::<String>())
    }

    pub(crate) fn permission<'d>(&'d self, defaults: &ArnDefaults<'_>) -> Permission<'d> {
        let (role, resource) = (self.access.role.as_ref(), self.arn(defaults));
        Permission { role, action: "lambda:InvokeFunction", resource }
    }

    /// The ARN of the function; with a qualifier, of that alias or version only.
    fn arn(&self, defaults: &ArnDefaults<'_>) -> String {
        // Always valid: it has been checked.
        let Some(parsed) = FunctionName::parse(&self.function) else { return self.function.clone() };
        let region = parsed.region.or(self.access.region.as_deref()).unwrap_or(defaults.region);
        let account = parsed.account.unwrap_or(defaults.account);
        let partition = parsed.partition.unwrap_or_else(|| aws::partition(region));
        let arn = format!("arn:{partition}:lambda:{region}:{account}:function:{}", parsed.name);
        match parsed.qualifier.or(self.qualifier.as_deref()) {
            Some(qualifier) => format!("{arn}:{qualifier}"),
            None => arn,
        }
    }
}

/// Reads and checks the settings.
pub(crate) fn read(node: &Node, diagnostics: &mut Diagnostics) -> Option<Settings> {
    let types = [("event", InvocationType::Event), ("request_response", InvocationType::RequestResponse)];
    let mut fields = Fields::from_node(node, "destinations.*.lambda", diagnostics)?;
    let function = fields.get_required("function", FUNCTION, function);
    let qualifier = fields.get("qualifier", qualifier);
    let invocation_type = fields.get("invocation_type", keyword(&types)).unwrap_or_default();
    let region = fields.get("region", owned_text);
    let endpoint_url = fields.get("endpoint_url", aws::endpoint);
    let role = aws::role(&mut fields);
    let max_events = fields.get("max_events", number(1..=Settings::MAX_EVENTS as i64)).unwrap_or(1);
    let durable = fields.get("durable", flag).unwrap_or(false);
    if durable && max_events > 1 {
        let message =
            "`durable: true` requires `max_events: 1`: an execution is named by the id of its event";
        let help = "remove `max_events`, or `durable`";
        fields.diagnostics.add_with_help(
            Code::Contradiction,
            fields.location_of("max_events"),
            message,
            help,
        );
    }
    // The bridge calls the function for one event of a target at a time. Lambda's own queue may still
    // reorder the calls.
    let ordered = fields.get("per_target_order", flag).unwrap_or(false);
    if ordered && invocation_type == InvocationType::Event {
        let message = "`per_target_order` is not guaranteed with `invocation_type: event`: Lambda queues the calls \
                       and may run them in another order";
        let help = "use `invocation_type: request_response`: the next event of a target is then sent after the \
                    function has responded to the previous one";
        fields.diagnostics.add_with_help(
            Code::OrderNotGuaranteed,
            fields.location_of("per_target_order"),
            message,
            help,
        );
    }
    fields.finish();
    let function = function?;
    let parsed = FunctionName::parse(&function);
    let region =
        aws::effective_region(node, region, parsed.and_then(|parsed| parsed.region), "function", diagnostics);
    let function_qualifier = parsed.and_then(|parsed| parsed.qualifier);
    if let (Some(qualifier), Some(other)) =
        (&qualifier, function_qualifier.filter(|other| Some(*other) != qualifier.as_deref()))
    {
        let message = format!("`qualifier` is `{qualifier}`, but `function` ends in `{other}`");
        let location = &node.get("qualifier").unwrap_or(node).location;
        diagnostics.add_with_help(Code::Contradiction, location, message, "keep only one of them");
    }
    if durable && qualifier.is_none() && function_qualifier.is_none() && node.get("qualifier").is_none() {
        let message = "`durable: true` requires a version or an alias: Lambda refuses to call a durable function without one";
        let help = "add `qualifier: live`, an alias or a version of the function";
        let location = &node.get("durable").unwrap_or(node).location;
        diagnostics.add_with_help(Code::Contradiction, location, message, help);
    }
    let access = Access { region, endpoint_url, role };
    Some(Settings { function, qualifier, invocation_type, max_events, durable, access })
}

const FUNCTION: &str = "function: nodegroup-scaler";

fn function(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = text(node, diagnostics)?;
    if FunctionName::parse(text).is_some() {
        return Some(text.to_owned());
    }
    let message = format!("`{text}` is not a valid function name or ARN");
    let help = format!("use the name, the ARN or ACCOUNT:function:NAME, for example `{FUNCTION}`");
    diagnostics.add_with_help(Code::Value, &node.location, message, help);
    None
}

fn qualifier(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = text(node, diagnostics)?;
    if is_qualifier(text) {
        return Some(text.to_owned());
    }
    let message = format!("`{text}` is not a valid function version or alias");
    diagnostics.add_with_help(
        Code::Value,
        &node.location,
        message,
        "use a version or an alias, for example `qualifier: live`, or remove it",
    );
    None
}
