//! A Lambda function, by `Invoke`: the event is the payload, one call an event.
//!
//! `event` is done when Lambda has taken the event into its own queue (202). `request_response` waits
//! for the function: its `FunctionError` is a failure, though the call itself answers 200.

use aws_sdk_lambda::Client;
use aws_sdk_lambda::operation::invoke::InvokeOutput;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;

use super::{Answer, Destination, Failure, Limits, Outgoing, aws};
use crate::config;

/// A function.
#[derive(Debug)]
pub struct Lambda {
    client: Client,
    function: String,
    qualifier: Option<String>,
    invocation_type: config::InvocationType,
}

impl Lambda {
    /// The function is reached at the client's endpoint.
    pub fn new(client: Client, settings: &config::Lambda) -> Self {
        Self {
            client,
            function: settings.function.clone(),
            qualifier: settings.qualifier.clone(),
            invocation_type: settings.invocation_type,
        }
    }

    async fn invoke(&self, event: &Outgoing) -> Result<Answer, Failure> {
        let (kind, done) = match self.invocation_type {
            config::InvocationType::Event => (InvocationType::Event, 202),
            config::InvocationType::RequestResponse => (InvocationType::RequestResponse, 200),
        };
        let call = self
            .client
            .invoke()
            .function_name(&self.function)
            .set_qualifier(self.qualifier.clone())
            .invocation_type(kind)
            .payload(Blob::new(event.body.as_bytes()));
        let output = call.send().await.map_err(|error| aws::failure(&error))?;
        if let Some(failure) = function_error(&output) {
            return Ok(Err(failure));
        }
        if output.status_code() != done {
            let status = output.status_code();
            return Err(Failure::transient(format!("lambda answered with {status} instead of {done}")));
        }
        Ok(Ok(None))
    }
}

impl Destination for Lambda {
    fn limits(&self) -> Limits {
        Limits { events: 1, bytes: usize::MAX }
    }

    fn weigh(&self, event: &Outgoing) -> usize {
        event.body.len()
    }

    async fn send(&self, batch: &[Outgoing]) -> Result<Vec<Answer>, Failure> {
        let mut answers = Vec::with_capacity(batch.len());
        for event in batch {
            answers.push(self.invoke(event).await?);
        }
        Ok(answers)
    }
}

/// The function was reached and failed. That says nothing of the next event.
fn function_error(output: &InvokeOutput) -> Option<Failure> {
    let kind = output.function_error()?;
    let payload = output.payload().map_or(&[] as &[u8], AsRef::as_ref);
    // Four bytes a character at most: a long answer is not read to its end.
    let start = &payload[..payload.len().min(4 * Failure::MAX_CHARS)];
    let answer: String = String::from_utf8_lossy(start).chars().take(Failure::MAX_CHARS).collect();
    let failure = Failure::transient(format!("the function failed ({kind})"));
    Some(Failure { answer: Some(answer), ..failure })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dispatch::Class;
    use crate::dispatch::stub::{Reply, Stub, lambda_client, outgoing};

    fn function(stub: &Stub, invocation_type: config::InvocationType) -> Lambda {
        let settings = config::Lambda {
            function: "scaler".into(),
            qualifier: Some("live".into()),
            invocation_type,
            region: None,
            endpoint_url: None,
        };
        Lambda::new(lambda_client(stub), &settings)
    }

    #[tokio::test]
    async fn the_event_is_the_payload() {
        let stub = Stub::start(|_| Reply::status(202)).await;
        let event = outgoing(7);
        let answers = function(&stub, config::InvocationType::Event).send(std::slice::from_ref(&event)).await;
        assert_eq!(answers, Ok(vec![Ok(None)]));
        let request = stub.only_request();
        assert_eq!(request.uri, "/2015-03-31/functions/scaler/invocations?Qualifier=live");
        assert_eq!(request.headers["x-amz-invocation-type"], "Event");
        assert_eq!(request.body, event.body.as_bytes());
    }

    #[tokio::test]
    async fn the_answer_is_waited_for_where_it_is_wanted() {
        let stub = Stub::start(|_| Reply::ok(json!({ "done": true }))).await;
        let answers = function(&stub, config::InvocationType::RequestResponse).send(&[outgoing(1)]).await;
        assert_eq!(answers, Ok(vec![Ok(None)]));
        assert_eq!(stub.only_request().headers["x-amz-invocation-type"], "RequestResponse");
    }

    #[tokio::test]
    async fn a_function_that_failed_has_not_taken_the_event() {
        let long = "é".repeat(9000);
        let reply = Reply::ok(json!({ "errorMessage": long })).header("x-amz-function-error", "Unhandled");
        let stub = Stub::start(move |_| reply.clone()).await;
        let answers = function(&stub, config::InvocationType::RequestResponse).send(&[outgoing(1)]).await;
        let failure = answers.unwrap().remove(0).unwrap_err();
        assert_eq!(failure.class, Class::Transient);
        assert_eq!(failure.to_string(), "the function failed (Unhandled)", "the log does not quote it");
        assert!(failure.kept().starts_with("the function failed (Unhandled): {\"errorMessage\":\"é"));
        assert_eq!(failure.answer.unwrap().chars().count(), Failure::MAX_CHARS);
    }

    #[tokio::test]
    async fn another_status_and_an_error_are_failures_of_the_call() {
        let stub = Stub::start(|_| Reply::ok(json!({}))).await;
        let failure = function(&stub, config::InvocationType::Event).send(&[outgoing(1)]).await.unwrap_err();
        assert_eq!(failure, Failure::transient("lambda answered with 200 instead of 202"));

        let stub = Stub::start(|_| Reply::error(429, "TooManyRequestsException")).await;
        let failure = function(&stub, config::InvocationType::Event).send(&[outgoing(1)]).await.unwrap_err();
        assert_eq!(failure.class, Class::Throttled);
        assert!(failure.message.starts_with("TooManyRequestsException"), "{failure}");
        assert_eq!(stub.requests().len(), 1, "the SDK does not try again by itself");

        let stub = Stub::start(|_| Reply::error(413, "RequestTooLargeException")).await;
        let failure = function(&stub, config::InvocationType::Event).send(&[outgoing(1)]).await.unwrap_err();
        assert_eq!(failure.class, Class::Permanent);
    }
}
