//! The OpenAPI 3.1 document, whose schemas are JSON Schema.

use axum::http::Method;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::operation::{Operation, ResponseBody, SchemaFn, schema_of};
use super::operations;
use crate::ops::api::{InitiatorParams, Problem, ReloadReport};

pub(crate) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.for_serialize().into_generator();
    let mut paths = Map::new();
    for operation in operations() {
        let path = format!("/api/v1{}", operation.path);
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
        "components": { "schemas": schemas },
    })
}

fn operation_object(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let mut parameters: Vec<Value> = path_parameters(operation.path)
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    if let Some(query) = operation.query {
        parameters.extend(query_parameters(&inline_schema(query, generator)));
    }
    let problem = problem(generator);
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
        "responses": { status.to_string(): success, "default": problem },
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
    json!({
        "operationId": "reload",
        "summary": "Reload the configuration (atomic)",
        "parameters": parameters,
        "responses": {
            "200": { "description": "The configuration is active", "content": { "application/json": { "schema": schema } } },
            "default": problem(generator),
        },
    })
}

fn problem(generator: &mut SchemaGenerator) -> Value {
    let schema = generator.subschema_for::<Problem>();
    json!({
        "description": "Error (RFC 9457)",
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
