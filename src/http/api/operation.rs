//! An operation of the API, from which both its route and its OpenAPI description are built.

use axum::http::Method;
use axum::routing::MethodRouter;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::http::HttpState;

/// Generates the JSON Schema of a type.
pub(super) type SchemaFn = fn(&mut SchemaGenerator) -> Schema;

pub(super) fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// The response to a successful request.
pub(super) enum ResponseBody {
    /// JSON, with this status.
    Json(u16, SchemaFn),
    /// Server-sent events whose data is JSON.
    Stream(SchemaFn),
    /// No body: 204.
    Empty,
}

pub(super) struct Operation {
    pub method: Method,
    /// Relative to `/api/v1`; OpenAPI and axum share the syntax of parameters.
    pub path: &'static str,
    /// OpenAPI's `operationId`, which names the method of generated clients.
    pub id: &'static str,
    pub summary: &'static str,
    pub query: Option<SchemaFn>,
    pub body: Option<SchemaFn>,
    pub response: ResponseBody,
    pub handler: MethodRouter<HttpState>,
}

impl Operation {
    pub(super) fn new(
        method: Method,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        response: ResponseBody,
        handler: MethodRouter<HttpState>,
    ) -> Self {
        Self { method, path, id, summary, query: None, body: None, response, handler }
    }

    pub(super) fn query<T: JsonSchema>(self) -> Self {
        Self { query: Some(schema_of::<T>), ..self }
    }

    pub(super) fn body<T: JsonSchema>(self) -> Self {
        Self { body: Some(schema_of::<T>), ..self }
    }
}
