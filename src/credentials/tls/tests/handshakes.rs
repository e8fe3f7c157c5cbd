//! Versions, application protocols, resumption, and clients that do not speak TLS.

use rustls::HandshakeKind;

use super::*;

async fn alpn_of(offered: &[&str]) -> Result<Option<Vec<u8>>, String> {
    let files = ListenerFiles::new();
    let mut client = files.client(None);
    client.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
    let connected = connect(&files.load(ClientAuth::NoClientCert), &Arc::new(client)).await?;
    Ok(connected.client.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
}

#[tokio::test]
async fn http_1_1_is_chosen_though_the_client_prefers_http_2() {
    assert_eq!(alpn_of(&["h2", "http/1.1"]).await, Ok(Some(b"http/1.1".to_vec())));
    assert_eq!(alpn_of(&[]).await, Ok(None));
}

#[tokio::test]
async fn a_client_that_speaks_http_2_only_is_refused() {
    let error = alpn_of(&["h2"]).await.unwrap_err();
    assert!(error.contains("does not speak HTTP/1.1"), "{error}");
}

#[tokio::test]
async fn only_the_configured_versions_are_spoken() {
    let files = ListenerFiles::new();
    let (only_12, only_13) = ([&rustls::version::TLS12], [&rustls::version::TLS13]);
    for (min_version, max_version, speaks_12, speaks_13) in [
        (TlsVersion::Tls12, TlsVersion::Tls13, true, true),
        (TlsVersion::Tls13, TlsVersion::Tls13, false, true),
        (TlsVersion::Tls12, TlsVersion::Tls12, true, false),
    ] {
        let tls = load(&Tls { min_version, max_version, ..files.settings(ClientAuth::NoClientCert) });
        for (versions, is_spoken) in [(only_12, speaks_12), (only_13, speaks_13)] {
            let client = Arc::new(files.client_of_versions(None, &versions));
            let connected = connect(&tls, &client).await;
            let version = connected.map(|connected| connected.client.get_ref().1.protocol_version());
            assert_eq!(version.is_ok(), is_spoken, "{min_version:?} to {max_version:?}: {version:?}");
        }
    }
}

/// A `ClientHello` of TLS 1.1 with two of its cipher suites.
fn hello_of_tls_1_1() -> Vec<u8> {
    let mut body = vec![3, 2];
    body.extend([7; 32]); // random
    body.extend([0, 0, 4, 0xc0, 0x13, 0, 0x2f, 1, 0]); // no session, cipher suites, no compression
    body.extend([0, 8, 0, 13, 0, 4, 0, 2, 4, 1]); // signature algorithms: RSA with SHA-256
    let mut hello = vec![22, 3, 1, 0, u8::try_from(body.len() + 4).unwrap(), 1, 0, 0];
    hello.push(u8::try_from(body.len()).unwrap());
    hello.extend(body);
    hello
}

/// What the server answers to the first bytes of a client, and its error.
async fn answer_to(tls: &ServerTls, bytes: &[u8]) -> (Vec<u8>, String) {
    let (listener, address) = listen().await;
    let accept = async { tls.accept(listener.accept().await.unwrap().0).await.err().unwrap().to_string() };
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let (error, answer) = tokio::join!(accept, exchange);
    (answer, error)
}

#[tokio::test]
async fn tls_1_1_is_refused() {
    let tls = ListenerFiles::new().load(ClientAuth::NoClientCert);
    let (answer, error) = answer_to(&tls, &hello_of_tls_1_1()).await;
    const FATAL_PROTOCOL_VERSION: [u8; 2] = [2, 70];
    assert_eq!(answer[5..], FATAL_PROTOCOL_VERSION, "{error}");
}

#[tokio::test]
async fn a_client_that_speaks_plain_http_is_told_to_use_https() {
    let tls = ListenerFiles::new().load(ClientAuth::NoClientCert);
    let (answer, error) = answer_to(&tls, b"POST /webhook/local HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 400 ") && answer.contains("an HTTPS server"), "{answer}");
    assert!(error.contains("use https://"), "{error}");
}

#[tokio::test]
async fn bytes_that_are_not_tls_are_an_error() {
    let tls = ListenerFiles::new().load(ClientAuth::NoClientCert);
    let (_, error) = answer_to(&tls, &[0; 64]).await;
    assert!(!error.is_empty());
}

#[tokio::test]
async fn sessions_are_not_resumed() {
    let files = ListenerFiles::new();
    let certificate = files.clients.client("alertmanager", &["alertmanager.example"]);
    let tls = files.load(ClientAuth::RequireAndVerifyClientCert(files.path("clients.pem")));
    for version in rustls::ALL_VERSIONS {
        // A client resumes wherever the server lets it.
        let client = Arc::new(files.client_of_versions(Some(&certificate), &[version]));
        for _ in 0..2 {
            let connected = connect(&tls, &client).await.unwrap();
            assert_eq!(
                connected.client.get_ref().1.handshake_kind(),
                Some(HandshakeKind::Full),
                "{version:?}"
            );
        }
    }
}
