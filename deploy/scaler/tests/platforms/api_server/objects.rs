//! Objects: their versions, their managed fields, and writes.

use std::collections::BTreeMap;

use scalebridge::domain::time::Time;
use serde_json::{Map, Value, json};

use super::resources::{Kind, Scale};
use super::status::Status;
use crate::wire::Request;

/// Namespace and name.
type Key<'a> = (Option<&'a str>, &'a str);

#[derive(Default)]
pub(super) struct Objects {
    objects: BTreeMap<String, Value>,
    /// The last resourceVersion.
    version: u64,
}

/// What a write changes, and under whose name.
struct Change<'a> {
    kind: &'a Kind,
    key: String,
    manager: String,
    operation: &'a str,
    subresource: Option<&'a str>,
}

impl Objects {
    pub(super) fn get(&self, kind: &Kind, key: Key<'_>) -> Option<Value> {
        self.objects.get(&id(kind, key)).cloned()
    }

    pub(super) fn list(&self, kind: &Kind, namespace: Option<&str>) -> Value {
        let prefix = format!("{}/{}/", kind.qualified(), namespace.unwrap_or_default());
        let items: Vec<_> = self.objects.iter().filter(|(id, _)| id.starts_with(&prefix)).collect();
        let items: Vec<_> = items.into_iter().map(|(_, object)| object).collect();
        json!({ "kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(),
                "metadata": { "resourceVersion": self.version.to_string() }, "items": items })
    }

    /// Creates or replaces an object without checks.
    pub(super) fn put(
        &mut self,
        kind: &Kind,
        key: Key<'_>,
        mut object: Value,
        (manager, operation): (&str, &str),
    ) {
        object["apiVersion"] = json!(kind.api_version());
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.entry("uid").or_insert_with(|| json!(format!("uid-of-{}", key.1)));
        metadata.entry("creationTimestamp").or_insert_with(|| json!("2026-11-30T09:00:00Z"));
        let key = id(kind, key);
        let old = self.objects.get(&key).cloned().unwrap_or_else(|| json!({ "metadata": {} }));
        object["metadata"]["managedFields"] = old["metadata"]["managedFields"].clone();
        let manager = manager.to_owned();
        self.store(&Change { kind, key, manager, operation, subresource: None }, &old, object);
    }

    /// A change of the status.
    pub(super) fn touch(&mut self, kind: &Kind, name: &str) {
        let key = id(kind, (kind.is_namespaced.then_some("shop"), name));
        self.version += 1;
        self.objects.get_mut(&key).expect("an object")["metadata"]["resourceVersion"] =
            json!(self.version.to_string());
    }

    /// The scale of an object.
    pub(super) fn scale(&self, kind: &Kind, key: Key<'_>) -> Result<Value, Status> {
        let object = self.get(kind, key).ok_or_else(|| Status::not_found(kind, key.1))?;
        if kind.scale == Some(Scale::Custom) && object["spec"]["replicas"].is_null() {
            return Err(Status::internal("the spec replicas field \".spec.replicas\" does not exist"));
        }
        Ok(scale_of(&object))
    }

    /// Patches or replaces an object.
    pub(super) fn write(&mut self, kind: &Kind, key: Key<'_>, request: &Request) -> Result<Value, Status> {
        let old = self.get(kind, key).ok_or_else(|| Status::not_found(kind, key.1))?;
        let new = changed(kind, &old, request)?;
        check_version(kind, key.1, &old, &new)?;
        check(kind, key.1, &old, &new)?;
        let manager = manager_of(request);
        let change = Change { kind, key: id(kind, key), manager, operation: "Update", subresource: None };
        Ok(self.store(&change, &old, new))
    }

    /// Patches or replaces the scale of an object.
    pub(super) fn write_scale(
        &mut self,
        kind: &Kind,
        key: Key<'_>,
        request: &Request,
    ) -> Result<Value, Status> {
        let old = self.get(kind, key).ok_or_else(|| Status::not_found(kind, key.1))?;
        let scale = changed(kind, &scale_of(&old), request)?;
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        if replicas < 0 {
            let cause =
                format!("spec.replicas: Invalid value: {replicas}: must be greater than or equal to 0");
            return Err(Status::invalid("Scale.autoscaling", key.1, &cause));
        }
        check_version(kind, key.1, &old, &scale)?;
        let mut new = old.clone();
        new["spec"]["replicas"] = json!(replicas);
        check(kind, key.1, &old, &new)?;
        let manager = manager_of(request);
        let change =
            Change { kind, key: id(kind, key), manager, operation: "Update", subresource: Some("scale") };
        Ok(scale_of(&self.store(&change, &old, new)))
    }

    /// Stores the object, unless nothing has changed.
    fn store(&mut self, change: &Change<'_>, old: &Value, mut new: Value) -> Value {
        let fields = changed_fields(&old["spec"], &new["spec"]);
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        if fields.is_empty() && *old == new {
            return new;
        }
        self.version += 1;
        let generation = old["metadata"]["generation"].as_u64().unwrap_or(0);
        new["metadata"]["generation"] = json!(generation + u64::from(!fields.is_empty()));
        new["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if !fields.is_empty() {
            let entries = managed_fields(change, &old["metadata"]["managedFields"], &fields, self.version);
            new["metadata"]["managedFields"] = entries;
        }
        self.objects.insert(change.key.clone(), new.clone());
        new
    }
}

fn id(kind: &Kind, (namespace, name): Key<'_>) -> String {
    format!("{}/{}/{name}", kind.qualified(), namespace.unwrap_or_default())
}

fn scale_of(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": { "name": metadata["name"], "uid": metadata["uid"],
                      "resourceVersion": metadata["resourceVersion"],
                      "creationTimestamp": metadata["creationTimestamp"] },
        "spec": {}, "status": { "replicas": 0 },
    });
    if !metadata["namespace"].is_null() {
        scale["metadata"]["namespace"] = metadata["namespace"].clone();
    }
    // `omitempty`
    if let Some(replicas) = object["spec"]["replicas"].as_i64().filter(|replicas| *replicas != 0) {
        scale["spec"]["replicas"] = json!(replicas);
    }
    scale
}

/// The object that a request asks for.
fn changed(kind: &Kind, old: &Value, request: &Request) -> Result<Value, Status> {
    let body: Value = serde_json::from_slice(&request.body)
        .map_err(|error| Status::bad_request(&format!("error decoding patch: {error}")))?;
    if request.method == "PUT" {
        return Ok(body);
    }
    let is_known = match request.header("content-type") {
        "application/merge-patch+json" => true,
        "application/strategic-merge-patch+json" => !kind.is_custom(),
        _ => false,
    };
    if !is_known {
        return Err(Status::unsupported_media_type());
    }
    let mut new = old.clone();
    merge(&mut new, &body);
    Ok(new)
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().unwrap();
    for (name, value) in patch {
        if value.is_null() {
            target.shift_remove(name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// A resourceVersion in what is written is a precondition.
fn check_version(kind: &Kind, name: &str, old: &Value, new: &Value) -> Result<(), Status> {
    let asked = new["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    if asked.is_empty() || old["metadata"]["resourceVersion"] == asked {
        return Ok(());
    }
    Err(Status::conflict(kind, name))
}

fn check(kind: &Kind, name: &str, old: &Value, new: &Value) -> Result<(), Status> {
    let number = |field: &str| new["spec"][field].as_i64();
    let invalid = |qualified: &str, cause: &str| Err(Status::invalid(qualified, name, cause));
    match kind.kind {
        "HorizontalPodAutoscaler" => {
            let (min, max) = (number("minReplicas").unwrap_or(1), number("maxReplicas").unwrap_or(0));
            let qualified = "HorizontalPodAutoscaler.autoscaling";
            if min < 1 {
                let cause =
                    format!("spec.minReplicas: Invalid value: {min}: must be greater than or equal to 1");
                return invalid(qualified, &cause);
            }
            if max < min {
                let cause = format!(
                    "spec.maxReplicas: Invalid value: {max}: must be greater than or equal to `minReplicas`"
                );
                return invalid(qualified, &cause);
            }
            Ok(())
        }
        "NodePool" if old["spec"]["replicas"].is_null() != new["spec"]["replicas"].is_null() => invalid(
            "NodePool.karpenter.sh",
            "spec: Invalid value: Cannot transition NodePool between static (replicas set) and dynamic (replicas unset) \
             provisioning modes",
        ),
        _ => Ok(()),
    }
}

fn changed_fields(old: &Value, new: &Value) -> Vec<String> {
    let empty = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    let changed = new.iter().filter(|(name, value)| old.get(*name) != Some(value));
    changed.map(|(name, _)| name.clone()).collect()
}

/// The entries after a write: its manager owns what it has changed, and nobody else does.
fn managed_fields(change: &Change<'_>, old: &Value, fields: &[String], version: u64) -> Value {
    let mut entries: Vec<Value> = old.as_array().cloned().unwrap_or_default();
    for entry in &mut entries {
        let owned = entry["fieldsV1"]["f:spec"].as_object_mut().unwrap();
        owned.retain(|name, _| !fields.iter().any(|field| *name == format!("f:{field}")));
    }
    let own = |entry: &Value| {
        entry["manager"] == change.manager
            && entry["operation"] == change.operation
            && entry["subresource"].as_str() == change.subresource
    };
    if !entries.iter().any(&own) {
        let mut entry = json!({ "manager": change.manager, "operation": change.operation,
            "apiVersion": change.kind.api_version(), "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": {} } });
        if let Some(subresource) = change.subresource {
            entry["subresource"] = json!(subresource);
        }
        entries.push(entry);
    }
    let entry = entries.iter_mut().find(|entry| own(entry)).unwrap();
    // A second for each version, without its fraction as in Kubernetes.
    let seconds = 1_796_032_800_000 + 1_000 * i64::try_from(version).unwrap();
    entry["time"] = json!(Time::from_millis(seconds).to_millis_string().replace(".000Z", "Z"));
    for field in fields {
        entry["fieldsV1"]["f:spec"][format!("f:{field}")] = json!({});
    }
    entries.retain(|entry| !entry["fieldsV1"]["f:spec"].as_object().unwrap().is_empty());
    Value::Array(entries)
}

/// As Kubernetes: the name that the request gives, or the beginning of its user agent.
fn manager_of(request: &Request) -> String {
    let agent = request.header("user-agent").split('/').next().unwrap_or_default();
    request.parameter("fieldManager").unwrap_or(agent).to_owned()
}
