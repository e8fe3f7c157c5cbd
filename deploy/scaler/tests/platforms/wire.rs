//! An HTTP server on a port of 127.0.0.1 whose answers are a function of the request, and which can fail.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::certificates::{Authority, Issued};

pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A parameter of the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    pub(crate) fn is_write(&self) -> bool {
        self.method != "GET"
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self { status, content_type: "application/json", body: body.to_string() }
    }

    pub(crate) fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }
}

/// How the next write fails.
pub(crate) enum Fault {
    /// It is answered so, and not carried out.
    Answer(Answer),
    /// It is carried out, and the connection is closed.
    LostAnswer,
    /// It is not carried out, and never answered.
    Silence,
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    faults: Mutex<VecDeque<Fault>>,
    /// Method and path of each request, and the body of a write.
    log: Mutex<Vec<(String, String)>>,
}

/// A server, until it is dropped.
pub(crate) struct WireServer {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accept: JoinHandle<()>,
}

/// What clients need to trust a server.
pub(crate) struct Tls {
    pub(crate) authority: Authority,
    certificate: Issued,
    asks_for_certificates: bool,
}

impl Tls {
    pub(crate) fn new() -> Self {
        let authority = Authority::new("test authority");
        Self { certificate: authority.server(), authority, asks_for_certificates: false }
    }

    /// Clients need a certificate of the same authority.
    pub(crate) fn mutual(sans: &[&str]) -> Self {
        let authority = Authority::new("test authority");
        Self { certificate: authority.server_for(sans), authority, asks_for_certificates: true }
    }

    fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let certificates = |pem: &str| -> Vec<CertificateDer<'static>> {
            CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
        };
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = if self.asks_for_certificates {
            let mut roots = rustls::RootCertStore::empty();
            roots.add_parsable_certificates(certificates(&self.authority.pem()));
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from_pem_slice(self.certificate.key.as_bytes()).unwrap();
        let config = builder.with_single_cert(certificates(&self.certificate.certificate), key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

impl WireServer {
    pub(crate) async fn start(
        tls: Option<&Tls>,
        handler: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared =
            Arc::new(Shared { handler: Box::new(handler), faults: Mutex::default(), log: Mutex::default() });
        let accept = tokio::spawn(accept(listener, tls.map(Tls::acceptor), shared.clone()));
        Self { address, shared, accept }
    }

    /// The next writes fail so.
    pub(crate) fn fail_writes(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.faults.lock().unwrap().extend(faults);
    }

    /// Method and path of each request since the last look, with the bodies of writes.
    pub(crate) fn take_log(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.shared.log.lock().unwrap())
    }

    /// The writes since the last look.
    pub(crate) fn take_writes(&self) -> Vec<(String, String)> {
        self.take_log().into_iter().filter(|(request, _)| !request.starts_with("GET ")).collect()
    }
}

impl Drop for WireServer {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, tls.clone(), shared.clone()));
    }
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let service = service_fn(|request| answer(request, shared.clone()));
    let http = hyper::server::conn::http1::Builder::new();
    // A client that goes away is no error here.
    match tls {
        None => drop(http.serve_connection(TokioIo::new(stream), service).await),
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                drop(http.serve_connection(TokioIo::new(stream), service).await);
            }
        }
    }
}

/// The connection is closed without an answer.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed on purpose")
    }
}

impl std::error::Error for Closed {}

async fn answer(
    request: hyper::Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<hyper::Response<Full<Bytes>>, Closed> {
    let (parts, body) = request.into_parts();
    let request = Request {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body: body.collect().await.map_err(|_| Closed)?.to_bytes(),
    };
    let entry =
        (format!("{} {}", request.method, parts.uri), String::from_utf8_lossy(&request.body).into_owned());
    shared.log.lock().unwrap().push(entry);
    let fault = if request.is_write() { shared.faults.lock().unwrap().pop_front() } else { None };
    let answer = match fault {
        None => (shared.handler)(&request),
        Some(Fault::Answer(answer)) => answer,
        Some(Fault::LostAnswer) => {
            let _ = (shared.handler)(&request);
            return Err(Closed);
        }
        Some(Fault::Silence) => {
            let never: Infallible = std::future::pending().await;
            match never {}
        }
    };
    let response = hyper::Response::builder()
        .status(answer.status)
        .header("content-type", answer.content_type)
        .body(Full::new(answer.body.into()));
    response.map_err(|_| Closed)
}
