use super::*;

fn parse(text: &str) -> DatabaseUrl {
    DatabaseUrl::parse(text, false).unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
}

/// The causes and fixes, one a line.
fn errors(text: &str, iam: bool) -> String {
    let Err(errors) = DatabaseUrl::parse(text, iam) else { panic!("{text} is accepted") };
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn shown(url: &DatabaseUrl) -> Vec<(String, ServerTls)> {
    url.servers.iter().map(|server| (server.to_string(), server.tls)).collect()
}

#[test]
fn the_parts_are_decoded() {
    let url =
        parse("postgresql://bridge:p%40ss%2Fw%3Frd@db.example:6432/scale%20bridge?application_name=a%26b\n");
    assert_eq!((&*url.user, &*url.database, &*url.application_name), ("bridge", "scale bridge", "a&b"));
    assert_eq!(url.password.unwrap().expose(), "p@ss/w?rd");
    assert_eq!(url.servers[0].to_string(), "db.example:6432");
}

#[test]
fn tls_is_verified_unless_the_host_is_local() {
    for (host, tls) in [
        ("db.example", ServerTls::AuthorityAndName),
        ("10.0.0.1", ServerTls::AuthorityAndName),
        ("localhost.example", ServerTls::AuthorityAndName),
        ("[2001:db8::1]", ServerTls::AuthorityAndName),
        ("LocalHost", ServerTls::Off),
        ("127.0.0.53", ServerTls::Off),
        ("[::1]", ServerTls::Off),
        ("%2Frun%2Fpostgresql", ServerTls::Off),
        ("localhost?sslmode=verify-full&", ServerTls::AuthorityAndName),
        ("localhost?sslrootcert=ca.pem&", ServerTls::AuthorityAndName),
        ("db.example?sslmode=verify-ca&sslrootcert=ca.pem&", ServerTls::Authority),
        ("db.example?sslmode=require&sslrootcert=ca.pem&", ServerTls::Authority),
        ("127.0.0.1?sslmode=disable&", ServerTls::Off),
        // The name is only what the certificate is for.
        ("localhost?hostaddr=10.0.0.1&", ServerTls::AuthorityAndName),
    ] {
        let (host, parameters) = host.split_once('?').unwrap_or((host, ""));
        let text = format!("postgres://bridge@{host}/?{parameters}dbname=scale");
        assert_eq!(parse(&text).servers[0].tls, tls, "{text}");
    }
}

#[test]
fn several_hosts_are_tried_until_one_can_write() {
    let url = parse("postgres://bridge@a.example,b.example:6000,%2Ftmp/scale?load_balance_hosts=random");
    let verified = ServerTls::AuthorityAndName;
    let expected =
        [("a.example:5432", verified), ("b.example:6000", verified), ("/tmp/.s.PGSQL.5432", ServerTls::Off)];
    assert_eq!(shown(&url), expected.map(|(server, tls)| (server.to_owned(), tls)));
    assert!(url.read_write && url.random_order);
    let by_parameters =
        parse("postgres://bridge@/scale?host=a.example,b.example&port=6000&target_session_attrs=any");
    assert_eq!(by_parameters.servers.iter().map(|server| server.port).collect::<Vec<_>>(), [6000, 6000]);
    assert!(!by_parameters.read_write);
}

#[test]
fn every_error_says_the_fix_and_nothing_of_the_password() {
    let secret = "hunter2";
    for (text, iam, expected) in [
        ("mysql://u:hunter2@h/d", false, "this is not a libpq URL: write `postgres://"),
        ("host=h password=hunter2", false, "this is not a libpq URL"),
        ("postgres://u:hunter2@h/d\nmore", false, "white space"),
        ("postgres://u:@hunter2@h/d", false, "`@` as `%40`"),
        ("postgres://u:x/hunter2@h/d", false, "`/` as `%2F`"),
        ("postgres://u:x?hunter2=1@h/d", false, "`?` as `%3F`"),
        ("postgres://u:hunter2%zz@h/d", false, "the password is not percent-encoded"),
        ("postgres://u:hunter2", false, "a port is invalid"),
        ("postgres://:hunter2@h/d", false, "the URL has no user: write it before the host"),
        ("postgres://u:hunter2@h", false, "the URL has no database: write it after the host"),
        ("postgres://u:hunter2@/d", false, "the URL has no host: "),
        ("postgres://u:hunter2@h:0/d", false, "a port is invalid"),
        ("postgres://u@h/d?hunter2", false, "parameter 1 of the URL has no value"),
        (
            "postgres://u@h/d?pasword=hunter2",
            false,
            "parameter 1 of the URL is unknown to libpq: did you mean `password`?",
        ),
        ("postgres://u@h/d?sslmod=hunter2", false, "did you mean `sslmode`?"),
        ("postgres://u@h/d?hunter2=1", false, "expected one of: host, hostaddr"),
        (
            "postgres://u@h/d?passfile=hunter2",
            false,
            "`passfile` is not supported: write the password into the URL",
        ),
        ("postgres://u:hunter2@h/d?password=hunter2", false, "`password` is given twice"),
        (
            "postgres://u@h/d?sslmode=hunter2",
            false,
            "`sslmode` has an unknown value: expected one of: disable",
        ),
        ("postgres://u@h/d?sslmode=prefer", false, "falls back to plain text"),
        ("postgres://u@localhost/d?sslmode=allow", false, "falls back to plain text"),
        (
            "postgres://u@h/d?sslmode=disable",
            false,
            "a host is not on this machine: use `sslmode=verify-full`",
        ),
        ("postgres://u@localhost,h/d?sslmode=disable", false, "a host is not on this machine"),
        ("postgres://u@h/d?sslmode=require", false, "unless `sslrootcert` names a file"),
        ("postgres://u@h/d?sslmode=verify-ca&sslrootcert=system", false, "unless `sslrootcert` names a file"),
        ("postgres://u@h/d?sslcert=c.pem", false, "`sslcert` and `sslkey` belong together"),
        ("postgres://u@localhost/d?sslcert=c&sslkey=k", false, "no connection uses TLS"),
        ("postgres://u@h/d?target_session_attrs=standby", false, "use `read-write`"),
        ("postgres://u@h/d?connect_timeout=0", false, "`connect_timeout` is out of range"),
        ("postgres://u@h/d?keepalives_idle=5s", false, "`keepalives_idle` is out of range"),
        ("postgres://u@h/d?hostaddr=hunter2", false, "`hostaddr` is not an IP address"),
        ("postgres://u@a,b/d?port=1,2,3", false, "different numbers of values"),
        ("postgres://u:hunter2@h/d", true, "remove the password: a token takes its place"),
        ("postgres://u@localhost/d?sslmode=disable", true, "a token is a password"),
        ("postgres://u@%2Ftmp/d", true, "a host is a Unix socket"),
    ] {
        let errors = errors(text, iam);
        assert!(errors.contains(expected), "{text}: {errors}");
        assert!(!errors.contains(secret), "{errors}");
    }
}

#[test]
fn all_errors_are_reported_at_once() {
    let errors = errors("postgres://db.example?sslmode=prefer&sslcrl=x&connect_timeout=no", false);
    for expected in ["no user", "no database", "plain text", "`sslcrl`", "`connect_timeout`"] {
        assert!(errors.contains(expected), "{expected}: {errors}");
    }
}

#[test]
fn a_debug_output_has_no_password() {
    let shown = format!("{:?}", parse("postgres://bridge:hunter2hunter2@localhost/scale"));
    assert!(!shown.contains("hunter2"), "{shown}");
}
