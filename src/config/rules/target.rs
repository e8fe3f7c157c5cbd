//! Readers of targets, templates and conditions.

use super::super::decode::Fields;
use super::super::diagnostic::{Code, Diagnostics};
use super::super::scalar::{keyword, text};
use super::super::yaml::Node;
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
            .map(|key| fields.get(key, |node, diagnostics| template(node, templates, diagnostics)));
    PartialTemplate { platform, kind, name, account, cluster, namespace, region }
}

/// Reads a non-empty template.
pub(super) fn template(
    node: &Node,
    templates: &mut Templates,
    diagnostics: &mut Diagnostics,
) -> Option<Template> {
    let text = text(node, diagnostics)?;
    let report = |error| {
        diagnostics.add(Code::Template, &node.location, format!("invalid template `{text}`: {error}"));
    };
    templates.template(text).map_err(report).ok()
}

pub(super) fn condition(
    node: &Node,
    templates: &mut Templates,
    diagnostics: &mut Diagnostics,
) -> Option<Condition> {
    let text = text(node, diagnostics)?;
    let report = |error| {
        diagnostics.add_with_help(
            Code::Template,
            &node.location,
            format!("invalid condition `{text}`: {error}"),
            "use an expression without braces, for example `annotations.value | float >= 1`",
        );
    };
    templates.condition(text).map_err(report).ok()
}
