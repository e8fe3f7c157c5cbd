//! Decisions: listed, followed as they are made, and explained.

use std::time::Duration;

use tokio::sync::watch;

use super::Ops;
use super::api::{DecisionPage, ExplainParams, ListDecisionsParams};
use super::error::Error;
use super::parse;
use crate::bridge::decision_view::DecisionView;
use crate::bridge::{Bridge, Explanation, Filter, MAX_EXPLAINED, Position};
use crate::domain::matcher::Matcher;
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::domain::verdict::Verdict;
use crate::store::RecordCursor;

/// A feed polls the store at this interval even without a wake-up.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

fn filter(params: &ListDecisionsParams, now: Time) -> Result<Filter, Error> {
    let words = params.verdict.iter().flat_map(|words| words.split(',')).map(str::trim);
    let verdicts = words.map(|word| {
        let known = || Verdict::ALL.map(Verdict::as_str).join(", ");
        Verdict::parse(word).ok_or_else(|| {
            Error::Invalid(format!("verdict: unknown verdict `{word}`; known verdicts: {}", known()))
        })
    });
    let matchers =
        |text: &str| Matcher::parse_list(text).map_err(|error| Error::Invalid(format!("alert: {error}")));
    Ok(Filter {
        matchers: params.alert.as_deref().map(matchers).transpose()?.unwrap_or_default(),
        source: parse::name("source", params.source.as_deref())?,
        actions: actions(params.action.as_deref())?,
        rule: parse::name("rule", params.rule.as_deref())?,
        target: parse::pattern(params.target.as_deref())?,
        verdicts: verdicts.collect::<Result<_, _>>()?,
        fingerprint: params.fingerprint.clone(),
        since: parse::time("since", params.since.as_deref(), now)?,
        until: parse::time("until", params.until.as_deref(), now)?,
    })
}

fn actions(words: Option<&str>) -> Result<Vec<String>, Error> {
    const KNOWN: [&str; 4] = ["scale_out", "scale_in", "set_capacity", "notify"];
    let known = |word: &str| match KNOWN.contains(&word) {
        true => Ok(word.to_owned()),
        false => Err(Error::Invalid(format!(
            "action: unknown action `{word}`; known actions: {}",
            KNOWN.join(", ")
        ))),
    };
    words.into_iter().flat_map(|words| words.split(',')).map(|word| known(word.trim())).collect()
}

impl Ops {
    /// Lists decisions, newest first.
    ///
    /// # Errors
    /// A parameter is invalid, or the store cannot be read.
    pub(crate) async fn decisions(&self, params: &ListDecisionsParams) -> Result<DecisionPage, Error> {
        let filter = filter(params, self.0.store.clock().wall)?;
        let position = |text: &str| {
            Position::parse(text)
                .ok_or_else(|| Error::Invalid("cursor: invalid; use the `next` of a page".to_owned()))
        };
        let after = params.cursor.as_deref().map(position).transpose()?;
        let mut page = self.0.bridge.decisions(&filter, after, parse::page_size(params.limit)?).await?;
        self.0.bridge.show_suppressions(&mut page.decisions);
        let next = page.next.map(|next| format!("{}.{}", next.record, next.index));
        let count = match params.count {
            Some(true) => Some(self.0.bridge.count_decisions(&filter).await?),
            _ => None,
        };
        Ok(DecisionPage {
            decisions: page.decisions,
            next,
            total: count.map(|count| count.decisions),
            total_is_partial: count.is_some_and(|count| count.is_partial),
        })
    }

    /// Follows new decisions: those after the decision with the id `last_id`, those since `params.since`, or those from
    /// now on.
    ///
    /// # Errors
    /// A parameter is invalid, or the store cannot be read.
    pub(crate) async fn follow_decisions(
        &self,
        params: &ListDecisionsParams,
        last_id: Option<&str>,
    ) -> Result<DecisionFeed, Error> {
        if params.cursor.is_some()
            || params.limit.is_some()
            || params.until.is_some()
            || params.count.is_some()
        {
            let text = "cursor, limit, count and until are not supported by the stream";
            return Err(Error::Invalid(text.to_owned()));
        }
        let bridge = self.0.bridge.clone();
        let filter = filter(params, self.0.store.clock().wall)?;
        // Subscribed before the first query, so that no commit in between is missed.
        let commits = bridge.subscribe_commits();
        let after = match last_id.and_then(Position::parse) {
            Some(last) => last,
            None if filter.since.is_some() => Position { record: RecordCursor::BEFORE_ALL, index: 0 },
            None => bridge.newest_position().await?,
        };
        Ok(DecisionFeed { bridge, filter, after, commits })
    }

    /// Explains how a notification of a source would be processed now, whatever the kind of the source: people write those
    /// of Alertmanager. Nothing is written.
    ///
    /// # Errors
    /// The source or the body is invalid, or the store cannot be read.
    pub(crate) async fn explain(&self, params: &ExplainParams, body: &[u8]) -> Result<Explanation, Error> {
        let deps = &*self.0;
        let now = deps.store.clock().wall;
        let received_at = parse::time("received_at", params.received_at.as_deref(), now)?.unwrap_or(now);
        let settings = deps.settings.load_full();
        let names: Vec<&str> = settings.sources.keys().map(Name::as_str).collect();
        let source = match (params.source.as_deref(), names.as_slice()) {
            (Some(source), _) => source,
            (None, [only]) => only,
            (None, names) => {
                return Err(Error::Invalid(format!("source: required, one of {}", names.join(", "))));
            }
        };
        let handle = deps.bridge.source(source);
        let handle = handle.ok_or_else(|| Error::NotFound(format!("unknown source `{source}`")))?;
        let kind = settings.source_kinds.get(source).cloned().unwrap_or_default();
        let notification =
            kind.parse_any(body, received_at).map_err(|error| Error::Invalid(error.to_string()))?;
        if notification.alerts.len() > MAX_EXPLAINED {
            return Err(Error::Invalid(format!(
                "too many alerts; at most {MAX_EXPLAINED} can be explained in one request"
            )));
        }
        Ok(deps.bridge.explain(&handle, notification).await?)
    }
}

/// New decisions as they are made.
pub(crate) struct DecisionFeed {
    bridge: Bridge,
    filter: Filter,
    after: Position,
    commits: watch::Receiver<()>,
}

impl DecisionFeed {
    /// The next decisions, at least one; `None` when the bridge has ended. A call that is dropped loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Vec<DecisionView>> {
        loop {
            match self.bridge.decisions_after(&self.filter, self.after).await {
                Ok((mut found, last)) => {
                    self.bridge.show_suppressions(&mut found);
                    let has_advanced = last != self.after;
                    self.after = last;
                    if !found.is_empty() {
                        return Some(found);
                    }
                    if has_advanced {
                        continue;
                    }
                }
                Err(error) => tracing::warn!(%error, "reading decisions for a stream failed, retrying"),
            }
            tokio::select! {
                changed = self.commits.changed() => changed.ok()?,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
    }
}
