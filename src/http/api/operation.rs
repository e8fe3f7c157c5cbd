//! An operation of the API: the routes and the OpenAPI description are both built from it.

use axum::http::Method;
use axum::routing::MethodRouter;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::http::HttpState;

/// Makes the schema of a type.
pub(super) type SchemaFn = fn(&mut SchemaGenerator) -> Schema;

pub(super) fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// What an operation gives.
pub(super) enum ResponseBody {
    /// JSON.
    Json(u16, SchemaFn),
    /// Server-sent events whose data is JSON.
    Stream(SchemaFn),
    /// Nothing.
    Empty,
}

/// An operation of the API.
pub(super) struct Operation {
    pub method: Method,
    /// Below `/api/v1`, in OpenAPI's and axum's form, which are the same.
    pub path: &'static str,
    /// The operation's name for generated clients.
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
