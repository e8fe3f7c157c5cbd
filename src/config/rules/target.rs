//! What a rule is about, and the texts that are templates.

use super::super::decode::Fields;
use super::super::diagnostic::{Code, Diagnostics};
use super::super::scalar::{text, word};
use super::super::yaml::Node;
use crate::domain::rule::{PartialTemplate, TargetTemplate};
use crate::domain::target::Platform;
use crate::domain::template::{Condition, Template, Templates};

/// The target of a rule that sends events.
pub(super) fn target(
    node: &Node,
    templates: &mut Templates,
    faults: &mut Diagnostics,
) -> Option<TargetTemplate> {
    let mut fields = Fields::of(node, "rules.*.target", faults)?;
    let given = given(&mut fields, templates);
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

/// Some fields of a target, for a rule that holds. Without one that is faulty it would hold more than was
/// meant, so then there is none.
pub(super) fn partial(
    node: &Node,
    templates: &mut Templates,
    faults: &mut Diagnostics,
) -> Option<PartialTemplate> {
    let before = faults.len();
    let mut fields = Fields::of(node, "rules.*.target", faults)?;
    let given = given(&mut fields, templates);
    fields.finish();
    (faults.len() == before).then_some(given)
}

fn given(fields: &mut Fields<'_, '_>, templates: &mut Templates) -> PartialTemplate {
    let platforms = Platform::ALL.map(|platform| (platform.as_str(), platform));
    let platform = fields.get("platform", word(&platforms));
    let [kind, name, account, cluster, namespace, region] =
        ["kind", "name", "account", "cluster", "namespace", "region"]
            .map(|key| fields.get(key, |node, faults| template(node, templates, faults)));
    PartialTemplate { platform, kind, name, account, cluster, namespace, region }
}

/// A template that is not empty.
pub(super) fn template(node: &Node, templates: &mut Templates, faults: &mut Diagnostics) -> Option<Template> {
    let text = text(node, faults)?;
    let fault = |error| faults.add(Code::Template, &node.place, format!("in the template `{text}`: {error}"));
    templates.template(text).map_err(fault).ok()
}

pub(super) fn condition(
    node: &Node,
    templates: &mut Templates,
    faults: &mut Diagnostics,
) -> Option<Condition> {
    let text = text(node, faults)?;
    let fault = |error| {
        faults.help(
            Code::Template,
            &node.place,
            format!("in the condition `{text}`: {error}"),
            "write an expression without braces, for example `annotations.value | float >= 1`",
        );
    };
    templates.condition(text).map_err(fault).ok()
}
