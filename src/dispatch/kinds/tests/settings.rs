//! The settings of each kind, as they are read from configuration files.

use std::path::Path;

use super::super::*;
use crate::config::DestinationSettings as _;
use crate::dispatch::aws::Role;
use crate::kinds::{Settings, load};

fn configuration(path: &Path) -> Settings {
    // As the first lines of that file say.
    let verifies =
        ("SCALEBRIDGE__SERVER__TLS__CLIENT_AUTH_TYPE".to_owned(), "VerifyClientCertIfGiven".to_owned());
    let environment = path.ends_with("good/full.yaml").then_some(verifies);
    load(path, environment).unwrap_or_else(|diagnostics| panic!("{diagnostics}")).settings
}

fn read(path: &Path, destination: &str) -> DestinationSettings {
    configuration(path).destinations[destination].settings.clone()
}

#[test]
fn settings_have_the_configured_values() {
    let path = Path::new("tests/config/good/full.yaml");
    let DestinationSettings::Sqs(sqs) = read(path, "queue") else { panic!("not a queue") };
    assert!(sqs.fifo);
    assert_eq!(sqs.max_message_bytes, 65_536);
    let external_id = sqs.access.role.as_ref().and_then(|role| role.external_id.as_deref());
    assert_eq!(external_id, Some("a/b:c=d,e.f@g_h-i+1"));

    let scaler = read(path, "scaler");
    assert_eq!(scaler.size_limit(), SizeLimit::of_body(5_999_998), "without the brackets of the array");
    let DestinationSettings::Lambda(function) = scaler else { panic!("not a function") };
    assert_eq!(function.max_events, 100);
    let role = Role { arn: "arn:aws:iam::123456789012:role/scaling".into(), external_id: None };
    assert_eq!(function.access.role, Some(role.clone()));
    assert!(!function.durable);
    let DestinationSettings::Lambda(workflow) = read(path, "workflow-function") else { panic!() };
    assert!(workflow.durable);

    let role = Some(Role { external_id: Some("scaling".into()), ..role });
    let bus = read(path, "bus");
    let metadata = SizeLimit { bytes: 1_000_000, metadata_bytes: 128, subject_copies: 0 };
    assert_eq!(bus.size_limit(), metadata, "source, type and time");
    assert_eq!(bus.address(), "arn:aws:events:eu-west-1:123456789012:event-bus/scaling");
    let DestinationSettings::Eventbridge(bus) = bus else { panic!("not a bus") };
    assert_eq!(bus.access.role, role);

    let topic = read(path, "topic");
    assert_eq!(topic.size_limit(), SizeLimit { bytes: 1_048_576, metadata_bytes: 512, subject_copies: 1 });
    assert_eq!(topic.address(), "arn:aws:sns:eu-west-1:123456789012:scaling.fifo");
    let DestinationSettings::Sns(topic) = topic else { panic!("not a topic") };
    assert!(topic.fifo);
    assert_eq!(topic.access.role, role);

    let workflow = read(path, "workflow");
    assert_eq!(workflow.size_limit(), SizeLimit::of_body(262_144));
    assert_eq!(workflow.address(), "arn:aws:states:eu-west-1:123456789012:stateMachine:scaling:live");
    let DestinationSettings::StepFunctions(workflow) = workflow else { panic!("not a state machine") };
    assert_eq!(workflow.access.role, role);
    let service = read(path, "service");
    assert_eq!(service.address(), "https://scaler.example/events", "without what may be secret");
    assert_eq!(service.size_limit(), SizeLimit::of_body(65_536));
    assert_eq!(service.key_files().len(), 2);
    let DestinationSettings::Http(service) = service else { panic!("not a service") };
    assert!(service.allow_link_local && service.client.authorization.is_some());
}

#[test]
fn the_table_and_the_settings_have_the_same_keys() {
    for destination in configuration(Path::new("tests/config/good/full.yaml")).destinations.values() {
        let kind = destination.settings.kind();
        let row = DestinationSettings::KINDS.iter().find(|row| row.key == kind);
        assert_eq!(row.map(|row| row.acting), Some(destination.acting), "{kind}");
    }
}

#[test]
fn the_region_defaults_to_that_of_the_queue_url_or_arn() {
    let directory = tempfile::tempdir().unwrap();
    let region = |destination: &str| {
        let path = directory.path().join("scalebridge.yaml");
        let rules = std::fs::canonicalize("tests/config/bad/ok.rules.yaml").unwrap();
        let config = format!(
            "sources: {{ local: {{}} }}\nrules: [{}]\ndestinations:\n  journal: {{ file: {{ path: '-' }} }}\n  it: {destination}\n",
            rules.display()
        );
        std::fs::write(&path, config).unwrap();
        match read(&path, "it") {
            DestinationSettings::Sqs(sqs) => sqs.access.region,
            DestinationSettings::Lambda(lambda) => lambda.access.region,
            DestinationSettings::Eventbridge(bus) => bus.access.region,
            DestinationSettings::Sns(topic) => topic.access.region,
            DestinationSettings::StepFunctions(workflow) => workflow.access.region,
            DestinationSettings::Http(_) | DestinationSettings::File(_) => None,
        }
    };
    let queue = "queue_url: 'https://sqs.eu-west-1.amazonaws.com/123456789012/q'";
    let arn = "function: 'arn:aws:lambda:eu-west-3:123456789012:function:scaler:live'";
    let local = "queue_url: 'http://127.0.0.1:4566/123456789012/q'";
    for (destination, expected) in [
        (format!("{{ sqs: {{ {queue} }} }}"), Some("eu-west-1")),
        (format!("{{ sqs: {{ {queue}, region: eu-west-1 }} }}"), Some("eu-west-1")),
        (format!("{{ sqs: {{ {queue}, region: x, endpoint_url: 'http://127.0.0.1:1' }} }}"), Some("x")),
        (format!("{{ sqs: {{ {local} }} }}"), None),
        (format!("{{ lambda: {{ {arn}, qualifier: live }} }}"), Some("eu-west-3")),
        ("{ lambda: { function: scaler } }".to_owned(), None),
        ("{ eventbridge: { bus: scaling } }".to_owned(), None),
        (
            "{ eventbridge: { bus: 'arn:aws:events:eu-west-2:123456789012:event-bus/b' } }".to_owned(),
            Some("eu-west-2"),
        ),
        ("{ sns: { topic_arn: 'arn:aws:sns:eu-north-1:123456789012:t' } }".to_owned(), Some("eu-north-1")),
        (
            "{ step_functions: { state_machine_arn: 'arn:aws:states:eu-south-1:123456789012:stateMachine:s' } }"
                .to_owned(),
            Some("eu-south-1"),
        ),
    ] {
        assert_eq!(region(&destination).as_deref(), expected, "{destination}");
    }
}
