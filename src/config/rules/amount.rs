//! By how much capacity changes.

use std::num::NonZeroU32;

use super::super::decode::{Fields, list};
use super::super::diagnostic::{Code, Diagnostics};
use super::super::scalar::{float, number};
use super::super::yaml::Node;
use super::action::Phase;
use super::target::template;
use crate::domain::rule::{Amount, Step, Steps};
use crate::domain::template::Templates;

const FORMS: &str = "write one of `by: 2`, `by_percent: 25` and `metric` with `steps`";

/// `scale_out` and `scale_in`. A scale-in takes at most all there is.
pub(super) fn amount(
    node: &Node,
    scale_in: bool,
    phase: Phase,
    templates: &mut Templates,
    faults: &mut Diagnostics,
) -> Option<Amount> {
    let mut fields = Fields::of(node, "rules.*.amount", faults)?;
    let form = fields.one_of(&["by", "by_percent", "steps"], FORMS);
    let at_least = fields.get("at_least", units);
    let metric = fields.get("metric", |node, faults| template(node, templates, faults));
    for (key, beside) in [("at_least", "by_percent"), ("metric", "steps")] {
        if fields.has(key) && !fields.has(beside) {
            let message = format!("`{key}` stands only beside `{beside}`");
            let place = fields.place_of(key);
            fields.faults.help(Code::Contradiction, place, message, FORMS);
        }
    }
    let amount = match form {
        Some(("by", node)) => units(node, fields.faults).map(Amount::By),
        Some(("by_percent", node)) => {
            let most = if scale_in { 100 } else { i64::from(u32::MAX) };
            let percent = number::<u32>(1..=most)(node, fields.faults).and_then(NonZeroU32::new);
            percent.map(|percent| Amount::ByPercent { percent, at_least })
        }
        Some((_, node)) => {
            let steps = list(step)(node, fields.faults);
            if phase == Phase::Resolved {
                let help =
                    "when the last alert has resolved there is no metric to read: write `by` or `by_percent`";
                let message = "`steps` cannot stand in `on_resolved`";
                fields.faults.help(Code::Steps, &node.place, message, help);
            }
            if !fields.has("metric") {
                let help = "add `metric: \"{{ annotations.value }}\"`, the number that chooses the step";
                fields.faults.help(Code::Missing, fields.place(), "`metric` is missing", help);
            }
            let fault = |error| fields.faults.add(Code::Steps, &node.place, format!("{error}"));
            metric
                .zip(steps)
                .and_then(|(metric, steps)| Steps::new(metric, steps).map_err(fault).ok())
                .map(Amount::Steps)
        }
        None => None,
    };
    fields.finish();
    amount
}

fn units(node: &Node, faults: &mut Diagnostics) -> Option<NonZeroU32> {
    number::<u32>(1..=i64::from(u32::MAX))(node, faults).and_then(NonZeroU32::new)
}

fn step(node: &Node, faults: &mut Diagnostics) -> Option<Step> {
    let mut fields = Fields::of(node, "rules.*.step", faults)?;
    let from = fields.need("from", "from: 0", float);
    let by = fields.need("by", "by: 1", units);
    fields.finish();
    Some(Step { from: from?, by: by? })
}
