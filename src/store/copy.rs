//! Moves a bridge from one store to another: everything of a SQLite file is copied to an empty PostgreSQL database.

use std::fmt;
use std::path::Path;

use super::postgres::Settings;
use super::postgres::import::Import;
use super::sqlite::export::Export;
use super::transfer::TransferredState;
use super::{DeliveryState, Error};
use crate::domain::time::Time;

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Copied {
    /// Destinations that the store knows.
    pub destinations: usize,
    /// Targets with a state.
    pub targets: usize,
    /// Those of them whose state cannot be read.
    pub unreadable: usize,
    /// Events.
    pub events: usize,
    /// Deliveries of events, one for each destination.
    pub deliveries: usize,
    /// Those of them that are not settled.
    pub undelivered: usize,
    /// Those of them that are dead letters.
    pub dead_letters: usize,
    /// Decision records.
    pub records: usize,
    /// Audit entries.
    pub audit_entries: usize,
    /// Kept notifications.
    pub notifications: usize,
    /// By how many seconds the clock of the SQLite store is ahead of the server's; 0 if it is not.
    pub seconds_ahead: u64,
}

impl fmt::Display for Copied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "destinations:   {}", self.destinations)?;
        writeln!(f, "targets:        {} (unreadable: {})", self.targets, self.unreadable)?;
        writeln!(f, "events:         {}", self.events)?;
        writeln!(
            f,
            "deliveries:     {} (undelivered: {}, dead letters: {})",
            self.deliveries, self.undelivered, self.dead_letters
        )?;
        writeln!(f, "records:        {}", self.records)?;
        writeln!(f, "audit entries:  {}", self.audit_entries)?;
        writeln!(f, "notifications:  {}", self.notifications)
    }
}

/// Copies everything. The SQLite file stays as it is, but for its schema, which is brought to this version. Blocks while it
/// reads the file.
///
/// # Errors
/// The file or the database cannot be used, a bridge uses one of them, or the database has data. Nothing was copied.
pub(crate) async fn copy(from: &Path, to: Settings, now: Time) -> Result<Copied, Error> {
    let mut export = Export::open(from, now)?;
    let mut import = Import::begin(to, export.overview()?).await?;
    let mut copied = Copied {
        destinations: export.overview()?.destinations.len(),
        seconds_ahead: import.seconds_ahead(),
        ..Copied::default()
    };
    copy_targets_and_events(&mut export, &import, &mut copied).await?;
    let mut after = i64::MIN;
    while let Some((records, last)) = export.records(after)? {
        import.put_records(&records).await?;
        (after, copied.records) = (last, copied.records + records.len());
    }
    import.put_clock_steps(export.clock_steps()?).await?;
    import.put_targets(&export.retired_targets()).await?;
    let mut after = i64::MIN;
    while let Some((entries, last)) = export.audit(after)? {
        import.put_audit(&entries).await?;
        (after, copied.audit_entries) = (last, copied.audit_entries + entries.len());
    }
    let mut after = i64::MIN;
    while let Some((notifications, last)) = export.notifications(after)? {
        import.put_notifications(&notifications).await?;
        (after, copied.notifications) = (last, copied.notifications + notifications.len());
    }
    import.finish().await?;
    Ok(copied)
}

async fn copy_targets_and_events(
    export: &mut Export,
    import: &Import,
    copied: &mut Copied,
) -> Result<(), Error> {
    let mut after = i64::MIN;
    while let Some((targets, last)) = export.targets(after)? {
        import.put_targets(&targets).await?;
        let is_unreadable = |state: &TransferredState| matches!(state, TransferredState::Unreadable);
        copied.unreadable += targets.iter().filter(|target| is_unreadable(&target.state)).count();
        (after, copied.targets) = (last, copied.targets + targets.len());
    }
    let mut after = i64::MIN;
    while let Some((events, last)) = export.events(after)? {
        copied.deliveries += import.put_events(&events).await?;
        for delivery in events.iter().flat_map(|event| &event.deliveries) {
            copied.undelivered += usize::from(delivery.state == DeliveryState::Pending);
            copied.dead_letters += usize::from(delivery.state == DeliveryState::Dead);
        }
        (after, copied.events) = (last, copied.events + events.len());
    }
    import.put_events(&export.deleted_events()?).await.map(drop)
}
