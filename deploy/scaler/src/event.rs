//! Reads an event strictly: what is not understood completely changes nothing.

use scalebridge::domain::event::{Adjustment, AdjustmentType, DATA_SCHEMA};
use scalebridge::domain::target::{Platform, Target};
use scalebridge::domain::time::Time;
use serde::Deserialize;

/// The maximum number of ids in `data.reverts`.
const MAX_REVERTS: usize = 1_000;
/// More is no capacity of anything, and sums of such values do not overflow.
const MAX_VALUE: u64 = 1_000_000_000;
/// The length of an event's id: 32 hex digits.
const ID_LENGTH: usize = 32;
/// Of a value that is shown in an error, in characters.
const MAX_SHOWN: usize = 100;
/// Of what the reader of JSON says, which repeats values.
const MAX_MESSAGE: usize = 300;

/// A scaling event that asks for a change of capacity.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalingEvent {
    /// The same in every copy of the event.
    pub id: String,
    /// The key of the target, `platform/kind/account/region/cluster/namespace/name`.
    pub subject: String,
    pub target: Target,
    pub rule: String,
    pub reason: String,
    /// Rises with each event of the target.
    pub sequence: u64,
    /// The event is not acted on later.
    pub expirytime: Time,
    pub adjustment: Adjustment,
    /// The bounds of the rule.
    pub limits: Limits,
    /// The increases that a decrease answers. Empty: it is not bounded by them.
    pub reverts: Vec<String>,
}

/// Bounds of a capacity; `None` is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, Deserialize)]
pub struct Limits {
    #[serde(default)]
    pub min_capacity: Option<u32>,
    #[serde(default)]
    pub max_capacity: Option<u32>,
}

/// Why a text is not an event that can be acted on. The text names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

#[derive(Deserialize)]
struct Document {
    specversion: String,
    id: String,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    sequence: String,
    expirytime: String,
    #[serde(default)]
    dataschema: Option<String>,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    rule: String,
    action: String,
    adjustment: Option<Adjustment>,
    target: Target,
    #[serde(default)]
    limits: Option<Limits>,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    reverts: Vec<String>,
}

impl ScalingEvent {
    /// Reads an event of `v1`.
    ///
    /// # Errors
    /// It is not one, or asks for something that the contract of events does not allow.
    pub fn read(text: &str) -> Result<Self, Malformed> {
        let document: Document = serde_json::from_str(text)
            .map_err(|error| Malformed(format!("the event cannot be read: {}", json_error(&error))))?;
        let Document { specversion, id, kind, subject, sequence, expirytime, dataschema, data } = document;
        require(specversion == "1.0", || {
            format!("specversion is `{}`; 1.0 is supported", shown(&specversion))
        })?;
        let schema = dataschema.unwrap_or_else(|| DATA_SCHEMA.to_owned());
        require(schema == DATA_SCHEMA, || {
            format!("dataschema is `{}`; `{DATA_SCHEMA}` is supported", shown(&schema))
        })?;
        require(is_id(&id), || format!("id is `{}`; 32 hexadecimal digits are expected", shown(&id)))?;
        let action = action_of(&kind)?;
        require(action == data.action, || {
            format!("type is `{}`, but data.action is `{}`", shown(&kind), shown(&data.action))
        })?;
        require(subject == data.target.key().as_str(), || {
            format!(
                "subject is `{}`, but data.target is `{}`",
                shown(&subject),
                shown(data.target.key().as_str())
            )
        })?;
        check_target(&data.target)?;
        let sequence = sequence.parse().map_err(|_| {
            Malformed(format!("sequence is `{}`; a whole number is expected", shown(&sequence)))
        })?;
        let expirytime = Time::parse(&expirytime).map_err(|_| {
            Malformed(format!(
                "expirytime is `{}`; a time such as 2026-11-22T17:55:20.062Z is expected",
                shown(&expirytime)
            ))
        })?;
        let Some(adjustment) = data.adjustment else {
            return Err(Malformed("data.adjustment is null: the event changes no capacity".to_owned()));
        };
        check_adjustment(action, &adjustment)?;
        let limits = data.limits.unwrap_or_default();
        if let (Some(min), Some(max)) = (limits.min_capacity, limits.max_capacity) {
            require(min <= max, || {
                format!("data.limits contradict: min_capacity {min}, max_capacity {max}")
            })?;
        }
        require(data.reverts.len() <= MAX_REVERTS && data.reverts.iter().all(|id| is_id(id)), || {
            format!("data.reverts is not a list of at most {MAX_REVERTS} ids of events")
        })?;
        let Data { rule, target, reason, reverts, .. } = data;
        Ok(Self { id, subject, target, rule, reason, sequence, expirytime, adjustment, limits, reverts })
    }
}

/// A value of the event, which has any length and any characters, on one line.
fn shown(value: &str) -> String {
    one_line(value, MAX_SHOWN)
}

/// The place is at the end, and is kept.
fn json_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(message) => format!("{}{place}", one_line(message, MAX_MESSAGE)),
        None => one_line(&text, MAX_MESSAGE),
    }
}

fn one_line(text: &str, limit: usize) -> String {
    let mut line = String::new();
    for (at, character) in text.chars().enumerate() {
        match character {
            _ if at == limit => {
                line.push('…');
                break;
            }
            character if character.is_control() => line.extend(character.escape_default()),
            character => line.push(character),
        }
    }
    line
}

fn require(is_valid: bool, message: impl FnOnce() -> String) -> Result<(), Malformed> {
    if is_valid { Ok(()) } else { Err(Malformed(message())) }
}

fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
}

fn action_of(kind: &str) -> Result<&'static str, Malformed> {
    match kind {
        "io.scalebridge.scale_out.v1" => Ok("scale_out"),
        "io.scalebridge.scale_in.v1" => Ok("scale_in"),
        "io.scalebridge.set_capacity.v1" => Ok("set_capacity"),
        "io.scalebridge.notify.v1" => Err(Malformed("a `notify` event changes no capacity".to_owned())),
        _ => Err(Malformed(format!(
            "type is `{}`; io.scalebridge.scale_out.v1, scale_in.v1 and set_capacity.v1 are supported",
            shown(kind)
        ))),
    }
}

fn check_target(target: &Target) -> Result<(), Malformed> {
    let is_known = match target.platform {
        Platform::Eks => target.kind == "nodegroup",
        Platform::Ec2 => target.kind == "autoscaling-group",
        Platform::Ecs => target.kind == "service",
        Platform::Nomad => target.kind == "job",
        Platform::Kubernetes => true,
        Platform::Custom => false,
    };
    require(is_known, || {
        format!(
            "data.target is `{}/{}`, which the scaler does not scale",
            target.platform.as_str(),
            shown(&target.kind)
        )
    })
}

/// The sign of the value must be that of the action.
fn check_adjustment(action: &str, adjustment: &Adjustment) -> Result<(), Malformed> {
    let Adjustment { kind, value, min_magnitude, allow_decrease } = adjustment;
    let is_exact = *kind == AdjustmentType::ExactCapacity;
    let is_valid = match action {
        "scale_out" => !is_exact && *value > 0,
        "scale_in" => !is_exact && *value < 0,
        _ => is_exact && *value >= 0,
    };
    require(is_valid && value.unsigned_abs() <= MAX_VALUE, || {
        format!("data.adjustment of a {action} is {kind:?} {value}")
    })?;
    require(allow_decrease.is_none() || is_exact, || {
        "data.adjustment.allow_decrease is only for ExactCapacity".to_owned()
    })?;
    require(min_magnitude.is_none() || *kind == AdjustmentType::PercentChangeInCapacity, || {
        "data.adjustment.min_magnitude is only for PercentChangeInCapacity".to_owned()
    })
}

#[cfg(test)]
mod tests;
