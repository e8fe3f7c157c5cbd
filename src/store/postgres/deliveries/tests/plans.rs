//! Plans before the first `ANALYZE`: what a statement reads does not grow with the tables.

use tokio_postgres::types::ToSql;

use super::*;
use crate::store::postgres::deliveries::claim::judge;
use crate::store::postgres::deliveries::settle::PUT_SUCCESS;
use crate::store::postgres::deliveries::write::UNPARK;
use crate::store::postgres::schedule;

type Params<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

impl World {
    /// Targets with a delivery each, of which the first thousands are delivered and the last thousands are open.
    async fn fill(&self, thousands: i64) {
        self.execute(&format!(
            "ALTER TABLE targets SET (autovacuum_enabled = off);
             ALTER TABLE deliveries SET (autovacuum_enabled = off);
             INSERT INTO targets (hash, key, last_at)
             SELECT decode(md5(n::text), 'hex'), n, n FROM generate_series(1, {thousands} * 2000) n;
             INSERT INTO deliveries (destination, event, target, state, due, age_from)
             SELECT d.id, t.last_at, t.id, CASE WHEN t.last_at <= {thousands} * 1000 THEN 1 ELSE 0 END, 1, 1
             FROM targets t, destinations d WHERE d.name = 'queue'"
        ))
        .await;
    }

    /// The number of pages that a statement reads, as if it were unnamed.
    async fn pages(&self, sql: &str, params: Params<'_>) -> i64 {
        let rows =
            self.client.query_typed(&format!("EXPLAIN (ANALYZE, BUFFERS) {sql}"), params).await.unwrap();
        let plan: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        // The first line is about all of the plan.
        let all = plan.iter().find_map(|line| line.trim().strip_prefix("Buffers: shared "));
        let read = all.into_iter().flat_map(|all| all.split(' ')).filter_map(|part| {
            let (kind, pages) = part.split_once('=')?;
            ["hit", "read"].contains(&kind).then(|| pages.parse::<i64>().ok())?
        });
        read.sum()
    }
}

#[tokio::test]
async fn a_settlement_and_the_next_due_target_read_few_pages_whatever_the_number_of_deliveries_and_targets() {
    let world = World::new(1).await;
    world.fill(3).await;
    let queue: i32 =
        world.client.query_typed("SELECT id FROM destinations WHERE name = 'queue'", &[]).await.unwrap()[0]
            .get(0);
    // Ten targets with an open delivery each, and ten without.
    let queues = vec![queue; 20];
    let targets: Vec<i64> = world
        .client
        .query_typed("SELECT id FROM targets WHERE last_at BETWEEN 2991 AND 3010", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let unpark: Params<'_> = &[
        (&queues, Type::INT4_ARRAY),
        (&targets, Type::INT8_ARRAY),
        (&100_i64, Type::INT8),
        (&true, Type::BOOL),
    ];
    let none: Vec<i64> = Vec::new();
    let next: Params<'_> = &[(&1_i64, Type::INT8), (&none, Type::INT8_ARRAY)];
    let success: Params<'_> = &[(&queue, Type::INT4), (&100_i64, Type::INT8)];
    let pages = [
        ("the next deliveries of 20 targets", world.pages(UNPARK, unpark).await, 500),
        ("the next due target", world.pages(&schedule::next_statement(), next).await, 30),
        ("the last success", world.pages(PUT_SUCCESS, success).await, 30),
    ];
    for (what, read, most) in pages {
        assert!(read <= most, "{what}: {read} pages");
    }
}

#[tokio::test]
async fn what_was_settled_of_a_target_costs_nothing_although_an_old_snapshot_keeps_it_in_the_index() {
    let world = World::new(1).await;
    let old = connect(&world.config).await;
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM targets").await.unwrap();
    world
        .execute(
            "INSERT INTO targets (hash, key, open_from) VALUES ('a', 'a', 10001);
             INSERT INTO deliveries (destination, event, target, state, due, age_from)
             SELECT d.id, event, t.id, 0, 1, 1 FROM targets t, destinations d, generate_series(1, 10000) event
             WHERE d.name = 'queue';
             UPDATE deliveries SET state = 1;
             INSERT INTO deliveries (destination, event, target, state, due, age_from, open_from)
             SELECT d.id, 10001, t.id, 0, 1, 1, 10001 FROM targets t, destinations d WHERE d.name = 'queue'",
        )
        .await;
    let [queue, target] =
        ["SELECT id::bigint FROM destinations WHERE name = 'queue'", "SELECT id FROM targets"];
    let (queue, target) = (world.number(queue).await, world.number(target).await);
    let (queues, targets) = (vec![i32::try_from(queue).unwrap()], vec![target]);
    let unpark: Params<'_> = &[
        (&queues, Type::INT4_ARRAY),
        (&targets, Type::INT8_ARRAY),
        (&100_i64, Type::INT8),
        (&true, Type::BOOL),
    ];
    let examined = vec![10_001_i64];
    let judged: Params<'_> = &[
        (&queues[0], Type::INT4),
        (&examined, Type::INT8_ARRAY),
        (&100_i64, Type::INT8),
        (&1_i64, Type::INT8),
    ];
    for (what, read) in [
        ("the next delivery of the target", world.pages(UNPARK, unpark).await),
        ("a claim", world.pages(&judge(), judged).await),
    ] {
        assert!(read <= 60, "{what}: {read} pages");
    }
}
