//! Rows that another session of the database has locked.

use tokio_postgres::NoTls;

use super::*;

/// A session that holds the lock of a target until it is dropped.
async fn lock(database: &Database, target: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&database.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let sql = format!("BEGIN; SELECT FROM targets WHERE key = '{target}' FOR UPDATE");
    client.batch_execute(&sql).await.unwrap();
    client
}

#[tokio::test]
async fn a_locked_target_fails_only_what_needs_it_and_the_next_time_it_delays_nothing_else() {
    let database = Database::new();
    let store = &replicas(&database, 1).await[0];
    let add = async |targets: &[&'static str]| {
        let one = |target: &'static str| {
            store.transact(keys(&[target], &[]), move |view| (count(view, &[key(target)]), ()))
        };
        join_all(targets.iter().copied().map(one)).await
    };
    let all = ["a", "b", "c", "d"];
    add(&all).await.into_iter().for_each(Result::unwrap);
    let session = lock(&database, "b").await;
    // The workers take one of them each, and the rest together.
    let many: Vec<&str> = all.into_iter().chain(["e", "f", "g", "h"]).collect();
    for _ in 0..2 {
        let results = add(&many).await;
        for (target, result) in many.iter().zip(results) {
            match (*target, result) {
                ("b", Err(Error::Unavailable(text))) => {
                    assert!(text.contains("lock timeout") && text.contains("pg_blocking_pids"), "{text}");
                }
                ("b", result) => panic!("{result:?}"),
                (target, result) => result.unwrap_or_else(|error| panic!("{target}: {error}")),
            }
        }
    }
    assert_eq!(store.outage().map(|outage| outage.to_string()), None, "one row is no outage");
    drop(session);
    add(&["b"]).await.into_iter().for_each(Result::unwrap);
    let counts = counts(store).await;
    assert_eq!([counts["a"], counts["b"], counts["h"]], [3, 2, 2]);
}
