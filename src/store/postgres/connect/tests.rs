//! Connections to a real server.

use std::path::Path;

use tokio_postgres::types::Type;

use super::*;
use crate::store::tests::postgres_server::PostgresServer;

fn write(file: &Path, url: &str) {
    std::fs::write(file, url).unwrap();
}

async fn current_user(connector: &Connector) -> Result<String, ConnectError> {
    let client = connector.connect().await?;
    let rows =
        client.query_typed("SELECT current_user::text WHERE $1", &[(&true, Type::BOOL)]).await.unwrap();
    Ok(rows[0].get(0))
}

#[tokio::test]
async fn a_rotated_password_is_used_by_the_next_connection() {
    let server = PostgresServer::start(&[], "host all all 127.0.0.1/32 scram-sha-256\n", |_| {});
    server.sql("postgres", "CREATE ROLE bridge LOGIN PASSWORD 'first-secret'");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("database-url");
    let url = |password: &str| format!("postgres://bridge:{password}@127.0.0.1:{}/postgres\n", server.port());
    write(&file, &url("first-secret"));
    let connector = Connector::from_file(file.clone(), false);
    assert_eq!(current_user(&connector).await.unwrap(), "bridge");

    server.sql("postgres", "ALTER ROLE bridge PASSWORD 'second-secret'");
    let error = current_user(&connector).await.unwrap_err();
    assert!(
        error.needs_operator() && error.to_string().contains("password authentication failed"),
        "{error}"
    );
    assert!(!format!("{error:?}").contains("first-secret"), "{error:?}");
    write(&file, &url("second-secret"));
    assert_eq!(current_user(&connector).await.unwrap(), "bridge");

    // Half-written: the connection fails, and a later one succeeds.
    write(&file, "postgres://bri");
    let error = current_user(&connector).await.unwrap_err();
    assert!(error.to_string().contains("the URL has no user"), "{error}");
    write(&file, &url("second-secret"));
    assert_eq!(current_user(&connector).await.unwrap(), "bridge");
}

#[tokio::test]
async fn the_first_server_that_accepts_writes_is_used() {
    let primary = PostgresServer::start(&[], "host all all 127.0.0.1/32 trust\n", |_| {});
    let standby = primary.standby(&[]);
    let hosts = format!("127.0.0.1:1,127.0.0.1:{},127.0.0.1:{}", standby.port(), primary.port());
    let is_standby = async |parameters: &str| {
        let connector =
            Connector::from_url(&format!("postgres://postgres@{hosts}/postgres{parameters}")).unwrap();
        let client = connector.connect().await.unwrap();
        let rows = client.query_typed("SELECT pg_is_in_recovery()", &[]).await.unwrap();
        rows[0].get::<_, bool>(0)
    };
    assert!(!is_standby("").await);
    assert!(is_standby("?target_session_attrs=any").await);
}

#[tokio::test]
async fn a_server_that_does_not_answer_ends_the_attempt_in_time() {
    // It accepts connections and says nothing.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("postgres://bridge@127.0.0.1:{port}/postgres?connect_timeout=1");
    let error = Connector::from_url(&url).unwrap().connect().await.unwrap_err();
    assert_eq!(error.to_string(), format!("127.0.0.1:{port}: no connection within 1 s (`connect_timeout`)"));
    assert!(!error.needs_operator());
}

#[tokio::test]
async fn what_is_announced_is_heard_until_the_connection_ends() {
    let server = PostgresServer::shared();
    let connector = Connector::from_url(&server.url(&server.create_database(None))).unwrap();
    let pool = Pool::new(connector.clone(), 2, 1).unwrap();
    let (listening, mut notices) = pool.listen("scalebridge").await.unwrap();
    let speaker = connector.connect().await.unwrap();
    speaker.batch_execute("NOTIFY scalebridge, '7 deliveries'").await.unwrap();
    assert_eq!(notices.recv().await.as_deref(), Some("7 deliveries"));
    drop(listening);
    assert_eq!(notices.recv().await, None);
}
