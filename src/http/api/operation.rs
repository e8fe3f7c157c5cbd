//! An operation of the API, from which both its route and its OpenAPI description are built.

use axum::http::Method;
use axum::routing::MethodRouter;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::config::access::Scope;
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
    /// Who may use it.
    pub scope: Scope,
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
    /// An operation that changes nothing.
    pub(super) fn read(
        method: Method,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        response: ResponseBody,
        handler: MethodRouter<HttpState>,
    ) -> Self {
        let scope = Scope::Read;
        Self { scope, method, path, id, summary, query: None, body: None, response, handler }
    }

    /// An operation that changes something.
    pub(super) fn operate(
        method: Method,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        response: ResponseBody,
        handler: MethodRouter<HttpState>,
    ) -> Self {
        Self { scope: Scope::Operate, ..Self::read(method, path, id, summary, response, handler) }
    }

    pub(super) fn query<T: JsonSchema>(self) -> Self {
        Self { query: Some(schema_of::<T>), ..self }
    }

    pub(super) fn body<T: JsonSchema>(self) -> Self {
        Self { body: Some(schema_of::<T>), ..self }
    }
}
