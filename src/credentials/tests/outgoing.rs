//! The outgoing HTTP client: TLS, client certificates, proxies and credentials.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::support::{Folder, Reply, Server};
use crate::config::Secret;
use crate::config::access::{HttpAuthorization, HttpClient};
use crate::credentials::certificates::Authority;
use crate::credentials::outgoing::{OutgoingClient, shown_url};
use crate::credentials::tls::crypto_provider;

async fn get(settings: HttpClient, url: &str) -> Result<String, String> {
    get_with(&OutgoingClient::new(settings), url).await
}

async fn get_with(client: &OutgoingClient, url: &str) -> Result<String, String> {
    let body = client.get(url, 1024, Duration::from_secs(10)).await;
    body.map(|body| String::from_utf8(body).unwrap()).map_err(|error| error.to_string())
}

/// A server with a certificate for `name`, which demands one of this CA.
async fn server(authority: &Authority, name: &str) -> Server {
    let issued = authority.server_for(&[name]);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto_provider()).build().unwrap();
    let config = ServerConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap(),
        )
        .unwrap();
    Server::start_with(Reply::Ok("hello".to_owned()), Some(Arc::new(config).into())).await
}

#[tokio::test]
async fn https_uses_the_ca_the_client_certificate_and_the_server_name_and_reads_them_again() {
    let (folder, authority, other) = (Folder::new(), Authority::new("CA"), Authority::new("other CA"));
    let issued = authority.client("client", &["client"]);
    let server = server(&authority, "keys.internal").await;
    let settings = HttpClient {
        ca_file: Some(folder.write("ca.pem", authority.pem())),
        client_cert: Some((
            folder.write("cert.pem", &issued.certificate),
            folder.write("key.pem", &issued.key),
        )),
        server_name: Some("keys.internal".to_owned()),
        ..HttpClient::default()
    };
    let client = OutgoingClient::new(settings.clone());
    assert_eq!(get_with(&client, &server.url).await, Ok("hello".to_owned()));
    for (settings, cause) in [
        (HttpClient { server_name: None, ..settings.clone() }, "certificate not valid for name"),
        (
            HttpClient { server_name: Some("other".to_owned()), ..settings.clone() },
            "certificate not valid for name",
        ),
        (
            HttpClient { server_name: Some("a b".to_owned()), ..settings.clone() },
            "server_name is not a DNS name",
        ),
        (HttpClient { client_cert: None, ..settings.clone() }, "the request failed"),
        (HttpClient { ca_file: Some(folder.path("none")), ..settings.clone() }, "none: "),
        (
            HttpClient { ca_file: Some(folder.write("text", "text")), ..settings.clone() },
            "tls_config.ca_file",
        ),
        (
            HttpClient {
                client_cert: Some((folder.path("cert.pem"), folder.path("text"))),
                ..settings.clone()
            },
            "no private key in the file",
        ),
    ] {
        let error = get(settings, &server.url).await.unwrap_err();
        assert!(error.contains(cause), "{cause}: {error}");
        assert!(!error.contains(&server.url), "{error}");
    }
    folder.write("ca.pem", other.pem());
    let error = get_with(&client, &server.url).await.unwrap_err();
    assert!(error.contains("invalid peer certificate"), "{error}");
    folder.write("ca.pem", authority.pem());
    assert_eq!(get_with(&client, &server.url).await, Ok("hello".to_owned()));
}

#[tokio::test]
async fn credentials_are_read_for_each_request_and_sent_as_configured() {
    let folder = Folder::new();
    let server = Server::start(Reply::Ok("hello".to_owned())).await;
    let client = |authorization| {
        OutgoingClient::new(HttpClient { authorization: Some(authorization), ..HttpClient::default() })
    };
    let credentials_file = folder.write("token", "first\n");
    let with_token = client(HttpAuthorization::Credentials { kind: "Bearer".to_owned(), credentials_file });
    let sent = |header: &str| {
        let request = server.last_request.lock().clone();
        assert!(request.contains(&format!("authorization: {header}\r\n")), "{request}");
    };
    get_with(&with_token, &server.url).await.unwrap();
    sent("Bearer first");
    folder.write("token", "second");
    get_with(&with_token, &server.url).await.unwrap();
    sent("Bearer second");
    let password_file = folder.write("password", "secret");
    let with_password = client(HttpAuthorization::Basic { username: "alice".to_owned(), password_file });
    get_with(&with_password, &server.url).await.unwrap();
    sent("Basic YWxpY2U6c2VjcmV0");
    for (content, cause) in [("", "is empty"), ("hunter2\nhunter2", "characters that a header cannot have")] {
        folder.write("token", content);
        let error = get_with(&with_token, &server.url).await.unwrap_err();
        assert!(
            error.starts_with(&folder.path("token").display().to_string()) && error.contains(cause),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_proxy_is_used_except_for_the_hosts_of_no_proxy_and_its_secrets_are_not_shown() {
    let proxy = Server::start(Reply::Ok("proxied".to_owned())).await;
    let server = Server::start(Reply::Ok("direct".to_owned())).await;
    let address = proxy.url.trim_start_matches("http://").trim_end_matches("/keys");
    let settings = |url: &str, no_proxy: Option<&str>| HttpClient {
        proxy_url: Some(Secret::new(url.to_owned())),
        no_proxy: no_proxy.map(str::to_owned),
        ..HttpClient::default()
    };
    let url = format!("http://alice:secret@{address}");
    assert_eq!(get(settings(&url, None), &server.url).await, Ok("proxied".to_owned()));
    let request = proxy.last_request.lock().to_lowercase();
    assert!(request.starts_with(&format!("get {} http/1.1", server.url)), "{request}");
    assert!(request.contains("proxy-authorization: basic"), "{request}");
    assert_eq!(get(settings(&url, Some("10.0.0.0/8,127.0.0.1")), &server.url).await, Ok("direct".to_owned()));
    for url in [
        "http://alice:secret@127.0.0.1:1",
        "http://alice:secret@[",
        "ftp://alice:secret@127.0.0.1:1",
        "secret:",
    ] {
        let error = get(settings(url, None), &server.url).await.unwrap_err();
        assert!(!error.contains("secret") && !error.contains("alice"), "{error}");
    }
}

#[tokio::test]
async fn an_answer_must_be_a_small_success_in_time() {
    let server = Server::start(Reply::Status("301 Moved Permanently")).await;
    let error = |result: Result<String, String>| result.unwrap_err();
    let client = OutgoingClient::new(HttpClient::default());
    assert!(error(get_with(&client, &server.url).await).contains("301; redirects are not followed"));
    server.reply(Reply::Status("404 Not Found"));
    assert_eq!(error(get_with(&client, &server.url).await), "the response has the status 404");
    server.reply(Reply::Ok("x".repeat(1025)));
    assert_eq!(error(get_with(&client, &server.url).await), "the response is larger than 1 KiB");
    server.reply(Reply::Never);
    let timeout = Duration::from_millis(50);
    let timed_out = client.get(&server.url, 1024, timeout).await.unwrap_err();
    assert_eq!(timed_out.to_string(), "no complete response within 50ms");
    assert!(error(get_with(&client, "http://127.0.0.1:1/").await).contains("refused"));
    assert!(error(get_with(&client, "no url").await).starts_with("the request failed"));
    assert_eq!(server.requests(), 4, "one for each answer");
}

#[test]
fn a_url_is_shown_without_user_info_query_and_fragment() {
    for (url, shown) in [
        ("https://a:b@host:1/path?x=1#y", "https://host:1/path"),
        ("https://host", "https://host"),
        ("https://a@b@host/p@q", "https://host/p@q"),
        ("nonsense", "nonsense"),
    ] {
        assert_eq!(shown_url(url), shown);
    }
}
