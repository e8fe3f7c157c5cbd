//! TLS of connections: what the URL says, read from files.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{Authorities, DatabaseUrl, ServerTls};
use crate::credentials::tls::{PemFile, TlsError, authorities, certified_key, crypto_provider};
use crate::store::postgres::error::ConnectError;

/// A connector for each way of verifying that the URL needs.
pub(super) struct Tls {
    authority: Option<Verified>,
    authority_and_name: Option<Verified>,
}

/// A connector that verifies who answers.
type Verified = MakeRustlsConnect;

impl From<TlsError> for ConnectError {
    fn from(error: TlsError) -> Self {
        Self::Settings(error.to_string())
    }
}

impl Tls {
    /// Reads certificates and keys. Blocks.
    pub(super) fn read(url: &DatabaseUrl) -> Result<Self, ConnectError> {
        let connector = |tls: ServerTls| {
            let is_needed = url.servers.iter().any(|server| server.tls == tls);
            is_needed.then(|| client_config(url, tls)).transpose()
        };
        Ok(Self {
            authority: connector(ServerTls::Authority)?.map(MakeRustlsConnect::new),
            authority_and_name: connector(ServerTls::AuthorityAndName)?.map(MakeRustlsConnect::new),
        })
    }

    /// The connector for a server; none without TLS.
    pub(super) fn connector(&self, tls: ServerTls) -> Option<Verified> {
        match tls {
            ServerTls::Off => None,
            ServerTls::Authority => self.authority.clone(),
            ServerTls::AuthorityAndName => self.authority_and_name.clone(),
        }
    }
}

fn client_config(url: &DatabaseUrl, tls: ServerTls) -> Result<ClientConfig, ConnectError> {
    let provider = crypto_provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| ConnectError::Settings(error.to_string()))?;
    let verifier = verifier(&url.authorities, tls, &provider)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let Some((certificate, key)) = &url.client_certificate else { return Ok(builder.with_no_client_auth()) };
    let (certificate, key) = (PemFile::read("sslcert", certificate)?, PemFile::read("sslkey", key)?);
    let certified_key = certified_key(&certificate, &key, &provider)?;
    Ok(builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified_key))))
}

fn verifier(
    trusted: &Authorities,
    tls: ServerTls,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, ConnectError> {
    let path: &Path = match trusted {
        Authorities::File(path) => path,
        Authorities::System => {
            let verifier = rustls_platform_verifier::Verifier::new(provider.clone()).map_err(|error| {
                ConnectError::Settings(format!(
                    "the CAs of the system cannot be read: {error}; use `sslrootcert`"
                ))
            })?;
            return Ok(Arc::new(verifier));
        }
    };
    let file = PemFile::read("sslrootcert", path)?;
    let roots = Arc::new(authorities(&file, &file.certificates()?)?);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
    let verifier = verifier.map_err(|error| ConnectError::Settings(format!("sslrootcert: {error}")))?;
    Ok(match tls {
        ServerTls::Authority => Arc::new(AnyName { roots, verifier, provider: provider.clone() }),
        ServerTls::Off | ServerTls::AuthorityAndName => verifier,
    })
}

/// Verifies that one of the authorities has signed the certificate, whatever its names: `verify-ca`.
#[derive(Debug)]
struct AnyName {
    roots: Arc<RootCertStore>,
    verifier: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
