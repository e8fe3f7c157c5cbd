//! The replicas that share the store, in `scalebridge status`.

use std::collections::BTreeSet;

use super::cell;
use super::inventory::list_cell_of;
use crate::cli::output::pluralize;
use crate::cli::style::{Style, Tone};
use crate::ops::api::{FleetStatus, ReplicaView};

/// `Fleet: 2 of 3 replicas ready, schema step 1`, and what an operator has to know about it.
pub(super) fn fleet_heading(style: &Style, fleet: &FleetStatus) -> String {
    let FleetStatus { schema_step, read_at, replicas } = fleet;
    let ready = replicas.iter().filter(|replica| &*replica.status == "ready").count();
    let shown = format!("Fleet: {ready} of {} ready", pluralize(replicas.len(), "replica"));
    let versions: BTreeSet<&str> = replicas.iter().map(|replica| &*replica.version).collect();
    let mut shown = format!("{}, schema step {schema_step}", style.paint(Tone::Strong, &shown));
    if versions.len() > 1 {
        shown += &format!(", versions {}", list_cell_of(versions.into_iter()));
    }
    format!("{shown}, as of {}\n", style.time(read_at))
}

pub(super) fn replicas_table(style: &Style, replicas: &[ReplicaView]) -> String {
    let mut headers = vec!["REPLICA", "STATUS", "LAST SEEN", "VERSION", "SCHEMA", "CLOCK"];
    // Several can run on one host.
    let names: BTreeSet<&str> = replicas.iter().map(|replica| &*replica.name).collect();
    let has_ids = style.is_wide() || names.len() < replicas.len();
    if has_ids {
        headers.push("ID");
    }
    if style.is_wide() {
        headers.push("STARTED");
    }
    let row = |replica: &ReplicaView| {
        let name = cell(&replica.name);
        let status = cell(&replica.status).replace('_', " ");
        let tone = if &*replica.status == "ready" { Tone::Good } else { Tone::Bad };
        let mut row = vec![
            if replica.answers { format!("{name} (answers)") } else { name },
            style.paint(tone, &status),
            style.time(&replica.last_seen_at),
            cell(&replica.version),
            replica.schema_step.to_string(),
            replica.clock_offset_seconds.map_or_else(|| "-".to_owned(), |offset| format!("{offset:+.3} s")),
        ];
        if has_ids {
            row.push(cell(&replica.id));
        }
        if style.is_wide() {
            row.push(style.time(&replica.started_at));
        }
        row
    };
    style.table(&headers, &replicas.iter().map(row).collect::<Vec<_>>())
}
