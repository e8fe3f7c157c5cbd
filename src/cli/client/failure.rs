//! Why there is no usable response, and what to do about it.

use std::io;

use rustls::{AlertDescription, CertificateError, Error as TlsFailure};

use super::credentials::Credentials;

/// What to do about a request without a response. `expected` is what should be at the URL.
pub(super) fn no_response(
    url: &str,
    error: &ureq::Error,
    credentials: &Credentials,
    expected: &str,
) -> String {
    let advice = match tls_failure(error) {
        Some(failure) => tls_advice(failure, credentials),
        None if may_be_a_refused_certificate(url, error) => Some(client_certificate_advice(credentials)),
        None => None,
    };
    match advice {
        Some(advice) => format!("no response from {url}: {}; {advice}", cause(error)),
        None => format!("no response from {url}: {error}; is it {expected} of a running bridge?"),
    }
}

/// What to do about a 401, a 403 or a redirect; `why` is what the response says.
pub(super) fn advice_of_status(status: u16, why: &str, credentials: &Credentials) -> Option<String> {
    let presented = match credentials {
        Credentials { token_file: Some(file), .. } => Some(format!("the token of {}", file.display())),
        Credentials { cert_file: Some(file), .. } => {
            Some(format!("the client certificate {}", file.display()))
        }
        _ => None,
    };
    match (status, presented) {
        (401, None) => Some("pass a credential: --token-file, or --cert-file with --key-file".to_owned()),
        (401, Some(presented)) => {
            Some(format!("{presented} is not accepted: it is unknown, expired or of another bridge"))
        }
        // The bridge itself says what is missing.
        (403, Some(presented)) if why.is_empty() => Some(format!("{presented} does not permit this")),
        (400, _) if why.contains("HTTP request to an HTTPS server") => {
            Some("use https:// in --url".to_owned())
        }
        (300..400, _) => Some("redirects are not followed: pass the URL of the bridge itself".to_owned()),
        _ => None,
    }
}

fn cause(error: &ureq::Error) -> String {
    match tls_failure(error) {
        Some(failure) => failure.to_string(),
        None => error.to_string(),
    }
}

/// The error of rustls, which ureq wraps as an error of IO.
fn tls_failure(error: &ureq::Error) -> Option<&TlsFailure> {
    match error {
        ureq::Error::Rustls(failure) => Some(failure),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// In TLS 1.3 a client is refused after its handshake. Other servers than the bridge may close without an alert.
fn may_be_a_refused_certificate(url: &str, error: &ureq::Error) -> bool {
    let closed =
        [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionAborted];
    url.starts_with("https://") && matches!(error, ureq::Error::Io(error) if closed.contains(&error.kind()))
}

fn tls_advice(failure: &TlsFailure, credentials: &Credentials) -> Option<String> {
    Some(match failure {
        TlsFailure::InvalidCertificate(problem) => server_certificate_advice(problem, credentials),
        TlsFailure::AlertReceived(alert) if is_about_client_certificate(*alert) => {
            client_certificate_advice(credentials)
        }
        TlsFailure::InvalidMessage(_) => {
            "the server does not speak TLS at this address: check scheme and port".to_owned()
        }
        // The verifier of the system's CAs has none.
        TlsFailure::General(_) if credentials.ca_file.is_none() => {
            "pass the CA of the bridge with --ca-file, or install the CA certificates of the system"
                .to_owned()
        }
        _ => return None,
    })
}

fn server_certificate_advice(problem: &CertificateError, credentials: &Credentials) -> String {
    match problem {
        CertificateError::UnknownIssuer => match &credentials.ca_file {
            None => "pass the CA that issued the bridge's certificate with --ca-file".to_owned(),
            Some(file) => format!("the bridge's certificate was not issued by a CA of {}", file.display()),
        },
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "use a name of the certificate in --url, or issue a certificate with this name".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "renew the bridge's certificate, and check the clock of this machine".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "check the clock of this machine, and that of the bridge's CA".to_owned()
        }
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "the bridge's certificate is that of a CA: issue one with the basic constraint CA:FALSE"
                .to_owned()
        }
        _ => "issue the bridge's certificate again".to_owned(),
    }
}

fn is_about_client_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::HandshakeFailure
            | Alert::DecryptError
    )
}

fn client_certificate_advice(credentials: &Credentials) -> String {
    match &credentials.cert_file {
        None => {
            "the bridge may require a client certificate: pass one with --cert-file and --key-file".to_owned()
        }
        Some(file) => format!(
            "the bridge does not accept the client certificate {}: it must be issued by a CA of its `client_ca_file`, be \
             valid now, and have a name of `client_allowed_sans`",
            file.display()
        ),
    }
}
