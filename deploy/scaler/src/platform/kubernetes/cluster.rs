//! A connection to a Kubernetes cluster.

use std::error::Error;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request};
use kube::client::AuthError;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError, LoadDataError};
use kube::{Client, Config};
use serde_json::Value;
use tokio::sync::Mutex;

use super::failure::Failure;
use crate::config::kind_and_place;
use crate::platform::call::causes;

/// Shorter than the limit of a call, so that an unreachable cluster is known as such: nothing was sent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// The name in `managedFields` of what the scaler sets.
pub(super) const FIELD_MANAGER: &str = "scalebridge-scaler";

/// Bearer tokens of a cluster that are valid for minutes only, such as those of EKS.
pub trait Tokens: Send + Sync {
    /// A token that is valid for at least a minute. It is asked for before each call: keep it as long as it is valid.
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>>;
}

/// Why the settings of a connection cannot be used. No text contains a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ClusterError(pub String);

/// A cluster. Calls are made once: a write is never repeated by the client.
pub struct Cluster {
    config: Config,
    tokens: Option<Arc<dyn Tokens>>,
    built: Mutex<Option<Built>>,
    has_failed: AtomicBool,
}

struct Built {
    token: Option<String>,
    client: Client,
}

impl Cluster {
    /// The cluster of a context of a kubeconfig file; `None` is the file's current context.
    ///
    /// # Errors
    /// The file cannot be read, or has no such context.
    pub async fn from_kubeconfig(path: &Path, context: Option<&str>) -> Result<Self, ClusterError> {
        let unusable =
            |error: &KubeconfigError| ClusterError(format!("kubeconfig {}: {}", path.display(), what(error)));
        let file = Kubeconfig::read_from(path).map_err(|error| unusable(&error))?;
        let options =
            KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
        let config =
            Config::from_custom_kubeconfig(file, &options).await.map_err(|error| unusable(&error))?;
        Ok(Self::new(config, None))
    }

    /// The cluster that this process runs in, with its service account.
    ///
    /// # Errors
    /// The process runs in no cluster, or has no service account.
    pub fn in_cluster() -> Result<Self, ClusterError> {
        let config =
            Config::incluster().map_err(|error| ClusterError(format!("in_cluster: {}", causes(&error))))?;
        Ok(Self::new(config, None))
    }

    /// The cluster at a URL whose certificate is of the authorities `ca`, in PEM.
    ///
    /// # Errors
    /// The URL or the certificates are not valid.
    pub fn with_tokens(server: &str, ca: &[u8], tokens: Arc<dyn Tokens>) -> Result<Self, ClusterError> {
        let url = server.parse().map_err(|error| ClusterError(format!("the cluster's URL: {error}")))?;
        let is_certificate = |block: &rustls::pki_types::CertificateDer<'_>| block.to_vec();
        let certificates: Result<Vec<_>, _> = rustls::pki_types::pem::PemObject::pem_slice_iter(ca)
            .map(|found| found.map(|der| is_certificate(&der)))
            .collect();
        let certificates = certificates
            .map_err(|error| ClusterError(format!("the cluster's certificate authority: {error}")))?;
        if certificates.is_empty() {
            return Err(ClusterError("the cluster's certificate authority has no certificate".to_owned()));
        }
        let mut config = Config::new(url);
        config.root_cert = Some(certificates);
        Ok(Self::new(config, Some(tokens)))
    }

    fn new(mut config: Config, tokens: Option<Arc<dyn Tokens>>) -> Self {
        // Its retries would send a write again whose first copy may have been carried out, and take longer than a change
        // is held.
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        Self { config, tokens, built: Mutex::new(None), has_failed: AtomicBool::new(false) }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        let request = Request::get(path).header(ACCEPT, "application/json").body(Vec::new());
        self.call(request).await
    }

    pub(super) async fn merge_patch(&self, path: &str, patch: &Value) -> Result<Value, Failure> {
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(format!("{path}?fieldManager={FIELD_MANAGER}"))
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/merge-patch+json")
            .body(patch.to_string().into_bytes());
        self.call(request).await
    }

    /// Whether the last call did not reach the API server, or was not authorized by it.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    async fn call(&self, request: http::Result<Request<Vec<u8>>>) -> Result<Value, Failure> {
        let request = request.map_err(|error| Failure::not_sent(error.to_string()))?;
        let client = self.client().await.map_err(Failure::not_sent)?;
        let answer = client.request(request).await.map_err(|error| Failure::from_kube(&error));
        let has_failed = answer.as_ref().is_err_and(Failure::is_of_connection);
        self.has_failed.store(has_failed, Ordering::Relaxed);
        answer
    }

    /// The client, made anew for each new token.
    async fn client(&self) -> Result<Client, String> {
        let token = match &self.tokens {
            None => None,
            Some(tokens) => Some(tokens.token().await.map_err(|error| format!("no token: {error}"))?),
        };
        let mut built = self.built.lock().await;
        // A client certificate of a credential plugin is valid for some time only.
        let is_valid = |built: &&Built| built.token == token && built.client.valid_until().is_none();
        if let Some(built) = built.as_ref().filter(is_valid) {
            return Ok(built.client.clone());
        }
        let mut config = self.config.clone();
        if let Some(token) = &token {
            config.auth_info.token = Some(token.clone().into());
        }
        let client = Client::try_from(config).map_err(|error| text(&error))?;
        *built = Some(Built { token, client: client.clone() });
        Ok(client)
    }
}

/// The error and its causes, without the output of a credential plugin: it has tokens.
pub(super) fn text(error: &kube::Error) -> String {
    let chain = std::iter::successors(Some(error as &(dyn Error + 'static)), |error| (*error).source());
    let plugin = chain.filter_map(|error| error.downcast_ref::<AuthError>()).find_map(|error| match error {
        AuthError::AuthExecParse(error) => {
            Some(format!("the output of the credential plugin: {}", kind_and_place(error)))
        }
        AuthError::AuthExecRun { cmd, out } => {
            let cmd = cmd.escape_debug();
            Some(format!("the credential plugin has failed, {}; run it to see why: {cmd}", out.status))
        }
        _ => None,
    });
    plugin.unwrap_or_else(|| causes(error))
}

/// What is wrong with a kubeconfig file, on one line and without its content: it has tokens and keys.
fn what(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::CurrentContextNotSet => "it has no current context: set `context`".to_owned(),
        KubeconfigError::LoadContext(name) => format!("it has no context {}", name.escape_debug()),
        KubeconfigError::LoadClusterOfContext(name) => {
            format!("it has no cluster {}, which the context names", name.escape_debug())
        }
        KubeconfigError::ReadConfig(error, _) => format!("it cannot be read: {error}"),
        KubeconfigError::Parse(error) => kind_and_place(error),
        KubeconfigError::MissingClusterUrl => "the cluster has no `server`".to_owned(),
        KubeconfigError::ParseClusterUrl(_) => "`server` of the cluster is not a URL".to_owned(),
        KubeconfigError::ParseProxyUrl(_) => "`proxy-url` of the cluster is not a URL".to_owned(),
        KubeconfigError::LoadCertificateAuthority(error) => data("the certificate authority", error),
        KubeconfigError::LoadClientCertificate(error) => data("the client certificate", error),
        KubeconfigError::LoadClientKey(error) => data("the client key", error),
        KubeconfigError::ParseCertificates(_) => "the certificates are not valid PEM".to_owned(),
        _ => "it cannot be used".to_owned(),
    }
}

fn data(what: &str, error: &LoadDataError) -> String {
    match error {
        LoadDataError::DecodeBase64(_) => format!("{what} is not valid base64"),
        LoadDataError::ReadFile(error, path) => format!("{what} {} cannot be read: {error}", path.display()),
        LoadDataError::NoBase64DataOrFile => format!("{what} is missing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "apiVersion: v1
kind: Config
current-context: lab
contexts: [{ name: lab, context: { cluster: lab, user: me } }]
clusters: [{ name: lab, cluster: { server: 'https://127.0.0.1:6443' } }]
users: [{ name: me, user: { token: s3cr3t-token } }]
";

    async fn error_of(text: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config");
        std::fs::write(&file, text).unwrap();
        let error = Cluster::from_kubeconfig(&file, None).await.err().expect(text).to_string();
        error.replace(&file.display().to_string(), "FILE")
    }

    #[tokio::test]
    async fn errors_of_a_kubeconfig_have_a_place_and_no_content() {
        for (from, to, expected) in [
            ("token: s3cr3t-token", "token: [s3cr3t-token]", "kubeconfig FILE: line 6, column "),
            ("token: s3cr3t-token }", "token: s3cr3t-token", "kubeconfig FILE: line "),
            ("token: s3cr3t-token", "token: 's3cr3t-token", "kubeconfig FILE: line "),
            (
                "name: me, user: { token",
                "name: me, name: s3cr3t, user: { token",
                "kubeconfig FILE: line 6, column ",
            ),
            ("'https://127.0.0.1:6443'", "'https://me:s3cr3t@ x'", "`server` of the cluster is not a URL"),
            (
                "'https://127.0.0.1:6443'",
                "'https://a', certificate-authority-data: s3cr3t!",
                "is not valid base64",
            ),
            ("current-context: lab", "current-context: other", "it has no context other"),
            ("current-context: lab\n", "", "it has no current context"),
        ] {
            assert!(VALID.contains(from), "{from}");
            let error = error_of(&VALID.replacen(from, to, 1)).await;
            assert!(error.contains(expected) && !error.contains("s3cr3t"), "{to}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[tokio::test]
    async fn errors_of_a_credential_plugin_have_nothing_of_its_output() {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        for (script, expected) in [
            ("echo 'token: [s3cr3t'", "the output of the credential plugin: line "),
            ("echo '{status: {token: [s3cr3t]}}'", "the output of the credential plugin: line 1, column "),
            ("echo s3cr3t; exit 3", "the credential plugin has failed, exit status: 3"),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let (file, plugin) = (directory.path().join("config"), directory.path().join("plugin"));
            std::fs::write(&plugin, script).unwrap();
            let exec = format!(
                "exec: {{ apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: sh, args: ['{}'] }}",
                plugin.display()
            );
            std::fs::write(&file, VALID.replacen("token: s3cr3t-token", &exec, 1)).unwrap();
            let error = match Cluster::from_kubeconfig(&file, None).await {
                Ok(cluster) => format!("{:?}", cluster.get("/version").await.unwrap_err()),
                Err(error) => error.to_string(),
            };
            assert!(error.contains(expected) && !error.contains("s3cr3t"), "{script}: {error}");
        }
    }
}
