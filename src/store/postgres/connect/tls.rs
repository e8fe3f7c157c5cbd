//! TLS of connections: what the URL says, read from files.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{Authorities, DatabaseUrl, ServerTls};
use crate::credentials::tls::{
    CheckedServer, PemFile, PresentedServer, ServerCheck, TlsError, authorities, certified_key,
    crypto_provider,
};
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
        ServerTls::Authority => {
            CheckedServer::verifier(AnyName { roots, provider: provider.clone() }, provider.clone())
        }
        ServerTls::Off | ServerTls::AuthorityAndName => verifier,
    })
}

/// Verifies that one of the authorities has signed the certificate, whatever its names: `verify-ca`.
#[derive(Debug)]
struct AnyName {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCheck for AnyName {
    fn check(&self, server: &PresentedServer<'_>) -> Result<(), rustls::Error> {
        let certificate = ParsedCertificate::try_from(server.certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let PresentedServer { intermediates, now, .. } = *server;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)
    }
}
