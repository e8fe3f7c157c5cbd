//! The OpenAPI 3.1 document, whose schemas are JSON Schema.

use axum::http::Method;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::operation::{Operation, ResponseBody, SchemaFn, schema_of};
use super::{PREFIX, operations};
use crate::config::access::Scope;
use crate::ops::api::{InitiatorParams, Problem, ReloadReport};

pub(crate) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.for_serialize().into_generator();
    let mut paths = Map::new();
    for operation in operations() {
        let path = format!("{PREFIX}{}", operation.path);
        let method = operation.method.as_str().to_lowercase();
        let described = operation_object(&operation, &mut generator);
        let entry = paths.entry(path).or_insert_with(|| json!({}));
        entry[method] = described;
    }
    paths.insert("/-/reload".to_owned(), json!({ "post": reload(&mut generator) }));
    let schemas: Map<String, Value> = generator.take_definitions(true).into_iter().collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "scalebridge",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Operator API of scalebridge",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": { "schemas": schemas, "securitySchemes": security_schemes() },
    })
}

/// How a client can present credentials; which of them are accepted is a matter of the configuration.
fn security_schemes() -> Value {
    json!({
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "A token of `admin.tokens`, or a JSON Web Token of `admin.jwt`",
        },
        "basic": {
            "type": "http",
            "scheme": "basic",
            "description": "A user of `admin.users_file` or of the listener's `web_config_file`",
        },
        "client_certificate": {
            "type": "mutualTLS",
            "description": "A client certificate of `admin.client_certs`",
        },
    })
}

/// The credentials that an operation needs: one of each kind, with this scope. Without configured credentials, none.
fn security(scope: Scope) -> Value {
    let role = match scope {
        Scope::Read => "read",
        Scope::Operate => "operate",
    };
    json!([{ "bearer": [role] }, { "basic": [role] }, { "client_certificate": [role] }])
}

/// The responses of an operation: a success, and the errors.
fn responses(status: u16, success: Value, scope: Scope, generator: &mut SchemaGenerator) -> Value {
    let mut all = json!({
        status.to_string(): success,
        "401": problem("Missing or wrong credentials (RFC 9457)", generator),
        "default": problem("Error (RFC 9457)", generator),
    });
    let forbidden = match scope {
        Scope::Read => "Sent by a page of another site (RFC 9457)",
        Scope::Operate => "Sent with credentials of scope `read`, or by a page of another site (RFC 9457)",
    };
    all["403"] = problem(forbidden, generator);
    all
}

fn operation_object(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let mut parameters: Vec<Value> = path_parameters(operation.path)
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    if let Some(query) = operation.query {
        parameters.extend(query_parameters(&inline_schema(query, generator)));
    }
    let (status, success) = match operation.response {
        ResponseBody::Json(status, schema) => {
            let schema = schema(generator);
            (
                status,
                json!({ "description": "Success", "content": { "application/json": { "schema": schema } } }),
            )
        }
        ResponseBody::Stream(schema) => {
            let schema = schema(generator);
            let text = "Server-sent events of type `decision` with JSON data; to resume after an event, send its id as \
                        Last-Event-ID";
            (
                200,
                json!({ "description": text, "content": { "text/event-stream": { "itemSchema": schema, "schema": { "type": "string" } } } }),
            )
        }
        ResponseBody::Empty => (204, json!({ "description": "Success, no content" })),
    };
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "security": security(operation.scope),
        "responses": responses(status, success, operation.scope, generator),
    });
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if let Some(body) = operation.body {
        let schema = body(generator);
        described["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    debug_assert!(operation.body.is_none() || operation.method == Method::POST);
    described
}

fn reload(generator: &mut SchemaGenerator) -> Value {
    let schema = generator.subschema_for::<ReloadReport>();
    let parameters = query_parameters(&inline_schema(schema_of::<InitiatorParams>, generator));
    let success = json!({ "description": "The configuration is active", "content": { "application/json": { "schema": schema } } });
    json!({
        "operationId": "reload",
        "summary": "Reload the configuration (atomic)",
        "parameters": parameters,
        "security": security(Scope::Operate),
        "responses": responses(200, success, Scope::Operate, generator),
    })
}

fn problem(description: &str, generator: &mut SchemaGenerator) -> Value {
    let schema = generator.subschema_for::<Problem>();
    json!({
        "description": description,
        "content": { "application/problem+json": { "schema": schema } },
    })
}

/// The names of a path's parameters: `id` for `/events/{id}`.
fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// The schema of a query, inlined instead of referenced.
fn inline_schema(query: SchemaFn, generator: &mut SchemaGenerator) -> Value {
    let reference = Value::from(query(generator));
    let name =
        reference["$ref"].as_str().and_then(|path| path.rsplit('/').next()).unwrap_or_default().to_owned();
    // No other schema refers to it.
    generator.definitions_mut().shift_remove(&name).unwrap_or(reference)
}

fn query_parameters(schema: &Value) -> Vec<Value> {
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    let parameter = |(name, mut schema): (String, Value)| {
        let description = schema["description"].take();
        // A query string has no null: an optional parameter is absent.
        if let Some(kinds) = schema["type"].as_array() {
            let kind = kinds.iter().find(|kind| **kind != "null").cloned().unwrap_or_default();
            schema["type"] = kind;
        }
        if let Some(fields) = schema.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        json!({ "name": name, "in": "query", "description": description, "schema": schema })
    };
    properties.into_iter().map(parameter).collect()
}
