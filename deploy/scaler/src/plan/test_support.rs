//! Events and capacities of tests.

use scalebridge::domain::event::{Adjustment, AdjustmentType};
use scalebridge::domain::target::{Platform, Target};
use scalebridge::domain::time::Time;

use super::Present;
use crate::capacity::Lever;
use crate::event::{Limits, ScalingEvent};

pub(crate) const NOW: Time = Time::from_millis(1_000_000);
/// The expiry of the events.
pub(crate) const LATER: Time = Time::from_millis(100_000_000);

/// The id of the event that a case is about.
pub(crate) fn id(number: u32) -> String {
    format!("{number:032x}")
}

pub(crate) fn adjustment(text: &str) -> Adjustment {
    let (text, allow_decrease) = match text.strip_suffix('!') {
        Some(text) => (text, Some(true)),
        None => (text, None),
    };
    let (text, min_magnitude) = match text.split_once("~") {
        Some((text, magnitude)) => (text, Some(magnitude.parse().unwrap())),
        None => (text, None),
    };
    let (kind, value) = match (text.strip_prefix('='), text.strip_suffix('%')) {
        (Some(value), _) => (AdjustmentType::ExactCapacity, value),
        (_, Some(value)) => (AdjustmentType::PercentChangeInCapacity, value),
        _ => (AdjustmentType::ChangeInCapacity, text),
    };
    Adjustment { kind, value: value.parse().unwrap(), min_magnitude, allow_decrease }
}

/// `2..40`, `..40`, `2..` or an empty text.
pub(crate) fn limits(text: &str) -> Limits {
    let Some((min, max)) = text.split_once("..") else { return Limits::default() };
    Limits { min_capacity: min.parse().ok(), max_capacity: max.parse().ok() }
}

pub(crate) fn event(number: u32, sequence: u64, change: &str) -> ScalingEvent {
    let target = Target {
        platform: Platform::Eks,
        kind: "nodegroup".to_owned(),
        name: "workers".to_owned(),
        account: None,
        cluster: Some("prod".to_owned()),
        namespace: None,
        region: Some("eu-west-1".to_owned()),
    };
    ScalingEvent {
        id: id(number),
        subject: target.key().to_string(),
        target,
        rule: "unschedulable-pods".to_owned(),
        reason: "1 alert firing: KubePodUnschedulable".to_owned(),
        sequence,
        expirytime: LATER,
        adjustment: adjustment(change),
        limits: Limits::default(),
        reverts: Vec::new(),
    }
}

pub(crate) fn size(value: u32) -> Present {
    Present {
        lever: Lever::Size(value),
        revision: String::new(),
        limits: Limits::default(),
        busy: None,
        refuses_increase: None,
        refuses_decrease: None,
    }
}
