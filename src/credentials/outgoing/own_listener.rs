//! A client of a listener of this configuration, which trusts exactly the certificate that the listener has.
//!
//! No CA and no name is needed, and an expired certificate is accepted: the question is whether this process answers, and
//! not whether others trust it. The listener must prove that it has the private key.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{OutgoingError, causes, request_error};
use crate::config::access::Tls;
use crate::credentials::tls::{PemFile, certified_key, crypto_provider};

/// A longer answer is cut.
const MAX_BODY_BYTES: usize = 64 << 10;

/// A listener of this configuration.
pub(crate) struct OwnListener {
    url: String,
    client: reqwest::Client,
    timeout: Duration,
}

impl OwnListener {
    /// Reads the certificates. `client_cert` has the PEM files of a certificate and its key, for a listener that asks for
    /// one.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(crate) fn new(
        address: SocketAddr,
        tls: Option<&Tls>,
        client_cert: Option<(&Path, &Path)>,
        timeout: Duration,
    ) -> Result<Self, OutgoingError> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(client_config(tls, client_cert)?)
            .redirect(Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| OutgoingError::Settings(causes(&error.without_url())))?;
        Ok(Self { url: format!("{scheme}://{address}"), client, timeout })
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The status and the text of the answer to `GET path`.
    ///
    /// # Errors
    /// There is no answer in time.
    pub(crate) async fn get(&self, path: &str) -> Result<(u16, String), OutgoingError> {
        tokio::time::timeout(self.timeout, self.read(path))
            .await
            .unwrap_or(Err(OutgoingError::TimedOut(self.timeout)))
    }

    async fn read(&self, path: &str) -> Result<(u16, String), OutgoingError> {
        let mut response = self.client.get(self.url(path)).send().await.map_err(request_error)?;
        let mut body = Vec::new();
        while body.len() < MAX_BODY_BYTES
            && let Some(chunk) = response.chunk().await.map_err(request_error)?
        {
            body.extend_from_slice(&chunk);
        }
        body.truncate(MAX_BODY_BYTES);
        Ok((response.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
    }
}

fn client_config(
    tls: Option<&Tls>,
    client_cert: Option<(&Path, &Path)>,
) -> Result<ClientConfig, OutgoingError> {
    let provider = crypto_provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| OutgoingError::Settings(error.to_string()))?;
    let Some(tls) = tls else {
        return Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    };
    let mut chain = PemFile::read("cert_file", &tls.cert_file)?.certificates()?;
    let verifier = Exactly { certificate: chain.swap_remove(0), provider: provider.clone() };
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let Some((cert_file, key_file)) = client_cert else {
        return Ok(builder.with_no_client_auth());
    };
    let cert_file = PemFile::read("--cert-file", cert_file)?;
    let key_file = PemFile::read("--key-file", key_file)?;
    let certified_key = certified_key(&cert_file, &key_file, &provider)?;
    Ok(builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified_key))))
}

/// Accepts this certificate only, from a server that has its private key.
#[derive(Debug)]
struct Exactly {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Exactly {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *certificate == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General(
            "the listener presents another certificate than `cert_file` has: the file was replaced within the last seconds, \
             or another program listens at this address"
                .to_owned(),
        ))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
