//! Reads TLS of a listener: our own key `tls`, and `tls_server_config` of a web configuration.

use std::path::PathBuf;

use super::super::decode::Fields;
use super::super::diagnostic::{Code, Diagnostics};
use super::super::scalar::{any_text, flag, keyword};
use super::super::yaml::Node;
use super::client_cert::texts;
use super::local_file;
use super::secret_maps::fields;
use super::{ClientAuth, Tls, TlsVersion};

/// Where TLS is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `server.tls` or `admin.tls`.
    Own,
    /// `tls_server_config` of Prometheus' web configuration.
    WebConfig,
}

/// Reads TLS of a listener.
pub(super) fn tls(format: Format) -> impl Fn(&Node, &mut Diagnostics) -> Option<Tls> {
    move |node, diagnostics| {
        let path = match format {
            Format::Own => "tls",
            Format::WebConfig => "web_config.tls_server_config",
        };
        let mut fields = fields(node, path, diagnostics)?;
        let cert_file =
            fields.get_required("cert_file", "cert_file: server.crt", local_file::LISTENER_CERTIFICATES.at());
        let key_file = fields.get_required("key_file", "key_file: server.key", local_file::LISTENER_KEY.at());
        let client_auth = client_auth(&mut fields);
        let client_allowed_sans = client_allowed_sans(&mut fields, client_auth.as_ref());
        let (min_version, max_version) = versions(&mut fields);
        if format == Format::WebConfig {
            // Go ignores it, too.
            fields.get("prefer_server_cipher_suites", flag);
        }
        fields.finish();
        Some(Tls {
            cert_file: cert_file?,
            key_file: key_file?,
            client_auth: client_auth?,
            client_allowed_sans,
            min_version: min_version?,
            max_version: max_version?,
        })
    }
}

/// `client_auth_type`, before it has its CA.
#[derive(Clone, Copy)]
enum Policy {
    None,
    Request,
    RequireAny,
    VerifyIfGiven,
    RequireAndVerify,
}

const POLICIES: [(&str, Policy); 6] = [
    ("NoClientCert", Policy::None),
    ("RequestClientCert", Policy::Request),
    ("RequireAnyClientCert", Policy::RequireAny),
    // What Prometheus called it first.
    ("RequireClientCert", Policy::RequireAny),
    ("VerifyClientCertIfGiven", Policy::VerifyIfGiven),
    ("RequireAndVerifyClientCert", Policy::RequireAndVerify),
];

const VERIFY: &str = "set `client_auth_type: RequireAndVerifyClientCert`, or `VerifyClientCertIfGiven`, which lets probes \
                      connect without a certificate";

fn client_auth(fields: &mut Fields<'_, '_>) -> Option<ClientAuth> {
    let ca_file = fields.get("client_ca_file", local_file::LISTENER_CERTIFICATES.at());
    // An invalid type is reported once, and not again as one that does not verify.
    let policy = match fields.has("client_auth_type") {
        true => fields.get("client_auth_type", keyword(&POLICIES))?,
        false => {
            fields.lookup("client_auth_type");
            Policy::None
        }
    };
    let verifying: fn(PathBuf) -> ClientAuth = match policy {
        Policy::VerifyIfGiven => ClientAuth::VerifyClientCertIfGiven,
        Policy::RequireAndVerify => ClientAuth::RequireAndVerifyClientCert,
        Policy::None | Policy::Request | Policy::RequireAny => {
            fields.reject(&["client_ca_file"], "requires a `client_auth_type` that verifies", VERIFY);
            return Some(match policy {
                Policy::Request => ClientAuth::RequestClientCert,
                Policy::RequireAny => ClientAuth::RequireAnyClientCert,
                _ => ClientAuth::NoClientCert,
            });
        }
    };
    fields.require("client_ca_file", "client_ca_file: ca.crt");
    ca_file.map(verifying)
}

fn client_allowed_sans(fields: &mut Fields<'_, '_>, client_auth: Option<&ClientAuth>) -> Vec<String> {
    let sans = fields.get("client_allowed_sans", texts).unwrap_or_default();
    if client_auth.is_some_and(|auth| !auth.verifies()) {
        let why = "requires a `client_auth_type` that verifies: anyone can make a certificate with any name";
        fields.reject(&["client_allowed_sans"], why, VERIFY);
    }
    sans
}

fn versions(fields: &mut Fields<'_, '_>) -> (Option<TlsVersion>, Option<TlsVersion>) {
    let mut read = |key, default| {
        let read = fields.get(key, version);
        if fields.has(key) { read } else { Some(default) }
    };
    let min = read("min_version", TlsVersion::Tls12);
    let max = read("max_version", TlsVersion::Tls13);
    if min.zip(max).is_some_and(|(min, max)| max < min) {
        let help = "raise `max_version`, or lower `min_version`";
        let location = fields.location_of("max_version");
        let message = "`max_version` is below `min_version`: no version is left";
        fields.diagnostics.add_with_help(Code::Contradiction, location, message, help);
    }
    (min, max)
}

fn version(node: &Node, diagnostics: &mut Diagnostics) -> Option<TlsVersion> {
    let text = any_text(node, diagnostics)?;
    if matches!(text, "TLS10" | "TLS11") {
        let message = format!("`{text}` is not supported: it is broken, and RFC 8996 forbids its use");
        diagnostics.add_with_help(Code::Unsupported, &node.location, message, "use `TLS12` or `TLS13`");
        return None;
    }
    keyword(&[("TLS12", TlsVersion::Tls12), ("TLS13", TlsVersion::Tls13)])(node, diagnostics)
}
