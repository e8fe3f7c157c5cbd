//! From settings and files to rustls' `ServerConfig`.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::client_auth::{AllowedSans, AnyCertificate, verify_against};
use super::crypto_provider;
use super::error::{Problem, TlsError};
use super::pem::PemFile;
use crate::config::access::{ClientAuth, Tls, TlsVersion};

/// What the files of a listener's TLS make.
pub(super) struct Loaded {
    pub(super) config: Arc<ServerConfig>,
    /// What verifies client certificates; `None` if none are requested.
    pub(super) verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// The certificates of the file of client CAs.
    pub(super) authorities: Vec<CertificateDer<'static>>,
    validities: Vec<Validity>,
}

/// When a certificate is valid, in seconds since 1970.
struct Validity {
    /// The setting and the file.
    place: String,
    not_before: i64,
    not_after: i64,
}

impl Loaded {
    /// Reads the files. `key` is that of the TLS settings, such as `server.tls`.
    pub(super) fn read(settings: &Tls, key: &str) -> Result<Self, TlsError> {
        let provider = crypto_provider();
        let mut validities = Vec::new();
        let certified_key = server_certificate(settings, key, &provider, &mut validities)?;
        let mut authorities = Vec::new();
        let verifier = client_verifier(settings, key, &provider, &mut authorities)?;
        if let Some(ca_file) = settings.client_auth.ca_file() {
            validities.extend(validity(&format!("{key}.client_ca_file"), ca_file, &authorities));
        }
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions(settings))
            .map_err(|error| TlsError::new(key, &settings.cert_file, Problem::Other(error.to_string())))?;
        let builder = match verifier.clone() {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified_key)));
        // Alertmanager speaks HTTP/2 wherever it is offered.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // No resumption: it would skip the verification of the client certificate, also after the CAs have changed or
        // the certificate has expired. Go clients, such as Alertmanager, do not resume unless told to.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), verifier, authorities, validities })
    }

    /// A warning for each certificate that is not valid at `now`.
    pub(super) fn warnings(&self, now: SystemTime) -> Vec<String> {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
        self.validities.iter().filter_map(|validity| validity.warning(now)).collect()
    }
}

impl Validity {
    fn warning(&self, now: i64) -> Option<String> {
        let time =
            |seconds| Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |at| at.to_string());
        if now > self.not_after {
            Some(format!("{}: a certificate expired at {}: renew it", self.place, time(self.not_after)))
        } else if now < self.not_before {
            let from = time(self.not_before);
            Some(format!("{}: a certificate is not valid before {from}: check the clock", self.place))
        } else {
            None
        }
    }
}

fn versions(settings: &Tls) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(TlsVersion::Tls12, &rustls::version::TLS12), (TlsVersion::Tls13, &rustls::version::TLS13)];
    let offered = all
        .into_iter()
        .filter(|(version, _)| (settings.min_version..=settings.max_version).contains(version));
    offered.map(|(_, version)| version).collect()
}

fn server_certificate(
    settings: &Tls,
    key: &str,
    provider: &CryptoProvider,
    validities: &mut Vec<Validity>,
) -> Result<CertifiedKey, TlsError> {
    let (cert_setting, key_setting) = (format!("{key}.cert_file"), format!("{key}.key_file"));
    let cert_file = PemFile::read(&cert_setting, &settings.cert_file)?;
    let key_file = PemFile::read(&key_setting, &settings.key_file)?;
    let certified_key = certified_key(&cert_file, &key_file, provider)?;
    validities.extend(validity(&cert_setting, &settings.cert_file, &certified_key.cert));
    Ok(certified_key)
}

/// A certificate and its chain with the private key, which belong together.
pub(crate) fn certified_key(
    cert_file: &PemFile<'_>,
    key_file: &PemFile<'_>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = cert_file.certificates()?;
    // All of them can be parsed; rustls itself looks at the first.
    authorities(cert_file, &chain)?;
    let signing_key = provider.key_provider.load_private_key(key_file.private_key()?);
    let signing_key = signing_key.map_err(|_| key_file.error(Problem::UnsupportedKey))?;
    let certified_key = CertifiedKey::new(chain, signing_key);
    match certified_key.keys_match() {
        // A key that does not know its public half: the first handshake would tell.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified_key),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(key_file.error(Problem::KeyMismatch(cert_file.path().to_owned())))
        }
        Err(_) => Err(cert_file.error(Problem::InvalidCertificate(1))),
    }
}

fn client_verifier(
    settings: &Tls,
    key: &str,
    provider: &Arc<CryptoProvider>,
    certificates: &mut Vec<CertificateDer<'static>>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let any = |is_mandatory| -> Arc<dyn ClientCertVerifier> {
        Arc::new(AnyCertificate { is_mandatory, provider: provider.clone() })
    };
    let mut verified = |ca_file: &Path, is_mandatory| {
        let setting = format!("{key}.client_ca_file");
        let file = PemFile::read(&setting, ca_file)?;
        *certificates = file.certificates()?;
        let authorities = authorities(&file, certificates)?;
        verify_against(authorities, is_mandatory, provider.clone())
            .map_err(|error| file.error(Problem::Other(error.to_string())))
    };
    let verifier = match &settings.client_auth {
        ClientAuth::NoClientCert => return Ok(None),
        ClientAuth::RequestClientCert => any(false),
        ClientAuth::RequireAnyClientCert => any(true),
        ClientAuth::VerifyClientCertIfGiven(ca_file) => verified(ca_file, false)?,
        ClientAuth::RequireAndVerifyClientCert(ca_file) => verified(ca_file, true)?,
    };
    let sans = &settings.client_allowed_sans;
    Ok(Some(if sans.is_empty() { verifier } else { Arc::new(AllowedSans { verifier, sans: sans.clone() }) }))
}

/// The certificates of a file as trust anchors.
pub(crate) fn authorities(
    file: &PemFile<'_>,
    certificates: &[CertificateDer<'static>],
) -> Result<RootCertStore, TlsError> {
    let mut authorities = RootCertStore::empty();
    for (index, certificate) in certificates.iter().enumerate() {
        let added = authorities.add(certificate.clone());
        added.map_err(|_| file.error(Problem::InvalidCertificate(index + 1)))?;
    }
    Ok(authorities)
}

fn validity(setting: &str, path: &Path, certificates: &[CertificateDer<'static>]) -> Vec<Validity> {
    let place = format!("{setting}: {}", path.display());
    let parsed = certificates.iter().filter_map(|der| X509Certificate::from_der(der).ok());
    let validities = parsed.map(|(_, certificate)| {
        let validity = certificate.validity();
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        Validity { place: place.clone(), not_before, not_after }
    });
    validities.collect()
}
