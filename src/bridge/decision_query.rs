//! Reading decisions back: which there were, newest first, and what comes next.

use std::ops::Bound;

use super::Bridge;
use super::decision_view::{self, DecisionView};
use crate::domain::control::TargetPattern;
use crate::domain::name::Name;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::verdict::Verdict;
use crate::json;
use crate::store::{self, RecordQuery, Records, StoredRecord};

/// Records that are read at once.
const MAX_RECORDS_PER_READ: usize = 500;
/// Bytes of records that are looked through for one page, so that a rare thing is not looked for in one go.
const MAX_SCAN_BYTES: usize = 64 << 20;

/// Which decisions are wanted; what is not given may be anything.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this rule.
    pub rule: Option<Name>,
    /// About targets whose key this covers.
    pub target: Option<TargetPattern>,
    /// With one of these verdicts; any, if none is given.
    pub verdicts: Vec<Verdict>,
    /// About an alert with this fingerprint.
    pub fingerprint: Option<String>,
    /// Not before this time.
    pub since: Option<Time>,
    /// Not after it.
    pub until: Option<Time>,
}

/// A decision's number: its record's and its own place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The record.
    pub record: i64,
    /// The place in it.
    pub index: usize,
}

impl Position {
    /// Reads `12.3`, as [`DecisionView::id`] has it.
    pub fn parse(text: &str) -> Option<Self> {
        let (record, index) = text.split_once('.')?;
        Some(Self { record: record.parse().ok()?, index: index.parse().ok()? })
    }
}

/// A page of decisions.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The decisions.
    pub decisions: Vec<DecisionView>,
    /// Behind which the next page begins; `None` if there is none. A page may have no decisions and still have
    /// others behind it.
    pub next: Option<Position>,
}

impl Filter {
    fn matches(&self, decision: &DecisionView) -> bool {
        let key = || decision.subject.as_deref().map(TargetKey::from_stored);
        self.rule.as_ref().is_none_or(|rule| decision.rule.as_deref() == Some(rule.as_str()))
            && (self.verdicts.is_empty() || self.verdicts.contains(&decision.verdict))
            && self.target.as_ref().is_none_or(|pattern| key().is_some_and(|key| pattern.covers(&key)))
            && self
                .fingerprint
                .as_ref()
                .is_none_or(|wanted| decision.alerts.iter().any(|alert| alert.fingerprint == *wanted))
    }

    /// Whether a record may hold such a decision, as far as its text shows it.
    fn may_match(&self, body: &str) -> bool {
        let names = |text: &str| {
            // As it stands there, escapes and quotation marks included.
            let mut json = Vec::new();
            json::push_string(&mut json, text);
            body.contains(&json::into_string(json))
        };
        self.rule.as_ref().is_none_or(|rule| names(rule.as_str()))
            && (self.verdicts.is_empty() || self.verdicts.iter().any(|verdict| names(verdict.as_str())))
            && self.fingerprint.as_ref().is_none_or(|fingerprint| names(fingerprint))
    }

    fn record_query(&self) -> RecordQuery {
        let exact = self.target.as_ref().filter(|pattern| !pattern.as_str().contains('*'));
        let all = RecordQuery::default();
        RecordQuery {
            target: exact.map(|pattern| TargetKey::from_stored(pattern.as_str())),
            from: self.since.unwrap_or(all.from),
            to: self.until.unwrap_or(all.to),
            max: MAX_RECORDS_PER_READ,
            ..all
        }
    }

    /// The decisions of a record that are wanted, each with its position.
    fn select(&self, record: &StoredRecord) -> Vec<(Position, DecisionView)> {
        if !self.may_match(&record.body) {
            return Vec::new();
        }
        match decision_view::read(record.id, &record.body) {
            Ok(decisions) => {
                let placed = decisions.into_iter().enumerate();
                let placed =
                    placed.map(|(index, decision)| (Position { record: record.id, index }, decision));
                placed.filter(|(_, decision)| self.matches(decision)).collect()
            }
            Err(error) => {
                tracing::error!(%error, record = record.id, "a record of decisions cannot be read");
                Vec::new()
            }
        }
    }
}

impl Bridge {
    /// Up to `max` decisions, the newest moment first, from behind `after` on.
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
            let Records { records, has_more: more } =
                self.0.store.records(RecordQuery { below, ..filter.record_query() }).await?;
            scanned_bytes += records.iter().map(|record| record.body.len()).sum::<usize>();
            let last = records.last().map(|record| record.id);
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
            let Some(last) = last.filter(|_| more) else { return Ok(Page { decisions, next: None }) };
            if scanned_bytes >= MAX_SCAN_BYTES {
                let next = Some(Position { record: last, index: usize::MAX });
                return Ok(Page { decisions, next });
            }
            below = Bound::Excluded(last);
        }
    }

    /// Up to a few hundred decisions that came behind `after`, oldest first, and behind which the next come.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn decisions_after(
        &self,
        filter: &Filter,
        after: Position,
    ) -> Result<(Vec<DecisionView>, Position), store::Error> {
        let above = Bound::Included(after.record);
        let wanted = RecordQuery { above, newest_first: false, ..filter.record_query() };
        let records = self.0.store.records(wanted).await?.records;
        let mut last = after;
        let mut decisions = Vec::new();
        for record in &records {
            for (position, decision) in
                filter.select(record).into_iter().filter(|(position, _)| *position > after)
            {
                last = position;
                decisions.push(decision);
            }
            if record.id > last.record {
                last = Position { record: record.id, index: usize::MAX };
            }
        }
        Ok((decisions, last))
    }

    /// The position behind which what is decided from now on comes.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn newest_position(&self) -> Result<Position, store::Error> {
        let newest = self.0.store.records(RecordQuery { max: 1, ..RecordQuery::default() }).await?;
        Ok(Position { record: newest.records.first().map_or(0, |record| record.id), index: usize::MAX })
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
            let record = StoredRecord { id: 1, body };
            let of = |fingerprint: &str| {
                let filter = Filter {
                    rule: Some(Name::new("pods").unwrap()),
                    verdicts: vec![Verdict::Emitted],
                    fingerprint: Some(fingerprint.to_owned()),
                    ..Filter::default()
                };
                filter.select(&record).len()
            };
            assert_eq!((of(fingerprint), of("another")), (1, 0), "{fingerprint:?}");
        }
    }
}
