//! The whole bridge on PostgreSQL: directly, and through PgBouncer in transaction mode.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::bridge::{Bridge, CONFIG, RULES, notification, pending_pod, resolved};
use crate::support::postgres::{Pooler, PostgresServer};
use crate::support::tools::{eventually, get};

/// A bridge whose store is the database at this URL, not started.
pub(crate) fn bridge_on(url: &str) -> Bridge {
    let config = CONFIG.replace("sqlite: { path: bridge.db }", "postgres: { url_file: secrets/url }");
    let bridge = Bridge::new(&config, RULES);
    let secrets = bridge.dir().join("secrets");
    fs::create_dir(&secrets).expect("a directory");
    fs::write(secrets.join("url"), url).expect("a URL");
    fs::set_permissions(secrets.join("url"), fs::Permissions::from_mode(0o600)).expect("permissions");
    // Decreases are decided at once after a restart.
    bridge.without_late_window();
    bridge
}

/// An alert fires, is repeated after a restart, and resolves: one event each, in one order.
async fn fires_and_resolves_over_a_restart(url: &str) {
    let mut bridge = bridge_on(url);
    bridge.run().await;
    let pod = pending_pod("workers", "a");
    let answer = bridge.post(notification(std::slice::from_ref(&pod))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(bridge.events().await.len(), 1);
    assert!(bridge.stop().await.success());

    bridge.run().await;
    let answer = bridge.post(notification(std::slice::from_ref(&pod))).await;
    assert_eq!(answer.verdicts()["duplicate"], 1, "{}", answer.body);
    let answer = bridge.post(notification(&[resolved(&pod)])).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    bridge.wait_settled(&["journal"]).await;
    let events = bridge.events().await;
    let phases: Vec<_> =
        events.iter().map(|event| event["data"]["phase"].as_str().unwrap_or_default()).collect();
    assert_eq!(phases, ["firing", "resolved"]);
    assert_eq!(bridge.decisions("emitted").await.len(), 2);
    assert!(bridge.stop().await.success());
}

#[tokio::test]
async fn directly() {
    let server = PostgresServer::shared();
    fires_and_resolves_over_a_restart(&server.url(&server.create_database(None))).await;
}

#[tokio::test]
async fn through_a_pooler_of_transactions() {
    let server = PostgresServer::shared();
    let database = server.create_database(None);
    let pooler = Pooler::start(server, "* = SERVER", "\"postgres\" \"\"\n", "auth_type = trust");
    fires_and_resolves_over_a_restart(&format!("postgres://postgres@127.0.0.1:{}/{database}", pooler.port()))
        .await;
}

#[tokio::test]
async fn a_role_with_the_documented_rights_is_enough() {
    let server = PostgresServer::shared();
    let database = server.create_database(None);
    let role = format!("{database}_role");
    let documented = include_str!("../../docs/postgres.md");
    let sql = documented.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next()).expect("SQL");
    assert!(sql.contains("CREATE ROLE scalebridge") && sql.contains("CREATE DATABASE scalebridge"), "{sql}");
    // One statement a call: a database cannot be created in a transaction.
    server.sql("postgres", &format!("DROP DATABASE {database}"));
    for statement in sql
        .split_inclusive(";\n")
        .filter(|statement| statement.contains("ROLE") || statement.contains("DATABASE"))
    {
        let statement =
            statement.replace("scalebridge", "NAME").replace("ROLE NAME", &format!("ROLE {role}"));
        let statement = statement.replace("OWNER NAME", &format!("OWNER {role}")).replace("NAME", &database);
        server.sql("postgres", &statement);
    }
    let url = server.url(&database).replace("postgres@", &format!("{role}@"));
    fires_and_resolves_over_a_restart(&url).await;
}

#[tokio::test]
async fn while_the_database_is_away_notifications_are_refused_and_then_everything_resumes() {
    let mut server = PostgresServer::start(&[], "host all all 127.0.0.1/32 trust\n", |_| {});
    let url = server.url(&server.create_database(None));
    let mut bridge = bridge_on(&url);
    bridge.run().await;
    let ready = bridge.url("/-/ready");
    let first = notification(&[pending_pod("workers", "a")]);
    assert_eq!(bridge.post(first).await.status, 200);

    let second = notification(&[pending_pod("others", "b")]);
    server.stop();
    assert_eq!(bridge.post(second.clone()).await.status, 503);
    let (_, cause) =
        eventually("readiness to fail", async || get(&ready).await.ok().filter(|(status, _)| *status == 503))
            .await;
    assert!(cause.contains("store"), "{cause}");
    server.restart(&[]);
    eventually("readiness", async || get(&ready).await.ok().filter(|(status, _)| *status == 200)).await;
    assert_eq!(bridge.post(second).await.status, 200);
    assert_eq!(bridge.events().await.len(), 2);
}

#[tokio::test]
async fn rights_that_are_lost_while_the_bridge_runs_refuse_notifications_and_readiness_says_how_to_fix_that()
{
    let server = PostgresServer::shared();
    let database = server.create_database(None);
    let role = format!("{database}_owner");
    server.sql("postgres", &format!("CREATE ROLE {role} LOGIN; ALTER DATABASE {database} OWNER TO {role}"));
    let mut bridge = bridge_on(&server.url(&database).replace("postgres@", &format!("{role}@")));
    bridge.run().await;
    let ready = bridge.url("/-/ready");
    // As after a restore by a superuser.
    server.sql(&database, "ALTER TABLE records OWNER TO postgres; ALTER TABLE events OWNER TO postgres");
    let refused = bridge.post(notification(&[pending_pod("workers", "a")])).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    // Also without a notification.
    eventually("readiness to say what is missing", async || {
        let (status, cause) = get(&ready).await.ok()?;
        let is_named = cause.contains("rights on the tables events, records: ");
        (status == 503 && is_named && cause.contains("`ALTER TABLE … OWNER TO`")).then_some(())
    })
    .await;
    server.sql(
        &database,
        &format!("GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}"),
    );
    eventually("readiness", async || get(&ready).await.ok().filter(|(status, _)| *status == 200)).await;
    assert_eq!(bridge.post(notification(&[pending_pod("workers", "a")])).await.status, 200);
    assert!(bridge.stop().await.success());
    server.sql(&database, &format!("DROP OWNED BY {role} CASCADE"));
    server.sql("postgres", &format!("ALTER DATABASE {database} OWNER TO postgres; DROP ROLE {role}"));
}

#[tokio::test]
async fn a_bridge_that_starts_before_its_database_waits_for_it() {
    let mut server = PostgresServer::start(&[], "host all all 127.0.0.1/32 trust\n", |_| {});
    let url = server.url(&server.create_database(None));
    server.stop();
    let mut bridge = bridge_on(&url);
    bridge.launch();
    eventually("the first attempt", async || {
        bridge.log().contains("the database cannot be used yet").then_some(())
    })
    .await;
    server.restart(&[]);
    bridge.wait_ready().await;
    assert_eq!(bridge.post(notification(&[pending_pod("workers", "a")])).await.status, 200);
    assert_eq!(bridge.events().await.len(), 1);
}

/// Two bridges that hear of each other's changes by polling alone.
async fn changes_reach_the_other_bridge(url: &str, settings: &str) {
    let bridge = || {
        let bridge = bridge_on(url);
        let file = bridge.dir().join("scalebridge.yaml");
        let config = fs::read_to_string(file).expect("a configuration");
        bridge.write("scalebridge.yaml", &config.replace("secrets/url", &format!("secrets/url{settings}")));
        bridge
    };
    let [mut first, mut second] = [bridge(), bridge()];
    first.run().await;
    second.run().await;
    let events = async || {
        first.wait_settled(&["journal"]).await;
        second.wait_settled(&["journal"]).await;
        [first.journal(), second.journal()].concat()
    };
    let pod = pending_pod("workers", "a");
    let (code, _, error) = first.cli(&["pause", "--all", "--reason", "a test"]);
    assert_eq!(code, Some(0), "{error}");
    let paused = second.post(notification(std::slice::from_ref(&pod))).await;
    assert_eq!(paused.verdicts()["paused"], 1, "decisions read the pauses of all: {}", paused.body);
    for bridge in [&first, &second] {
        eventually("the pause, and what it blocks", async || {
            let status = bridge.get_json("/api/v1/status").await;
            (status["deferred"]["paused"] == 1 && status["pauses"] == 1).then_some(())
        })
        .await;
    }
    let (code, _, error) = first.cli(&["resume", "1"]);
    assert_eq!(code, Some(0), "{error}");
    eventually("the event", async || (events().await.len() == 1).then_some(())).await;
    let answer = first.post(notification(&[resolved(&pod)])).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    eventually("the other event", async || (events().await.len() == 2).then_some(())).await;
    for bridge in [&mut first, &mut second] {
        assert!(bridge.stop().await.success());
    }
}

#[tokio::test]
async fn replicas_without_notify_and_behind_a_pooler_find_changes_by_polling() {
    let server = PostgresServer::shared();
    changes_reach_the_other_bridge(&server.url(&server.create_database(None)), ", notify: false").await;
    let database = server.create_database(None);
    let pooler = Pooler::start(server, "* = SERVER", "\"postgres\" \"\"\n", "auth_type = trust");
    let url = format!("postgres://postgres@127.0.0.1:{}/{database}", pooler.port());
    // It accepts LISTEN, and announces nothing.
    changes_reach_the_other_bridge(&url, "").await;
}

#[tokio::test]
async fn while_a_rule_is_rolled_out_a_replica_without_it_leaves_what_it_owes_to_the_other_one() {
    let server = PostgresServer::shared();
    let url = server.url(&server.create_database(None));
    let [mut old, mut new] = [bridge_on(&url), bridge_on(&url)];
    old.write(
        "rules.yaml",
        &RULES.replace("unschedulable-pods", "others").replace("KubePodsPending", "Others"),
    );
    old.run().await;
    new.run().await;
    let pod = pending_pod("workers", "a");
    assert_eq!(new.post(notification(std::slice::from_ref(&pod))).await.verdicts()["emitted"], 1);
    // Its end is received by the replica without the rule.
    let answer = old.post(notification(&[resolved(&pod)])).await;
    assert_eq!(answer.verdicts()["no_action"], 1, "{}", answer.body);
    let events = async || {
        let all = [old.journal(), new.journal()].concat();
        all.iter()
            .map(|event| event["data"]["phase"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    let has_both = async || (events().await.len() == 2).then_some(());
    eventually("the decrease", has_both).await;
    assert!(events().await.contains(&"resolved".to_owned()), "{:?}", events().await);
    assert_eq!(new.decisions("withdrawn").await.len(), 0);
    for bridge in [&mut old, &mut new] {
        assert!(bridge.stop().await.success());
    }
}
