//! An HTTP server in place of SQS and Lambda, whose answers the test chooses and changes while the bridge runs.

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::tools::REGION;

/// How the server answers a call.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// SQS accepts all messages; the message of an event has the id `message-` and the event's.
    Accept,
    /// SQS accepts the messages of calls that are signed with this access key, and refuses those of others.
    AcceptOnlyFrom(&'static str),
    /// The function fails.
    FunctionError,
    /// The function returns this text.
    FunctionResult(String),
    /// A text that no service of AWS answers, of this status and content type.
    Page(u16, &'static str, String),
    /// No answer, until the caller gives up.
    Silence,
}

/// A call that the server has received.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The events in it.
    pub events: Vec<Value>,
    /// The access key that signed it.
    pub access_key: String,
}

/// The server. It lives as long as the test's runtime.
pub(crate) struct AwsStub {
    url: String,
    shared: Arc<Mutex<(Reply, Vec<Call>)>>,
}

impl AwsStub {
    pub(crate) async fn start(reply: Reply) -> Self {
        let shared = Arc::new(Mutex::new((reply, Vec::new())));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let state = Arc::clone(&shared);
        let handle = async move |headers: HeaderMap, body: Bytes| {
            let call = Call::read(&headers, &body);
            let reply = {
                let mut state = state.lock().expect("the lock is not poisoned");
                state.1.push(call.clone());
                state.0.clone()
            };
            answer(reply, &call, &body).await
        };
        let router = axum::Router::new().fallback(handle).layer(axum::extract::DefaultBodyLimit::disable());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, shared }
    }

    /// The settings of a destination with a standard queue.
    pub(crate) fn queue(&self) -> String {
        let url = &self.url;
        format!(
            "sqs: {{ queue_url: \"{url}/000000000000/scaling\", endpoint_url: \"{url}\", region: {REGION} }}"
        )
    }

    /// The settings of a destination with a function whose result is awaited.
    pub(crate) fn function(&self) -> String {
        let url = &self.url;
        format!(
            "lambda: {{ function: scaler, invocation_type: request_response, endpoint_url: \"{url}\", \
             region: {REGION} }}"
        )
    }

    /// Answers all further calls like this.
    pub(crate) fn set(&self, reply: Reply) {
        self.shared.lock().expect("the lock is not poisoned").0 = reply;
    }

    /// All calls so far, in their order.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.lock().expect("the lock is not poisoned").1.clone()
    }

    /// The id and the action of each event that was called, in the order of the calls.
    pub(crate) fn called(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let events = self.calls().into_iter().flat_map(|call| call.events);
        events.map(|event| (text(&event["id"]), text(&event["data"]["action"]))).collect()
    }
}

impl Call {
    fn read(headers: &HeaderMap, body: &Bytes) -> Self {
        let authorization = headers[header::AUTHORIZATION].to_str().expect("text");
        let key = authorization.split_once("Credential=").and_then(|(_, rest)| rest.split_once('/'));
        let access_key = key.expect("a signature").0.to_owned();
        let body: Value = serde_json::from_slice(body).expect("JSON");
        let events = match entries(&body) {
            Some(entries) => entries.iter().map(message).collect(),
            None => vec![body],
        };
        Self { events, access_key }
    }
}

/// The entries of a call of SQS.
fn entries(body: &Value) -> Option<&Vec<Value>> {
    body["Entries"].as_array()
}

fn message(entry: &Value) -> Value {
    serde_json::from_str(entry["MessageBody"].as_str().expect("a body")).expect("an event")
}

async fn answer(reply: Reply, call: &Call, body: &Bytes) -> Response {
    let accepted = || {
        let body: Value = serde_json::from_slice(body).expect("JSON");
        let entries = entries(&body).expect("messages").iter().map(|entry| {
            let id = message(entry)["id"].as_str().expect("text").to_owned();
            json!({ "Id": entry["Id"], "MessageId": format!("message-{id}"), "MD5OfMessageBody": "-" })
        });
        let entries: Vec<Value> = entries.collect();
        axum::Json(json!({ "Successful": entries, "Failed": [] })).into_response()
    };
    match reply {
        Reply::Accept => accepted(),
        Reply::AcceptOnlyFrom(key) if call.access_key == key => accepted(),
        Reply::AcceptOnlyFrom(_) => {
            let code = "InvalidClientTokenId";
            let error = axum::Json(json!({ "__type": code, "message": "the key is not valid" }));
            (StatusCode::FORBIDDEN, [("x-amzn-errortype", code)], error).into_response()
        }
        Reply::FunctionError => {
            let error = axum::Json(json!({ "errorMessage": "no capacity", "errorType": "Error" }));
            ([("x-amz-function-error", "Unhandled")], error).into_response()
        }
        Reply::FunctionResult(text) => text.into_response(),
        Reply::Page(status, content_type, text) => {
            let status = StatusCode::from_u16(status).expect("a status");
            (status, [(header::CONTENT_TYPE, content_type)], text).into_response()
        }
        Reply::Silence => std::future::pending().await,
    }
}
