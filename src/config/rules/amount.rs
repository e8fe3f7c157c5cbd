//! Reader of amounts: by how much capacity changes.

use std::num::NonZeroU32;

use super::super::decode::{Fields, Spanned, list, spanned};
use super::super::diagnostic::{Code, Diagnostics};
use super::super::scalar::{flag, float, number};
use super::super::yaml::{Kind, Node};
use super::context::Phase;
use super::target::metric;
use crate::domain::rule::{Amount, Change, Step, Steps};
use crate::domain::template::Templates;

const FORMS: &str = "use one of `by: 2`, `by_percent: 25` and `metric` with `steps`";
const AMOUNT_KEYS: [&str; 3] = ["by", "by_percent", "steps"];

/// Reads `scale_in`: an amount, or in `on_resolved` also `revert`.
pub(super) fn scale_in(
    node: &Node,
    phase: Phase,
    templates: &mut Templates,
    diagnostics: &mut Diagnostics,
) -> Option<Change> {
    if phase == Phase::Resolved && node.get("revert").is_some() {
        return revert(node, diagnostics);
    }
    amount(node, true, phase, templates, diagnostics).map(Change::ScaleIn)
}

/// Reads `revert: true`, which excludes an amount.
fn revert(node: &Node, diagnostics: &mut Diagnostics) -> Option<Change> {
    let mut fields = Fields::from_node(node, "rules.*.amount", diagnostics)?;
    let [by, by_percent, steps] = AMOUNT_KEYS;
    let form = fields.one_of(&[by, by_percent, steps, "revert"], FORMS);
    let is_set = fields.get("revert", flag);
    if is_set == Some(false) {
        let help = "use `revert: true`, or remove it and set `by` or `by_percent`";
        let location = fields.location_of("revert");
        fields.diagnostics.add_with_help(Code::Value, location, "`revert` can only be true", help);
    }
    check_companions(&mut fields);
    fields.finish();
    (form.is_some() && is_set == Some(true)).then_some(Change::Revert)
}

/// Reports keys that have no meaning without another one.
fn check_companions(fields: &mut Fields<'_, '_>) {
    for (key, beside) in [("at_least", "by_percent"), ("metric", "steps")] {
        fields.lookup(key);
        if fields.has(key) && !fields.has(beside) {
            let message = format!("`{key}` requires `{beside}`");
            let location = fields.location_of(key);
            fields.diagnostics.add_with_help(Code::Contradiction, location, message, FORMS);
        }
    }
}

/// Reads the amount of `scale_out` or `scale_in`. A scale-in is limited to 100 percent.
pub(super) fn amount(
    node: &Node,
    scale_in: bool,
    phase: Phase,
    templates: &mut Templates,
    diagnostics: &mut Diagnostics,
) -> Option<Amount> {
    let mut fields = Fields::from_node(node, "rules.*.amount", diagnostics)?;
    fields.reject(
        &["revert"],
        "is only allowed in `on_resolved`, in `scale_in`: it takes back what `on_firing` has added",
        FORMS,
    );
    let is_only_revert = fields.has("revert") && !AMOUNT_KEYS.iter().any(|key| fields.has(key));
    let form = if is_only_revert { None } else { fields.one_of(&AMOUNT_KEYS, FORMS) };
    let at_least = fields.get("at_least", units);
    let metric = fields.get("metric", |node, diagnostics| metric(node, templates, diagnostics));
    check_companions(&mut fields);
    let amount = match form {
        Some(("by", node)) => units(node, fields.diagnostics).map(Amount::By),
        Some(("by_percent", node)) => {
            let max_percent = if scale_in { 100 } else { i64::from(u32::MAX) };
            let percent = number::<u32>(1..=max_percent)(node, fields.diagnostics).and_then(NonZeroU32::new);
            percent.map(|percent| Amount::ByPercent { percent, at_least })
        }
        Some((_, node)) => {
            let errors = fields.diagnostics.errors();
            let steps = list(spanned(step))(node, fields.diagnostics);
            // Without its faulty steps a list may be empty.
            let steps = steps.filter(|_| fields.diagnostics.errors() == errors);
            let steps = steps.and_then(|steps| check_order(steps, fields.diagnostics));
            if phase == Phase::Resolved {
                let help =
                    "no metric is available after the last alert has resolved: use `by` or `by_percent`";
                let message = "`steps` is not supported in `on_resolved`";
                fields.diagnostics.add_with_help(Code::Steps, &node.location, message, help);
            }
            if !fields.has("metric") {
                let help = "add `metric: \"{{ annotations.value }}\"`, the number that selects the step";
                fields.diagnostics.add_with_help(
                    Code::Missing,
                    fields.location(),
                    "`metric` is missing",
                    help,
                );
            }
            let report = |error| fields.diagnostics.add(Code::Steps, &node.location, format!("{error}"));
            metric
                .zip(steps)
                .and_then(|(metric, steps)| Steps::new(metric, steps).map_err(report).ok())
                .map(Amount::Steps)
        }
        None => None,
    };
    fields.finish();
    amount
}

/// Reports steps that do not rise. Returns them without their locations.
fn check_order(steps: Vec<Spanned<Step>>, diagnostics: &mut Diagnostics) -> Option<Vec<Step>> {
    let pairs = || steps.windows(2).map(|pair| (&pair[0].value, &pair[1]));
    if let Some((_, second)) = pairs().find(|(first, second)| second.value.from <= first.from) {
        let mut sorted: Vec<Step> = steps.iter().map(|step| step.value).collect();
        sorted.sort_by(|one, other| one.from.total_cmp(&other.from));
        let is_repeated = sorted.windows(2).any(|pair| pair[0].from >= pair[1].from);
        let message = "the steps are not in ascending order: each `from` must be above the previous one";
        let sorted: Vec<String> =
            sorted.iter().map(|step| format!("{{ from: {}, by: {} }}", step.from, step.by)).collect();
        let help = match is_repeated {
            true => "use each `from` once".to_owned(),
            false => format!("sort them: `[{}]`", sorted.join(", ")),
        };
        diagnostics.add_with_help(Code::Steps, &second.location, message, help);
        return None;
    }
    if let Some((first, second)) = pairs().find(|(first, second)| second.value.by < first.by) {
        let message = format!(
            "the amount falls while the metric rises: {} from {}, and {} from {}",
            first.by, first.from, second.value.by, second.value.from
        );
        let help = "let `by` rise with `from`; for a metric that falls as the need grows, negate it: `metric: \"{{ \
                    -(annotations.value | float) }}\"`";
        diagnostics.add_with_help(Code::FallingSteps, &second.location, message, help);
    }
    Some(steps.into_iter().map(|step| step.value).collect())
}

fn units(node: &Node, diagnostics: &mut Diagnostics) -> Option<NonZeroU32> {
    if let Kind::Int(negative @ ..0) = node.kind {
        let message = format!("{negative} is out of range: an amount has no sign");
        let help =
            format!("use `{}`: `scale_out` adds it and `scale_in` takes it away", negative.unsigned_abs());
        diagnostics.add_with_help(Code::Range, &node.location, message, help);
        return None;
    }
    number::<u32>(1..=i64::from(u32::MAX))(node, diagnostics).and_then(NonZeroU32::new)
}

fn step(node: &Node, diagnostics: &mut Diagnostics) -> Option<Step> {
    let mut fields = Fields::from_node(node, "rules.*.step", diagnostics)?;
    let from = fields.get_required("from", "from: 0", float);
    let by = fields.get_required("by", "by: 1", units);
    fields.finish();
    Some(Step { from: from?, by: by? })
}
