//! Which client certificates pass the handshake, and which of them are an identity.

use super::*;

/// What a client presents.
#[derive(Debug, Clone, Copy)]
enum Presents {
    Nothing,
    SelfSigned,
    IssuedByCa,
    WithoutAllowedSan,
    OfAnotherCa,
    Expired,
    OfAServer,
}

const ALL: [Presents; 7] = [
    Presents::Nothing,
    Presents::SelfSigned,
    Presents::IssuedByCa,
    Presents::WithoutAllowedSan,
    Presents::OfAnotherCa,
    Presents::Expired,
    Presents::OfAServer,
];

const SAN: &str = "alertmanager.example";

fn certificate(files: &ListenerFiles, presents: Presents) -> Option<Issued> {
    match presents {
        Presents::Nothing => None,
        Presents::SelfSigned => Some(Issued::self_signed("client", &[SAN])),
        Presents::IssuedByCa => Some(files.clients.client("client", &[SAN])),
        Presents::WithoutAllowedSan => Some(files.clients.client(SAN, &["other.example"])),
        Presents::OfAnotherCa => Some(Authority::new("client CA").client("client", &[SAN])),
        Presents::Expired => Some(files.clients.expired_client("client", &[SAN])),
        Presents::OfAServer => Some(files.clients.server_for(&[SAN])),
    }
}

/// For each thing that a client presents: `-` if it is refused, `anonymous`, or `identity`.
async fn outcomes(client_auth: impl Fn(&ListenerFiles) -> ClientAuth, allowed_sans: &[&str]) -> String {
    let files = ListenerFiles::new();
    let client_allowed_sans = allowed_sans.iter().map(|san| (*san).to_owned()).collect();
    let tls = load(&Tls { client_allowed_sans, ..files.settings(client_auth(&files)) });
    let mut outcomes = Vec::new();
    for presents in ALL {
        let mut of_versions = Vec::new();
        for version in rustls::ALL_VERSIONS {
            let certificate = certificate(&files, presents);
            let client = files.client_of_versions(certificate.as_ref(), &[version]);
            of_versions.push(match connect(&tls, &Arc::new(client)).await {
                Err(_) => "-",
                Ok(Established { certificate: None, .. }) => "anonymous",
                Ok(Established { certificate: Some(_), .. }) => "identity",
            });
        }
        assert_eq!(of_versions[0], of_versions[1], "{presents:?} with TLS 1.3 and 1.2");
        outcomes.push(format!("{presents:?} {}", of_versions[0]));
    }
    outcomes.join(", ")
}

#[tokio::test]
async fn no_client_cert_and_request_client_cert_make_no_identity() {
    let all_anonymous = ALL.map(|presents| format!("{presents:?} anonymous")).join(", ");
    assert_eq!(outcomes(|_| ClientAuth::NoClientCert, &[]).await, all_anonymous);
    assert_eq!(outcomes(|_| ClientAuth::RequestClientCert, &[]).await, all_anonymous);
}

#[tokio::test]
async fn require_any_client_cert_refuses_clients_without_one_and_makes_no_identity() {
    insta::assert_snapshot!(
        outcomes(|_| ClientAuth::RequireAnyClientCert, &[]).await,
        @"Nothing -, SelfSigned anonymous, IssuedByCa anonymous, WithoutAllowedSan anonymous, OfAnotherCa anonymous, Expired anonymous, OfAServer anonymous"
    );
}

#[tokio::test]
async fn verify_client_cert_if_given_admits_clients_without_one_as_anonymous() {
    let client_auth = |files: &ListenerFiles| ClientAuth::VerifyClientCertIfGiven(files.path("clients.pem"));
    insta::assert_snapshot!(outcomes(client_auth, &[]).await, @"Nothing anonymous, SelfSigned -, IssuedByCa identity, WithoutAllowedSan identity, OfAnotherCa -, Expired -, OfAServer -");
    insta::assert_snapshot!(outcomes(client_auth, &[SAN]).await, @"Nothing anonymous, SelfSigned -, IssuedByCa identity, WithoutAllowedSan -, OfAnotherCa -, Expired -, OfAServer -");
}

#[tokio::test]
async fn require_and_verify_client_cert_admits_verified_certificates_only() {
    let client_auth =
        |files: &ListenerFiles| ClientAuth::RequireAndVerifyClientCert(files.path("clients.pem"));
    insta::assert_snapshot!(outcomes(client_auth, &[]).await, @"Nothing -, SelfSigned -, IssuedByCa identity, WithoutAllowedSan identity, OfAnotherCa -, Expired -, OfAServer -");
    insta::assert_snapshot!(outcomes(client_auth, &["first.example", SAN]).await, @"Nothing -, SelfSigned -, IssuedByCa identity, WithoutAllowedSan -, OfAnotherCa -, Expired -, OfAServer -");
}

#[tokio::test]
async fn allowed_sans_are_compared_exactly_and_dns_names_in_any_case() {
    let files = ListenerFiles::new();
    let sans = ["Alertmanager.Example", "10.1.2.3", "spiffe://example/Alertmanager", "Ops@example"];
    let client = files.client(Some(&files.clients.client("alertmanager", &sans)));
    let client = Arc::new(client);
    for (allowed, is_admitted) in [
        ("alertmanager.example", true),
        ("10.1.2.3", true),
        ("spiffe://example/Alertmanager", true),
        ("Ops@example", true),
        ("alertmanager", false),
        ("spiffe://example/alertmanager", false),
        ("ops@example", false),
        ("*.example", false),
        ("", false),
    ] {
        let settings = files.settings(ClientAuth::VerifyClientCertIfGiven(files.path("clients.pem")));
        let tls = load(&Tls { client_allowed_sans: vec![allowed.to_owned()], ..settings });
        let connected = connect(&tls, &client).await.map(drop);
        assert_eq!(connected.is_ok(), is_admitted, "{allowed:?}: {connected:?}");
        if let Err(error) = connected {
            assert!(error.contains("client_allowed_sans"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_client_must_have_the_key_of_its_certificate() {
    let files = ListenerFiles::new();
    let stolen =
        Issued { key: Issued::self_signed("thief", &[]).key, ..files.clients.client("alertmanager", &[SAN]) };
    let chain = CertificateDer::pem_slice_iter(stolen.certificate.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(stolen.key.as_bytes()).unwrap();
    let signing_key = crypto_provider().key_provider.load_private_key(key).unwrap();
    let certified = rustls::sign::CertifiedKey::new(chain, signing_key);
    for client_auth in
        [ClientAuth::RequireAnyClientCert, ClientAuth::RequireAndVerifyClientCert(files.path("clients.pem"))]
    {
        let mut client = files.client(None);
        client.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified.clone()));
        assert!(connect(&files.load(client_auth), &Arc::new(client)).await.is_err());
    }
}
