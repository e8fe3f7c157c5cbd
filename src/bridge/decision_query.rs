//! Queries of stored decisions: pages with the newest record first, and the decisions after a position.

use std::ops::Bound;

use super::Bridge;
use super::decision_view::{self, AlertView, DecisionView};
use crate::domain::decision_record::DecisionRecord;
use crate::domain::matcher::Matcher;
use crate::domain::name::Name;
use crate::domain::target::TargetKey;
use crate::domain::target_pattern::TargetPattern;
use crate::domain::time::Time;
use crate::domain::verdict::Verdict;
use crate::store::{self, RecordCursor, RecordQuery, Records, StoredRecord};

/// Records per read of the store.
const MAX_RECORDS_PER_READ: usize = 500;
/// Bytes of records that are scanned for one page, so that a filter with few matches does not scan the whole
/// store in one request.
const MAX_SCAN_BYTES: usize = 64 << 20;

/// A filter of decisions; an absent condition matches all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Decisions of this rule.
    pub rule: Option<Name>,
    /// Decisions about targets whose key the pattern covers.
    pub target: Option<TargetPattern>,
    /// Decisions with one of these verdicts; all, if empty.
    pub verdicts: Vec<Verdict>,
    /// Decisions about an alert with this fingerprint.
    pub fingerprint: Option<String>,
    /// Decisions about an alert that all of these match.
    pub matchers: Vec<Matcher>,
    /// Decisions about alerts of this source.
    pub source: Option<Name>,
    /// Decisions about one of these actions; all, if empty.
    pub actions: Vec<String>,
    /// Inclusive lower bound.
    pub since: Option<Time>,
    /// Inclusive upper bound.
    pub until: Option<Time>,
}

/// The position of a decision; the text form is `record.index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The record.
    pub record: RecordCursor,
    /// The index of the decision in its record.
    pub index: usize,
}

impl Position {
    /// Parses an id such as `12.3`, see [`DecisionView::id`].
    pub fn parse(text: &str) -> Option<Self> {
        let (record, index) = text.split_once('.')?;
        Some(Self { record: record.parse().ok()?, index: index.parse().ok()? })
    }
}

/// A page of decisions.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// In the order of the query.
    pub decisions: Vec<DecisionView>,
    /// The position after which the next page starts; `None` on the last page. An empty page can have a next one,
    /// since the bytes scanned for a page are limited.
    pub next: Option<Position>,
}

fn is_of_source(decision: &DecisionView, source: &Name) -> bool {
    let notified = decision.notification.as_ref().is_some_and(|known| known.source == source.as_str());
    notified || decision.alerts.iter().any(|alert| alert.source.as_deref() == Some(source.as_str()))
}

/// The number of decisions that a filter selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// The number.
    pub decisions: u64,
    /// Whether there may be more: the bytes that are scanned are limited.
    pub is_partial: bool,
}

impl Filter {
    fn matches(&self, decision: &DecisionView) -> bool {
        let key = || decision.subject.as_deref().map(TargetKey::from_stored);
        self.rule.as_ref().is_none_or(|rule| decision.rule.as_deref() == Some(rule.as_str()))
            && (self.verdicts.is_empty()
                || self.verdicts.iter().any(|verdict| verdict.as_str() == decision.verdict))
            && self.target.as_ref().is_none_or(|pattern| key().is_some_and(|key| pattern.covers(&key)))
            && self
                .fingerprint
                .as_ref()
                .is_none_or(|wanted| decision.alerts.iter().any(|alert| alert.fingerprint == *wanted))
            && (self.matchers.is_empty() || decision.alerts.iter().any(|alert| self.matches_alert(alert)))
            && self.source.as_ref().is_none_or(|source| is_of_source(decision, source))
            && (self.actions.is_empty()
                || self.actions.iter().any(|action| decision.action.as_deref() == Some(action)))
    }

    fn matches_alert(&self, alert: &AlertView) -> bool {
        let value = |name: &str| alert.labels.get(name).map(String::as_str).unwrap_or_default();
        self.matchers.iter().all(|matcher| matcher.matches_value(value(matcher.label())))
    }

    /// Whether the record can contain a matching decision: a cheap test on its text before it is parsed.
    fn may_match(&self, body: &str) -> bool {
        let contains = |value: &str| DecisionRecord::may_contain(body, value);
        self.rule.as_ref().is_none_or(|rule| contains(rule.as_str()))
            && (self.verdicts.is_empty() || self.verdicts.iter().any(|verdict| contains(verdict.as_str())))
            && self.fingerprint.as_ref().is_none_or(|fingerprint| contains(fingerprint))
            && self.source.as_ref().is_none_or(|source| contains(source.as_str()))
            && (self.actions.is_empty() || self.actions.iter().any(|action| contains(action)))
            && self
                .matchers
                .iter()
                .filter_map(Matcher::one_of)
                .all(|values| values.iter().any(|value| value.is_empty() || contains(value)))
    }

    fn record_query(&self) -> RecordQuery {
        let exact = self.target.as_ref().filter(|pattern| !pattern.as_str().contains('*'));
        let default = RecordQuery::default();
        RecordQuery {
            target: exact.map(|pattern| TargetKey::from_stored(pattern.as_str())),
            from: self.since.unwrap_or(default.from),
            to: self.until.unwrap_or(default.to),
            max: MAX_RECORDS_PER_READ,
            ..default
        }
    }

    /// The matching decisions of a record, each with its position.
    fn select(&self, record: &StoredRecord) -> Vec<(Position, DecisionView)> {
        if !self.may_match(&record.body) {
            return Vec::new();
        }
        match decision_view::read(record.cursor, &record.body) {
            Ok(decisions) => {
                let numbered = decisions.into_iter().enumerate();
                let positioned =
                    numbered.map(|(index, decision)| (Position { record: record.cursor, index }, decision));
                positioned.filter(|(_, decision)| self.matches(decision)).collect()
            }
            Err(error) => {
                tracing::error!(%error, record = %record.cursor, "decision record unreadable");
                Vec::new()
            }
        }
    }
}

impl Bridge {
    /// Up to `max` decisions after the position `after`, newest record first.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn decisions(
        &self,
        filter: &Filter,
        after: Option<Position>,
        max: usize,
    ) -> Result<Page, store::Error> {
        let mut decisions = Vec::new();
        let mut below = after.map_or(Bound::Unbounded, |after| Bound::Included(after.record));
        let mut scanned_bytes = 0;
        loop {
            let Records { records, has_more } =
                self.0.store.records(RecordQuery { below, ..filter.record_query() }).await?;
            scanned_bytes += records.iter().map(|record| record.body.len()).sum::<usize>();
            let last = records.last().map(|record| record.cursor);
            for record in &records {
                for (position, decision) in filter.select(record) {
                    if after
                        .is_some_and(|after| position.record == after.record && position.index <= after.index)
                    {
                        continue;
                    }
                    decisions.push(decision);
                    if decisions.len() == max {
                        return Ok(Page { decisions, next: Some(position) });
                    }
                }
            }
            let Some(last) = last.filter(|_| has_more) else { return Ok(Page { decisions, next: None }) };
            if scanned_bytes >= MAX_SCAN_BYTES {
                let next = Some(Position { record: last, index: usize::MAX });
                return Ok(Page { decisions, next });
            }
            below = Bound::Excluded(last);
        }
    }

    /// Counts the decisions that a filter selects.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn count_decisions(&self, filter: &Filter) -> Result<Count, store::Error> {
        let (mut below, mut scanned_bytes, mut decisions) = (Bound::Unbounded, 0, 0);
        loop {
            let Records { records, has_more } =
                self.0.store.records(RecordQuery { below, ..filter.record_query() }).await?;
            scanned_bytes += records.iter().map(|record| record.body.len()).sum::<usize>();
            decisions += records.iter().map(|record| filter.select(record).len() as u64).sum::<u64>();
            let Some(last) = records.last().filter(|_| has_more) else {
                return Ok(Count { decisions, is_partial: false });
            };
            if scanned_bytes >= MAX_SCAN_BYTES {
                return Ok(Count { decisions, is_partial: true });
            }
            below = Bound::Excluded(last.cursor);
        }
    }

    /// The next decisions after `after`, oldest first, at most those of 500 records; and the position from which
    /// to continue.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn decisions_after(
        &self,
        filter: &Filter,
        after: Position,
    ) -> Result<(Vec<DecisionView>, Position), store::Error> {
        let above = Bound::Included(after.record);
        let query = RecordQuery { above, is_final: true, newest_first: false, ..filter.record_query() };
        let records = self.0.store.records(query).await?.records;
        let mut last = after;
        let mut decisions = Vec::new();
        for record in &records {
            for (position, decision) in
                filter.select(record).into_iter().filter(|(position, _)| *position > after)
            {
                last = position;
                decisions.push(decision);
            }
            if record.cursor > last.record {
                last = Position { record: record.cursor, index: usize::MAX };
            }
        }
        Ok((decisions, last))
    }

    /// The position after which all future decisions come.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn newest_position(&self) -> Result<Position, store::Error> {
        let query = RecordQuery { is_final: true, max: 1, ..RecordQuery::default() };
        let newest = self.0.store.records(query).await?;
        Ok(Position {
            record: newest.records.first().map_or(RecordCursor::BEFORE_ALL, |record| record.cursor),
            index: usize::MAX,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_decision_is_found_by_a_fingerprint_of_any_characters() {
        for fingerprint in ["8a27e5ec1094d7f3", r#"a "quoted" one"#, "back\\slash", "tab\t", "ü\u{fffe}"] {
            let decision = json!({ "rule": "pods", "verdict": "emitted", "alerts": [fingerprint] });
            let body = json!({ "at": "2026-11-22T16:55:20.062Z", "decisions": [decision] }).to_string();
            let record = StoredRecord { cursor: RecordCursor::BEFORE_ALL, body };
            let count = |fingerprint: &str| {
                let filter = Filter {
                    rule: Some(Name::new("pods").unwrap()),
                    verdicts: vec![Verdict::Emitted],
                    fingerprint: Some(fingerprint.to_owned()),
                    ..Filter::default()
                };
                filter.select(&record).len()
            };
            assert_eq!((count(fingerprint), count("another")), (1, 0), "{fingerprint:?}");
        }
    }
}
