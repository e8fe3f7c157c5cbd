//! Bearer tokens of sources, and client certificates.

use std::time::Duration;

use super::support::{Folder, advance, basic, bearer, bearer_files, headers, name, sources};
use crate::config::access::{ClientCertAuth, SourceAuth};
use crate::credentials::{ClientCertificate, San, SourceCredentials, unix_now};

#[tokio::test]
async fn a_token_of_the_source_passes_and_any_other_is_denied() {
    let folder = Folder::new();
    let (eu, next) = (folder.write("eu", "token-eu\n"), folder.write("eu-next", "  token-eu-next\r\n"));
    let (us, bom) = (folder.write("us", "token-us"), folder.write("bom", "\u{feff}token-eu-bom\n"));
    let auth = sources([("eu", bearer_files([&eu, &next, &bom])), ("us", bearer_files([&us]))]);
    let credentials = SourceCredentials::new(&auth, None);
    for (headers, expected) in [
        (bearer("token-eu"), "ok"),
        (headers([("authorization", "bEARER   token-eu ")]), "ok"),
        (bearer("token-eu-next"), "ok"),
        (bearer("token-eu-bom"), "ok"),
        (bearer("token-us"), "403 other_source"),
        (bearer("token-e"), "401 wrong"),
        (bearer("token-eu\u{e9}"), "401 wrong"),
        (headers([]), "401 missing"),
        (headers([("authorization", "token-eu")]), "401 malformed"),
        (headers([("authorization", "Bearer ")]), "401 malformed"),
        (headers([("authorization", "Digest token-eu")]), "401 malformed"),
        (
            headers([("authorization", "Bearer token-eu"), ("authorization", "Bearer token-eu")]),
            "401 malformed",
        ),
        (bearer(&"x".repeat(9000)), "401 malformed"),
        (basic("token-eu", "token-eu"), "401 wrong"),
    ] {
        assert_eq!(credentials.outcome("eu", &headers).await, expected, "{headers:?}");
    }
    assert!(credentials.is_open(&name("unprotected")) && !credentials.is_open(&name("eu")));
    assert_eq!(credentials.outcome("unprotected", &headers([])).await, "ok");
}

#[tokio::test]
async fn a_new_token_is_valid_at_once_and_a_removed_one_within_a_second_not() {
    let folder = Folder::new();
    let file = folder.write("token", "first");
    let auth = sources([("eu", bearer_files([&file]))]);
    let credentials = SourceCredentials::new(&auth, None);
    assert_eq!(credentials.outcome("eu", &bearer("first")).await, "ok");
    // Of the same length, in the same file, with no time between: also what a stamp may not tell.
    for token in ["secon", "third", "forth"] {
        std::fs::write(&file, token).unwrap();
        assert_eq!(credentials.outcome("eu", &bearer(token)).await, "ok", "{token}");
    }
    folder.write("token", "fifth");
    advance(Duration::from_secs(1)).await;
    assert_eq!(credentials.outcome("eu", &bearer("forth")).await, "401 wrong");
    assert_eq!(credentials.outcome("eu", &bearer("fifth")).await, "ok");
}

#[cfg(unix)]
#[tokio::test]
async fn a_token_behind_the_links_of_kubernetes_is_read_again() {
    let folder = Folder::new();
    for (version, token) in [("v1", "first"), ("v2", "second")] {
        std::fs::create_dir(folder.path(version)).unwrap();
        std::fs::write(folder.path(version).join("token"), token).unwrap();
    }
    let link = |version: &str| {
        std::os::unix::fs::symlink(version, folder.path("..data.new")).unwrap();
        std::fs::rename(folder.path("..data.new"), folder.path("..data")).unwrap();
    };
    link("v1");
    std::os::unix::fs::symlink("..data/token", folder.path("token")).unwrap();
    let auth = sources([("eu", bearer_files([&folder.path("token")]))]);
    let credentials = SourceCredentials::new(&auth, None);
    assert_eq!(credentials.outcome("eu", &bearer("first")).await, "ok");
    link("v2");
    assert_eq!(credentials.outcome("eu", &bearer("second")).await, "ok");
    assert_eq!(credentials.outcome("eu", &bearer("first")).await, "401 wrong");
}

#[tokio::test]
async fn an_unreadable_token_of_the_source_is_503_unless_another_one_matches() {
    let folder = Folder::new();
    let (good, us) = (folder.write("good", "token"), folder.write("us", "token-us"));
    for (case, content, cause) in [
        ("missing", None, "cannot be read: No such file"),
        ("empty", Some(b" \n".to_vec()), "is empty"),
        ("two", Some(b"a\nb\n".to_vec()), "no white space"),
        ("binary", Some(vec![0xff, 0xfe]), "not UTF-8"),
        ("large", Some(vec![b'x'; 65 * 1024]), "larger than 64 KiB"),
        ("long", Some(vec![b'x'; 9 * 1024]), "longer than 8 KiB"),
    ] {
        let bad = folder.path(case);
        if let Some(content) = &content {
            folder.write(case, content);
        }
        let auth = sources([("eu", bearer_files([&bad, &good])), ("us", bearer_files([&us]))]);
        let credentials = SourceCredentials::new(&auth, None);
        assert_eq!(credentials.outcome("eu", &bearer("token")).await, "ok", "{case}");
        assert_eq!(credentials.outcome("eu", &headers([])).await, "401 missing", "{case}");
        for token in ["other", "token-us"] {
            let outcome = credentials.outcome("eu", &bearer(token)).await;
            let expected = format!("503 source eu: {}: ", bad.display());
            assert!(outcome.starts_with(&expected) && outcome.contains(cause), "{case}: {outcome}");
            assert!(!outcome.contains("xxx") && !outcome.contains("a\nb"), "{case}: {outcome}");
        }
        // Readable again.
        folder.write(case, "other");
        assert_eq!(credentials.outcome("eu", &bearer("other")).await, "ok", "{case}");
        assert_eq!(credentials.outcome("eu", &bearer("token-us")).await, "403 other_source", "{case}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn an_unreadable_token_counts_again_with_new_permissions() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = Folder::new();
    let file = folder.write("token", "token");
    let set_mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    set_mode(0o000);
    // Root reads any file.
    let is_readable = std::fs::read(&file).is_ok();
    let credentials = SourceCredentials::new(&sources([("eu", bearer_files([&file]))]), None);
    for _ in 0..3 {
        let outcome = credentials.outcome("eu", &bearer("token")).await;
        assert!(is_readable || outcome.contains("cannot be read"), "{outcome}");
        advance(Duration::from_secs(1)).await;
    }
    let unreadable = crate::config::FileStamp::read(file.clone());
    set_mode(0o600);
    assert_ne!(unreadable.refresh(), unreadable);
    assert_eq!(credentials.outcome("eu", &bearer("token")).await, "ok");
}

#[tokio::test]
async fn a_token_file_that_is_a_pipe_or_a_folder_is_not_opened() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("folder")).unwrap();
    let auth = sources([("eu", bearer_files([&folder.path("folder"), std::path::Path::new("/dev/zero")]))]);
    let outcome = SourceCredentials::new(&auth, None).outcome("eu", &bearer("token")).await;
    assert!(outcome.ends_with("folder: not a regular file"), "{outcome}");
}

#[tokio::test]
async fn a_reload_changes_what_is_valid() {
    let folder = Folder::new();
    let (eu, us) = (folder.write("eu", "token-eu"), folder.write("us", "token-us"));
    let first = SourceCredentials::new(&sources([("eu", bearer_files([&eu]))]), None);
    let second = first.reloaded(&sources([("eu", bearer_files([&us])), ("us", bearer_files([&eu]))]), None);
    assert_eq!(second.outcome("eu", &bearer("token-us")).await, "ok");
    assert_eq!(second.outcome("eu", &bearer("token-eu")).await, "403 other_source");
    assert!(second.reloaded(&sources([("eu", SourceAuth::default())]), None).is_open(&name("eu")));
}

#[tokio::test]
async fn a_client_certificate_passes_by_an_exact_name() {
    let folder = Folder::new();
    let certificates = |sans: &[&str], subjects: &[&str]| ClientCertAuth {
        sans: sans.iter().map(|&san| san.to_owned()).collect(),
        subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
    };
    let auth = sources([
        (
            "eu",
            SourceAuth {
                bearer_token_files: vec![folder.write("eu", "token-eu")],
                client_cert: Some(certificates(&["alertmanager.eu"], &["eu"])),
                ..SourceAuth::default()
            },
        ),
        (
            "us",
            SourceAuth {
                client_cert: Some(certificates(&["alertmanager.us"], &[])),
                ..SourceAuth::default()
            },
        ),
    ]);
    let credentials = SourceCredentials::new(&auth, None);
    let certificate = |common_name: Option<&str>, san: &str| ClientCertificate {
        common_name: common_name.map(str::to_owned),
        sans: vec![San::from_settings(san)],
        not_after: i64::MAX,
    };
    let none = headers([]);
    for (certificate, headers, expected) in [
        (certificate(None, "alertmanager.eu"), &none, "ok"),
        (certificate(Some("eu"), "x"), &none, "ok"),
        (certificate(None, "alertmanager.eu"), &bearer("wrong"), "ok"),
        (certificate(None, "x.alertmanager.eu"), &none, "401 unknown_certificate"),
        (certificate(Some("alertmanager.eu"), "eu"), &none, "401 unknown_certificate"),
        (certificate(None, "alertmanager.us"), &none, "403 other_source"),
        (certificate(None, "alertmanager.us"), &bearer("token-eu"), "ok"),
        (certificate(None, "alertmanager.us"), &bearer("wrong"), "401 wrong"),
    ] {
        assert_eq!(
            credentials.outcome_with_certificate("eu", headers, &certificate).await,
            expected,
            "{certificate:?}"
        );
    }
    assert_eq!(credentials.outcome("us", &none).await, "401 missing");
    // A connection outlives its certificate.
    let valid = certificate(None, "alertmanager.eu");
    let expired = ClientCertificate { not_after: unix_now() - 1, ..valid };
    assert_eq!(credentials.outcome_with_certificate("eu", &none, &expired).await, "401 missing");
}

#[tokio::test]
async fn a_name_of_one_kind_does_not_stand_for_one_of_another_kind() {
    let dns = |name: &str| San::Dns(name.to_owned());
    let uri = |name: &str| San::Uri(name.to_owned());
    let email = |name: &str| San::Email(name.to_owned());
    let ip = |address: &str| San::Ip(address.parse().unwrap());
    for (accepted, san, others) in [
        ("Alertmanager.EU", dns("alertmanager.eu"), [uri("Alertmanager.EU"), email("Alertmanager.EU")]),
        ("10.1.2.3", ip("10.1.2.3"), [dns("10.1.2.3"), uri("10.1.2.3")]),
        ("::ffff:10.1.2.3", ip("10.1.2.3"), [dns("::ffff:10.1.2.3"), email("::ffff:10.1.2.3")]),
        ("spiffe://eu/am", uri("spiffe://eu/am"), [dns("spiffe://eu/am"), email("spiffe://eu/am")]),
        ("am@eu", email("am@eu"), [dns("am@eu"), uri("am@eu")]),
    ] {
        let client_cert = ClientCertAuth { sans: vec![accepted.to_owned()], subjects: Vec::new() };
        let auth = SourceAuth { client_cert: Some(client_cert), ..SourceAuth::default() };
        let credentials = SourceCredentials::new(&sources([("eu", auth)]), None);
        let outcome = async |san: San| {
            let certificate = ClientCertificate { common_name: None, sans: vec![san], not_after: i64::MAX };
            credentials.outcome_with_certificate("eu", &headers([]), &certificate).await
        };
        assert_eq!(outcome(san).await, "ok", "{accepted}");
        for other in others {
            assert_eq!(outcome(other.clone()).await, "401 unknown_certificate", "{accepted} {other:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn checks_run_on_any_thread_of_the_runtime() {
    let folder = Folder::new();
    let auth = sources([("eu", bearer_files([&folder.write("eu", "token-eu")]))]);
    let credentials = std::sync::Arc::new(SourceCredentials::new(&auth, None));
    let checks = (0..1000).map(|attempt| {
        let credentials = credentials.clone();
        let token = if attempt % 2 == 0 { "token-eu".to_owned() } else { format!("token-{attempt}") };
        tokio::spawn(async move { credentials.outcome("eu", &bearer(&token)).await })
    });
    for (attempt, check) in checks.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(check.await.unwrap(), if attempt % 2 == 0 { "ok" } else { "401 wrong" });
    }
}
