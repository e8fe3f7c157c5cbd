//! AWS' errors into failures: the only place that knows which of them can never pass.
//!
//! The table is short on purpose. A delivery that is tried for nothing costs a call a minute until it
//! is too old; one that is given up for nothing is capacity that nobody gets. A missing queue, a
//! denied access, a key that was disabled: a person can mend all of that while the event waits.

use std::error::Error;

use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::BatchResultErrorEntry;

use super::{Class, Failure};

/// Codes that say that this very event can never pass, whatever becomes of the destination.
const NEVER_PASSES: [&str; 6] = [
    // SQS: characters outside of XML's; longer than any call may be.
    "InvalidMessageContents",
    "BatchRequestTooLong",
    // Lambda: no JSON; larger than a payload may be, by the model's and by the wire's name.
    "InvalidRequestContentException",
    "RequestTooLargeException",
    "RequestEntityTooLargeException",
    "SerializedRequestEntityTooLargeException",
];

/// The failure of a whole call.
pub(super) fn failure<E, R>(error: &SdkError<E, R>) -> Failure
where
    E: ProvideErrorMetadata + Error + 'static,
    R: std::fmt::Debug,
{
    match error {
        SdkError::ServiceError(answer) => {
            let error = answer.err();
            let code = error.code().unwrap_or("an answer without an error code");
            let message = error.message().map_or_else(String::new, |message| format!(": {message}"));
            Failure::new(class(code), format!("{}{message}", plain(code)))
        }
        // Nothing, or nothing that can be read, came back: the event may even have arrived.
        _ => Failure::transient(chain(error)),
    }
}

/// The failure of one entry of a batch whose call succeeded.
pub(super) fn entry_failure(entry: &BatchResultErrorEntry) -> Failure {
    let class = if entry.sender_fault() { class(entry.code()) } else { Class::Transient };
    let message = entry.message().map_or_else(String::new, |message| format!(": {message}"));
    Failure::new(class, format!("{}{message}", plain(entry.code())))
}

fn class(code: &str) -> Class {
    if NEVER_PASSES.contains(&plain(code)) { Class::Permanent } else { Class::Transient }
}

/// A code without its namespace: `AWS.SimpleQueueService.BatchRequestTooLong`.
fn plain(code: &str) -> &str {
    code.rsplit(['.', '#']).next().unwrap_or(code)
}

/// An error and its causes. Not their `Debug`, which has headers and bodies in it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        let said = without_request(&said);
        if !text.ends_with(said) {
            text.push_str(": ");
            text.push_str(said);
        }
        cause = error.source();
    }
    text
}

/// Some of the SDK's errors quote the request that they are about, with the event in it.
fn without_request(said: &str) -> &str {
    let end = ["Request {", "SdkBody {"].iter().filter_map(|quoted| said.find(quoted)).min();
    end.map_or(said, |end| said[..end].trim_end_matches([' ', '`', ':', '(']))
}

#[cfg(test)]
mod tests {
    use aws_sdk_lambda::operation::invoke::InvokeError;
    use aws_sdk_lambda::types::error as lambda;
    use aws_sdk_sqs::error::{ConnectorError, ErrorMetadata};
    use aws_sdk_sqs::operation::send_message_batch::SendMessageBatchError;
    use aws_sdk_sqs::types::error as sqs;

    use super::*;

    fn meta(code: &str) -> ErrorMetadata {
        ErrorMetadata::builder().code(code).message("said so").build()
    }

    #[test]
    fn every_shape_of_a_failed_call_has_its_class() {
        use Class::{Permanent, Transient};

        let service = |error: SendMessageBatchError| SdkError::service_error(error, ());
        let coded = |code: &str| service(SendMessageBatchError::generic(meta(code)));
        let io = || std::io::Error::other("reset by peer");
        let sqs_shapes: Vec<(SdkError<SendMessageBatchError, ()>, Class, &str)> = vec![
            (
                SdkError::construction_failure("no region"),
                Transient,
                "failed to construct request: no region",
            ),
            (SdkError::timeout_error("after 10s"), Transient, "request has timed out: after 10s"),
            (
                SdkError::dispatch_failure(ConnectorError::io(io().into())),
                Transient,
                "dispatch failure: io error: reset by peer",
            ),
            (
                SdkError::dispatch_failure(ConnectorError::timeout("connect".into())),
                Transient,
                "dispatch failure: timeout: connect",
            ),
            (
                SdkError::dispatch_failure(ConnectorError::user("bad uri".into())),
                Transient,
                "dispatch failure: user error: bad uri",
            ),
            (SdkError::response_error("cut off", ()), Transient, "response error: cut off"),
            (coded("AWS.SimpleQueueService.NonExistentQueue"), Transient, "NonExistentQueue: said so"),
            (coded("AccessDenied"), Transient, "AccessDenied: said so"),
            (coded("ExpiredToken"), Transient, "ExpiredToken: said so"),
            (coded("RequestThrottled"), Transient, "RequestThrottled: said so"),
            (coded("InvalidParameterValue"), Transient, "InvalidParameterValue: said so"),
            (coded("InternalFailure"), Transient, "InternalFailure: said so"),
            (
                service(SendMessageBatchError::unhandled("no JSON")),
                Transient,
                "an answer without an error code",
            ),
            (coded("AWS.SimpleQueueService.BatchRequestTooLong"), Permanent, "BatchRequestTooLong: said so"),
            (
                service(SendMessageBatchError::BatchRequestTooLong(
                    sqs::BatchRequestTooLong::builder().meta(meta("BatchRequestTooLong")).build(),
                )),
                Permanent,
                "BatchRequestTooLong: said so",
            ),
            (coded("InvalidMessageContents"), Permanent, "InvalidMessageContents: said so"),
        ];
        for (error, class, message) in sqs_shapes {
            assert_eq!(failure(&error), Failure::new(class, message));
        }

        let coded = |code: &str| InvokeError::generic(meta(code));
        let lambda_shapes = [
            (coded("TooManyRequestsException"), Transient),
            (coded("ResourceNotFoundException"), Transient),
            (coded("AccessDeniedException"), Transient),
            (coded("ResourceNotReadyException"), Transient),
            (coded("ServiceException"), Transient),
            (coded("InvalidParameterValueException"), Transient),
            (coded("UnsupportedMediaTypeException"), Transient),
            (coded("InvalidRequestContentException"), Permanent),
            (coded("RequestEntityTooLargeException"), Permanent),
            (coded("SerializedRequestEntityTooLargeException"), Permanent),
            (
                InvokeError::RequestTooLargeException(
                    lambda::RequestTooLargeException::builder()
                        .meta(meta("RequestTooLargeException"))
                        .build(),
                ),
                Permanent,
            ),
        ];
        for (error, class) in lambda_shapes {
            let failure = failure(&SdkError::service_error(error, ()));
            assert_eq!(failure.class, class, "{failure}");
        }
    }

    #[test]
    fn every_shape_of_a_failed_entry_has_its_class() {
        let shapes = [
            ("InvalidMessageContents", true, Class::Permanent),
            ("AWS.SimpleQueueService.InvalidMessageContents", true, Class::Permanent),
            ("InvalidMessageContents", false, Class::Transient),
            ("InvalidParameterValue", true, Class::Transient),
            ("AccessDenied", true, Class::Transient),
            ("KmsThrottled", true, Class::Transient),
            ("InternalError", false, Class::Transient),
            ("", true, Class::Transient),
        ];
        for (code, sender_fault, class) in shapes {
            let entry = BatchResultErrorEntry::builder().id("0").code(code).sender_fault(sender_fault);
            let failure = entry_failure(&entry.message("said so").build().unwrap());
            assert_eq!(failure.class, class, "{code} {sender_fault}");
            assert!(failure.message.ends_with(": said so"), "{failure}");
        }
    }

    #[test]
    fn a_long_message_is_cut_to_whole_characters() {
        let failure = Failure::transient("ü".repeat(5000));
        assert_eq!(failure.message.chars().count(), Failure::MAX_CHARS);
    }
}
