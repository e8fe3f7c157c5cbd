//! The JSON Schema of the settings.

#![expect(dead_code, reason = "the types only describe the schema and are never constructed")]

use schemars::JsonSchema;

use crate::config::schema::HttpClient;

/// An HTTP service, which gets each event by POST.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(in crate::dispatch) struct Http {
    /// The http:// or https:// URL. Redirects are not followed.
    url: String,
    /// Credentials, TLS and proxy.
    http: Option<HttpClient>,
    /// Files with one key each, `whsec_` and base64, relative to this file. Each event is signed with all of them, by the
    /// scheme of Standard Webhooks.
    signing_key_files: Option<Vec<String>>,
    /// Whether link-local addresses are called, such as those of metadata services. Default false.
    allow_link_local: Option<bool>,
    /// Maximum size of an event in bytes. Default 1048576.
    #[schemars(range(min = 8192, max = 16_777_216))]
    max_event_bytes: Option<u32>,
}
