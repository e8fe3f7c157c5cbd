//! The class of every shape of error that the SDK returns.

use aws_sdk_autoscaling::operation::set_desired_capacity::SetDesiredCapacityError;
use aws_sdk_sts::error::ErrorMetadata;

use Class::{Busy, Refused, Unknown};

use super::*;

type Failed = SdkError<SetDesiredCapacityError, HttpResponse>;

fn response(status: u16) -> HttpResponse {
    HttpResponse::new(status.try_into().unwrap(), "a body that nobody shows".into())
}

fn answered(code: &str, status: u16, message: &str) -> Failed {
    let meta = ErrorMetadata::builder().code(code).message(message).build();
    SdkError::service_error(SetDesiredCapacityError::generic(meta), response(status))
}

#[test]
fn answers_are_classified_by_code_and_then_by_status() {
    let cases = [
        // EKS
        ("ResourceInUseException", 409, Busy),
        ("InvalidRequestException", 400, Busy),
        ("ClientException", 400, Busy),
        ("InvalidParameterException", 400, Refused),
        ("ResourceNotFoundException", 404, Refused),
        ("ServerException", 500, Unknown),
        // Auto Scaling
        ("ValidationError", 400, Refused),
        ("ScalingActivityInProgress", 400, Busy),
        ("ResourceContention", 500, Busy),
        ("InternalFailure", 500, Unknown),
        ("ServiceUnavailable", 503, Unknown),
        // ECS
        ("ClusterNotFoundException", 400, Refused),
        ("ServiceNotFoundException", 400, Refused),
        ("ServiceNotActiveException", 400, Refused),
        ("UnsupportedFeatureException", 400, Refused),
        ("PlatformTaskDefinitionIncompatibilityException", 400, Refused),
        // Application Auto Scaling
        ("ConcurrentUpdateException", 500, Busy),
        ("LimitExceededException", 400, Busy),
        ("ValidationException", 400, Refused),
        ("InternalServiceException", 500, Unknown),
        // Any of them
        ("Throttling", 400, Busy),
        ("ThrottlingException", 400, Busy),
        ("ThrottledException", 429, Busy),
        ("RequestThrottled", 503, Busy),
        ("RequestLimitExceeded", 503, Busy),
        ("TooManyRequestsException", 429, Busy),
        ("SlowDown", 503, Busy),
        ("AccessDenied", 403, Busy),
        ("AccessDeniedException", 400, Busy),
        ("UnauthorizedOperation", 403, Busy),
        ("ExpiredToken", 403, Busy),
        ("UnrecognizedClientException", 400, Busy),
        ("InvalidClientTokenId", 403, Busy),
        ("com.amazonaws.ecs#ServiceNotFoundException", 400, Refused),
        ("ValidationException:http://internal.amazon.com/coral/", 400, Refused),
        // Codes of another day
        ("SomethingNew", 400, Busy),
        ("SomethingNew", 500, Unknown),
        ("", 404, Busy),
        ("", 408, Unknown),
        ("", 302, Busy),
        ("", 429, Busy),
        ("", 502, Unknown),
    ];
    for (code, status, expected) in cases {
        assert_eq!(classify(&answered(code, status, "")), expected, "{code} {status}");
    }
}

#[test]
fn calls_without_an_answer_are_classified_by_whether_they_were_sent() {
    let reset = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let no_credentials = CredentialsError::not_loaded("no providers in chain");
    let cases: [(Failed, Class); 9] = [
        (SdkError::construction_failure("no region"), Busy),
        (SdkError::dispatch_failure(ConnectorError::user("bad uri".into())), Busy),
        (SdkError::dispatch_failure(ConnectorError::other(no_credentials.into(), None)), Busy),
        (SdkError::dispatch_failure(ConnectorError::io(reset().into())), Unknown),
        (SdkError::dispatch_failure(ConnectorError::timeout("no answer".into())), Unknown),
        (SdkError::timeout_error("after 8s"), Unknown),
        (SdkError::response_error("cut off", response(200)), Unknown),
        (SdkError::response_error("no XML", response(502)), Unknown),
        (SdkError::response_error("no XML", response(400)), Busy),
    ];
    for (error, expected) in cases {
        assert_eq!(classify(&error), expected, "{error:?}");
    }
}

#[test]
fn a_text_says_what_aws_says_in_one_line() {
    let cases = [
        (answered("ValidationError", 400, "above\nmax  value"), "ValidationError: above max value"),
        (answered("com.amazonaws.ecs#ClientException", 400, "no"), "ClientException: no"),
        (SdkError::timeout_error("after 8s"), "no answer in time"),
        (
            SdkError::dispatch_failure(ConnectorError::user("bad uri".into())),
            "dispatch failure: user error: bad uri",
        ),
    ];
    for (error, expected) in cases {
        assert_eq!(text(&error), expected);
    }
    let long = text(&answered("ValidationError", 400, &"ä".repeat(5_000)));
    assert_eq!(long.chars().count(), MAX_CHARS + 1);
}

#[test]
fn a_text_has_no_secrets() {
    let said = "The signature does not match.\n\nThe Canonical String for this request should have been \
                'x-amz-security-token:FwoGZXIvYXdzE'";
    let error = answered("SignatureDoesNotMatch", 403, said);
    assert_eq!(text(&error), "SignatureDoesNotMatch: The signature does not match.");
    let unreadable: Failed =
        SdkError::service_error(SetDesiredCapacityError::unhandled("no XML"), response(502));
    assert_eq!(text(&unreadable), "an answer of status 502 without an error code");
}

#[test]
fn a_role_that_cannot_be_assumed_says_why() {
    let meta = ErrorMetadata::builder().code("AccessDenied").message("not authorized to assume it").build();
    let refused: SdkError<AssumeRoleError, HttpResponse> =
        SdkError::service_error(AssumeRoleError::generic(meta), response(403));
    let error: Failed = SdkError::dispatch_failure(ConnectorError::other(
        CredentialsError::provider_error(refused).into(),
        None,
    ));
    assert_eq!(classify(&error), Busy);
    let text = text(&error);
    assert!(text.ends_with("AccessDenied: not authorized to assume it"), "{text}");
}
