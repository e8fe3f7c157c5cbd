//! A client that trusts one authority and opens a connection for each request.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::certificates::Issued;

#[derive(Clone)]
pub(crate) struct Https {
    config: Arc<ClientConfig>,
}

impl Https {
    /// Trusts the authority with this PEM certificate.
    pub(crate) fn trusting(authority: &str) -> Self {
        Self::new(authority, None)
    }

    /// The same, and presents a certificate.
    pub(crate) fn presenting(authority: &str, issued: &Issued) -> Self {
        Self::new(authority, Some(issued))
    }

    fn new(authority: &str, issued: Option<&Issued>) -> Self {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(authority.as_bytes()).expect("a certificate");
        roots.add(certificate).expect("an authority");
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_root_certificates(roots);
        let config = match issued {
            None => config.with_no_client_auth(),
            Some(issued) => {
                let chain = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).expect("PEM");
                let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("PEM");
                config.with_client_auth_cert(vec![chain], key).expect("a key that matches")
            }
        };
        Self { config: Arc::new(config) }
    }

    /// Connects to `127.0.0.1:PORT` and completes the handshake.
    pub(crate) fn connect(&self, address: &str) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let name = ServerName::try_from("127.0.0.1").map_err(io::Error::other)?;
        let mut connection = ClientConnection::new(self.config.clone(), name).map_err(io::Error::other)?;
        let mut stream = TcpStream::connect(address)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(connection, stream))
    }

    /// The certificate that the server shows, DER.
    pub(crate) fn certificate_of(&self, address: &str) -> Vec<u8> {
        let stream = self.connect(address).expect("a connection");
        stream.conn.peer_certificates().expect("certificates")[0].as_ref().to_vec()
    }

    /// Posts a notification to the source `prod-eu`, and returns the status.
    pub(crate) fn post(&self, address: &str, token: &str, body: &str) -> io::Result<u16> {
        let bearer = format!("authorization: Bearer {token}\r\n");
        Ok(self.request(address, "POST /webhook/prod-eu", &bearer, body)?.0)
    }

    /// Sends a request with these header lines. Returns the status and the body of the answer.
    pub(crate) fn request(
        &self,
        address: &str,
        line: &str,
        headers: &str,
        body: &str,
    ) -> io::Result<(u16, String)> {
        let mut stream = self.connect(address)?;
        write!(
            stream,
            "{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = Vec::new();
        // An abrupt end after the answer is an error of rustls, and an answer all the same.
        let read = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        match status {
            Some(status) => Ok((status, body)),
            None => Err(read.err().unwrap_or(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}
