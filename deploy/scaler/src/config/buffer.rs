//! `buffer`: the template for namespace and name of a CapacityBuffer.

use std::collections::BTreeMap;

use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use scalebridge::domain::target::{Platform, Target};

/// The fields of a target that a template can name.
const FIELDS: [&str; 6] = ["kind", "name", "cluster", "namespace", "region", "account"];
/// The maximum length of a name in Kubernetes.
const MAX_NAME: usize = 253;
const FORM: &str = "`buffer` names a CapacityBuffer as namespace/name, for example scaling/spare-{{ name }}";

/// Namespace and name of the buffer of a target.
///
/// # Errors
/// Why the template gives none for this target.
pub(crate) fn render(template: &str, target: &Target) -> Result<(String, String), String> {
    let Target { kind, name, cluster, namespace, region, account, .. } = target;
    let optional = [cluster.as_ref(), namespace.as_ref(), region.as_ref(), account.as_ref()];
    let values = [Some(kind), Some(name)].into_iter().chain(optional);
    // A field that the target lacks is undefined, so that it does not become a name.
    let fields: BTreeMap<&str, String> =
        FIELDS.into_iter().zip(values).filter_map(|(field, value)| Some((field, value?.clone()))).collect();
    let text = environment().render_str(template, fields).map_err(|error| match error.kind() {
        ErrorKind::UndefinedError => {
            format!("`buffer` {template} names a field that the target does not have")
        }
        _ => format!("`buffer` {template}: {error}"),
    })?;
    match text.split_once('/') {
        Some((namespace, name)) if is_name(namespace) && is_name(name) => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err(format!("`buffer` {template} gives `{text}`, which is not namespace/name in Kubernetes")),
    }
}

/// Without its global functions: one of them is called `namespace`.
fn environment<'t>() -> Environment<'t> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment
}

/// What is wrong with a template, whatever the target is.
pub(super) fn error(template: &str) -> Option<String> {
    let parts = template.split('/').filter(|part| !part.trim().is_empty()).count();
    if parts != 2 || template.matches('/').count() != 1 {
        return Some(FORM.to_owned());
    }
    let environment = environment();
    let mut unknown: Vec<String> = match environment.template_from_str(template) {
        Ok(compiled) => compiled.undeclared_variables(false).into_iter().collect(),
        Err(error) => return Some(format!("`buffer` is not a template: {error}")),
    };
    unknown.retain(|name| !FIELDS.contains(&name.as_str()));
    unknown.sort();
    if !unknown.is_empty() {
        return Some(format!(
            "`buffer` names {}; the fields of a target are {}",
            unknown.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
            FIELDS.join(", ")
        ));
    }
    match render(template, &example()) {
        // What depends on the target can be right for others.
        Err(error) if !template.contains("{%") => Some(error),
        _ => None,
    }
}

/// A target with all fields, long enough for templates that use a part of one.
fn example() -> Target {
    let text = |text: &str| Some(text.to_owned());
    Target {
        platform: Platform::Eks,
        kind: "nodegroup".to_owned(),
        name: "workers-of-the-production-cluster-in-europe".to_owned(),
        cluster: text("production-cluster-in-europe"),
        namespace: text("namespace-of-the-production"),
        region: text("eu-west-1"),
        account: text("111122223333"),
    }
}

/// Whether the text is a name of an object in Kubernetes (RFC 1123), so that no path is made of it.
fn is_name(text: &str) -> bool {
    let is_inner =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let is_outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= MAX_NAME
        && bytes.iter().copied().all(is_inner)
        && is_outer(bytes.first())
        && is_outer(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_that_no_target_can_use_are_errors() {
        for (template, expected) in [
            ("scaling/{{ name", "is not a template: syntax error"),
            ("scaling/{{ nmae }}", "names `nmae`; the fields of a target are kind, name, cluster"),
            ("scaling/{% if zone %}{{ rack }}{% endif %}", "names `rack`, `zone`"),
            ("scaling/{{ name|lower }}", "lower"),
            ("Scaling/{{ name }}", "is not namespace/name in Kubernetes"),
            ("scaling", "namespace/name, for example"),
            ("scaling/", "namespace/name, for example"),
        ] {
            let error = error(template).expect(template);
            assert!(error.contains(expected) && !error.contains('\n'), "{template}: {error}");
        }
        for template in [
            "scaling/spare",
            "scaling/{{ name }}-{{ region }}",
            "{{ namespace }}/{{ name[20:] }}",
            "scaling/{% if name == 'a' %}a{% endif %}",
        ] {
            assert_eq!(error(template), None, "{template}");
        }
    }
}
