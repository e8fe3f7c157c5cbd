//! What a rule is about, and the texts that are templates.

use super::super::decode::Fields;
use super::super::diagnostic::{Code, Diagnostics};
use super::super::scalar::{text, word};
use super::super::yaml::Node;
use crate::domain::rule::TargetTemplate;
use crate::domain::target::Platform;
use crate::domain::template::{Condition, Template, Templates};

pub(super) fn target(
    node: &Node,
    templates: &mut Templates,
    partial: bool,
    faults: &mut Diagnostics,
) -> Option<TargetTemplate> {
    let mut fields = Fields::of(node, "rules.*.target", faults)?;
    let platforms = Platform::ALL.map(|platform| (platform.as_str(), platform));
    let mut needed = |fields: &mut Fields<'_, '_>, key, example| {
        let read = |node: &Node, faults: &mut Diagnostics| template(node, templates, faults);
        if partial { fields.get(key, read) } else { fields.need(key, example, read) }
    };
    let kind = needed(&mut fields, "kind", "kind: nodegroup");
    let name = needed(&mut fields, "name", "name: \"{{ labels.nodegroup }}\"");
    let platform = if partial {
        fields.get("platform", word(&platforms))
    } else {
        fields.need("platform", "platform: eks", word(&platforms))
    };
    let [account, cluster, namespace, region] = ["account", "cluster", "namespace", "region"]
        .map(|key| fields.get(key, |node, faults| template(node, templates, faults)));
    fields.finish();
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
