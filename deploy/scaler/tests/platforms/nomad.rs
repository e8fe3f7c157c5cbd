//! Nomad: what is scaled, what is refused, and what happens if its servers fail.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use scalebridge::config::access::HttpClient;
use scalebridge_scaler::apply::{Capacity as _, PlatformError};
use scalebridge_scaler::capacity::Lever;
use scalebridge_scaler::event::Limits;
use scalebridge_scaler::platform::nomad::{NomadServer, TaskGroup};
use serde_json::json;

use crate::nomad_server::{NomadStub, TOKEN};
use crate::wire::{Answer, Fault, Tls};

const EVENT: (&str, &str) = ("event-1", "3 alerts firing: QueueTooLong");

struct World {
    stub: NomadStub,
    server: Arc<NomadServer>,
    directory: tempfile::TempDir,
}

impl World {
    /// With a job `web` of the groups `api` of two and `cache` of one.
    async fn new() -> Self {
        let stub = NomadStub::start(None).await;
        stub.register("default", "web", &[("api", 2), ("cache", 1)]);
        let directory = tempfile::tempdir().unwrap();
        let token = directory.path().join("token");
        std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
        let server = NomadServer::new(&format!("{}/", stub.url()), Some(token), HttpClient::default());
        Self { stub, server: Arc::new(server), directory }
    }

    fn group(&self, name: &str) -> TaskGroup {
        TaskGroup::new(self.server.clone(), None, name, EVENT)
    }
}

async fn refusal(group: &TaskGroup) -> String {
    match group.read().await {
        Err(PlatformError::Refused(text)) => text,
        other => panic!("expected a refusal, found {other:?}"),
    }
}

fn class(error: &PlatformError) -> &'static str {
    match error {
        PlatformError::Refused(_) => "refused",
        PlatformError::Busy(_) => "busy",
        PlatformError::Unknown(_) => "unknown",
    }
}

#[tokio::test]
async fn a_group_is_scaled_with_the_reason_of_the_event() {
    let world = World::new().await;
    let group = world.group("web/api");
    let present = group.read().await.unwrap();
    assert_eq!((present.lever, present.limits), (Lever::Size(2), Limits::default()));
    assert_eq!((present.busy.clone(), present.refuses_increase.clone()), (None, None));
    group.set(&present, 5, EVENT.0).await.unwrap();
    assert_eq!(
        (world.stub.count("default", "web", "api"), world.stub.count("default", "web", "cache")),
        (5, 1)
    );
    let event = world.stub.events("web", "api").remove(0);
    assert_eq!(event["Message"], "scalebridge: 3 alerts firing: QueueTooLong");
    assert_eq!(
        (event["PreviousCount"].clone(), event["Meta"].clone()),
        (json!(2), json!({ "scalebridge_event": "event-1" }))
    );

    // It completes the change of another event.
    let present = group.read().await.unwrap();
    group.set(&present, 6, "event-0").await.unwrap();
    let event = world.stub.events("web", "api").remove(0);
    assert_eq!(event["Message"], "scalebridge: completes event event-0");
}

#[tokio::test]
async fn the_group_may_be_left_out_if_there_is_one() {
    let world = World::new().await;
    world.stub.register("batch/nightly", "report?x=1&y/é", &[("only", 3)]);
    world.stub.register("default", "team/worker", &[("main", 4)]);
    let text = refusal(&world.group("web")).await;
    assert_eq!(text, "job web: the job has the groups api, cache; name one: `web/GROUP`");
    let text = refusal(&world.group("web/db")).await;
    assert_eq!(text, "job web, group db: the job has no such group; it has api, cache");

    let report = TaskGroup::new(world.server.clone(), Some("batch/nightly"), "report?x=1&y/é/", EVENT);
    let present = report.read().await.unwrap();
    assert_eq!(present.lever, Lever::Size(3));
    report.set(&present, 4, "t").await.unwrap();
    assert_eq!(world.stub.count("batch/nightly", "report?x=1&y/é", "only"), 4);
    assert_eq!(world.group("team/worker/main").read().await.unwrap().lever, Lever::Size(4));
    assert_eq!(world.group("team/worker/").read().await.unwrap().lever, Lever::Size(4));
}

#[tokio::test]
async fn a_job_that_was_changed_since_it_was_read_stays_as_it_is() {
    let world = World::new().await;
    let (api, cache) = (world.group("web/api"), world.group("web/cache"));
    let (first, second) = (api.read().await.unwrap(), cache.read().await.unwrap());
    cache.set(&second, 2, "t").await.unwrap();
    let error = api.set(&first, 5, "t").await.unwrap_err();
    let PlatformError::Busy(text) = error else { panic!("{error:?}") };
    assert!(text.contains("it was changed meanwhile: Enforcing job modify index 1"), "{text}");
    assert_eq!(world.stub.count("default", "web", "api"), 2);
    // So a change is made once.
    assert!(matches!(cache.set(&second, 2, "t").await, Err(PlatformError::Busy(_))));
    assert_eq!(world.stub.events("web", "cache").len(), 1);
}

#[tokio::test]
async fn a_deployment_delays_and_a_policy_limits() {
    let world = World::new().await;
    let api = world.group("web/api");
    world.stub.set_deployment(true);
    let present = api.read().await.unwrap();
    let error = api.set(&present, 5, "t").await.unwrap_err();
    let PlatformError::Busy(text) = error else { panic!("{error:?}") };
    assert!(text.contains("job scaling blocked due to active deployment"), "{text}");
    world.stub.set_deployment(false);

    world.stub.set_scaling(json!({ "Min": 1, "Max": 6, "Enabled": true, "Policy": null }));
    let present = api.read().await.unwrap();
    assert_eq!(present.limits, Limits { min_capacity: Some(1), max_capacity: Some(6) });
    assert_eq!(present.refuses_increase, None);
    assert_eq!(class(&api.set(&present, 7, "t").await.unwrap_err()), "refused");
    world.stub.set_max_count(6);
    assert_eq!(class(&api.set(&present, 6, "t").await.unwrap_err()), "refused");
    api.set(&present, 5, "t").await.unwrap();

    world.stub.set_scaling(json!({ "Min": 1, "Max": 6, "Enabled": true, "Policy": { "cooldown": "1m" } }));
    let present = api.read().await.unwrap();
    assert_eq!(present.refuses_increase, present.refuses_decrease);
    let text = present.refuses_increase.unwrap();
    assert!(text.contains("Nomad Autoscaler owns the count") && text.contains("enabled = false"), "{text}");
    world.stub.set_scaling(json!({ "Min": 1, "Max": 6, "Enabled": false, "Policy": { "cooldown": "1m" } }));
    let present = api.read().await.unwrap();
    assert_eq!((present.refuses_increase, present.limits.max_capacity), (None, Some(6)));
}

#[tokio::test]
async fn what_is_not_there_or_stopped_is_refused() {
    let world = World::new().await;
    let text = refusal(&world.group("api/web")).await;
    assert_eq!(text, "job api, group web cannot be read: job not found (status 404)");
    let elsewhere = TaskGroup::new(world.server.clone(), Some("prod"), "web/api", EVENT);
    assert!(refusal(&elsewhere).await.contains("job not found"));
    world.stub.stop();
    assert_eq!(refusal(&world.group("web/api")).await, "job web, group api: the job is stopped");
}

#[tokio::test]
async fn a_write_is_sent_once_however_it_fails() {
    let world = World::new().await;
    let api = world.group("web/api");
    let cases = [
        (403, "Permission denied", "busy"),
        (429, "slow down", "busy"),
        (500, "No cluster leader", "unknown"),
        (502, "<html>bad gateway</html>", "unknown"),
        (503, "", "unknown"),
    ];
    for (status, text, expected) in cases {
        let present = api.read().await.unwrap();
        world.stub.wire.take_log();
        world.stub.wire.fail_writes([Fault::Answer(Answer::text(status, text))]);
        let error = api.set(&present, 5, "t").await.unwrap_err();
        assert_eq!(class(&error), expected, "{error:?}");
        assert_eq!(world.stub.wire.take_writes().len(), 1, "{status}");
    }
    let present = api.read().await.unwrap();
    world.stub.wire.take_log();
    world.stub.wire.fail_writes([Fault::LostAnswer]);
    assert_eq!(class(&api.set(&present, 5, "t").await.unwrap_err()), "unknown");
    assert_eq!(world.stub.wire.take_writes().len(), 1);
    assert_eq!(api.read().await.unwrap().lever, Lever::Size(5), "it was set");

    let present = api.read().await.unwrap();
    world.stub.wire.fail_writes([Fault::Silence]);
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let error = api.set(&present, 6, "t").await.unwrap_err();
    assert_eq!(class(&error), "unknown", "{error:?}");
    assert!(began.elapsed() <= Duration::from_secs(10), "of the paused clock");
}

#[tokio::test]
async fn the_token_is_that_of_the_file_at_the_moment() {
    let world = World::new().await;
    let api = world.group("web/api");
    let token = world.directory.path().join("token");
    let present = api.read().await.unwrap();
    std::fs::write(&token, "another-secret").unwrap();
    let error = api.set(&present, 5, "t").await.unwrap_err();
    let PlatformError::Busy(text) = error else { panic!("{error:?}") };
    assert!(text.contains("access denied: Permission denied: the token needs"), "{text}");
    assert!(!text.contains("another-secret"), "{text}");
    std::fs::remove_file(&token).unwrap();
    let error = api.set(&present, 5, "t").await.unwrap_err();
    assert!(matches!(&error, PlatformError::Busy(text) if text.contains("token")), "{error:?}");
    std::fs::write(&token, TOKEN).unwrap();
    api.set(&present, 5, "t").await.unwrap();
    drop(world.stub);
    let error = api.set(&present, 6, "t").await.unwrap_err();
    assert_eq!(class(&error), "busy", "nothing was sent: {error:?}");
}

/// Settings with the files of the authority, and of a client certificate of it.
fn settings(directory: &Path, tls: &Tls) -> HttpClient {
    let client = tls.authority.client("scaler", &["scaler.example.com"]);
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    HttpClient {
        ca_file: Some(write("ca.pem", &tls.authority.pem())),
        client_cert: Some((write("cert.pem", &client.certificate), write("key.pem", &client.key))),
        server_name: Some("server.global.nomad".to_owned()),
        ..HttpClient::default()
    }
}

#[tokio::test]
async fn tls_is_mutual_and_has_the_name_of_the_servers() {
    // The name that Nomad's own certificates have.
    let tls = Tls::mutual(&["server.global.nomad"]);
    let stub = NomadStub::start(Some(&tls)).await;
    stub.register("default", "web", &[("api", 2)]);
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let good = settings(directory.path(), &tls);
    let read = async |settings: &HttpClient| {
        let server = NomadServer::new(&stub.url(), Some(token.clone()), settings.clone());
        TaskGroup::new(Arc::new(server), None, "web", EVENT).read().await
    };
    assert_eq!(read(&good).await.unwrap().lever, Lever::Size(2));
    let other = Tls::new();
    std::fs::write(directory.path().join("other.pem"), other.authority.pem()).unwrap();
    let cases: [(HttpClient, &str); 5] = [
        (HttpClient { server_name: None, ..good.clone() }, "certificate"),
        (HttpClient { ca_file: Some(directory.path().join("other.pem")), ..good.clone() }, "certificate"),
        (HttpClient { ca_file: None, ..good.clone() }, "certificate"),
        (HttpClient { client_cert: None, ..good.clone() }, ""),
        (
            HttpClient { ca_file: Some(directory.path().join("missing.pem")), ..good.clone() },
            "tls_config.ca_file",
        ),
    ];
    for (settings, expected) in cases {
        let error = read(&settings).await.unwrap_err();
        assert!(matches!(&error, PlatformError::Busy(text) if text.contains(expected)), "{error:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_was_exchanged_is_used() {
    let (old, new) = (Tls::new(), Tls::new());
    let stub = NomadStub::start(Some(&new)).await;
    stub.register("default", "web", &[("api", 2)]);
    let directory = tempfile::tempdir().unwrap();
    let (token, ca) = (directory.path().join("token"), directory.path().join("ca.pem"));
    std::fs::write(&token, TOKEN).unwrap();
    std::fs::write(&ca, old.authority.pem()).unwrap();
    let http = HttpClient { ca_file: Some(ca.clone()), ..HttpClient::default() };
    let server = NomadServer::new(&stub.url(), Some(token), http);
    let group = TaskGroup::new(Arc::new(server), None, "web", EVENT);
    group.read().await.unwrap_err();
    // As an atomic exchange: another file at the path.
    let next = directory.path().join("next.pem");
    std::fs::write(&next, new.authority.pem()).unwrap();
    std::fs::rename(&next, &ca).unwrap();
    assert_eq!(group.read().await.unwrap().lever, Lever::Size(2));
}
