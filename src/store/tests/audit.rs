//! The audit trail is committed with the acts that it records, and survives restarts.

use super::*;
use crate::domain::control::Controls;
use crate::store::{AuditQuery, StoredAuditEntry};

fn entry(actor: &str, act: &str, body: &str) -> AuditEntry {
    AuditEntry { actor: actor.into(), act: act.into(), body: body.into() }
}

impl StoreHarness {
    async fn add(&self, actor: &str, act: &str, body: &str) -> i64 {
        self.store.audit(AuditWrite::Add(entry(actor, act, body))).await.unwrap()
    }

    async fn trail(&self, query: AuditQuery) -> Vec<StoredAuditEntry> {
        self.store.audit_trail(query).await.unwrap().entries
    }

    /// The acts of the trail, newest first.
    async fn acts(&self, query: AuditQuery) -> Vec<String> {
        self.trail(query).await.into_iter().map(|stored| stored.entry.act).collect()
    }

    async fn dead_letter(&self) -> DeliveryId {
        self.emit("a", Kind::Note, "note", &["queue"]).await;
        let claimed = self.claim_one("queue", "note").await;
        self.settle("queue", claimed.lease, dead()).await;
        DeliveryId { seq: claimed.lease.seq(), destination: name("queue") }
    }
}

#[tokio::test]
async fn an_act_and_its_entry_are_committed_together() {
    for mut harness in StoreHarness::all().await {
        harness
            .write(&[], |view| Changes {
                controls: Some(controls::changed(&view.controls, true)),
                audit: Some(entry("ann", "pause", r#"{"reason":"upgrade"}"#)),
                ..Changes::default()
            })
            .await;
        harness.restart().await;
        assert_ne!(*harness.store.controls(), Controls::default());
        let trail = harness.trail(AuditQuery::default()).await;
        let [stored] = trail.as_slice() else { panic!("{trail:?}") };
        assert_eq!(stored.entry, entry("ann", "pause", r#"{"reason":"upgrade"}"#));
        assert!(stored.at >= now() && stored.at <= harness.store.now(), "{}", stored.at);
    }
}

#[tokio::test]
async fn a_redrive_or_discard_has_one_entry_and_a_rejected_one_has_none() {
    for harness in StoreHarness::all().await {
        let dead_letter = harness.dead_letter().await;
        harness.store.redrive(&dead_letter, Redrive::default(), audit("redrive")).await.unwrap();
        harness.store.redrive(&dead_letter, Redrive::default(), audit("redrive")).await.unwrap_err();
        harness.store.discard(&dead_letter, audit("discard")).await.unwrap_err();
        assert_eq!(harness.acts(AuditQuery::default()).await, ["redrive"]);
        harness.claim_and_settle("queue", "note", dead()).await;
        harness.store.discard(&dead_letter, audit("discard")).await.unwrap();
        assert_eq!(harness.acts(AuditQuery::default()).await, ["discard", "redrive"]);
    }
}

#[tokio::test]
async fn an_act_of_many_steps_updates_its_entry_with_each_of_them() {
    for mut harness in StoreHarness::all().await {
        let dead_letter = harness.dead_letter().await;
        let id = harness.add("ann", "bulk_redrive", "0 of 1").await;
        let step = AuditWrite::Update { id, body: "1 of 1".into() };
        harness.store.redrive(&dead_letter, Redrive::default(), step.clone()).await.unwrap();
        let body =
            async |harness: &StoreHarness| harness.trail(AuditQuery::default()).await.remove(0).entry.body;
        assert_eq!(body(&harness).await, "1 of 1");
        let failed = AuditWrite::Update { id, body: "2 of 1".into() };
        harness.store.redrive(&dead_letter, Redrive::default(), failed).await.unwrap_err();
        harness.restart().await;
        assert_eq!(body(&harness).await, "1 of 1", "a failed step changes nothing");
        assert_eq!(harness.store.audit(AuditWrite::Update { id, body: "done".into() }).await.unwrap(), id);
        assert_eq!(body(&harness).await, "done");
        assert_eq!(harness.acts(AuditQuery::default()).await, ["bulk_redrive"]);
    }
}

#[tokio::test]
async fn the_trail_is_listed_in_pages_and_filtered() {
    for harness in StoreHarness::all().await {
        for (actor, act) in [("ann", "pause"), ("ben", "pause"), ("ann", "resume"), ("signal", "reload")] {
            harness.add(actor, act, "{}").await;
        }
        let page = harness.store.audit_trail(AuditQuery { max: 3, ..AuditQuery::default() }).await.unwrap();
        assert!(page.has_more);
        let below = page.entries.last().map(|stored| stored.id);
        let rest = AuditQuery { max: 3, below, ..AuditQuery::default() };
        let rest = harness.store.audit_trail(rest).await.unwrap();
        assert_eq!((rest.entries[0].entry.actor.as_str(), rest.has_more), ("ann", false));
        let by = AuditQuery { actor: Some("ann".into()), ..AuditQuery::default() };
        assert_eq!(harness.acts(by.clone()).await, ["resume", "pause"]);
        assert_eq!(harness.acts(AuditQuery { act: Some("pause".into()), ..by }).await, ["pause"]);
        let earlier = AuditQuery { to: Time::from_nanos(0), ..AuditQuery::default() };
        assert_eq!(harness.acts(earlier).await, [""; 0]);
        let later = AuditQuery { from: now(), ..AuditQuery::default() };
        assert_eq!(harness.acts(later).await.len(), 4);
    }
}

#[tokio::test]
async fn old_entries_are_pruned_and_no_id_is_used_twice() {
    for mut harness in StoreHarness::durable().await {
        for act in ["pause", "resume"] {
            harness.add("ann", act, "{}").await;
        }
        while harness.store.prune(HOUR, HOUR).await.unwrap() {}
        assert_eq!(harness.acts(AuditQuery::default()).await, ["resume", "pause"], "they are not old enough");
        // The store's time is the same as when they were added until the clock advances.
        harness.execute("UPDATE audit SET at = at - 1000000000");
        harness.prune().await;
        assert_eq!(harness.acts(AuditQuery::default()).await, ["resume"], "the newest entry stays");
        harness.restart().await;
        assert_eq!(harness.add("ann", "reload", "{}").await, 3);
    }
}

#[tokio::test]
async fn a_failed_commit_leaves_no_entry() {
    let harness = StoreHarness::sqlite();
    let Store::Sqlite(sqlite) = &harness.store else { return };
    sqlite.pragma("query_only", 1).await;
    harness.store.audit(audit("reload")).await.unwrap_err();
    sqlite.pragma("query_only", 0).await;
    assert_eq!(harness.acts(AuditQuery::default()).await, [""; 0]);
    harness.store.audit(audit("reload")).await.unwrap();
    assert_eq!(harness.acts(AuditQuery::default()).await, ["reload"]);
}
