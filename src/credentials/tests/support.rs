//! Sources with credentials, requests that present some, and a tiny HTTP server.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use parking_lot::Mutex;
use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::config::access::{HttpClient, JwksLocation, JwtAuth, SourceAuth};
use crate::credentials::{ClientCertificate, Denied, Presented, SourceCredentials, unix_now};
use crate::domain::name::Name;

/// A folder with secrets.
pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Replaces a file at once, as Kubernetes does.
    pub(super) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let new = self.path(&format!("{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
        self.path(name)
    }
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Sources by name.
pub(super) fn sources<const N: usize>(auth: [(&str, SourceAuth); N]) -> BTreeMap<Name, SourceAuth> {
    auth.into_iter().map(|(source, auth)| (name(source), auth)).collect()
}

pub(super) fn bearer_files<const N: usize>(files: [&Path; N]) -> SourceAuth {
    SourceAuth { bearer_token_files: files.map(Path::to_owned).into(), ..SourceAuth::default() }
}

pub(super) fn headers<const N: usize>(headers: [(&str, &str); N]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

pub(super) fn bearer(token: &str) -> HeaderMap {
    headers([("authorization", &format!("Bearer {token}"))])
}

pub(super) fn basic(user: &str, password: &str) -> HeaderMap {
    headers([("authorization", &crate::credentials::header::encode_basic(user, password))])
}

/// What a check says, in a word: `ok`, the reason of a denial with its status, or `503` with the text for the log.
pub(super) fn outcome<T>(result: Result<T, Denied>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(Denied::Unauthenticated { failure, .. }) => format!("401 {}", failure.as_str()),
        Err(Denied::Forbidden(failure)) => format!("403 {}", failure.as_str()),
        Err(Denied::Unavailable(cause)) => format!("503 {cause}"),
        Err(Denied::Busy) => "503 busy".to_owned(),
    }
}

/// The address of the sender, where it does not matter.
pub(super) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl SourceCredentials {
    pub(super) async fn outcome(&self, source: &str, headers: &HeaderMap) -> String {
        outcome(self.check(&name(source), Presented { headers, client_certificate: None, peer: PEER }).await)
    }

    pub(super) async fn outcome_with_certificate(
        &self,
        source: &str,
        headers: &HeaderMap,
        certificate: &ClientCertificate,
    ) -> String {
        let presented = Presented { headers, client_certificate: Some(certificate), peer: PEER };
        outcome(self.check(&name(source), presented).await)
    }
}

/// A key that signs tokens.
pub(super) struct SigningKey {
    pub algorithm: Algorithm,
    pub id: Option<&'static str>,
    pub pair: KeyPair,
    key: EncodingKey,
}

impl SigningKey {
    pub(super) fn new(algorithm: Algorithm, id: Option<&'static str>) -> Self {
        let kind = match algorithm {
            Algorithm::ES256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Algorithm::ES384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Algorithm::EdDSA => &rcgen::PKCS_ED25519,
            _ => &rcgen::PKCS_RSA_SHA256,
        };
        let pair = KeyPair::generate_for(kind).unwrap();
        let pem = pair.serialize_pem();
        let key = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem.as_bytes()),
            Algorithm::EdDSA => Ok(EncodingKey::from_ed_der(pair.serialized_der())),
            _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
        };
        Self { algorithm, id, pair, key: key.unwrap() }
    }

    pub(super) fn jwk(&self) -> Value {
        if self.algorithm == Algorithm::EdDSA {
            let x = URL_SAFE_NO_PAD.encode(self.pair.public_key_raw());
            return json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.id });
        }
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = self.id.map(str::to_owned);
        serde_json::to_value(jwk).unwrap()
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        self.sign_as(self.algorithm, claims)
    }

    pub(super) fn sign_as(&self, algorithm: Algorithm, claims: &Value) -> String {
        sign(&self.key, algorithm, self.id, claims)
    }
}

pub(super) fn sign(key: &EncodingKey, algorithm: Algorithm, id: Option<&str>, claims: &Value) -> String {
    let mut header = json!({ "alg": algorithm, "typ": "JWT" });
    if let Some(id) = id {
        header["kid"] = json!(id);
    }
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&header), part(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

pub(super) fn key_set(keys: &[&SigningKey]) -> String {
    json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }).to_string()
}

pub(super) const ISSUER: &str = "https://kubernetes.default.svc";

/// The claims of a valid token.
pub(super) fn claims() -> Value {
    json!({
        "iss": ISSUER,
        "aud": ["scalebridge", "other"],
        "sub": "system:serviceaccount:monitoring:alertmanager",
        "exp": unix_now() + 600,
        "nbf": unix_now() - 5,
    })
}

pub(super) fn claims_with(claim: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[claim] = value;
    claims
}

pub(super) fn jwt(keys: JwksLocation) -> JwtAuth {
    JwtAuth {
        issuer: ISSUER.to_owned(),
        audience: vec!["scalebridge".to_owned()],
        keys,
        subjects: vec!["system:serviceaccount:monitoring:*".to_owned()],
    }
}

pub(super) fn jwt_source(keys: JwksLocation) -> SourceAuth {
    SourceAuth { jwt: Some(jwt(keys)), ..SourceAuth::default() }
}

/// What the server answers.
#[derive(Clone)]
pub(super) enum Reply {
    Ok(String),
    Status(&'static str),
    /// Nothing, until the client gives up.
    Never,
}

/// An HTTP server that answers every request alike, and counts them.
pub(super) struct Server {
    pub url: String,
    pub requests: Arc<AtomicUsize>,
    pub last_request: Arc<Mutex<String>>,
    reply: Arc<Mutex<Reply>>,
}

impl Server {
    pub(super) async fn start(reply: Reply) -> Self {
        Self::start_with(reply, None).await
    }

    /// With `tls` a server of https.
    pub(super) async fn start_with(reply: Reply, tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let server = Self {
            url: format!("{scheme}://{}/keys", listener.local_addr().unwrap()),
            requests: Arc::default(),
            last_request: Arc::default(),
            reply: Arc::new(Mutex::new(reply)),
        };
        let (requests, last) = (server.requests.clone(), server.last_request.clone());
        let reply = server.reply.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (requests, last, reply, tls) =
                    (requests.clone(), last.clone(), reply.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &requests, &last, &reply).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &requests, &last, &reply).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    pub(super) fn reply(&self, reply: Reply) {
        *self.reply.lock() = reply;
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub(super) fn keys(&self) -> JwksLocation {
        JwksLocation::Url { url: self.url.clone(), http: HttpClient::default() }
    }
}

async fn serve(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    requests: &AtomicUsize,
    last: &Mutex<String>,
    reply: &Mutex<Reply>,
) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    *last.lock() = String::from_utf8_lossy(&request).into_owned();
    requests.fetch_add(1, Ordering::SeqCst);
    let reply = reply.lock().clone();
    let response = match reply {
        Reply::Ok(body) => {
            format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        }
        Reply::Status(status) => format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
        ),
        Reply::Never => {
            // Ends when the client closes the connection.
            let _ = stream.read_u8().await;
            return;
        }
    };
    let _ = stream.write_all(response.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// Moves the time of a paused or running test runtime.
pub(super) async fn advance(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}
