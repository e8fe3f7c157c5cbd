//! Kept notifications.

use serde_json::value::RawValue;

use super::Ops;
use super::api::{ListNotificationsParams, NotificationBodyView, NotificationPage};
use super::error::Error;
use super::parse;
use crate::domain::duration;
use crate::domain::time::Time;
use crate::store::NotificationQuery;

impl Ops {
    /// Lists kept notifications, oldest first.
    ///
    /// # Errors
    /// A parameter is invalid, or the store cannot be read.
    pub(crate) async fn notifications(
        &self,
        params: &ListNotificationsParams,
    ) -> Result<NotificationPage, Error> {
        let store = &self.0.store;
        let clock = store.clock();
        let since = parse::time("since", params.since.as_deref(), clock.wall)?;
        let until = parse::time("until", params.until.as_deref(), clock.wall)?;
        let cursor = |text: &str| {
            text.parse().map_err(|_| Error::Invalid("cursor: invalid; use the `next` of a page".to_owned()))
        };
        let query = NotificationQuery {
            source: parse::name("source", params.source.as_deref())?,
            // The store orders them by its own clock.
            from: since.map_or(Time::from_nanos(i64::MIN), |since| clock.on_store(since)),
            to: until.map_or(Time::from_nanos(i64::MAX), |until| clock.on_store(until)),
            after: params.cursor.as_deref().map(cursor).transpose()?,
            max: parse::page_size(params.limit)?,
        };
        let page = store.notifications(query).await?;
        let notifications = page.notifications.into_iter().filter_map(|kept| {
            let body = RawValue::from_string(kept.body);
            let log =
                |error| tracing::error!(%error, notification = %kept.cursor, "kept notification damaged");
            Some(NotificationBodyView {
                source: kept.source.to_string(),
                received_at: kept.at.wall.to_millis_string(),
                body: body.map_err(log).ok()?,
            })
        });
        let retention = self.0.settings.load().retention;
        let is_off = retention.notifications.is_zero() || retention.notifications_bytes == 0;
        Ok(NotificationPage {
            retention: if is_off { "off".to_owned() } else { duration::format(retention.notifications) },
            notifications: notifications.collect(),
            next: page.next.map(|next| next.to_string()),
        })
    }
}
