use std::net::SocketAddr;
use std::path::Path;

use axum::extract::Request;
use axum::routing::get;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::*;
use crate::config::access::{ClientAuth, Tls, TlsVersion};
use crate::credentials::tls::crypto_provider;

/// A certificate authority, and a certificate that it has issued.
struct Issued {
    authority: String,
    certificate: rcgen::Certificate,
    key: KeyPair,
}

fn issue(name: &str) -> Issued {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let issued = params.signed_by(&key, &issuer).unwrap();
    Issued { authority: certificate.pem(), certificate: issued, key }
}

/// The settings of a listener whose files are in `dir`.
fn tls(dir: &Path, server: &Issued, client: &Issued) -> Tls {
    let write = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    Tls {
        cert_file: write("cert.pem", server.certificate.pem()),
        key_file: write("key.pem", server.key.serialize_pem()),
        client_auth: ClientAuth::VerifyClientCertIfGiven(write("clients.pem", client.authority.clone())),
        client_allowed_sans: Vec::new(),
        min_version: TlsVersion::Tls12,
        max_version: TlsVersion::Tls13,
    }
}

fn options(header_timeout: Duration) -> Options {
    Options {
        listener: "server",
        max_connections: 100,
        header_timeout,
        body_timeout: Duration::from_secs(600),
        write_timeout: Duration::from_secs(600),
        refuse: Arc::new(|status, text| {
            let mut response = Response::new(text.into());
            *response.status_mut() = status;
            response
        }),
        metrics: Metrics::new(),
    }
}

/// Serves `/` with the common name of the client's certificate, until the token is cancelled. `/refresh` reads the files
/// of TLS again.
async fn serve_common_name(tls: ServerTls, header_timeout: Duration) -> (SocketAddr, CancellationToken) {
    let tls = Arc::new(tls);
    let refreshed = tls.clone();
    let refresh = async move || assert_eq!(refreshed.refresh(), Ok(true));
    let common_name = async |request: Request| {
        let (parts, _) = request.into_parts();
        presented(&parts).client_certificate.and_then(|known| known.common_name.clone()).unwrap_or_default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let routes = Router::new().route("/", get(common_name)).route("/refresh", get(refresh));
    tokio::spawn(serve(listener, Some(tls), routes, options(header_timeout), stop.clone()));
    (address, stop)
}

async fn connect(
    address: SocketAddr,
    trusted: &Issued,
    own: Option<&Issued>,
) -> impl AsyncRead + AsyncWrite + Unpin {
    let mut roots = RootCertStore::empty();
    let authority = pem_to_der(&trusted.authority);
    roots.add(authority).unwrap();
    let config = ClientConfig::builder_with_provider(crypto_provider());
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let config = match own {
        None => config.with_no_client_auth(),
        Some(own) => {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.key.serialize_der()));
            config.with_client_auth_cert(vec![own.certificate.der().clone()], key).unwrap()
        }
    };
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

fn pem_to_der(pem: &str) -> CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[tokio::test]
async fn a_verified_client_certificate_reaches_the_routes() {
    let (dir, server, client) = (tempfile::tempdir().unwrap(), issue("localhost"), issue("alertmanager"));
    let tls = ServerTls::load(&tls(dir.path(), &server, &client), "server.tls").unwrap();
    let (address, _stop) = serve_common_name(tls, Duration::from_secs(600)).await;
    for (own, expected) in [(None, ""), (Some(&client), "alertmanager")] {
        let mut stream = connect(address, &server, own).await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(body, expected);
    }
}

#[tokio::test]
async fn a_client_that_does_not_finish_the_handshake_is_disconnected_by_time_and_by_the_stop() {
    let (dir, server, client) = (tempfile::tempdir().unwrap(), issue("localhost"), issue("alertmanager"));
    let settings = tls(dir.path(), &server, &client);
    for (header_timeout, stops) in [(Duration::from_millis(100), false), (Duration::from_secs(600), true)] {
        let tls = ServerTls::load(&settings, "server.tls").unwrap();
        let (address, stop) = serve_common_name(tls, header_timeout).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut begun = TcpStream::connect(address).await.unwrap();
        // The beginning of a ClientHello.
        begun.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
        // When this one is served, the others have been accepted.
        drop(connect(address, &server, None).await);
        if stops {
            stop.cancel();
        }
        for stream in [&mut silent, &mut begun] {
            let mut rest = Vec::new();
            // Closed in order, or reset since bytes were not read.
            let _closed = stream.read_to_end(&mut rest).await;
            assert_eq!(rest, b"");
        }
    }
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const REFRESH: &[u8] = b"GET /refresh HTTP/1.1\r\nhost: a\r\n\r\n";

/// Reads one response with this body. The connection stays open.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin), body: &str) {
    let mut answer = Vec::new();
    while !answer.ends_with(format!("\r\n\r\n{body}").as_bytes()) {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_request_on_a_connection_from_before_its_authority_was_removed_has_no_certificate() {
    let (server, client, other) = (issue("localhost"), issue("alertmanager"), issue("other"));
    for (is_mandatory, expected) in [(false, "HTTP/1.1 200 "), (true, "HTTP/1.1 503 ")] {
        let dir = tempfile::tempdir().unwrap();
        let settings = tls(dir.path(), &server, &client);
        let ca_file = dir.path().join("clients.pem");
        let client_auth = match is_mandatory {
            true => ClientAuth::RequireAndVerifyClientCert(ca_file.clone()),
            false => settings.client_auth.clone(),
        };
        let tls = ServerTls::load(&Tls { client_auth, ..settings }, "server.tls").unwrap();
        let (address, _stop) = serve_common_name(tls, Duration::from_secs(600)).await;
        let mut stream = connect(address, &server, Some(&client)).await;
        std::fs::write(&ca_file, [&*client.authority, &*other.authority].concat()).unwrap();
        stream.write_all(&[REFRESH, GET].concat()).await.unwrap();
        read_answer(&mut stream, "alertmanager").await;
        std::fs::write(&ca_file, &other.authority).unwrap();
        // The second request is there before anything else can end the connection.
        stream.write_all(&[REFRESH, GET].concat()).await.unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).await.unwrap();
        let last = &answers[answers.rfind("HTTP/1.1 ").unwrap()..];
        assert!(last.starts_with(expected) && last.contains("connection: close"), "{answers}");
        assert!(!answers.contains("alertmanager"), "{answers}");
    }
}

#[tokio::test]
async fn an_idle_connection_ends_when_the_authority_of_its_certificate_is_removed() {
    let (dir, server) = (tempfile::tempdir().unwrap(), issue("localhost"));
    let (client, other) = (issue("alertmanager"), issue("other"));
    let tls = ServerTls::load(&tls(dir.path(), &server, &client), "server.tls").unwrap();
    let (address, _stop) = serve_common_name(tls, Duration::from_secs(600)).await;
    let (mut idle, mut anonymous) =
        (connect(address, &server, Some(&client)).await, connect(address, &server, None).await);
    idle.write_all(GET).await.unwrap();
    read_answer(&mut idle, "alertmanager").await;
    anonymous.write_all(GET).await.unwrap();
    read_answer(&mut anonymous, "").await;
    std::fs::write(dir.path().join("clients.pem"), &other.authority).unwrap();
    anonymous.write_all(REFRESH).await.unwrap();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"");
    read_answer(&mut anonymous, "").await;
    anonymous.write_all(GET).await.unwrap();
    read_answer(&mut anonymous, "").await;
}
