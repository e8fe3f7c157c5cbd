//! The settings of EventBridge event buses.

use super::super::aws::{self, Access, Arn, ArnDefaults, Permission};
use super::{MAX_CALL_BYTES, MAX_ENTRY_BYTES_BESIDE_DETAIL};
use crate::config::read::{Code, Diagnostics, Fields, Node, number, owned_text, text};
use crate::domain::size_limit::SizeLimit;

/// The default of `max_entry_bytes`. Some targets of rules, such as SNS topics and state machines, take no more.
const DEFAULT_ENTRY_BYTES: usize = 256 * 1024;

/// Settings of an event bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The name or ARN.
    pub bus: String,
    /// Region, endpoint and role.
    pub access: Access,
    /// Maximum size of an entry, from [`Settings::MIN_ENTRY_BYTES`] to [`Settings::MAX_ENTRY_BYTES`].
    pub max_entry_bytes: usize,
}

impl Settings {
    /// A smaller limit has no room for a single alert.
    pub(crate) const MIN_ENTRY_BYTES: usize = 8 * 1024;
    /// The limit of EventBridge, for one entry as for all of a call.
    pub(crate) const MAX_ENTRY_BYTES: usize = MAX_CALL_BYTES;

    /// EventBridge counts the source, the detail type and the time of an entry.
    pub(crate) fn size_limit(&self) -> SizeLimit {
        SizeLimit {
            bytes: self.max_entry_bytes,
            metadata_bytes: MAX_ENTRY_BYTES_BESIDE_DETAIL,
            subject_copies: 0,
        }
    }

    pub(crate) fn permission<'d>(&'d self, defaults: &ArnDefaults<'_>) -> Permission<'d> {
        let resource = match parse_bus(&self.bus) {
            Some(Bus::Name(name)) => {
                let region = self.access.region.as_deref().unwrap_or(defaults.region);
                let (partition, account) = (aws::partition(region), defaults.account);
                format!("arn:{partition}:events:{region}:{account}:event-bus/{name}")
            }
            _ => self.bus.clone(),
        };
        Permission { role: self.access.role.as_ref(), action: "events:PutEvents", resource }
    }
}

/// Reads and checks the settings.
pub(crate) fn read(node: &Node, diagnostics: &mut Diagnostics) -> Option<Settings> {
    let mut fields = Fields::from_node(node, "destinations.*.eventbridge", diagnostics)?;
    let bytes = Settings::MIN_ENTRY_BYTES as i64..=Settings::MAX_ENTRY_BYTES as i64;
    let bus = fields.get_required("bus", BUS, bus);
    let region = fields.get("region", owned_text);
    let endpoint_url = fields.get("endpoint_url", aws::endpoint);
    let max_entry_bytes = fields.get("max_entry_bytes", number(bytes)).unwrap_or(DEFAULT_ENTRY_BYTES);
    let role = aws::role(&mut fields);
    fields.finish();
    let bus = bus?;
    let bus_region = match parse_bus(&bus) {
        Some(Bus::Arn(arn)) => Some(arn.region),
        _ => None,
    };
    let region = aws::effective_region(node, region, bus_region, "bus", diagnostics);
    Some(Settings { bus, access: Access { region, endpoint_url, role }, max_entry_bytes })
}

const BUS: &str = "bus: scaling";

/// How a bus is named.
enum Bus<'t> {
    Name(&'t str),
    Arn(Arn<'t>),
}

/// Parses the name or ARN of a bus; `None` if it is neither.
fn parse_bus(text: &str) -> Option<Bus<'_>> {
    if !text.contains(':') {
        return is_bus_name(text).then_some(Bus::Name(text));
    }
    let arn = Arn::parse(text, "events")?;
    let name = arn.resource.strip_prefix("event-bus/")?;
    is_bus_name(name).then_some(Bus::Arn(arn))
}

fn is_bus_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    // Only AWS' partners send to the buses of partners.
    (1..=256).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with("aws.partner/")
}

fn bus(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = text(node, diagnostics)?;
    if parse_bus(text).is_some() {
        return Some(text.to_owned());
    }
    let message = format!("`{text}` is not a valid name or ARN of an event bus");
    let help = "use the name, for example `bus: scaling`, `bus: default`, or \
                `bus: arn:aws:events:eu-west-1:123456789012:event-bus/scaling`";
    diagnostics.add_with_help(Code::Value, &node.location, message, help);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bus_is_named_or_has_an_arn() {
        let arn = "arn:aws:events:eu-west-1:123456789012:event-bus/team/scaling";
        for text in ["default", "scaling-1_x.y/z", arn] {
            assert!(parse_bus(text).is_some(), "{text}");
        }
        let long = "x".repeat(257);
        for text in [
            "",
            "a b",
            "aws.partner/example.com/1",
            "arn:aws:events:eu-west-1:123456789012:rule/scaling",
            "arn:aws:events:eu-west-1:123456789012:event-bus/",
            "arn:aws:sns:eu-west-1:123456789012:scaling",
            &long,
        ] {
            assert!(parse_bus(text).is_none(), "{text}");
        }
    }
}
