//! Errors of the API, with the texts of Kubernetes.

use serde_json::{Value, json};

use super::USER;
use super::resources::{Kind, Route};

/// Why a request was not carried out.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) code: u16,
    reason: &'static str,
    message: String,
    details: Value,
}

impl Status {
    fn new(code: u16, reason: &'static str, message: String) -> Self {
        Self { code, reason, message, details: json!({}) }
    }

    pub(super) fn to_json(&self) -> Value {
        let Self { code, reason, message, details } = self;
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
                "reason": reason, "details": details, "code": code })
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized".to_owned())
    }

    pub(super) fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource".to_owned())
    }

    pub(super) fn method_not_allowed(method: &str) -> Self {
        let message = format!("the server does not allow this method on the requested resource ({method})");
        Self::new(405, "MethodNotAllowed", message)
    }

    pub(super) fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", kind.qualified());
        Self { details: details(kind, name), ..Self::new(404, "NotFound", message) }
    }

    pub(super) fn conflict(kind: &Kind, name: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; please apply your changes to \
             the latest version and try again",
            kind.qualified()
        );
        Self { details: details(kind, name), ..Self::new(409, "Conflict", message) }
    }

    pub(super) fn forbidden(route: &Route, verb: &str, resource: &str) -> Self {
        let Route { group, namespace, name, .. } = route;
        let name = name.as_deref().map_or_else(String::new, |name| format!(" \"{name}\""));
        let scope = match namespace {
            Some(namespace) => format!("in the namespace \"{namespace}\""),
            None => "at the cluster scope".to_owned(),
        };
        let message = format!(
            "{}{name} is forbidden: User \"{USER}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {scope}",
            route.qualified()
        );
        Self::new(403, "Forbidden", message)
    }

    /// `qualified` is `Kind.group`, and `cause` begins with the path of the field.
    pub(super) fn invalid(qualified: &str, name: &str, cause: &str) -> Self {
        let (kind, group) = qualified.split_once('.').unwrap();
        let (field, message) = cause.split_once(": ").unwrap();
        let causes = json!([{ "reason": "FieldValueInvalid", "message": message, "field": field }]);
        Self {
            details: json!({ "name": name, "group": group, "kind": kind, "causes": causes }),
            ..Self::new(422, "Invalid", format!("{qualified} \"{name}\" is invalid: {cause}"))
        }
    }

    pub(super) fn bad_request(message: &str) -> Self {
        Self::new(400, "BadRequest", message.to_owned())
    }

    pub(super) fn internal(message: &str) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    pub(super) fn unsupported_media_type() -> Self {
        let message = "the body of the request was in an unknown format - accepted media types include: \
                       application/json-patch+json, application/merge-patch+json";
        Self::new(415, "UnsupportedMediaType", message.to_owned())
    }
}

fn details(kind: &Kind, name: &str) -> Value {
    json!({ "name": name, "group": kind.group, "kind": kind.plural })
}
