//! ListenerFiles that cannot be used: the setting, the file and the fix, never the contents.

use std::time::{Duration, SystemTime};

use super::*;

/// Contents of a file that no message may show.
const BASE64: &str = "c2VjcmV0c2VjcmV0c2VjcmV0";

fn section(label: &str, headers: &str) -> String {
    format!("-----BEGIN {label}-----\n{headers}{BASE64}\n-----END {label}-----\n")
}

/// The error of each text in place of a file of the listener.
fn errors(name: &str, client_auth: impl Fn(&ListenerFiles) -> ClientAuth, texts: &[&[u8]]) -> String {
    let files = ListenerFiles::new();
    let mut lines = Vec::new();
    for text in texts {
        std::fs::write(files.path(name), text).unwrap();
        let error = error_of(&files.settings(client_auth(&files))).to_string();
        let error = error.replace(files.folder.path().to_str().unwrap(), "/tls");
        assert!(!error.contains(BASE64), "{error}");
        lines.push(error);
    }
    lines.join("\n")
}

#[test]
fn a_certificate_file_that_cannot_be_used_is_explained() {
    let key = Issued::self_signed("x", &[]).key;
    let certificate = Issued::self_signed("x", &[]).certificate;
    let texts = [
        "",
        "secretsecret",
        &key,
        &section("CERTIFICATE REQUEST", ""),
        &section("SECRET THING", ""),
        &section("TRUSTED CERTIFICATE", ""),
        &section("CERTIFICATE", ""),
        &(certificate.clone() + &section("CERTIFICATE", "")),
        &certificate[..120],
    ];
    let mut texts: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    texts.push(&der);
    insta::assert_snapshot!(errors("server.pem", |_| ClientAuth::NoClientCert, &texts), @r"
    server.tls.cert_file: /tls/server.pem: the file is empty: expected a certificate in PEM format
    server.tls.cert_file: /tls/server.pem: no certificate in the file, only text that is not PEM: expected `-----BEGIN CERTIFICATE-----`
    server.tls.cert_file: /tls/server.pem: no certificate in the file, only a private key: expected `-----BEGIN CERTIFICATE-----`
    server.tls.cert_file: /tls/server.pem: no certificate in the file, only a certificate request, which a CA has to sign: expected `-----BEGIN CERTIFICATE-----`
    server.tls.cert_file: /tls/server.pem: no certificate in the file, only sections of another kind: expected `-----BEGIN CERTIFICATE-----`
    server.tls.cert_file: /tls/server.pem: no certificate in the file, only an OpenSSL trusted certificate, which `openssl x509` converts: expected `-----BEGIN CERTIFICATE-----`
    server.tls.cert_file: /tls/server.pem: certificate 1 of the file is not a valid X.509 certificate: replace it
    server.tls.cert_file: /tls/server.pem: certificate 2 of the file is not a valid X.509 certificate: replace it
    server.tls.cert_file: /tls/server.pem: not valid PEM: a section has no end or is not base64; the file is damaged, or is being written
    server.tls.cert_file: /tls/server.pem: the file is DER, not PEM: convert it with `openssl x509 -inform der -in FILE -out FILE.pem`
    ");
}

#[test]
fn a_key_file_that_cannot_be_used_is_explained() {
    let certificate = Issued::self_signed("x", &[]).certificate;
    let key_of_another = Issued::self_signed("x", &[]).key;
    let texts = [
        "",
        &certificate,
        &section("ENCRYPTED PRIVATE KEY", ""),
        &section("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n"),
        &section("PRIVATE KEY", ""),
        &section("OPENSSH PRIVATE KEY", ""),
        &key_of_another[..60],
        &key_of_another,
    ];
    let mut texts: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
    let der = PrivateKeyDer::from_pem_slice(key_of_another.as_bytes()).unwrap();
    texts.push(der.secret_der());
    insta::assert_snapshot!(errors("server.key", |_| ClientAuth::NoClientCert, &texts), @r"
    server.tls.key_file: /tls/server.key: the file is empty: expected a private key in PEM format
    server.tls.key_file: /tls/server.key: no private key in the file, only a certificate: expected `-----BEGIN PRIVATE KEY-----`, `-----BEGIN RSA PRIVATE KEY-----` or `-----BEGIN EC PRIVATE KEY-----`
    server.tls.key_file: /tls/server.key: the private key is encrypted, which is not supported: decrypt it with `openssl pkey -in ENCRYPTED -out FILE`, and make the file readable by the bridge's user only
    server.tls.key_file: /tls/server.key: the private key is encrypted, which is not supported: decrypt it with `openssl pkey -in ENCRYPTED -out FILE`, and make the file readable by the bridge's user only
    server.tls.key_file: /tls/server.key: the private key is not supported: use RSA with 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519
    server.tls.key_file: /tls/server.key: no private key in the file, only an OpenSSH private key, which TLS does not use: expected `-----BEGIN PRIVATE KEY-----`, `-----BEGIN RSA PRIVATE KEY-----` or `-----BEGIN EC PRIVATE KEY-----`
    server.tls.key_file: /tls/server.key: not valid PEM: a section has no end or is not base64; the file is damaged, or is being written
    server.tls.key_file: /tls/server.key: the private key does not belong to the first certificate of /tls/server.pem: its certificate comes first, the issuers follow, and both files are replaced together
    server.tls.key_file: /tls/server.key: the file is DER, not PEM: convert it with `openssl pkey -inform der -in FILE -out FILE.pem`
    ");
}

#[test]
fn a_client_ca_file_that_cannot_be_used_is_explained() {
    let (key, ca) = (Issued::self_signed("x", &[]).key, Authority::new("client CA").pem());
    let second = ca.clone() + &section("CERTIFICATE", "");
    let texts: [&[u8]; 3] = [b"", key.as_bytes(), second.as_bytes()];
    let client_auth = |files: &ListenerFiles| ClientAuth::VerifyClientCertIfGiven(files.path("clients.pem"));
    insta::assert_snapshot!(errors("clients.pem", client_auth, &texts), @r"
    server.tls.client_ca_file: /tls/clients.pem: the file is empty: expected a certificate in PEM format
    server.tls.client_ca_file: /tls/clients.pem: no certificate in the file, only a private key: expected `-----BEGIN CERTIFICATE-----`
    server.tls.client_ca_file: /tls/clients.pem: certificate 2 of the file is not a valid X.509 certificate: replace it
    ");
}

#[test]
fn a_file_that_cannot_be_read_is_explained() {
    let files = ListenerFiles::new();
    let of_cert_file = |cert_file| {
        let error = error_of(&Tls { cert_file, ..files.settings(ClientAuth::NoClientCert) }).to_string();
        error.replace(files.folder.path().to_str().unwrap(), "/tls")
    };
    std::fs::write(files.path("large.pem"), vec![b'x'; (1 << 20) + 1]).unwrap();
    let errors = ["missing.pem", "", "large.pem"].map(|name| of_cert_file(files.path(name)));
    insta::assert_snapshot!(errors.join("\n"), @r"
    server.tls.cert_file: /tls/missing.pem: cannot read the file: No such file or directory (os error 2): check the path, and that its volume is mounted
    server.tls.cert_file: /tls/: not a regular file: name a PEM file
    server.tls.cert_file: /tls/large.pem: larger than 1 MiB: expected a PEM file with certificates or one private key
    ");
}

#[tokio::test]
async fn certificate_chain_and_key_may_be_one_file() {
    let files = ListenerFiles::new();
    let Issued { certificate, key } = files.servers.server();
    write(&files.path("all.pem"), &format!("{key}{certificate}{}", files.servers.pem()));
    let (cert_file, key_file) = (files.path("all.pem"), files.path("all.pem"));
    let tls = load(&Tls { cert_file, key_file, ..files.settings(ClientAuth::NoClientCert) });
    let connected = connect(&tls, &Arc::new(files.client(None))).await.unwrap();
    assert_eq!(connected.client.get_ref().1.peer_certificates().unwrap().len(), 2);
}

#[test]
fn an_expired_certificate_is_a_warning() {
    let files = ListenerFiles::new();
    files.servers.expired_client("server", &["localhost"]).write(files.folder.path(), "server");
    let tls = files.load(ClientAuth::VerifyClientCertIfGiven(files.path("clients.pem")));
    let warnings = |year: u64| {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_557_600);
        tls.warnings(at).join("\n").replace(files.folder.path().to_str().unwrap(), "/tls")
    };
    assert_eq!(warnings(2019), "");
    insta::assert_snapshot!(warnings(2026), @"server.tls.cert_file: /tls/server.pem: a certificate expired at 2020-01-01T00:00:00Z: renew it");
    insta::assert_snapshot!(warnings(1972), @r"
    server.tls.cert_file: /tls/server.pem: a certificate is not valid before 1975-01-01T00:00:00Z: check the clock
    server.tls.client_ca_file: /tls/clients.pem: a certificate is not valid before 1975-01-01T00:00:00Z: check the clock
    ");
}

#[tokio::test]
async fn pem_files_may_begin_with_a_byte_order_mark() {
    let files = ListenerFiles::new();
    for name in ["server.pem", "server.key", "clients.pem"] {
        let text = std::fs::read_to_string(files.path(name)).unwrap();
        write(&files.path(name), &format!("\u{feff}{text}"));
    }
    let tls = files.load(ClientAuth::RequireAndVerifyClientCert(files.path("clients.pem")));
    let client = files.client(Some(&files.clients.client("client", &[])));
    connect(&tls, &Arc::new(client)).await.unwrap();
}
