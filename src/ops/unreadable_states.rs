//! States of targets that cannot be read: listed in the status, and given up by operators.

use super::Ops;
use super::act::Initiator;
use super::api::{AuditDetails, DropUnreadableState, UnreadableRowView};
use super::audit::{self, OperatorAct};
use super::error::Error;
use crate::domain::target::TargetKey;
use crate::store::{self, AuditWrite, Changes, DropError, Keys, UnreadableRow};

/// How an operator names an unreadable row.
#[derive(Debug, PartialEq, Eq)]
enum Selector {
    /// `#17`: the row's number.
    Row(i64),
    Target(TargetKey),
}

impl Selector {
    fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Error::Invalid("target: expected a target's key, or a row such as #17".to_owned()));
        }
        // No key begins with `#`.
        let Some(number) = text.strip_prefix('#') else {
            return Ok(Self::Target(TargetKey::from_stored(text)));
        };
        let row = number.parse();
        row.map(Self::Row).map_err(|_| {
            Error::Invalid(format!("target: invalid row `{text}`; expected a number, such as #17"))
        })
    }

    fn selects(&self, row: &UnreadableRow) -> bool {
        match self {
            Self::Row(id) => row.id == *id,
            Self::Target(key) => row.target.as_ref() == Some(key),
        }
    }
}

fn name(row: &UnreadableRow) -> String {
    row.target.as_ref().map_or_else(|| format!("#{}", row.id), ToString::to_string)
}

fn not_found(target: &str, rows: &[UnreadableRow]) -> Error {
    let known: Vec<String> = rows.iter().map(name).collect();
    let known = match known.as_slice() {
        [] => "no unreadable state is known".to_owned(),
        known => format!("unreadable: {}", known.join(", ")),
    };
    Error::NotFound(format!("no unreadable state `{target}`; {known}"))
}

impl Ops {
    /// The states that cannot be read, as far as they were found.
    pub(super) fn unreadable_rows(&self) -> Vec<UnreadableRowView> {
        let clock = self.0.store.clock();
        let rows = self.0.store.unreadable_rows().into_iter();
        rows.map(|row| UnreadableRow { since: clock.on_wall(row.since), ..row }.into()).collect()
    }

    /// Gives up the state of a target that cannot be read.
    ///
    /// # Errors
    /// The target's state can be read or does not exist, or the store cannot write.
    pub(crate) async fn drop_unreadable(
        &self,
        by: &Initiator,
        request: &DropUnreadableState,
    ) -> Result<UnreadableRowView, Error> {
        let selector = Selector::parse(&request.target)?;
        let row = self.find_unreadable(&selector).await?;
        let row = row.ok_or_else(|| not_found(&request.target, &self.0.store.unreadable_rows()))?;
        let id = row.id;
        let details = AuditDetails { dropped_state: Some(row.into()), ..AuditDetails::done() };
        let audit = AuditWrite::Add(audit::entry(OperatorAct::DropState, by, details));
        let dropped = self.0.store.drop_unreadable(id, audit).await.map_err(|error| match error {
            DropError::Store(error) => Error::Store(error),
            DropError::NotUnreadable => not_found(&request.target, &self.0.store.unreadable_rows()),
        })?;
        let target = dropped.target.as_ref().map(tracing::field::display);
        let (author, reason) = (by.actor.as_str(), by.reason_text());
        tracing::warn!(row = id, target, author, reason, "unreadable target state dropped");
        Ok(dropped.into())
    }

    /// An unreadable row is known only after it was needed, so the target is read first.
    async fn find_unreadable(&self, selector: &Selector) -> Result<Option<UnreadableRow>, Error> {
        let store = &self.0.store;
        if let Selector::Target(key) = selector {
            let keys = Keys { targets: vec![key.clone()], ..Keys::default() };
            match store.transact(keys, |_| (Changes::default(), ())).await {
                Ok(()) | Err(store::Error::Unreadable(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(store.unreadable_rows().into_iter().find(|row| selector.selects(row)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Time;

    #[test]
    fn a_row_is_selected_by_its_key_or_its_number() {
        let key = TargetKey::from_stored("eks/nodegroup/-/eu-west-1/prod-eu/-/workers");
        let row = |target| UnreadableRow { id: 17, target, since: Time::from_nanos(0), error: String::new() };
        let (known, unknown) = (row(Some(key.clone())), row(None));
        for (text, selects) in [(key.as_str(), [true, false]), ("#17", [true, true]), ("#18", [false, false])]
        {
            let selector = Selector::parse(text).unwrap();
            assert_eq!([&known, &unknown].map(|row| selector.selects(row)), selects, "{text}");
        }
        for text in ["", " ", "#", "#workers"] {
            Selector::parse(text).unwrap_err();
        }
        let text = not_found("x", &[known, unknown]).to_string();
        assert_eq!(text, format!("no unreadable state `x`; unreadable: {key}, #17"));
    }
}
