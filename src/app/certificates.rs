//! The certificates of a listener: loaded at the start, and again when their files change.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use crate::config::access::ListenerAccess;
use crate::credentials::tls::{ServerTls, TlsError};

/// The polling interval, for the reasons in `watch`.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// TLS of the listener in this section of the configuration, if it has any. Warns of certificates that are not valid now.
///
/// # Errors
/// A file cannot be used.
pub(super) fn load(section: &str, access: &ListenerAccess) -> Result<Option<Arc<ServerTls>>, TlsError> {
    let Some(settings) = &access.tls else { return Ok(None) };
    let key = match &access.web_config {
        Some(file) => format!("{}: tls_server_config", file.path.display()),
        None => format!("{section}.tls"),
    };
    let tls = ServerTls::load(settings, &key)?;
    log_warnings(section, &tls);
    Ok(Some(Arc::new(tls)))
}

/// Loads the files again when they change, until `stop` is cancelled. Files that cannot be used change nothing.
pub(super) async fn watch(section: &'static str, tls: Arc<ServerTls>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await.is_some() {
        // Blocks for some microseconds, as in `watch`.
        match tls.refresh() {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(section, "certificates reloaded");
                log_warnings(section, &tls);
            }
            Err(error) => tracing::error!(%error, "certificates rejected, the loaded ones stay active"),
        }
    }
}

fn log_warnings(section: &str, tls: &ServerTls) {
    for warning in tls.warnings(SystemTime::now()) {
        tracing::warn!(section, warning, "certificate warning");
    }
}
