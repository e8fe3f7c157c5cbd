//! The command line over https: whom it trusts, what it presents, and what it says when that fails.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::support::bridge::program;
use crate::support::certificates::{Authority, Issued, replace};
use crate::support::https_stub::Stub;

const NO_ENTRIES: &str = r#"{"entries":[]}"#;
/// A token that nothing may print.
const TOKEN: &str = "hunter2.hunter2.hunter2";

/// Certificates in a folder: `ca.pem` of the server, and what tests add.
struct CertificateFiles {
    folder: tempfile::TempDir,
    servers: Authority,
    clients: Authority,
}

impl CertificateFiles {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (servers, clients) = (Authority::new("server CA"), Authority::new("client CA"));
        replace(&folder.path().join("ca.pem"), &servers.pem());
        replace(&folder.path().join("token"), &format!("{TOKEN}\n"));
        Self { folder, servers, clients }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    /// The configuration of a server, which requires client certificates of `clients`, if given.
    fn server(&self, certificate: &Issued, clients: Option<&Authority>) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(der(&clients.pem())).expect("a CA");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).expect("a key");
        builder.with_single_cert(vec![der(&certificate.certificate)], key).expect("a certificate")
    }

    /// A server with a trusted certificate that responds to everything.
    fn trusted(&self) -> Stub {
        Stub::start(Some(self.server(&self.servers.server(), None)), "200 OK", NO_ENTRIES)
    }

    /// `audit` with these arguments: exit code, standard output and standard error.
    fn audit(&self, args: &[&str]) -> (Option<i32>, String, String) {
        self.run(&[&["audit", "-o", "json"], args].concat(), &[])
    }

    fn run(&self, args: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
        let done = Command::new(program())
            .args(args)
            .envs(environment.iter().copied())
            .output()
            .expect("the program");
        let (stdout, stderr) =
            (String::from_utf8(done.stdout).expect("UTF-8"), String::from_utf8(done.stderr).expect("UTF-8"));
        assert!(!stdout.contains("hunter2") && !stderr.contains("hunter2"), "{args:?}: {stdout}{stderr}");
        // Addresses and folders differ from run to run.
        let folder = self.folder.path().to_str().expect("UTF-8");
        (done.status.code(), stdout, stderr.replace(folder, "/files"))
    }

    /// The failure of `audit`, with `PORT` for the port of the server.
    fn failure(&self, stub: &Stub, scheme: &str, args: &[&str]) -> String {
        let (code, stdout, stderr) = self.audit(&[&["--url", &stub.url(scheme)], args].concat());
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
        stderr.replace(&stub.port().to_string(), "PORT").trim_end().to_owned()
    }
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}

fn as_str((certificate, key): &(PathBuf, PathBuf)) -> (&str, &str) {
    (certificate.to_str().expect("UTF-8"), key.to_str().expect("UTF-8"))
}

#[test]
fn a_server_whose_ca_is_passed_is_trusted_and_gets_the_token() {
    let files = CertificateFiles::new();
    let stub = files.trusted();
    let (ca, token) = (files.path("ca.pem"), files.path("token"));
    let url = stub.url("https");
    let (code, stdout, stderr) = files.audit(&["--url", &url, "--ca-file", &ca, "--token-file", &token]);
    assert_eq!((code, stdout.trim()), (Some(0), "[]"), "{stderr}");
    let by_environment =
        [("SCALEBRIDGE_URL", url.as_str()), ("SCALEBRIDGE_CA_FILE", &ca), ("SCALEBRIDGE_TOKEN_FILE", &token)];
    let (code, _, stderr) = files.run(&["audit", "-o", "json"], &by_environment);
    assert_eq!(code, Some(0), "{stderr}");
    let heads = stub.heads();
    assert_eq!(heads.len(), 2);
    for head in heads {
        assert!(head.starts_with("GET /api/v1/audit?"), "{head}");
        assert!(head.contains(&format!("authorization: Bearer {TOKEN}")), "{head}");
    }
}

#[test]
fn a_path_in_the_url_comes_before_that_of_the_api() {
    let files = CertificateFiles::new();
    let stub = files.trusted();
    for prefix in ["/scalebridge", "/ops/scalebridge/"] {
        let url = stub.url("https") + prefix;
        let (code, _, stderr) = files.audit(&["--url", &url, "--ca-file", &files.path("ca.pem")]);
        assert_eq!(code, Some(0), "{stderr}");
    }
    let heads = stub.heads();
    assert!(heads[0].starts_with("GET /scalebridge/api/v1/audit?"), "{heads:?}");
    assert!(heads[1].starts_with("GET /ops/scalebridge/api/v1/audit?"), "{heads:?}");
}

#[test]
fn servers_that_cannot_be_trusted_are_explained() {
    let files = CertificateFiles::new();
    let (ca, other_ca) = (files.path("ca.pem"), files.path("other.pem"));
    replace(Path::new(&other_ca), &Authority::new("other CA").pem());
    let stub = files.trusted();
    let unknown = files.failure(&stub, "https", &["--ca-file", &other_ca]);
    insta::assert_snapshot!(unknown, @"scalebridge: no response from https://127.0.0.1:PORT: invalid peer certificate: UnknownIssuer; the bridge's certificate was not issued by a CA of /files/other.pem");
    // Without CAs of the system, the same with another cause.
    let of_the_system = files.failure(&stub, "https", &[]);
    assert!(of_the_system.contains("--ca-file"), "{of_the_system}");

    let elsewhere = files.server(&files.servers.server_for(&["ops.example", "10.0.0.1"]), None);
    let stub = Stub::start(Some(elsewhere), "200 OK", NO_ENTRIES);
    insta::assert_snapshot!(files.failure(&stub, "https", &["--ca-file", &ca]), @r#"scalebridge: no response from https://127.0.0.1:PORT: invalid peer certificate: certificate not valid for name "127.0.0.1"; certificate is only valid for DnsName("ops.example") or IpAddress(10.0.0.1); use a name of the certificate in --url, or issue a certificate with this name"#);

    let expired = files.server(&files.servers.expired_client("server", &["127.0.0.1"]), None);
    let stub = Stub::start(Some(expired), "200 OK", NO_ENTRIES);
    let expired = files.failure(&stub, "https", &["--ca-file", &ca]);
    assert!(expired.contains("expired") && expired.contains("renew the bridge's certificate"), "{expired}");
}

#[test]
fn a_certificate_of_a_ca_is_not_one_of_a_server() {
    let files = CertificateFiles::new();
    let of_a_ca = files.servers.issue("server", &["127.0.0.1"], |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let stub = Stub::start(Some(files.server(&of_a_ca, None)), "200 OK", NO_ENTRIES);
    let error = files.failure(&stub, "https", &["--ca-file", &files.path("ca.pem")]);
    assert!(error.contains("CA:FALSE"), "{error}");
}

#[test]
fn a_client_certificate_is_presented_and_its_absence_or_refusal_is_explained() {
    let files = CertificateFiles::new();
    let server = files.server(&files.servers.server(), Some(&files.clients));
    let stub = Stub::start(Some(server), "200 OK", NO_ENTRIES);
    let (url, ca) = (stub.url("https"), files.path("ca.pem"));

    let issued = files.clients.client("operator", &[]);
    let paths = issued.write(files.folder.path(), "operator");
    let (certificate, key) = as_str(&paths);
    let pair = ["--url", &url, "--ca-file", &ca, "--cert-file", certificate, "--key-file", key];
    let (code, _, stderr) = files.audit(&pair);
    assert_eq!(code, Some(0), "{stderr}");
    let both = files.path("both.pem");
    replace(Path::new(&both), &(issued.certificate.clone() + &issued.key));
    let (code, _, stderr) = files.audit(&["--url", &url, "--ca-file", &ca, "--cert-file", &both]);
    assert_eq!(code, Some(0), "{stderr}");

    let without = files.failure(&stub, "https", &["--ca-file", &ca]);
    insta::assert_snapshot!(without, @"scalebridge: no response from https://127.0.0.1:PORT: received fatal alert: CertificateRequired; the bridge may require a client certificate: pass one with --cert-file and --key-file");
    let paths = Authority::new("client CA").client("operator", &[]).write(files.folder.path(), "stranger");
    let (certificate, key) = as_str(&paths);
    let args = ["--ca-file", &ca, "--cert-file", certificate, "--key-file", key];
    insta::assert_snapshot!(files.failure(&stub, "https", &args), @"scalebridge: no response from https://127.0.0.1:PORT: received fatal alert: DecryptError; the bridge does not accept the client certificate /files/stranger.pem: it must be issued by a CA of its `client_ca_file`, be valid now, and have a name of `client_allowed_sans`");
    assert_eq!(stub.heads().len(), 2, "a refused client sends no request that counts");
}

#[test]
fn files_that_cannot_be_used_are_named_before_anything_is_sent() {
    let files = CertificateFiles::new();
    let stub = files.trusted();
    let paths = files.clients.client("operator", &[]).write(files.folder.path(), "operator");
    let (certificate, _) = as_str(&paths);
    let other = files.clients.client("other", &[]).write(files.folder.path(), "other");
    let (_, other_key) = as_str(&other);
    replace(Path::new(&files.path("empty")), " \n");
    replace(Path::new(&files.path("two lines")), "hunter2\nhunter2\n");
    let (token, empty, lines) = (files.path("token"), files.path("empty"), files.path("two lines"));
    let missing = files.path("missing");
    let mut errors = String::new();
    for args in [
        ["--ca-file", &missing].as_slice(),
        &["--ca-file", &token],
        &["--cert-file", certificate],
        &["--cert-file", certificate, "--key-file", other_key],
        &["--token-file", &missing],
        &["--token-file", &empty],
        &["--token-file", &lines],
    ] {
        let (code, _, stderr) = files.audit(&[&["--url", &stub.url("https")], args].concat());
        assert_eq!(code, Some(2), "{args:?}: {stderr}");
        errors += &stderr;
    }
    insta::assert_snapshot!(errors.trim_end(), @r"
    scalebridge: --ca-file: /files/missing: cannot read the file: No such file or directory (os error 2): check the path, and that its volume is mounted
    scalebridge: --ca-file: /files/token: no certificate in the file, only text that is not PEM: expected `-----BEGIN CERTIFICATE-----`
    scalebridge: --cert-file (no --key-file): /files/operator.pem: no private key in the file, only a certificate: expected `-----BEGIN PRIVATE KEY-----`, `-----BEGIN RSA PRIVATE KEY-----` or `-----BEGIN EC PRIVATE KEY-----`
    scalebridge: --key-file: /files/other.key: the private key does not belong to the first certificate of /files/operator.pem: its certificate comes first, the issuers follow, and both files are replaced together
    scalebridge: --token-file: /files/missing: cannot read the token: No such file or directory (os error 2)
    scalebridge: --token-file: /files/empty: the file is empty: expected one bearer token
    scalebridge: --token-file: /files/two lines: expected one bearer token, of ASCII characters without spaces
    ");
    assert_eq!(stub.heads(), [""; 0]);
}

#[test]
fn a_token_is_not_sent_in_clear_text_to_another_machine() {
    let files = CertificateFiles::new();
    let token = files.path("token");
    let args = ["--token-file", &token];
    // Names that do not resolve: nothing is sent anywhere.
    let url = ["--url", "http://scalebridge.invalid:9097"];
    let (code, _, stderr) = files.audit(&[url, args].concat());
    assert_eq!(code, Some(2));
    insta::assert_snapshot!(stderr.trim_end(), @"scalebridge: --token-file (or SCALEBRIDGE_TOKEN_FILE) would send the token in clear text to scalebridge.invalid: use an https:// URL, or a tunnel to a loopback address");
    let send = ["send", "--url", "http://scalebridge.invalid/webhook/local", "alertname=X"];
    let (code, _, stderr) = files.run(&[&send[..], &args].concat(), &[]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("clear text"), "{stderr}");
    let stub = Stub::start(None, "200 OK", NO_ENTRIES);
    let (code, _, stderr) = files.audit(&["--url", &stub.url("http"), "--token-file", &token]);
    assert_eq!(code, Some(0), "a loopback address is this machine: {stderr}");
}

#[test]
fn user_info_in_the_url_is_refused_and_not_repeated() {
    let files = CertificateFiles::new();
    for args in [
        &["audit", "--url", "https://admin:hunter2@127.0.0.1:1"] as &[&str],
        &["explain", "alertname=X", "--url", "https://admin:hunter2@127.0.0.1:1"],
        &["send", "alertname=X", "--url", "https://admin:hunter2@127.0.0.1:1/webhook/local"],
    ] {
        let (code, _, stderr) = files.run(args, &[]);
        assert_eq!(code, Some(2));
        assert!(stderr.contains("--token-file"), "{stderr}");
    }
    let environment = [("SCALEBRIDGE_URL", "https://admin:hunter2@127.0.0.1:1")];
    assert_eq!(files.run(&["audit"], &environment).0, Some(2));
    assert_eq!(files.run(&["audit", "--help"], &environment).0, Some(0));
}

#[test]
fn refused_credentials_redirects_and_wrong_schemes_are_explained() {
    let files = CertificateFiles::new();
    let (token, ca) = (files.path("token"), files.path("ca.pem"));
    let mut errors = String::new();
    let problem = r#"{"status":401,"title":"Unauthorized","detail":"credentials are required"}"#;
    for (status, body, args) in [
        ("401 Unauthorized", problem, &[] as &[&str]),
        ("401 Unauthorized", problem, &["--token-file", &token]),
        (
            "403 Forbidden",
            r#"{"detail":"this needs credentials with `scope: operate`"}"#,
            &["--token-file", &token],
        ),
        ("403 Forbidden", "<html>a proxy</html>", &["--token-file", &token]),
        ("302 Found", "", &[]),
    ] {
        let stub = Stub::start(None, status, body);
        errors += &(files.failure(&stub, "http", args) + "\n");
    }
    let plain = Stub::start(None, "400 Bad Request", "");
    errors += &files.failure(&plain, "https", &["--ca-file", &ca]);
    insta::assert_snapshot!(errors, @r"
    scalebridge: http://127.0.0.1:PORT returned 401: credentials are required; pass a credential: --token-file, or --cert-file with --key-file
    scalebridge: http://127.0.0.1:PORT returned 401: credentials are required; the token of /files/token is not accepted: it is unknown, expired or of another bridge
    scalebridge: http://127.0.0.1:PORT returned 403: this needs credentials with `scope: operate`
    scalebridge: http://127.0.0.1:PORT returned 403: the token of /files/token does not permit this
    scalebridge: http://127.0.0.1:PORT returned 302: redirects are not followed: pass the URL of the bridge itself
    scalebridge: no response from https://127.0.0.1:PORT: received corrupt message of type InvalidContentType; the server does not speak TLS at this address: check scheme and port
    ");
}

#[test]
fn http_to_a_server_that_speaks_tls_is_explained() {
    let files = CertificateFiles::new();
    let stub = Stub::start(None, "400 Bad Request", "Client sent an HTTP request to an HTTPS server.\n");
    let (code, _, stderr) = files.audit(&["--url", &stub.url("http")]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("use https:// in --url"), "{stderr}");
}

#[test]
fn notifications_are_sent_over_https() {
    let files = CertificateFiles::new();
    let stub = files.trusted();
    let url = stub.url("https") + "/webhook/local";
    let (ca, token) = (files.path("ca.pem"), files.path("token"));
    let send = ["send", "--url", &url, "--ca-file", &ca, "--token-file", &token, "alertname=X"];
    let (code, stdout, stderr) = files.run(&send, &[]);
    assert_eq!((code, stdout.trim()), (Some(0), NO_ENTRIES), "{stderr}");
    assert!(stub.heads()[0].starts_with("POST /webhook/local "), "{:?}", stub.heads());
    let refused = r#"{"error":"unknown token"}"#;
    let stub = Stub::start(Some(files.server(&files.servers.server(), None)), "401 Unauthorized", refused);
    let url = stub.url("https") + "/webhook/local";
    let (code, _, stderr) = files.run(&["send", "--url", &url, "--ca-file", &ca, "alertname=X"], &[]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("returned 401") && stderr.contains("--token-file"), "{stderr}");
}
