//! The class of every failure that the SDK can return.

use aws_sdk_lambda::operation::invoke::InvokeError;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::ErrorMetadata;
use aws_sdk_sqs::operation::send_message_batch::SendMessageBatchError;

use Certainty::{NotArrived, Unknown};

use super::Class::{Misconfigured, Permanent, Throttled, Transient};
use super::*;
use crate::dispatch::stub::{Reply, Stub, sqs_client};

fn response(status: u16) -> HttpResponse {
    HttpResponse::new(status.try_into().unwrap(), aws_sdk_lambda::primitives::SdkBody::empty())
}

fn answered(code: &str, status: u16) -> SdkError<SendMessageBatchError, HttpResponse> {
    let meta = ErrorMetadata::builder().code(code).message("said so").build();
    SdkError::service_error(SendMessageBatchError::generic(meta), response(status))
}

/// A failed call, its class, whether the event may have arrived, and a part of its message.
type FailedCall = (SdkError<SendMessageBatchError, HttpResponse>, Class, Certainty, &'static str);

/// Whether it is known that the event did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Certainty {
    NotArrived,
    Unknown,
}

/// Calls that failed because of the request, the connection or the response.
fn failed_calls() -> Vec<FailedCall> {
    let dispatch = SdkError::dispatch_failure;
    let reset = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    vec![
        (
            SdkError::construction_failure("no region"),
            Misconfigured,
            NotArrived,
            "failed to construct request: no region",
        ),
        (SdkError::timeout_error("after 10s"), Transient, Unknown, "request has timed out: after 10s"),
        (
            dispatch(ConnectorError::io(reset().into())),
            Transient,
            Unknown,
            "dispatch failure: io error: connection reset",
        ),
        (
            dispatch(ConnectorError::timeout("connect".into())),
            Transient,
            Unknown,
            "dispatch failure: timeout: connect",
        ),
        (
            dispatch(ConnectorError::other("tls".into(), None)),
            Transient,
            Unknown,
            "dispatch failure: other: tls",
        ),
        (
            dispatch(ConnectorError::user("bad uri".into())),
            Misconfigured,
            NotArrived,
            "dispatch failure: user error: bad uri",
        ),
        (SdkError::response_error("cut off", response(200)), Transient, Unknown, "response error: cut off"),
        (SdkError::response_error("cut off", response(400)), Transient, NotArrived, "HTTP 400"),
        (
            SdkError::service_error(SendMessageBatchError::unhandled("no JSON"), response(502)),
            Transient,
            // A proxy may have passed the request on.
            Unknown,
            "HTTP 502 without an error code",
        ),
        (
            SdkError::service_error(SendMessageBatchError::unhandled("no JSON"), response(403)),
            Misconfigured,
            NotArrived,
            "HTTP 403 without an error code",
        ),
        (
            SdkError::service_error(SendMessageBatchError::unhandled("no JSON"), response(200)),
            Transient,
            Unknown,
            "HTTP 200 without an error code",
        ),
        (answered("InternalFailure", 500), Transient, NotArrived, "InternalFailure: said so"),
        (answered("ServiceUnavailable", 503), Transient, NotArrived, "ServiceUnavailable: said so"),
        (answered("GatewayTimeout", 504), Transient, NotArrived, "GatewayTimeout: said so"),
        (answered("RequestThrottled", 400), Throttled, NotArrived, "RequestThrottled: said so"),
    ]
}

/// Calls that failed because no credentials were available.
fn calls_without_credentials() -> Vec<FailedCall> {
    let dispatch = SdkError::dispatch_failure;
    let refused = CredentialsError::provider_error(SdkError::service_error(
        AssumeRoleError::generic(ErrorMetadata::builder().code("AccessDenied").build()),
        response(403),
    ));
    let expired = AssumeRoleWithWebIdentityError::ExpiredTokenException(
        aws_sdk_sts::types::error::ExpiredTokenException::builder()
            .meta(ErrorMetadata::builder().code("ExpiredTokenException").build())
            .build(),
    );
    let expired = CredentialsError::provider_error(SdkError::service_error(expired, response(400)));
    let unavailable = CredentialsError::provider_error(SdkError::<AssumeRoleError, _>::service_error(
        AssumeRoleError::generic(ErrorMetadata::builder().code("ServiceUnavailable").build()),
        response(503),
    ));
    let not_loaded = || CredentialsError::not_loaded("no providers in chain");
    let credentials_failure = |error: CredentialsError| dispatch(ConnectorError::other(error.into(), None));
    vec![
        (
            SdkError::construction_failure(not_loaded()),
            Misconfigured,
            NotArrived,
            "failed to construct request: the credential provider was not enabled: no providers in chain",
        ),
        (
            SdkError::construction_failure(CredentialsError::provider_timed_out(std::time::Duration::ZERO)),
            Transient,
            NotArrived,
            "failed to construct request: credentials provider timed out after 0 seconds",
        ),
        (
            credentials_failure(not_loaded()),
            Misconfigured,
            NotArrived,
            "dispatch failure: other: the credential provider was not enabled: no providers in chain",
        ),
        (
            credentials_failure(CredentialsError::invalid_configuration("a loop")),
            Misconfigured,
            NotArrived,
            "dispatch failure: other: the credentials provider was not properly configured: a loop",
        ),
        (
            credentials_failure(CredentialsError::unhandled("no UTF-8")),
            Transient,
            NotArrived,
            "dispatch failure: other: unexpected credentials error: no UTF-8",
        ),
        (credentials_failure(refused), Misconfigured, NotArrived, "AccessDenied"),
        (credentials_failure(expired), Misconfigured, NotArrived, "ExpiredTokenException"),
        (credentials_failure(unavailable), Transient, NotArrived, "ServiceUnavailable"),
    ]
}

#[test]
fn every_shape_of_a_failed_call_has_its_class() {
    for (error, class, certainty, message) in failed_calls().into_iter().chain(calls_without_credentials()) {
        let failure = failure(&error);
        assert_eq!(failure.class, class, "{failure}");
        assert_eq!(failure.uncertain, certainty == Unknown, "{failure}");
        assert!(failure.message.contains(message), "{failure}");
    }
}

/// Codes on the wire. The SDK models all but the last two.
const SQS_CODES: [(&str, Class); 19] = [
    ("AWS.SimpleQueueService.BatchEntryIdsNotDistinct", Transient),
    ("AWS.SimpleQueueService.BatchRequestTooLong", Permanent),
    ("AWS.SimpleQueueService.EmptyBatchRequest", Transient),
    ("InvalidAddress", Misconfigured),
    ("AWS.SimpleQueueService.InvalidBatchEntryId", Transient),
    ("InvalidSecurity", Misconfigured),
    ("KMS.AccessDeniedException", Misconfigured),
    ("KMS.DisabledException", Misconfigured),
    ("KMS.InvalidKeyUsageException", Misconfigured),
    ("KMS.InvalidStateException", Misconfigured),
    ("KMS.NotFoundException", Misconfigured),
    ("KMS.OptInRequired", Misconfigured),
    ("KMS.ThrottlingException", Throttled),
    ("AWS.SimpleQueueService.NonExistentQueue", Misconfigured),
    ("RequestThrottled", Throttled),
    ("AWS.SimpleQueueService.TooManyEntriesInBatchRequest", Transient),
    ("AWS.SimpleQueueService.UnsupportedOperation", Misconfigured),
    // Codes of single messages, which proxies and emulators may return for a whole call.
    ("InvalidMessageContents", Permanent),
    ("InvalidParameterValue", Misconfigured),
];

const LAMBDA_CODES: [(&str, Class); 41] = [
    ("CodeArtifactUserDeletedException", Misconfigured),
    ("CodeArtifactUserFailedException", Misconfigured),
    ("CodeArtifactUserPendingException", Transient),
    ("DurableExecutionAlreadyStartedException", Permanent),
    ("EC2AccessDeniedException", Misconfigured),
    ("EC2ThrottledException", Throttled),
    ("EC2UnexpectedException", Transient),
    ("EFSIOException", Transient),
    ("EFSMountConnectivityException", Transient),
    ("EFSMountFailureException", Misconfigured),
    ("EFSMountTimeoutException", Transient),
    ("ENILimitReachedException", Transient),
    ("ENINotReadyException", Transient),
    ("InvalidParameterValueException", Misconfigured),
    ("InvalidRequestContentException", Permanent),
    ("InvalidRuntimeException", Misconfigured),
    ("InvalidSecurityGroupIDException", Misconfigured),
    ("InvalidSubnetIDException", Misconfigured),
    ("InvalidZipFileException", Misconfigured),
    ("KMSAccessDeniedException", Misconfigured),
    ("KMSDisabledException", Misconfigured),
    ("KMSInvalidStateException", Misconfigured),
    ("KMSNotFoundException", Misconfigured),
    ("ModeNotSupportedException", Misconfigured),
    ("NoPublishedVersionException", Misconfigured),
    ("RecursiveInvocationException", Misconfigured),
    ("RequestTooLargeException", Permanent),
    ("ResourceConflictException", Transient),
    ("ResourceNotFoundException", Misconfigured),
    ("ResourceNotReadyException", Transient),
    ("S3FilesMountConnectivityException", Transient),
    ("S3FilesMountFailureException", Misconfigured),
    ("S3FilesMountTimeoutException", Transient),
    ("SerializedRequestEntityTooLargeException", Permanent),
    ("ServiceException", Transient),
    ("ServiceQuotaExceededException", Transient),
    ("SnapStartException", Transient),
    ("SnapStartNotReadyException", Transient),
    ("SnapStartRegenerationFailureException", Transient),
    ("SnapStartTimeoutException", Transient),
    ("SubnetIPAddressLimitReachedException", Transient),
];

/// Codes on the wire. All of them are in the model of `PublishBatch`.
const SNS_CODES: [(&str, Class); 20] = [
    ("AuthorizationError", Misconfigured),
    ("BatchEntryIdsNotDistinct", Transient),
    ("BatchRequestTooLong", Permanent),
    ("EmptyBatchRequest", Transient),
    ("EndpointDisabled", Misconfigured),
    ("InternalError", Transient),
    ("InvalidBatchEntryId", Transient),
    ("InvalidParameter", Misconfigured),
    ("ParameterValueInvalid", Misconfigured),
    ("InvalidSecurity", Misconfigured),
    ("KMSAccessDenied", Misconfigured),
    ("KMSDisabled", Misconfigured),
    ("KMSInvalidState", Misconfigured),
    ("KMSNotFound", Misconfigured),
    ("KMSOptInRequired", Misconfigured),
    ("KMSThrottling", Throttled),
    ("NotFound", Misconfigured),
    ("PlatformApplicationDisabled", Misconfigured),
    ("TooManyEntriesInBatchRequest", Transient),
    ("ValidationException", Misconfigured),
];

/// All of them are in the model of `StartExecution`.
const STEP_FUNCTIONS_CODES: [(&str, Class); 11] = [
    // Delivered if the name was tried before.
    ("ExecutionAlreadyExists", Permanent),
    ("ExecutionLimitExceeded", Throttled),
    ("InvalidArn", Misconfigured),
    ("InvalidExecutionInput", Permanent),
    ("InvalidName", Permanent),
    ("KmsAccessDeniedException", Misconfigured),
    ("KmsInvalidStateException", Misconfigured),
    ("KmsThrottlingException", Throttled),
    ("StateMachineDeleting", Misconfigured),
    ("StateMachineDoesNotExist", Misconfigured),
    ("ValidationException", Misconfigured),
];

/// Codes of the entries of `PutEvents`, as the documentation of the response lists them. Those that are not in a list of
/// `errors.rs` are retried.
const EVENTBRIDGE_ENTRY_CODES: [(&str, Class); 10] = [
    ("InternalFailure", Transient),
    ("InternalException", Transient),
    ("ThrottlingException", Throttled),
    ("AccessDeniedException", Misconfigured),
    ("InvalidAccountIdException", Misconfigured),
    ("InvalidArgument", Misconfigured),
    ("MalformedDetail", Permanent),
    ("RedactionFailure", Transient),
    ("NotAuthorizedForSourceException", Misconfigured),
    ("NotAuthorizedForDetailTypeException", Misconfigured),
];

/// Codes that are in no model and are common to all services.
const UNMODELLED_CODES: [(&str, u16, Class); 44] = [
    ("TooManyRequestsException", 429, Throttled),
    ("UnsupportedMediaTypeException", 415, Permanent),
    ("RequestEntityTooLargeException", 413, Permanent),
    ("com.amazonaws.sqs#QueueDoesNotExist", 400, Misconfigured),
    ("com.amazonaws.sqs#KmsDisabled", 400, Misconfigured),
    ("com.amazonaws.sqs#KmsThrottled", 400, Throttled),
    ("Throttling", 400, Throttled),
    ("ThrottlingException", 400, Throttled),
    ("ThrottledException", 400, Throttled),
    ("RequestThrottledException", 400, Throttled),
    ("ProvisionedThroughputExceededException", 400, Throttled),
    ("RequestLimitExceeded", 503, Throttled),
    ("LimitExceededException", 400, Throttled),
    ("SlowDown", 503, Throttled),
    ("AccessDenied", 403, Misconfigured),
    ("AccessDeniedException", 403, Misconfigured),
    ("AWS.SimpleQueueService.AccessDenied", 403, Misconfigured),
    ("ExpiredToken", 403, Misconfigured),
    ("ExpiredTokenException", 400, Misconfigured),
    ("UnrecognizedClientException", 400, Misconfigured),
    ("InvalidClientTokenId", 403, Misconfigured),
    ("InvalidAccessKeyId", 403, Misconfigured),
    ("InvalidSignatureException", 400, Misconfigured),
    ("SignatureDoesNotMatch", 403, Misconfigured),
    ("IncompleteSignature", 400, Misconfigured),
    ("MissingAuthenticationTokenException", 400, Misconfigured),
    ("OptInRequired", 403, Misconfigured),
    ("RequestExpired", 400, Misconfigured),
    ("UnknownOperationException", 400, Misconfigured),
    ("ValidationException", 400, Misconfigured),
    ("MissingParameter", 400, Misconfigured),
    ("ServiceUnavailable", 503, Transient),
    ("InternalError", 500, Transient),
    ("InternalFailure", 500, Transient),
    ("InternalServerError", 500, Transient),
    ("RequestTimeout", 408, Transient),
    ("RequestTimeoutException", 400, Transient),
    // Unknown codes: classified by the status.
    ("SomethingNew", 400, Transient),
    ("SomethingNew", 401, Misconfigured),
    ("SomethingNew", 403, Misconfigured),
    ("SomethingNew", 404, Misconfigured),
    ("SomethingNew", 413, Permanent),
    ("SomethingNew", 429, Throttled),
    ("SomethingNew", 500, Transient),
];

#[test]
fn every_code_has_its_class() {
    let modelled = SQS_CODES.iter().chain(&LAMBDA_CODES).chain(&SNS_CODES).chain(&STEP_FUNCTIONS_CODES);
    let modelled = modelled.map(|&(code, class)| (code, 400, class));
    for (code, status, class) in modelled.chain(UNMODELLED_CODES) {
        let failure = failure(&answered(code, status));
        assert_eq!(failure.class, class, "{code} {status}");
        assert_eq!(failure.message, format!("{}: said so", strip_namespace(code)));
    }
    for name in PERMANENT_CODES
        .iter()
        .chain(&THROTTLED_CODES)
        .chain(&MISCONFIGURED_CODES)
        .chain(&UNUSABLE_RESOURCE_CODES)
    {
        let lists = [&PERMANENT_CODES[..], &THROTTLED_CODES, &MISCONFIGURED_CODES, &UNUSABLE_RESOURCE_CODES];
        assert_eq!(lists.iter().filter(|list| list.contains(name)).count(), 1, "{name}");
        assert_eq!(*name, super::normalize_code(name), "it would never match");
    }
}

/// The codes of the tables that count as modelled are parsed by the SDK as modelled errors.
#[tokio::test]
async fn the_tables_have_the_names_that_the_sdk_reads() {
    for (code, class) in &SQS_CODES[..17] {
        let header: &str = format!("{code};Sender").leak();
        let stub = Stub::start(move |_| Reply::error(400, "x").header("x-amzn-query-error", header)).await;
        let call = sqs_client(&stub).send_message_batch().queue_url("https://sqs/1/q");
        let error = call.send().await.unwrap_err();
        assert_eq!(failure(&error).class, *class, "{code}");
        let unknown =
            matches!(error.into_service_error(), error if format!("{error:?}").starts_with("Unhandled"));
        assert!(!unknown, "{code} is not in the model");
    }
    let lambda_codes = LAMBDA_CODES.iter().map(|(code, class)| (*code, *class));
    let unmodelled_lambda_codes = UNMODELLED_CODES[..2].iter().map(|(code, _, class)| (*code, *class));
    for (code, class) in lambda_codes.chain(unmodelled_lambda_codes) {
        let stub = Stub::start(move |_| Reply::error(400, code)).await;
        let error = crate::dispatch::stub::lambda_client(&stub).invoke().function_name("f").send().await;
        let error = error.unwrap_err();
        assert_eq!(failure(&error).class, class, "{code}");
        let error: InvokeError = error.into_service_error();
        assert!(!format!("{error:?}").starts_with("Unhandled"), "{code} is not in the model");
    }
}

#[tokio::test]
async fn the_tables_of_topics_and_state_machines_have_the_names_that_the_sdk_reads() {
    for (code, class) in SNS_CODES {
        let text = format!(
            "<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><Error><Type>Sender</Type>\
             <Code>{code}</Code><Message>said so</Message></Error></ErrorResponse>"
        );
        let stub = Stub::start(move |_| Reply::text(400, &text)).await;
        let client = aws_sdk_sns::Client::new(&stub.sdk_config());
        let error = client.publish_batch().topic_arn("a").send().await.unwrap_err();
        assert_eq!(failure(&error).class, class, "{code}");
        let error = format!("{:?}", error.into_service_error());
        assert!(!error.starts_with("Unhandled"), "{code} is not in the model");
    }
    for (code, class) in STEP_FUNCTIONS_CODES {
        let stub = Stub::start(move |_| Reply::error(400, code)).await;
        let client = aws_sdk_sfn::Client::new(&stub.sdk_config());
        let error = client.start_execution().state_machine_arn("a").send().await.unwrap_err();
        assert_eq!(failure(&error).class, class, "{code}");
        let error = format!("{:?}", error.into_service_error());
        assert!(!error.starts_with("Unhandled"), "{code} is not in the model");
    }
}

#[test]
fn every_entry_of_eventbridge_has_its_class() {
    for (code, class) in EVENTBRIDGE_ENTRY_CODES {
        let failure = entry_failure_without_fault(code, Some("said so"));
        assert_eq!((failure.class, failure.uncertain), (class, false), "{code}");
        assert_eq!(failure.message, format!("{code}: said so"));
    }
}

#[test]
fn every_shape_of_a_failed_entry_has_its_class() {
    let shapes = [
        ("InvalidMessageContents", true, Permanent),
        ("AWS.SimpleQueueService.InvalidMessageContents", true, Permanent),
        ("InvalidMessageContents", false, Transient),
        ("InvalidParameterValue", true, Permanent),
        ("InvalidParameter", true, Permanent),
        ("ParameterValueInvalid", true, Permanent),
        ("AuthorizationError", true, Misconfigured),
        ("KMSThrottling", true, Throttled),
        ("SomethingNew", true, Permanent),
        ("", true, Permanent),
        ("AccessDenied", true, Misconfigured),
        ("KMS.DisabledException", true, Misconfigured),
        ("KMS.ThrottlingException", true, Throttled),
        ("RequestThrottled", true, Throttled),
        ("InternalError", false, Transient),
        ("", false, Transient),
    ];
    for (code, sender_fault, class) in shapes {
        let failure = entry_failure(code, Some("said so"), sender_fault);
        assert_eq!(failure.class, class, "{code} {sender_fault}");
        assert!(failure.message.ends_with(": said so"), "{failure}");
    }
}

#[test]
fn what_was_signed_is_redacted() {
    let message = "The request signature we calculated does not match. The Canonical String for this request \
                should have been\n'POST\n/\nx-amz-security-token:FwoGZXIvYXdzE'";
    let meta = ErrorMetadata::builder().code("SignatureDoesNotMatch").message(message).build();
    let error = SdkError::service_error(SendMessageBatchError::generic(meta), response(403));
    let expected = "SignatureDoesNotMatch: The request signature we calculated does not match.";
    assert_eq!(failure(&error).message, expected);
}

#[test]
fn a_long_message_is_cut_to_whole_characters() {
    let failure = Failure::transient("ü".repeat(5000));
    assert_eq!(failure.message.chars().count(), Failure::MAX_CHARS);
}

/// A call of a server that treats each connection in this way, or of nobody.
async fn call(url: String) -> Failure {
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version_latest()
        .region(aws_sdk_sqs::config::Region::new("eu-west-1"))
        .credentials_provider(aws_sdk_sqs::config::Credentials::new("id", "secret", None, None, "test"))
        .retry_config(aws_sdk_sqs::config::retry::RetryConfig::disabled())
        .timeout_config(
            aws_sdk_sqs::config::timeout::TimeoutConfig::builder()
                .operation_timeout(std::time::Duration::from_millis(500))
                .build(),
        )
        .endpoint_url(url);
    let client = aws_sdk_sqs::Client::from_conf(config.build());
    failure(&client.send_message_batch().queue_url("q").send().await.unwrap_err())
}

async fn server<F: Future<Output = ()> + Send>(
    treat: impl Fn(tokio::net::TcpStream) -> F + Send + 'static,
) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            treat(stream).await;
        }
    });
    address
}

/// Reads the beginning of a request.
async fn read_request(stream: &mut tokio::net::TcpStream) {
    use tokio::io::AsyncReadExt as _;
    let mut bytes = [0; 4096];
    assert!(stream.read(&mut bytes).await.unwrap() > 0);
}

#[tokio::test]
async fn an_event_that_was_not_sent_has_not_arrived() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let closing = server(async |mut stream| read_request(&mut stream).await).await;
    for (url, reason) in [
        (format!("http://{nobody}"), "refused"),
        ("http://queue.invalid".to_owned(), "dns"),
        (format!("https://{closing}"), "tls"),
    ] {
        let failure = call(url).await;
        assert!(failure.class == Transient && !failure.uncertain, "{reason}: {failure:?}");
    }
}

#[tokio::test]
async fn an_event_that_may_have_been_sent_may_have_arrived() {
    use tokio::io::AsyncWriteExt as _;
    let closing = server(async |mut stream| read_request(&mut stream).await).await;
    let silent = server(async |mut stream| {
        read_request(&mut stream).await;
        std::future::pending::<()>().await;
    });
    let cut = server(async |mut stream| {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"Succ").await.unwrap();
    });
    for (address, reason) in [(closing, "closed"), (silent.await, "time-out"), (cut.await, "cut off")] {
        let failure = call(format!("http://{address}")).await;
        assert!(failure.class == Transient && failure.uncertain, "{reason}: {failure:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_json_is_shown_as_text() {
    let page = "<html><head><title>502 Bad Gateway</title></head>\r\n<body><h1>502 Bad Gateway</h1>nginx\u{1b}</body>";
    let xml = "<?xml version=\"1.0\"?><ErrorResponse><Error><Type>Sender</Type>\
        <Code>AWS.SimpleQueueService.NonExistentQueue</Code><Message>No such queue.</Message></Error></ErrorResponse>";
    let long = "word ".repeat(500);
    let expected = "HTTP 502 without an error code (text/html): 502 Bad Gateway 502 Bad Gateway nginx\\u{1b}";
    for (status, kind, body, class, message) in [
        (502, "text/html", page, Transient, expected),
        (
            403,
            "text/plain",
            "Forbidden",
            Misconfigured,
            "HTTP 403 without an error code (text/plain): Forbidden",
        ),
        (400, "text/xml", xml, Misconfigured, "NonExistentQueue: No such queue."),
        (503, "text/plain", "", Transient, "HTTP 503 without an error code (text/plain)"),
    ] {
        let reply = Reply::text(status, body).header("content-type", kind);
        let stub = Stub::start(move |_| reply.clone()).await;
        let failure = call(stub.url().to_owned()).await;
        assert_eq!((failure.class, &*failure.message), (class, message));
    }
    let stub = Stub::start(move |_| Reply::text(500, &long)).await;
    assert_eq!(call(stub.url().to_owned()).await.message.chars().count(), 300);
}

#[test]
fn refused_credentials_are_recognized() {
    let codes = [
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "InvalidSignatureException",
        "com.amazon.coral.service#UnrecognizedClientException",
    ];
    assert!(codes.iter().all(|code| refuses_credentials(&answered(code, 403))));
    for code in ["AccessDenied", "RequestThrottled", "QueueDoesNotExist", "RequestExpired"] {
        assert!(!refuses_credentials(&answered(code, 403)), "{code}");
    }
    let by_sts = |code| {
        let error = AssumeRoleError::generic(ErrorMetadata::builder().code(code).build());
        let cause = CredentialsError::provider_error(SdkError::service_error(error, response(403)));
        SdkError::<SendMessageBatchError, _>::dispatch_failure(ConnectorError::other(cause.into(), None))
    };
    assert!(refuses_credentials(&by_sts("ExpiredToken")) && !refuses_credentials(&by_sts("AccessDenied")));
}
