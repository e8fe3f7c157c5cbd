//! State machines of AWS Step Functions, called with `StartExecution`: one execution for each event.
//!
//! The execution has the event's id as name, see [`OutgoingEvent::execution_name`], and the event as input. For a
//! standard workflow, a name starts one execution: the call is repeated safely if its answer was lost. If the execution
//! has ended by then, or the event has another `expirytime`, Step Functions answers `ExecutionAlreadyExists`. Each call
//! is stored before it is made, so that it is known after a kill whether the name was tried.
//!
//! An express workflow starts an execution for each call. Its executions have to compare ids.

pub(super) mod schema;
pub(super) mod settings;

use aws_config::SdkConfig;
use aws_sdk_sfn::Client;

use super::{Answer, Destination, Failure, Limits, OutgoingEvent, aws};
pub(super) use settings::Settings;

/// The limit of Step Functions for the input of an execution.
const MAX_INPUT_BYTES: usize = 256 * 1024;

/// The name has been taken.
const ALREADY_EXISTS: &str = "ExecutionAlreadyExists";

pub(super) type Clients = aws::SharedClients<Client>;

/// A client for destinations with this key.
pub(super) fn client(config: &SdkConfig, key: &aws::Key) -> Client {
    let mut config = aws_sdk_sfn::config::Builder::from(config);
    config.set_timeout_config(Some(key.timeouts()));
    if let Some(endpoint) = key.endpoint_url() {
        config.set_endpoint_url(Some(endpoint.to_owned()));
    }
    Client::from_conf(config.build())
}

#[derive(Debug)]
pub(crate) struct StepFunctions {
    client: Client,
    state_machine_arn: String,
    credentials: aws::CredentialsHandle,
}

impl StepFunctions {
    /// The state machine is called at the client's endpoint.
    pub(crate) fn new(client: Client, settings: &Settings) -> Self {
        let state_machine_arn = settings.state_machine_arn.clone();
        Self { client, state_machine_arn, credentials: aws::CredentialsHandle::default() }
    }

    /// The same destination, with the credentials of its client.
    pub(in crate::dispatch) fn with_credentials(self, credentials: aws::CredentialsHandle) -> Self {
        Self { credentials, ..self }
    }

    async fn start(&self, event: &OutgoingEvent) -> Result<Answer, Failure> {
        let call = self.client.start_execution().state_machine_arn(&self.state_machine_arn);
        let name = event.execution_name();
        let call = call.name(&name).input(&*event.body).customize().interceptor(aws::BOUNDED_RESPONSE);
        match call.send().await {
            // The field is required; the SDK leaves it empty if it is missing.
            Ok(output) if output.execution_arn().is_empty() => Ok(Err(aws::missing_answer("Step Functions"))),
            Ok(output) => {
                let arn: String = output.execution_arn().chars().take(400).collect();
                Ok(Ok(Some(format!("executionArn {arn}"))))
            }
            Err(error) if aws::is_code(&error, ALREADY_EXISTS) => {
                Ok(event.answer_for_taken_name(ALREADY_EXISTS, &name))
            }
            Err(error) => Err(self.credentials.failure(&error)),
        }
    }
}

impl Destination for StepFunctions {
    fn limits(&self) -> Limits {
        Limits { events: 1, bytes: MAX_INPUT_BYTES, max_event_bytes: MAX_INPUT_BYTES }
    }

    fn event_bytes(&self, event: &OutgoingEvent) -> usize {
        event.body.len()
    }

    fn stores_calls(&self) -> bool {
        true
    }

    async fn send(&self, batch: &[OutgoingEvent]) -> Result<Vec<Answer>, Failure> {
        let mut answers = Vec::with_capacity(batch.len());
        // At most one, see `limits`.
        for event in batch {
            answers.push(self.start(event).await?);
        }
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dispatch::Class;
    use crate::dispatch::stub::{Reply, Stub, outgoing};

    const ARN: &str = "arn:aws:states:eu-west-1:123456789012:stateMachine:scaling:live";

    fn state_machine(stub: &Stub) -> StepFunctions {
        let settings = Settings { state_machine_arn: ARN.into(), access: aws::Access::default() };
        StepFunctions::new(Client::new(&stub.sdk_config()), &settings)
    }

    fn started() -> Reply {
        let arn = "arn:aws:states:eu-west-1:123456789012:execution:scaling:7";
        Reply::ok(json!({ "executionArn": arn, "startDate": 1_795_366_520.0 }))
    }

    #[tokio::test]
    async fn an_execution_has_the_event_as_input_and_its_id_as_name() {
        let stub = Stub::start(|_| started()).await;
        let event = outgoing(7);
        let answers = state_machine(&stub).send(std::slice::from_ref(&event)).await;
        let arn = "executionArn arn:aws:states:eu-west-1:123456789012:execution:scaling:7";
        assert_eq!(answers, Ok(vec![Ok(Some(arn.into()))]));
        let request = stub.only_request();
        assert_eq!(request.headers["x-amz-target"], "AWSStepFunctions.StartExecution");
        let expected = json!({
            "stateMachineArn": ARN, "name": "00000000000000000000000000000007", "input": &*event.body,
        });
        assert_eq!(request.json(), expected);
    }

    #[tokio::test]
    async fn after_redrives_that_set_another_expirytime_their_number_is_in_the_name() {
        let stub = Stub::start(|_| started()).await;
        let event = OutgoingEvent { redrives: 2, attempts: 9, ..outgoing(7) };
        state_machine(&stub).send(&[event]).await.unwrap()[0].as_ref().unwrap();
        assert_eq!(stub.only_request().json()["name"], "00000000000000000000000000000007-2");
    }

    #[tokio::test]
    async fn a_name_that_is_taken_was_delivered_if_it_was_tried_before() {
        let stub = Stub::start(|_| Reply::error(400, ALREADY_EXISTS)).await;
        let state_machine = state_machine(&stub);
        let answer = async |event: OutgoingEvent| state_machine.send(&[event]).await.unwrap().remove(0);
        let first = outgoing(7);
        for event in [
            OutgoingEvent { attempts: 1, ..first.clone() },
            // The bridge was killed during the call.
            OutgoingEvent { is_uncertain: true, ..first.clone() },
            OutgoingEvent { attempts: 2, last_error: Some("request has timed out".into()), ..first.clone() },
        ] {
            let delivered = answer(event).await.unwrap().unwrap();
            assert_eq!(delivered, "ExecutionAlreadyExists 00000000000000000000000000000007");
        }
        let failure = answer(first.clone()).await.unwrap_err();
        assert_eq!((failure.class, failure.uncertain), (Class::Permanent, false), "{failure}");
        assert!(failure.message.contains("00000000000000000000000000000007"), "{failure}");
        // Redriven with the same name.
        let again = OutgoingEvent { attempts: 1, last_error: Some(failure.message.into()), ..first };
        assert_eq!(answer(again).await.unwrap_err().class, Class::Permanent);
    }

    #[tokio::test]
    async fn an_answer_without_an_execution_says_nothing() {
        for body in ["{}", "null"] {
            let stub = Stub::start(move |_| Reply::text(200, body)).await;
            let answers = state_machine(&stub).send(&[outgoing(7)]).await;
            let failure = match answers {
                Ok(mut answers) => answers.remove(0).unwrap_err(),
                Err(failure) => failure,
            };
            assert_eq!((failure.class, failure.uncertain), (Class::Transient, true), "{body}: {failure}");
        }
    }

    #[tokio::test]
    async fn a_call_that_fails_has_the_class_of_its_code() {
        for (status, code, class) in [
            (400, "StateMachineDoesNotExist", Class::Misconfigured),
            (400, "StateMachineDeleting", Class::Misconfigured),
            (400, "ExecutionLimitExceeded", Class::Throttled),
            (400, "ThrottlingException", Class::Throttled),
            (400, "InvalidExecutionInput", Class::Permanent),
            (400, "KmsAccessDeniedException", Class::Misconfigured),
            (500, "InternalServerError", Class::Transient),
        ] {
            let stub = Stub::start(move |_| Reply::error(status, code)).await;
            let failure = state_machine(&stub).send(&[outgoing(0)]).await.unwrap_err();
            assert_eq!((failure.class, failure.uncertain), (class, false), "{failure}");
            assert_eq!(stub.requests().len(), 1, "the SDK does not retry");
        }
    }
}
