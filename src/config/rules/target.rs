//! Readers of targets, templates and conditions.

use super::super::decode::{Fields, wrong_type_with};
use super::super::diagnostic::{Code, Diagnostics};
use super::super::foreign;
use super::super::scalar::{keyword, text};
use super::super::yaml::{Kind, Node};
use super::template_help;
use crate::domain::rule::{PartialTemplate, TargetTemplate};
use crate::domain::target::Platform;
use crate::domain::template::{Condition, Template, Templates};

/// Reads the target of an event rule.
pub(super) fn target(
    node: &Node,
    templates: &mut Templates,
    diagnostics: &mut Diagnostics,
) -> Option<TargetTemplate> {
    let mut fields = Fields::from_node(node, "rules.*.target", diagnostics)?;
    let given = target_fields(&mut fields, templates);
    fields.require("platform", "platform: eks");
    fields.require("kind", "kind: nodegroup");
    fields.require("name", "name: \"{{ labels.nodegroup }}\"");
    fields.finish();
    let PartialTemplate { platform, kind, name, account, cluster, namespace, region } = given;
    Some(TargetTemplate {
        platform: platform?,
        kind: kind?,
        name: name?,
        account,
        cluster,
        namespace,
        region,
    })
}

/// Reads the target of a hold, of which each field is optional. With an invalid field the result is `None`,
/// since omitting the field would hold more targets than intended.
pub(super) fn partial_target(
    node: &Node,
    templates: &mut Templates,
    diagnostics: &mut Diagnostics,
) -> Option<PartialTemplate> {
    let before = diagnostics.len();
    let mut fields = Fields::from_node(node, "rules.*.target", diagnostics)?;
    let given = target_fields(&mut fields, templates);
    fields.finish();
    (diagnostics.len() == before).then_some(given)
}

fn target_fields(fields: &mut Fields<'_, '_>, templates: &mut Templates) -> PartialTemplate {
    let platforms = Platform::ALL.map(|platform| (platform.as_str(), platform));
    let platform = fields.get("platform", keyword(&platforms));
    let [kind, name, account, cluster, namespace, region] =
        ["kind", "name", "account", "cluster", "namespace", "region"]
            .map(|key| fields.get(key, |node, diagnostics| target_field(node, templates, diagnostics)));
    PartialTemplate { platform, kind, name, account, cluster, namespace, region }
}

/// Reads a field of a target. Names have no braces, dollar signs or variables in them.
fn target_field(node: &Node, templates: &mut Templates, diagnostics: &mut Diagnostics) -> Option<Template> {
    let template = template(node, templates, diagnostics)?;
    if let Some(text) = template.constant()
        && let Some(fix) = template_help::missing_braces(text)
    {
        let message = format!("`{text}` is the same text for every alert, not a template");
        diagnostics.add_with_help(Code::NotATemplate, &node.location, message, format!("use `{fix}`"));
    }
    Some(template)
}

/// Reads the metric of steps: a template, or a number.
pub(super) fn metric(
    node: &Node,
    templates: &mut Templates,
    diagnostics: &mut Diagnostics,
) -> Option<Template> {
    if let Kind::Int(_) | Kind::Float(_) = node.kind {
        let message = "`metric` is a number, so that the same step applies to every alert";
        let help = "use `by` for a fixed amount, or a template such as `metric: \"{{ annotations.value }}\"`";
        diagnostics.add_with_help(Code::Type, &node.location, message, help);
        return None;
    }
    let template = template(node, templates, diagnostics)?;
    let is_number = |text: &str| text.trim().parse::<f64>().is_ok_and(f64::is_finite);
    if let Some(text) = template.constant()
        && !is_number(text)
    {
        let fix = template_help::missing_braces(text);
        let is_word = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let name = if is_word { text } else { "value" };
        let fix = fix.unwrap_or_else(|| format!("\"{{{{ annotations.{name} }}}}\""));
        let message = format!("`metric` is the text `{text}`, which is neither a template nor a number");
        diagnostics.add_with_help(
            Code::Template,
            &node.location,
            message,
            format!("use braces: `metric: {fix}`"),
        );
        return None;
    }
    Some(template)
}

/// Reads a non-empty template.
pub(super) fn template(
    node: &Node,
    templates: &mut Templates,
    diagnostics: &mut Diagnostics,
) -> Option<Template> {
    let text = text(node, diagnostics)?;
    let report = |error| {
        let message = format!("invalid template `{text}`: {error}");
        let help = template_help::for_template(text, &error);
        diagnostics.add_with_help(Code::Template, &node.location, message, help);
    };
    templates.template(text).map_err(report).ok()
}

pub(super) fn condition(
    node: &Node,
    templates: &mut Templates,
    diagnostics: &mut Diagnostics,
) -> Option<Condition> {
    if let Some(help) = foreign::condition_help(node) {
        return wrong_type_with(node, "an expression", Some(help), diagnostics);
    }
    let text = text(node, diagnostics)?;
    let report = |error| {
        let message = format!("invalid condition `{text}`: {error}");
        let help = template_help::for_condition(text, &error);
        diagnostics.add_with_help(Code::Template, &node.location, message, help);
    };
    templates.condition(text).map_err(report).ok()
}
