//! The client of Alertmanager's API, for all peers of a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::AlertmanagerApi;
use crate::credentials::{OutgoingClient, shown_url};
use crate::domain::name::Name;
use crate::domain::reported::{Report, ReportedAlert, Silence, SuppressedBy};
use crate::sources::alertmanager::api;

/// The maximum size of the alerts in an answer: some 30,000 alerts of two kilobytes.
const MAX_ALERTS_BYTES: usize = 64 << 20;
/// The maximum size of the silences in an answer, the expired ones of the last days included.
const MAX_SILENCES_BYTES: usize = 16 << 20;
/// The maximum size of the status in an answer, which contains Alertmanager's configuration.
const MAX_STATUS_BYTES: usize = 4 << 20;
/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// A longer list of receivers is not part of the request, which is answered with all alerts then.
const MAX_FILTER_BYTES: usize = 4096;

/// The peers of the Alertmanager cluster of a source.
pub(super) struct Peers {
    source: Name,
    client: Arc<OutgoingClient>,
    peers: Vec<Peer>,
}

struct Peer {
    url: String,
    is_failing: bool,
}

/// What the peers have answered.
pub(super) struct Answers {
    /// The answers of those that have answered completely.
    pub reports: Vec<Report>,
    /// The errors of the others.
    pub error: Option<String>,
}

impl Peers {
    pub(super) fn new(source: Name, api: &AlertmanagerApi) -> Self {
        let peer = |url: &String| Peer { url: url.clone(), is_failing: false };
        let client = Arc::new(OutgoingClient::new(api.http.clone()));
        Self { source, client, peers: api.urls.iter().map(peer).collect() }
    }

    /// Asks all peers for the alerts of these receivers, `with_status` also since when they are running.
    pub(super) async fn ask(&mut self, receivers: &BTreeSet<String>, with_status: bool) -> Answers {
        let query = query(receivers);
        let questions =
            self.peers.iter().map(|peer| ask(&self.client, &peer.url, &query, receivers, with_status));
        let answers = join_all(questions).await;
        let (mut reports, mut errors) = (Vec::new(), Vec::new());
        for (peer, answer) in self.peers.iter_mut().zip(answers) {
            peer.note(&self.source, answer.as_ref().err());
            match answer {
                Ok(report) => reports.push(report),
                Err(error) => errors.push(format!("{}: {error}", shown_url(&peer.url))),
            }
        }
        Answers { reports, error: (!errors.is_empty()).then(|| errors.join("; ")) }
    }
}

impl Peer {
    /// Logs that the peer has begun to fail, or answers again.
    fn note(&mut self, source: &Name, error: Option<&String>) {
        let url = shown_url(&self.url);
        match (error, self.is_failing) {
            (Some(error), false) => {
                tracing::warn!(%source, url, error, "Alertmanager does not answer, retrying");
            }
            (None, true) => tracing::info!(%source, url, "Alertmanager answers again"),
            _ => {}
        }
        self.is_failing = error.is_some();
    }
}

/// The query of the alerts of these receivers, in every state.
fn query(receivers: &BTreeSet<String>) -> String {
    let mut query = "active=true&silenced=true&inhibited=true&unprocessed=true".to_owned();
    let names: Vec<String> = receivers.iter().map(|name| regex::escape(name)).collect();
    let filter = utf8_percent_encode(&names.join("|"), NON_ALPHANUMERIC).to_string();
    if filter.len() <= MAX_FILTER_BYTES {
        query += &format!("&receiver={filter}");
    }
    query
}

async fn ask(
    client: &OutgoingClient,
    url: &str,
    query: &str,
    receivers: &BTreeSet<String>,
    with_status: bool,
) -> Result<Report, String> {
    let get = async |path: &str, max_bytes| {
        let answer = client.get(&format!("{url}/api/v2/{path}"), max_bytes, ANSWER_TIMEOUT).await;
        answer.map_err(|error| error.to_string())
    };
    // Before the alerts: one that was restarted in between must not look as if it knew all of them.
    let started_at = match with_status {
        true => Some(parse(get("status", MAX_STATUS_BYTES).await?, api::started_at).await?),
        false => None,
    };
    let body = get(&format!("alerts?{query}"), MAX_ALERTS_BYTES).await?;
    let (alerts, unreadable) = parse(body, api::alerts).await?;
    let wanted = silence_ids(&alerts, receivers);
    let silences = match wanted.is_empty() {
        true => Ok(BTreeMap::new()),
        false => match get("silences", MAX_SILENCES_BYTES).await {
            Ok(body) => parse(body, move |body| api::silences(body, |id| wanted.contains(id))).await,
            Err(error) => Err(error),
        },
    };
    let silences: BTreeMap<Arc<str>, Silence> = silences.unwrap_or_else(|error| {
        // They only inform: by whom and until when.
        tracing::debug!(url = shown_url(url), error, "reading silences failed");
        BTreeMap::new()
    });
    Ok(Report { alerts, unreadable, silences, started_at })
}

/// The silences of alerts of these receivers.
fn silence_ids(alerts: &[ReportedAlert], receivers: &BTreeSet<String>) -> BTreeSet<Arc<str>> {
    let is_ours = |alert: &&ReportedAlert| alert.receivers.iter().any(|name| receivers.contains(&**name));
    let reasons = alerts.iter().filter(is_ours).flat_map(|alert| &alert.suppressed_by);
    let silences = reasons.filter_map(|reason| match reason {
        SuppressedBy::Silence(id) => Some(id.clone()),
        _ => None,
    });
    silences.collect()
}

/// Parses on a thread for blocking calls: an answer can be large.
async fn parse<T: Send + 'static>(
    body: Vec<u8>,
    parse: impl FnOnce(&[u8]) -> Result<T, api::ApiError> + Send + 'static,
) -> Result<T, String> {
    let parsed = tokio::task::spawn_blocking(move || parse(&body)).await;
    parsed.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_are_matched_by_their_exact_names() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let states = "active=true&silenced=true&inhibited=true&unprocessed=true";
        assert_eq!(query(&names(&["a.b", "c&d|e"])), format!("{states}&receiver=a%5C%2Eb%7Cc%5C%26d%5C%7Ce"));
        assert_eq!(query(&names(&[&"r".repeat(MAX_FILTER_BYTES + 1)])), states);
    }
}
