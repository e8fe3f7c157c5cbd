//! A PostgreSQL store that cannot be used: the bridge says why and what to change, and never the password.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::bridge::{Bridge, CONFIG, RULES, program};
use crate::support::certificates::Authority;
use crate::support::postgres::{Pooler, PostgresServer};
use crate::support::secrets::{assert_no_secret, secret};
use crate::support::tools::Port;

const PASSWORD: &str = "correct-horse-battery";
const WRONG: &str = "incorrect-horse-battery";

/// A server with TLS, whose certificate is for `localhost` only, and the authority of that certificate. The role `bridge`
/// logs in with [`PASSWORD`], `certified` with a client certificate.
fn server() -> &'static (PostgresServer, String, String) {
    static SERVER: OnceLock<(PostgresServer, String, String)> = OnceLock::new();
    SERVER.get_or_init(|| {
        let authority = Authority::new("Databases");
        let certificate = authority.server_for(&["localhost"]);
        let client = authority.client("certified", &[]);
        let hba = "host all outsider 127.0.0.1/32 reject\nhostssl all certified 127.0.0.1/32 cert\n\
                   host all all 127.0.0.1/32 scram-sha-256\n";
        let tls = ["ssl=on", "ssl_cert_file=server.pem", "ssl_key_file=server.key", "ssl_ca_file=ca.pem"];
        let server = PostgresServer::start(&tls, hba, |data| {
            certificate.write(data, "server");
            private(&data.join("server.key"));
            fs::write(data.join("ca.pem"), authority.pem()).expect("a file");
        });
        let roles = format!(
            "CREATE ROLE bridge LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE certified LOGIN; CREATE ROLE outsider LOGIN; \
             CREATE ROLE shadowed LOGIN PASSWORD '{PASSWORD}';"
        );
        server.sql("postgres", &roles);
        (server, authority.pem(), format!("{}{}", client.certificate, client.key))
    })
}

fn private(path: &std::path::Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("permissions");
}

/// A database that the role `bridge` owns.
fn database() -> String {
    let (server, ..) = server();
    let name = server.create_database(None);
    server.sql("postgres", &format!("ALTER DATABASE {name} OWNER TO bridge"));
    name
}

/// A bridge whose `url_file` has this URL. `PORT` in it is that of the server.
fn bridge(url: &str, settings: &str) -> Bridge {
    secret(PASSWORD);
    secret(WRONG);
    let config = CONFIG
        .replace("sqlite: { path: bridge.db }", &format!("postgres: {{ url_file: secrets/url{settings} }}"));
    assert_ne!(config, CONFIG);
    let bridge = Bridge::new(&config, RULES);
    let secrets = bridge.dir().join("secrets");
    fs::create_dir(&secrets).expect("a directory");
    fs::write(secrets.join("ca.pem"), &server().1).expect("a file");
    fs::write(secrets.join("client.pem"), &server().2).expect("a file");
    fs::write(secrets.join("url"), url.replace("PORT", &server().0.port().to_string())).expect("a URL");
    private(&secrets.join("url"));
    bridge
}

/// Starts the bridge, which must end with exit code 2, and returns what it has printed.
fn refusal(bridge: &Bridge) -> String {
    let done = bridge.command().output().expect("the bridge");
    let printed = String::from_utf8(done.stderr).expect("UTF-8");
    assert_eq!(done.status.code(), Some(2), "{printed}");
    assert_no_secret("what the bridge printed", printed.as_bytes());
    assert_no_secret("stdout", &done.stdout);
    printed
}

/// Starts a bridge with this URL, which must end with exit code 2 and say all of this.
fn assert_refused(url: &str, expected: &[&str]) {
    let printed = refusal(&bridge(url, ""));
    for expected in expected {
        assert!(printed.contains(expected), "{url}: `{expected}` is missing: {printed}");
    }
}

#[test]
fn a_wrong_login_or_database() {
    let database = database();
    assert_refused(
        &format!("postgres://bridge:{WRONG}@localhost:PORT/{database}"),
        &[
            "store.postgres: localhost:",
            "password authentication failed",
            "check user and password in the file of `url_file`",
        ],
    );
    assert_refused(
        &format!("postgres://nobody:{PASSWORD}@localhost:PORT/{database}"),
        &["password authentication failed", "check user and password"],
    );
    assert_refused(
        &format!("postgres://bridge@localhost:PORT/{database}"),
        &["password missing", "write the password into the URL"],
    );
    assert_refused(
        &format!("postgres://outsider@localhost:PORT/{database}"),
        &["pg_hba.conf rejects", "its right to log in, and pg_hba.conf of the server"],
    );
    assert_refused(
        &format!("postgres://bridge:{PASSWORD}@localhost:PORT/elsewhere"),
        &["database \"elsewhere\" does not exist", "create the database, or correct its name"],
    );
}

#[test]
fn missing_rights() {
    let (server, ..) = server();
    let without_connect = server.create_database(None);
    server.sql("postgres", &format!("REVOKE CONNECT ON DATABASE {without_connect} FROM PUBLIC"));
    assert_refused(
        &format!("postgres://bridge:{PASSWORD}@localhost:PORT/{without_connect}"),
        &["permission denied for database", "GRANT CONNECT ON DATABASE"],
    );
    // Since PostgreSQL 15, only the owner of a database can create tables in it.
    let without_create = server.create_database(None);
    assert_refused(
        &format!("postgres://bridge:{PASSWORD}@localhost:PORT/{without_create}"),
        &["permission denied for schema public", "GRANT USAGE, CREATE ON SCHEMA"],
    );
    let without_schema = database();
    server.sql(&without_schema, "DROP SCHEMA public");
    assert_refused(
        &format!("postgres://bridge:{PASSWORD}@localhost:PORT/{without_schema}"),
        &["no schema has been selected to create in", "`search_path` of the role"],
    );
}

#[test]
fn an_old_server() {
    let (server, ..) = server();
    let database = server.create_database(None);
    // Stands for a server of that version: this function is found before the server's own.
    let shadow = "CREATE SCHEMA shadow; GRANT USAGE ON SCHEMA shadow TO PUBLIC;
        CREATE FUNCTION shadow.current_setting(name text) RETURNS text LANGUAGE sql AS $$
            SELECT CASE name WHEN 'server_version_num' THEN '140011' WHEN 'server_version' THEN '14.11'
                   ELSE pg_catalog.current_setting(name) END $$";
    server.sql(&database, shadow);
    server.sql(
        "postgres",
        &format!("ALTER ROLE shadowed IN DATABASE {database} SET search_path = shadow, pg_catalog"),
    );
    assert_refused(
        &format!("postgres://shadowed:{PASSWORD}@localhost:PORT/{database}"),
        &["the server is PostgreSQL 14.11; upgrade it", "15 is the oldest version"],
    );
}

#[test]
fn a_schema_of_a_much_newer_version() {
    let (server, ..) = server();
    let database = database();
    server.sql(
        &database,
        "CREATE TABLE store (schema_step int); INSERT INTO store VALUES (1000); GRANT ALL ON store TO bridge",
    );
    assert_refused(
        &format!("postgres://bridge:{PASSWORD}@localhost:PORT/{database}"),
        &["schema step 1000, of a newer scalebridge", "start the newer version"],
    );
}

#[test]
fn a_server_that_loses_what_it_confirms_and_one_that_is_read_only() {
    let careless = PostgresServer::start(&["fsync=off"], "host all all 127.0.0.1/32 trust\n", |_| {});
    let at = |server: &PostgresServer| format!("postgres://postgres@127.0.0.1:{}/postgres", server.port());
    assert_refused(&at(&careless), &["`fsync = off`", "set `fsync = on` and restart it"]);
    let pooler = Pooler::start(&careless, "* = SERVER", "\"postgres\" \"\"\n", "auth_type = trust");
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", pooler.port());
    assert_refused(&url, &["`fsync = off`", "set `fsync = on` and restart it"]);
    // It has no certificate either.
    assert_refused(
        &format!("{}?sslmode=verify-full", at(&careless)),
        &["server does not support TLS", "turn TLS on at the server"],
    );

    let standby = careless.standby(&["fsync=on"]);
    assert_refused(
        &at(&standby),
        &["the server is a standby, which is read-only", "target_session_attrs=read-write"],
    );
}

#[test]
fn who_answers_is_verified() {
    let database = database();
    let login = format!("postgres://bridge:{WRONG}@");
    // An authority that nobody has named.
    assert_refused(
        &format!("{login}localhost:PORT/{database}?sslmode=verify-full"),
        &["invalid peer certificate", "name the authority of the server's certificate in `sslrootcert`"],
    );
    // The certificate is for another name.
    assert_refused(
        &format!("{login}127.0.0.1:PORT/{database}?sslrootcert=secrets/ca.pem"),
        &["invalid peer certificate", "use the name for which the certificate of the server is"],
    );
    // The server is asked for the login only if it is the right one.
    for verified in [
        "localhost:PORT/DATABASE?sslrootcert=secrets/ca.pem",
        "localhost:PORT/DATABASE?hostaddr=127.0.0.1&sslrootcert=secrets/ca.pem",
        "127.0.0.1:PORT/DATABASE?sslmode=verify-ca&sslrootcert=secrets/ca.pem",
        "127.0.0.1:PORT/DATABASE?sslmode=require&sslrootcert=secrets/ca.pem",
    ] {
        let url = format!("{login}{}", verified.replace("DATABASE", &database));
        assert_refused(&url, &["password authentication failed"]);
    }
    // Required, and impossible without TLS.
    let url = format!("{login}localhost:PORT/{database}?channel_binding=require");
    assert_refused(&url, &["channel binding", "check `channel_binding` in the URL"]);
    assert_refused(
        &format!("{login}localhost:PORT/{database}?sslrootcert=secrets/none.pem"),
        &["sslrootcert: secrets/none.pem: cannot read the file", "check the path"],
    );
}

#[test]
fn a_client_certificate_instead_of_a_password() {
    let (server, ..) = server();
    let database = server.create_database(None);
    let url = format!("postgres://certified@localhost:PORT/{database}?sslrootcert=secrets/ca.pem");
    assert_refused(&url, &["requires a valid client certificate", "pg_hba.conf of the server"]);
    // It logs in, and has no rights.
    assert_refused(
        &format!("{url}&sslcert=secrets/client.pem&sslkey=secrets/client.pem"),
        &["permission denied for schema public"],
    );
}

#[test]
fn every_host_is_named_with_its_cause() {
    let free = Port::reserve();
    let (database, closed) = (database(), free.number);
    assert_refused(
        &format!("postgres://bridge:{WRONG}@127.0.0.1:{closed},localhost:PORT/{database}"),
        &[
            &format!("127.0.0.1:{closed}: error connecting to server"),
            "localhost:",
            "password authentication failed",
        ],
    );
}

#[test]
fn a_url_that_is_wrong_or_missing() {
    assert_refused(
        &format!("postgres://bridge:{PASSWORD}@db.example/scale?sslmode=prefer"),
        &["secrets/url: error[E007]: this `sslmode` falls back to plain text", "use `sslmode=verify-full`"],
    );
    assert_refused(&format!("postgres://bridge:pass@{PASSWORD}@db.example/scale"), &["`@` as `%40`"]);
    let bridge = bridge("", "");
    fs::remove_file(bridge.dir().join("secrets/url")).expect("a file");
    let printed = refusal(&bridge);
    assert!(printed.contains("secrets/url: the file cannot be read"), "{printed}");
}

#[test]
fn refusals_of_a_pooler() {
    let (server, ..) = server();
    let database = database();
    let databases =
        format!("{database} = SERVER\nwrong = SERVER dbname={database} user=bridge password={WRONG}\n");
    let users = format!("\"bridge\" \"{PASSWORD}\"\n");
    let pooler = Pooler::start(server, &databases, &users, "auth_type = scram-sha-256");
    let url = |password: &str, rest: &str| {
        format!("postgres://bridge:{password}@127.0.0.1:{}/{rest}", pooler.port())
    };
    assert_refused(&url(WRONG, &database), &["SASL authentication failed", "check user and password"]);
    assert_refused(
        &url(PASSWORD, "elsewhere"),
        &["no such database: elsewhere", "`[databases]` of PgBouncer"],
    );
    assert_refused(
        &url(PASSWORD, &format!("{database}?options=-c%20search_path%3Dx")),
        &["unsupported startup parameter: options", "remove `options` from the URL"],
    );
    // The pooler itself is refused by the server.
    assert_refused(
        &url(PASSWORD, "wrong"),
        &["password authentication failed", "those that PgBouncer sends to the server"],
    );
    server.sql(&database, "DROP SCHEMA public");
    assert_refused(&url(PASSWORD, &database), &["no schema has been selected to create in"]);
}

#[test]
fn a_pooler_of_statements() {
    let server = PostgresServer::shared();
    let database = server.create_database(None);
    let settings = "auth_type = trust\npool_mode = statement";
    let pooler = Pooler::start(server, "* = SERVER", "\"postgres\" \"\"\n", settings);
    assert_refused(
        &format!("postgres://postgres@127.0.0.1:{}/{database}", pooler.port()),
        &[
            "not allowed in statement pooling mode",
            "set `pool_mode = transaction` for the database in PgBouncer",
        ],
    );
}

#[test]
fn a_database_that_cannot_store_every_label() {
    let (server, ..) = server();
    let name = database() + "_latin1";
    server.sql(
        "postgres",
        &format!("CREATE DATABASE {name} OWNER bridge ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"),
    );
    assert_refused(
        &format!("postgres://bridge:{PASSWORD}@localhost:PORT/{name}"),
        &["the database has the encoding LATIN1", "create it with `CREATE DATABASE … ENCODING 'UTF8'"],
    );
}

#[test]
fn a_role_that_may_only_read() {
    let (server, ..) = server();
    let database = database();
    let set = format!("ALTER ROLE bridge IN DATABASE {database} SET default_transaction_read_only = on");
    server.sql("postgres", &set);
    assert_refused(
        &format!("postgres://bridge:{PASSWORD}@localhost:PORT/{database}"),
        &["`default_transaction_read_only = on`", "`ALTER ROLE … SET default_transaction_read_only = off`"],
    );
}

#[test]
fn a_role_whose_statements_end_too_soon() {
    let (server, ..) = server();
    let database = database();
    let set = |timeout: &str| {
        server.sql(
            "postgres",
            &format!("ALTER ROLE bridge IN DATABASE {database} SET statement_timeout = '{timeout}'"),
        )
    };
    set("9999ms");
    let url = format!("postgres://bridge:{PASSWORD}@localhost:PORT/{database}");
    assert_refused(
        &url,
        &["statements of the role are ended after 9999 ms", "`ALTER ROLE … SET statement_timeout = 0`"],
    );
    // Too short for the question itself.
    set("1ms");
    server.sql(
        &database,
        "CREATE SCHEMA slow; GRANT USAGE ON SCHEMA slow TO bridge;
         CREATE FUNCTION slow.current_setting(name text) RETURNS text LANGUAGE sql AS $$
            SELECT pg_catalog.current_setting(name) FROM pg_sleep(0.1) $$",
    );
    let path = format!("ALTER ROLE bridge IN DATABASE {database} SET search_path = slow, pg_catalog");
    server.sql("postgres", &path);
    assert_refused(&url, &["statement timeout", "`ALTER ROLE … SET statement_timeout = 0`"]);
}

#[test]
fn a_schema_two_steps_newer_and_values_that_only_newer_versions_can_read() {
    let (server, ..) = server();
    let database = database();
    let url = format!("postgres://bridge:{PASSWORD}@localhost:PORT/{database}");
    let mut first = bridge(&url, "");
    first.launch();
    let created = || server.sql(&database, "SELECT to_regclass('store') IS NOT NULL").trim() == "t";
    while !created() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    first.kill();
    let step: i32 = server.sql(&database, "SELECT schema_step FROM store").trim().parse().expect("a step");
    let next = step + 1;
    server.sql(&database, &format!("UPDATE store SET schema_step = {}", next + 1));
    let found =
        format!("schema step {}, of a newer scalebridge; this one can use up to step {next}", next + 1);
    assert_refused(&url, &[&found, "start the newer version"]);
    server.sql(&database, &format!("UPDATE store SET schema_step = {next}, min_step = {next}"));
    assert_refused(
        &url,
        &["what this version cannot read", &format!("start a version that knows step {next}")],
    );
}

/// A server that is not ready yet, as one that recovers after a crash.
fn starting_stub() -> u16 {
    const STARTING: &[u8] = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let length = u32::try_from(STARTING.len() + 4).unwrap_or_default().to_be_bytes();
            // The client may be gone.
            drop(stream.read(&mut [0; 1024]));
            drop(stream.write_all(&[b"E", &length[..], STARTING].concat()));
        }
    });
    port
}

#[tokio::test]
async fn a_server_that_recovers_is_waited_for() {
    let url = format!("postgres://bridge:{PASSWORD}@127.0.0.1:{}/scale", starting_stub());
    let mut bridge = bridge(&url, "");
    bridge.launch();
    crate::support::tools::eventually("the log line", async || {
        bridge.log().contains("the database system is starting up").then_some(())
    })
    .await;
    assert!(bridge.log().contains("the database cannot be used yet, retrying"), "{}", bridge.log());
    assert!(bridge.stop().await.success());
}

#[test]
fn check_reads_the_url_and_shows_nothing_of_it() {
    for (url, code) in [
        (format!("postgres://bridge:{PASSWORD}@db.example/scale"), 0),
        (format!("postgres://bridge:{PASSWORD}@db.example/scale?sslmode=prefer"), 1),
        (format!("postgres://bridge:pass@{PASSWORD}@db.example/scale"), 1),
        (format!("host=db.example user=bridge password={PASSWORD}"), 1),
        (format!("mysql://bridge:{PASSWORD}@db.example/scale"), 1),
    ] {
        for format in ["text", "json"] {
            let bridge = bridge(&url, "");
            let done = std::process::Command::new(program())
                .args(["check", "scalebridge.yaml", "-o", format])
                .current_dir(bridge.dir())
                .output()
                .expect("the program");
            let printed = String::from_utf8_lossy(&done.stdout).into_owned();
            assert_eq!(done.status.code(), Some(code), "{printed}");
            assert_no_secret("stdout of check", &done.stdout);
            assert_no_secret("stderr of check", &done.stderr);
        }
    }
}

#[tokio::test]
async fn while_the_server_is_away_readiness_says_so() {
    let (admin, closed) = (Port::reserve(), Port::reserve());
    let mut bridge = bridge(&format!("postgres://bridge:{PASSWORD}@127.0.0.1:{}/scale", closed.number), "");
    let config = fs::read_to_string(bridge.dir().join("scalebridge.yaml")).expect("a configuration");
    let listen = format!("admin: {{ listen: \"127.0.0.1:{}\" }}", admin.number);
    bridge.write("scalebridge.yaml", &config.replace("admin: { listen: \"127.0.0.1:0\" }", &listen));
    bridge.launch();
    let url = format!("http://127.0.0.1:{}/-/ready", admin.number);
    let answer = crate::support::tools::eventually("the answer of readiness", async || {
        crate::support::tools::get(&url).await.ok().filter(|(_, body)| body.contains("waiting"))
    })
    .await;
    assert_eq!(answer.0, 503);
    assert!(answer.1.contains("scalebridge is starting: waiting for the database"), "{}", answer.1);
    assert!(bridge.log().contains("the database cannot be used yet, retrying"), "{}", bridge.log());
    // It can be stopped meanwhile.
    assert!(bridge.stop().await.success());
}

/// A server that asks for a password in clear text over TLS, keeps it and refuses it. As RDS does with a token.
fn token_stub(tls: ServerConfig) -> (u16, Arc<parking_lot::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let (tls, tokens) = (Arc::new(tls), Arc::new(parking_lot::Mutex::new(Vec::new())));
    let kept = tokens.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            kept.lock().extend(ask_for_password(&stream, tls.clone()));
        }
    });
    (port, tokens)
}

fn ask_for_password(mut stream: &TcpStream, tls: Arc<ServerConfig>) -> Option<String> {
    const CLEAR_TEXT: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 3];
    const PAM_FAILED: &[u8] = b"SFATAL\0VFATAL\0C28000\0MPAM authentication failed\0\0";
    let mut ssl_request = [0; 8];
    stream.read_exact(&mut ssl_request).ok()?;
    stream.write_all(b"S").ok()?;
    let mut stream = StreamOwned::new(ServerConnection::new(tls).ok()?, stream);
    let message = |stream: &mut dyn Read, head: usize| {
        let mut length = vec![0; head + 4];
        stream.read_exact(&mut length).ok()?;
        let length = u32::from_be_bytes(length[head..].try_into().ok()?);
        let mut body = vec![0; usize::try_from(length).ok()?.checked_sub(4)?];
        stream.read_exact(&mut body).ok().map(|()| body)
    };
    message(&mut stream, 0)?;
    stream.write_all(&CLEAR_TEXT).ok()?;
    let password = message(&mut stream, 1)?;
    let length = u32::try_from(PAM_FAILED.len() + 4).ok()?.to_be_bytes();
    stream.write_all(&[b"E", &length[..], PAM_FAILED].concat()).ok()?;
    stream.conn.send_close_notify();
    stream.flush().ok()?;
    String::from_utf8(password).ok().map(|password| password.trim_end_matches('\0').to_owned())
}

#[test]
fn a_token_of_iam_is_the_password_and_only_over_tls() {
    let authority = Authority::new("RDS");
    let certificate = authority.server_for(&["localhost"]);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain =
        vec![CertificateDer::from_pem_slice(certificate.certificate.as_bytes()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).expect("a key");
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions");
    let (port, tokens) =
        token_stub(tls.with_no_client_auth().with_single_cert(chain, key).expect("a certificate"));
    let mut bridge = bridge(
        &format!("postgres://bridge@localhost:{port}/scale?sslrootcert=secrets/rds.pem"),
        ", iam: true",
    );
    fs::write(bridge.dir().join("secrets/rds.pem"), authority.pem()).expect("a file");
    bridge.env("AWS_REGION", "eu-west-1");
    bridge.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE");
    bridge.env("AWS_SECRET_ACCESS_KEY", &secret("secret-access-key-of-the-test"));
    let printed = refusal(&bridge);
    assert!(printed.contains("PAM authentication failed"), "{printed}");
    let tokens = tokens.lock().clone();
    let [token] = &tokens[..] else { panic!("{tokens:?}") };
    assert!(token.starts_with(&format!("localhost:{port}/?Action=connect&DBUser=bridge&")), "{token}");
    assert!(
        token.contains("%2Feu-west-1%2Frds-db%2Faws4_request") && token.contains("X-Amz-Signature="),
        "{token}"
    );
    assert!(!printed.contains("X-Amz-Signature"), "{printed}");

    fs::write(
        bridge.dir().join("secrets/url"),
        format!("postgres://bridge@localhost:{port}/scale?sslmode=disable"),
    )
    .expect("a URL");
    let printed = refusal(&bridge);
    assert!(printed.contains("a token is a password"), "{printed}");
}

#[test]
fn the_policy_allows_the_token() {
    let bridge =
        bridge("postgres://bridge@fleet.cluster-abc.eu-west-1.rds.amazonaws.com/scale", ", iam: true");
    let printed = std::process::Command::new(program())
        .args(["iam-policy", "--account", "123456789012", "--config", "scalebridge.yaml"])
        .current_dir(bridge.dir())
        .output()
        .expect("the program");
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let policy: serde_json::Value = serde_json::from_slice(&printed.stdout).expect("JSON");
    assert_eq!(policy["Statement"][0]["Action"], "rds-db:connect");
    let resource = "arn:aws:rds-db:eu-west-1:123456789012:dbuser:*/bridge";
    assert_eq!(policy["Statement"][0]["Resource"], serde_json::json!([resource]));
}
