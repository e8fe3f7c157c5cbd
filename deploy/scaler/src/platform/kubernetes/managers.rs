//! Who sets a field of an object, by its `managedFields`.

use serde_json::Value;

use super::cluster::FIELD_MANAGER;
use super::resource::text;

/// Managers that set what they apply back, at once or with their next run, by the beginning of their names.
const RECONCILERS: [(&str, &str); 14] = [
    ("argocd", "Argo CD"),
    ("kustomize-controller", "Flux"),
    ("helm-controller", "Flux"),
    ("flux", "Flux"),
    ("Terraform", "Terraform"),
    ("terraform", "Terraform"),
    // The beginning of the user agent of Terraform's and OpenTofu's provider.
    ("HashiCorp", "Terraform"),
    ("OpenTofu", "OpenTofu"),
    ("pulumi", "Pulumi"),
    ("apiextensions.crossplane.io", "Crossplane"),
    ("crossplane", "Crossplane"),
    ("fleet", "Fleet"),
    ("configsync", "Config Sync"),
    ("kapp", "kapp"),
];

/// People's commands. They set a field once, also by server-side apply.
const COMMANDS: [&str; 3] = ["kubectl", "helm", "before-first-apply"];

/// A manager of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Manager {
    name: String,
    is_apply: bool,
    time: String,
}

impl Manager {
    /// The product that sets the field back; `None` if the manager has only set it once.
    fn reconciler(&self) -> Option<&str> {
        let name = self.name.as_str();
        let known = RECONCILERS.iter().find(|(beginning, _)| name.starts_with(beginning));
        if let Some((_, product)) = known {
            return Some(product);
        }
        // Whoever applies a field on the server's side declares that it is theirs.
        let is_command = name == FIELD_MANAGER || COMMANDS.iter().any(|command| name.starts_with(command));
        (self.is_apply && !is_command).then_some("server-side apply")
    }
}

/// Why nobody else should set `spec.FIELD`: another manager sets it back.
pub(super) fn refusal(object: &Value, field: &str) -> Option<String> {
    let managers = managers(object, field);
    let (manager, product) =
        managers.iter().find_map(|manager| manager.reconciler().map(|product| (manager, product)))?;
    Some(format!(
        "spec.{field} is managed by {} ({product}), which would set it back: leave the field out of what it applies, or \
         set managed_by: nobody if it ignores changes of the field",
        manager.name
    ))
}

/// The last manager of `spec.FIELD`, for the end of a refusal; empty if it is not known.
pub(super) fn last(object: &Value, field: &str) -> String {
    let manager = managers(object, field).into_iter().next();
    manager.map_or_else(String::new, |Manager { name, .. }| {
        format!("; the last manager of spec.{field} is {name}")
    })
}

/// The managers of `spec.FIELD`, the latest first.
fn managers(object: &Value, field: &str) -> Vec<Manager> {
    let key = format!("f:{field}");
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let of_field = entries.filter(|entry| entry["fieldsV1"]["f:spec"].get(&key).is_some());
    let mut managers: Vec<_> = of_field
        .map(|entry| Manager {
            name: text(&entry["manager"]),
            is_apply: entry["operation"] == "Apply",
            time: text(&entry["time"]),
        })
        .collect();
    // RFC 3339 in UTC: the order of the texts is that of the times.
    managers.sort_by(|one, other| other.time.cmp(&one.time));
    managers
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(entries: &[(&str, &str, &str, &str)]) -> Value {
        let entries: Vec<_> = entries
            .iter()
            .map(|(manager, operation, time, field)| {
                json!({ "manager": manager, "operation": operation, "time": time, "apiVersion": "apps/v1",
                        "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": { format!("f:{field}"): {} } } })
            })
            .collect();
        json!({ "metadata": { "name": "web", "managedFields": entries } })
    }

    #[test]
    fn managers_that_set_a_field_back_refuse_it() {
        let cases = [
            ("argocd-controller", "Apply", Some("Argo CD")),
            ("argocd-controller", "Update", Some("Argo CD")),
            ("kustomize-controller", "Apply", Some("Flux")),
            ("helm-controller", "Update", Some("Flux")),
            ("Terraform", "Apply", Some("Terraform")),
            ("HashiCorp", "Update", Some("Terraform")),
            ("pulumi-kubernetes-5c1e", "Apply", Some("Pulumi")),
            ("our-platform", "Apply", Some("server-side apply")),
            ("our-platform", "Update", None),
            ("kubectl", "Apply", None),
            ("kubectl-client-side-apply", "Update", None),
            ("helm", "Apply", None),
            ("kube-controller-manager", "Update", None),
            (FIELD_MANAGER, "Update", None),
        ];
        for (manager, operation, expected) in cases {
            let refusal =
                refusal(&object(&[(manager, operation, "2026-11-30T10:00:00Z", "replicas")]), "replicas");
            let expected =
                expected.map(|product| format!("spec.replicas is managed by {manager} ({product}), "));
            match (refusal, expected) {
                (Some(text), Some(expected)) => assert!(text.starts_with(&expected), "{text}"),
                (None, None) => {}
                (refusal, expected) => panic!("{manager}: {refusal:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn only_managers_of_the_field_count_and_the_last_one_is_named() {
        let object = object(&[
            ("kubectl-edit", "Update", "2026-11-30T09:00:00Z", "replicas"),
            ("argocd-controller", "Apply", "2026-11-30T11:00:00Z", "template"),
            ("ops-tool", "Update", "2026-11-30T10:00:00Z", "replicas"),
        ]);
        assert_eq!(refusal(&object, "replicas"), None);
        assert_eq!(last(&object, "replicas"), "; the last manager of spec.replicas is ops-tool");
        assert_eq!(last(&object, "minReplicas"), "");
        assert_eq!(last(&json!({}), "replicas"), "");
    }
}
