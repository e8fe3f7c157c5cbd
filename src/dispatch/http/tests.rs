use std::net::SocketAddr;
use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::config::access::{HttpAuthorization, HttpClient};
use crate::dispatch::stub::{Reply as Response, Stub, outgoing};

fn settings(url: &str) -> Settings {
    Settings {
        url: format!("{url}/events?key=of-the-url"),
        client: HttpClient::default(),
        signing_key_files: Vec::new(),
        allow_link_local: false,
        max_event_bytes: 1024 * 1024,
    }
}

fn service(url: &str) -> Http {
    Http::new(&settings(url), Duration::from_secs(10))
}

/// The result of one event.
async fn send(http: &Http) -> Answer {
    http.send(&[outgoing(1)]).await.and_then(|mut answers| answers.remove(0))
}

async fn answered(response: Response) -> Answer {
    let stub = Stub::start(move |_| response.clone()).await;
    let answer = send(&service(stub.url())).await;
    assert_eq!(stub.requests().len(), 1, "one call, whatever the answer is");
    answer
}

/// A server that reads a request and then does what `then` says.
async fn server(then: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 64 * 1024];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        match then {
            b"wait" => std::future::pending::<()>().await,
            then => stream.write_all(then).await.unwrap(),
        }
    });
    address
}

#[tokio::test]
async fn an_event_is_posted_as_a_cloud_event_in_structured_mode() {
    let stub = Stub::start(|_| Response::text(202, "")).await;
    let event = outgoing(7);
    let answers = service(stub.url()).send(std::slice::from_ref(&event)).await;
    assert_eq!(answers, Ok(vec![Ok(Some("HTTP 202".into()))]));
    let request = stub.only_request();
    assert_eq!(request.uri, "/events?key=of-the-url");
    assert_eq!(request.body, event.body.as_bytes());
    let header = |name: &str| request.headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(header("content-type"), Some("application/cloudevents+json"));
    assert_eq!(header("webhook-id"), Some("00000000000000000000000000000007"));
    assert_eq!(header("traceparent"), Some("00-0000000000000000000000000000000a-000000000000000b-00"));
    assert!(header("webhook-timestamp").unwrap().parse::<u64>().is_ok());
    assert!(header("user-agent").unwrap().starts_with("scalebridge/"));
    assert_eq!(
        (header("webhook-signature"), header("authorization")),
        (None, None),
        "no keys, no credentials"
    );
}

#[tokio::test]
async fn the_status_of_the_answer_decides() {
    use Class::{Misconfigured, Permanent, Throttled, Transient};
    for (status, expected) in [
        (200, Ok(())),
        (204, Ok(())),
        (299, Ok(())),
        (300, Err((Misconfigured, false))),
        (301, Err((Misconfigured, false))),
        (304, Err((Misconfigured, false))),
        (307, Err((Misconfigured, false))),
        (308, Err((Misconfigured, false))),
        (400, Err((Permanent, false))),
        (401, Err((Permanent, false))),
        (403, Err((Permanent, false))),
        (404, Err((Permanent, false))),
        (408, Err((Transient, false))),
        (409, Err((Permanent, false))),
        (410, Err((Permanent, false))),
        (413, Err((Permanent, false))),
        (422, Err((Permanent, false))),
        (425, Err((Transient, false))),
        (429, Err((Throttled, false))),
        (451, Err((Permanent, false))),
        (500, Err((Transient, true))),
        (501, Err((Transient, true))),
        (502, Err((Transient, true))),
        (503, Err((Transient, true))),
        (504, Err((Transient, true))),
        (599, Err((Transient, true))),
    ] {
        let answer = answered(Response::status(status).header("location", "/elsewhere")).await;
        let found = answer.clone().map(drop).map_err(|failure| (failure.class, failure.uncertain));
        assert_eq!(found, expected, "{status}: {answer:?}");
        if let Err(failure) = answer {
            assert!(failure.message.starts_with(&format!("HTTP {status}")), "{failure}");
        }
    }
    let redirect = answered(Response::status(302).header("location", "/elsewhere")).await.unwrap_err();
    assert!(redirect.message.contains("configure the final URL"), "{redirect}");
}

#[tokio::test]
async fn what_a_service_says_is_stored_within_bounds_and_not_logged() {
    let stored = answered(Response::text(200, r#"{"queued":true}"#)).await.unwrap();
    assert_eq!(stored.as_deref(), Some(r#"HTTP 200: {"queued":true}"#));
    let long = "é".repeat(1_000_000);
    let stored = answered(Response::text(200, &long)).await.unwrap().unwrap();
    assert!(stored.len() <= MAX_ANSWER_BYTES + 20 && stored.ends_with('é'), "{}", stored.len());
    assert_eq!(answered(Response::text(200, "\u{1}\u{2}")).await, Ok(Some("HTTP 200".into())), "not text");
    let failure = answered(Response::text(422, "unknown node group")).await.unwrap_err();
    assert_eq!(failure.message, "HTTP 422");
    assert_eq!(failure.stored_error(), "HTTP 422: unknown node group");
    let failure = answered(Response::text(500, &long)).await.unwrap_err();
    assert_eq!(failure.answer.unwrap().chars().count(), Failure::MAX_CHARS);
}

#[tokio::test]
async fn a_service_can_say_when_to_try_again() {
    let after = async |status, value| {
        answered(Response::status(status).header("retry-after", value)).await.unwrap_err().retry_after
    };
    assert_eq!(after(429, "7").await, Some(Duration::from_secs(7)));
    assert_eq!(after(503, " 120 ").await, Some(Duration::from_secs(120)));
    for other in ["", "-1", "soon", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT"] {
        assert_eq!(after(503, other).await, None, "{other}");
    }
}

#[tokio::test]
async fn a_call_without_an_answer_is_uncertain_once_it_was_sent() {
    let lost = |http: Http| async move {
        let failure = send(&http).await.unwrap_err();
        assert!(!failure.message.contains("of-the-url"), "{failure}");
        (failure.class, failure.uncertain, failure.message)
    };
    let at = |address: SocketAddr| format!("http://{address}");

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (class, uncertain, message) = lost(service(&at(closed))).await;
    assert_eq!((class, uncertain), (Class::Transient, false), "{message}");
    assert!(message.starts_with("no connection: "), "{message}");
    let (class, uncertain, message) = lost(service("http://no-such-host.invalid")).await;
    assert_eq!((class, uncertain), (Class::Transient, false), "{message}");

    for then in [&b""[..], b"HTTP/1.1 20", b"nonsense\r\n\r\n"] {
        let (class, uncertain, message) = lost(service(&at(server(then).await))).await;
        assert_eq!((class, uncertain), (Class::Transient, true), "{then:?}: {message}");
        assert!(message.starts_with("no answer: "), "{message}");
    }
    let silent = Http::new(&settings(&at(server(b"wait").await)), Duration::from_millis(200));
    let (class, uncertain, message) = lost(silent).await;
    assert_eq!((class, uncertain, &*message), (Class::Transient, true, "no answer within 200ms"));

    let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this";
    let answer = send(&service(&at(server(cut).await))).await;
    assert_eq!(answer, Ok(Some("HTTP 200: only this".into())), "the status is the answer");
}

#[tokio::test]
async fn without_its_own_files_nothing_is_sent_until_an_operator_acts() {
    let stub = Stub::start(|_| Response::status(204)).await;
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let with = |change: &dyn Fn(&mut Settings)| {
        let mut settings = settings(stub.url());
        change(&mut settings);
        Http::new(&settings, Duration::from_secs(10))
    };
    let credentials =
        HttpAuthorization::Credentials { kind: "Bearer".into(), credentials_file: missing.clone() };
    for http in [
        with(&|settings| settings.signing_key_files = vec![missing.clone()]),
        with(&|settings| settings.client.authorization = Some(credentials.clone())),
        with(&|settings| settings.client.proxy_url = Some(crate::config::Secret::new("nonsense".into()))),
    ] {
        let failure = send(&http).await.unwrap_err();
        assert_eq!((failure.class, failure.uncertain), (Class::Misconfigured, false), "{failure}");
    }
    assert_eq!(stub.requests().len(), 0);
    let write = |path: &Path, text: &str| std::fs::write(path, text).unwrap();
    let http = with(&|settings| settings.signing_key_files = vec![missing.clone()]);
    for (text, cause) in [("sesame", "`whsec_`"), ("whsec_AAAA", "24 to 64 bytes"), ("", "is empty")] {
        write(&missing, text);
        let failure = send(&http).await.unwrap_err();
        assert!(failure.message.contains(cause) && failure.message.contains("missing"), "{failure}");
    }
    write(&missing, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
    assert_eq!(send(&http).await, Ok(Some("HTTP 204".into())), "the file is read again");
    let signature = stub.only_request().headers["webhook-signature"].clone();
    assert!(signature.to_str().unwrap().starts_with("v1,"), "{signature:?}");
}

#[tokio::test]
async fn a_link_local_address_is_not_called_unless_that_is_allowed() {
    for url in ["http://169.254.1.1:9", "http://[fe80::1]:9", "http://2852039166"] {
        let failure = send(&service(url)).await.unwrap_err();
        assert_eq!((failure.class, failure.uncertain), (Class::Misconfigured, false), "{failure}");
        assert!(failure.message.contains("allow_link_local"), "{failure}");
    }
    let allowed = Settings { allow_link_local: true, ..settings("http://169.254.1.1:9") };
    let failure = send(&Http::new(&allowed, Duration::from_millis(300))).await.unwrap_err();
    assert!(!failure.message.contains("allow_link_local"), "it is tried: {failure}");
}

#[test]
fn operators_see_the_url_without_what_may_be_secret() {
    assert_eq!(settings("https://scaler.example").address(), "https://scaler.example/events");
}
