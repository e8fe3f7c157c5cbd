//! Clients and roles of destinations, against a server in place of AWS.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use serde_json::json;

use super::super::*;
use crate::config::Delivery;
use crate::dispatch::Class;
use crate::dispatch::aws::{Access, Role};
use crate::dispatch::stub::{Reply, Request, Stub, outgoing};
use crate::domain::name::Name;

type Configured = config::Destination<DestinationSettings>;

fn destination(name: &str, settings: DestinationSettings) -> Configured {
    let second = Duration::from_secs(1);
    config::Destination {
        max_backlog: None,
        name: Name::new(name).unwrap(),
        settings,
        acting: true,
        delivery: Delivery {
            initial_backoff: second,
            max_backoff: second,
            max_age: second,
            scale_in_max_age: second,
        },
        concurrency: 1,
        timeout: Duration::from_secs(7),
    }
}

fn queue(name: &str, region: &str, endpoint_url: Option<&str>, role: Option<Role>) -> Configured {
    let access = Access { region: Some(region.into()), endpoint_url: endpoint_url.map(Into::into), role };
    let sqs = sqs::Settings {
        queue_url: format!("https://sqs.eu-west-1.amazonaws.com/123456789012/{name}"),
        fifo: false,
        access,
        max_message_bytes: sqs::Settings::MAX_MESSAGE_BYTES,
    };
    destination(name, DestinationSettings::Sqs(sqs))
}

fn function(name: &str, endpoint_url: &str, role: Role) -> Configured {
    let (region, endpoint_url) = (Some("eu-west-1".into()), Some(endpoint_url.into()));
    let lambda = lambda::Settings {
        function: name.into(),
        qualifier: None,
        invocation_type: lambda::InvocationType::Event,
        max_events: 1,
        durable: false,
        access: Access { region, endpoint_url, role: Some(role) },
    };
    destination(name, DestinationSettings::Lambda(lambda))
}

fn role(external_id: Option<&str>) -> Role {
    let arn = "arn:aws:iam::123456789012:role/scaling".into();
    Role { arn, external_id: external_id.map(Into::into) }
}

/// Clients whose base configuration uses the stub, also for STS.
async fn clients(stub: &Stub) -> Clients {
    let loader = aws_config::defaults(aws_config::BehaviorVersion::latest())
        .region(aws_config::Region::new("eu-west-1"))
        .credentials_provider(stub.credentials())
        .retry_config(RetryConfig::disabled())
        .endpoint_url(stub.url());
    Clients { aws: aws::Configs::with_base("eu-west-1", loader.load().await), ..Clients::default() }
}

/// A stub that replies to STS with `sts`, and to other calls as SQS and Lambda do.
async fn with_sts(sts: impl Fn() -> Reply + Clone + Send + Sync + 'static) -> Stub {
    Stub::start(move |request| {
        if is_assume_role(request) {
            sts()
        } else if request.uri.contains("/functions/") {
            Reply::status(202)
        } else {
            let entry = json!({ "Id": "0", "MessageId": "m", "MD5OfMessageBody": "x" });
            Reply::ok(json!({ "Successful": [entry], "Failed": [] }))
        }
    })
    .await
}

fn is_assume_role(request: &Request) -> bool {
    String::from_utf8_lossy(&request.body).contains("Action=AssumeRole")
}

fn session(expires: &str) -> Reply {
    Reply::text(
        200,
        &format!(
            "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
         <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/scaling/s</Arn>\
         <AssumedRoleId>A:s</AssumedRoleId></AssumedRoleUser><Credentials><AccessKeyId>OFTHEROLE</AccessKeyId>\
         <SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken>\
         <Expiration>{expires}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
        ),
    )
}

#[tokio::test]
async fn a_client_has_its_destinations_region_and_time_and_no_retries() {
    let mut clients = Clients::default();
    let paris = queue("a", "eu-west-3", None, None);
    let dublin = queue("b", "eu-west-1", Some("http://127.0.0.1:9"), None);
    for (destination, region) in [(&paris, "eu-west-3"), (&dublin, "eu-west-1"), (&paris, "eu-west-3")] {
        let ConnectedDestination::Sqs(sqs) = clients.connect(destination).await.unwrap() else { panic!() };
        let config = sqs.client().config();
        assert_eq!(config.region().map(AsRef::as_ref), Some(region));
        assert_eq!(config.retry_config().map(RetryConfig::max_attempts), Some(1));
        let timeouts = config.timeout_config().unwrap();
        assert_eq!(timeouts.operation_timeout(), Some(Duration::from_secs(7)));
        assert_eq!(timeouts.connect_timeout(), Some(Duration::from_secs(3)));
    }
    assert_eq!(clients.aws.counts().0, 2, "loaded once per region");
}
#[tokio::test]
async fn destinations_that_agree_share_a_client_and_a_session() {
    let stub = with_sts(|| session("2099-01-01T00:00:00Z")).await;
    let mut clients = clients(&stub).await;
    let shared = role(Some("x-1"));
    let (first, second) = (
        queue("first", "eu-west-1", None, Some(shared.clone())),
        queue("second", "eu-west-1", None, Some(shared.clone())),
    );
    let scaler = function("scaler", stub.url(), shared.clone());
    let other = queue("other", "eu-west-1", None, Some(role(None)));
    let own = queue("own", "eu-west-1", None, None);
    for destination in [&first, &second, &scaler, &other, &own] {
        let connected = clients.connect(destination).await.unwrap();
        for event in [1, 2] {
            let answers = connected.send(&[outgoing(event)]).await.unwrap();
            assert!(matches!(&answers[..], [Ok(Some(_))]), "{answers:?}");
        }
    }
    assert_eq!((clients.sqs.len(), clients.lambda.len(), clients.aws.counts().1), (3, 1, 2));

    let requests = stub.requests();
    let (sts_requests, sent): (Vec<_>, Vec<_>) = requests.into_iter().partition(is_assume_role);
    let bodies: Vec<_> = sts_requests.iter().map(|request| String::from_utf8_lossy(&request.body)).collect();
    assert_eq!(bodies.len(), 2, "one session for the queues and the function, one without an external id");
    let arn = "RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fscaling";
    assert!(bodies[0].contains(arn) && bodies[0].contains("RoleSessionName=scalebridge-first"));
    assert!(bodies[0].contains("ExternalId=x-1") && !bodies[1].contains("ExternalId"), "{bodies:?}");
    let signers: Vec<_> = sent
        .iter()
        .map(|request| request.headers["authorization"].to_str().unwrap().contains("Credential=OFTHEROLE/"))
        .collect();
    assert_eq!(signers, [[true; 8].as_slice(), &[false; 2]].concat());
    assert_eq!(sent[0].headers["x-amz-security-token"], "token");
}

#[tokio::test]
async fn buses_topics_and_state_machines_are_called_with_the_role_of_their_destination() {
    let stub = Stub::start(|request| {
        let target = request.headers.get("x-amz-target").map(|target| target.to_str().unwrap());
        match target {
            _ if is_assume_role(request) => session("2099-01-01T00:00:00Z"),
            Some("AWSEvents.PutEvents") => {
                Reply::ok(json!({ "FailedEntryCount": 0, "Entries": [{ "EventId": "e" }] }))
            }
            Some(_) => Reply::ok(json!({ "executionArn": "a", "startDate": 1.0 })),
            None => Reply::text(
                200,
                "<PublishBatchResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishBatchResult>\
                 <Successful><member><Id>0</Id><MessageId>m</MessageId></member></Successful><Failed/>\
                 </PublishBatchResult></PublishBatchResponse>",
            ),
        }
    })
    .await;
    let mut clients = clients(&stub).await;
    let access = Access {
        region: Some("eu-west-1".into()),
        endpoint_url: Some(stub.url().into()),
        role: Some(role(Some("x-1"))),
    };
    let bus = eventbridge::Settings {
        bus: "scaling".into(),
        access: access.clone(),
        max_entry_bytes: eventbridge::Settings::MAX_ENTRY_BYTES,
    };
    let topic = sns::Settings {
        topic_arn: "arn:aws:sns:eu-west-1:123456789012:scaling".into(),
        fifo: false,
        access: access.clone(),
        max_message_bytes: sns::Settings::MAX_MESSAGE_BYTES,
    };
    let workflow = step_functions::Settings {
        state_machine_arn: "arn:aws:states:eu-west-1:123456789012:stateMachine:scaling".into(),
        access,
    };
    for settings in [
        DestinationSettings::Eventbridge(bus),
        DestinationSettings::Sns(topic),
        DestinationSettings::StepFunctions(workflow),
    ] {
        let connected = clients.connect(&destination(settings.kind(), settings.clone())).await.unwrap();
        let answers = connected.send(&[outgoing(1)]).await.unwrap();
        assert!(matches!(&answers[..], [Ok(Some(_))]), "{answers:?}");
        assert_eq!(connected.stores_calls(), settings.kind() == "step_functions");
    }
    let (sts_requests, sent): (Vec<_>, Vec<_>) = stub.requests().into_iter().partition(is_assume_role);
    assert_eq!((sts_requests.len(), sent.len()), (1, 3), "one session for all");
    for request in sent {
        let signature = request.headers["authorization"].to_str().unwrap().to_owned();
        assert!(signature.contains("Credential=OFTHEROLE/"), "{signature}");
    }
}

#[tokio::test]
async fn an_expiring_session_is_renewed() {
    let soon = (jiff::Timestamp::now() + Duration::from_secs(5)).to_string();
    let stub = with_sts(move || session(&soon)).await;
    let mut clients = clients(&stub).await;
    let connected = clients.connect(&queue("a", "eu-west-1", None, Some(role(None)))).await.unwrap();
    for event in [1, 2] {
        connected.send(&[outgoing(event)]).await.unwrap();
    }
    assert_eq!(stub.requests().into_iter().filter(is_assume_role).count(), 2);
}

#[tokio::test]
async fn a_denied_role_is_a_misconfiguration_and_an_unavailable_sts_is_not() {
    let error = |status, code| {
        let text = format!(
            "<ErrorResponse><Error><Code>{code}</Code><Message>said so</Message></Error></ErrorResponse>"
        );
        Reply::text(status, &text)
    };
    let failure = async |reply: Reply| {
        let stub = with_sts(move || reply.clone()).await;
        let mut clients = clients(&stub).await;
        let connected = clients.connect(&queue("a", "eu-west-1", None, Some(role(None)))).await.unwrap();
        let failure = connected.send(&[outgoing(1)]).await.unwrap_err();
        assert!(
            !stub.requests().iter().any(|request| !is_assume_role(request)),
            "no call is made without credentials"
        );
        (failure.class, failure.message)
    };
    let (class, message) = failure(error(403, "AccessDenied")).await;
    assert_eq!(class, Class::Misconfigured);
    assert!(message.contains("AccessDenied") && message.contains("said so"), "{message}");
    let (class, _) = failure(error(400, "ExpiredTokenException")).await;
    assert_eq!(class, Class::Misconfigured);
    let (class, _) = failure(error(400, "Throttling")).await;
    assert_eq!(class, Class::Throttled);
    let (class, message) = failure(error(503, "ServiceUnavailable")).await;
    assert_eq!(class, Class::Transient, "{message}");
}

/// Credentials of a shared file with this key.
fn write_key(file: &std::path::Path, key: &str) {
    let text = format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n");
    std::fs::write(file, text).unwrap();
}

#[tokio::test]
async fn a_rotated_credentials_file_is_read_after_a_refusal_and_on_a_reload() {
    let accepted = std::sync::Arc::new(parking_lot::Mutex::new("FIRST"));
    let stub = Stub::start({
        let accepted = accepted.clone();
        move |request| {
            let signed_with = request.headers["authorization"].to_str().unwrap();
            if signed_with.contains(&format!("Credential={}/", accepted.lock())) {
                let entry = json!({ "Id": "0", "MessageId": "m", "MD5OfMessageBody": "x" });
                Reply::ok(json!({ "Successful": [entry], "Failed": [] }))
            } else {
                Reply::error(403, "InvalidClientTokenId")
            }
        }
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("credentials");
    write_key(&file, "FIRST");
    let config = aws_config::defaults(aws_config::BehaviorVersion::latest())
        .region(aws_config::Region::new("eu-west-1"))
        .retry_config(RetryConfig::disabled())
        .endpoint_url(stub.url());
    let (config, reload) = (config.load().await, aws::CredentialsReload::default());
    let aws = aws::Configs::with_credentials_file("eu-west-1", config, file.clone(), reload.clone());
    let mut clients = Clients { aws, ..Clients::default() };
    let queue = clients.connect(&queue("a", "eu-west-1", None, None)).await.unwrap();
    let send = async || queue.send(&[outgoing(1)]).await.map_err(|failure| failure.class);
    send().await.unwrap();

    write_key(&file, "SECOND");
    send().await.unwrap();
    *accepted.lock() = "SECOND";
    assert_eq!(send().await, Err(Class::Misconfigured), "the old key, which is refused");
    send().await.unwrap();

    write_key(&file, "THIRD");
    *accepted.lock() = "THIRD";
    assert_eq!(
        [send().await, send().await],
        [Err(Class::Misconfigured), Err(Class::Misconfigured)],
        "once a minute"
    );
    reload.renew();
    send().await.unwrap();
}
