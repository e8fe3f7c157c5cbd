//! Users and passwords.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::support::{Folder, PEER, advance, basic, bearer, headers, sources};
use crate::config::Secret;
use crate::config::access::{SourceAuth, WebConfig};
use crate::credentials::SourceCredentials;
use crate::credentials::password::{Attempt, Comparisons, Outcome, UserTable};

fn hash(password: &str) -> String {
    bcrypt::hash(password, 4).unwrap()
}

fn users_file(path: &Path) -> SourceAuth {
    SourceAuth { basic_auth_users_file: Some(path.to_owned()), ..SourceAuth::default() }
}

#[tokio::test]
async fn users_are_read_in_both_formats() {
    let folder = Folder::new();
    let (alice, bob) = (hash("secret-a"), hash("secret:b").replace("$2b$", "$2y$"));
    for text in [
        format!("alice:{alice}\n# the one of Bob\n\nbob:{bob}\n"),
        format!("basic_auth_users:\n  alice: {alice}\n  bob: '{bob}'\n"),
        format!("alice: {alice}\nbob: {bob}\n"),
        format!(r#"{{"alice":"{alice}","bob":"{bob}"}}"#),
        format!("{{ basic_auth_users: {{ alice: {alice}, bob: {bob} }} }}"),
    ] {
        let auth = sources([("eu", users_file(&folder.write("users", &text)))]);
        let credentials = SourceCredentials::new(&auth, None);
        for (headers, expected) in [
            (basic("alice", "secret-a"), "ok"),
            (basic("alice", "secret-a"), "ok"),
            (basic("bob", "secret:b"), "ok"),
            (basic("alice", "secret:b"), "401 wrong"),
            (basic("Alice", "secret-a"), "401 wrong"),
            (basic("", ""), "401 wrong"),
            (bearer("secret-a"), "401 wrong"),
            (headers([("authorization", "Basic !")]), "401 malformed"),
            (headers([("authorization", "Basic YWxpY2U=")]), "401 malformed"),
            (headers([]), "401 missing"),
        ] {
            assert_eq!(credentials.outcome("eu", &headers).await, expected, "{headers:?} with {text}");
        }
    }
}

#[tokio::test]
async fn an_invalid_users_file_is_503_with_the_cause_and_without_its_content() {
    let folder = Folder::new();
    let good = hash("secret");
    let costly = good.replacen("$04$", "$15$", 1);
    for (text, cause) in [
        (format!("alice:{good}\nbob"), "line 2: expected `USER:HASH`"),
        ("alice:$apr1$x$y".to_owned(), "line 1: user `alice`: not a bcrypt hash"),
        ("alice: secret-in-clear".to_owned(), "line 1: user `alice`: not a bcrypt hash"),
        (good.replacen("$2b$", "alice:$2x$", 1), "user `alice`: not a bcrypt hash"),
        (format!("al\u{7}ice:{good}"), "a user name has control characters"),
        (format!("alice:{good}:"), "line 1: the name of a user contains a colon"),
        (format!("alice:{costly}"), "user `alice`: the cost of the bcrypt hash is 15"),
        (format!("alice:{good}\nalice:{good}"), "line 2: user `alice` is listed more than once"),
        ("basic_auth_users: [".to_owned(), "neither lines `USER:HASH` nor a YAML map"),
        (format!("basic_auth_users: {{ alice: {good} }}\nrest: 1"), "not a bcrypt hash"),
        ("- alice".to_owned(), "neither lines `USER:HASH` nor a YAML map"),
        ("# nobody".to_owned(), "no user"),
        ("{}".to_owned(), "no user"),
        ("alice: 1".to_owned(), "not a bcrypt hash"),
    ] {
        let auth = sources([("eu", users_file(&folder.write("users", &text)))]);
        let outcome = SourceCredentials::new(&auth, None).outcome("eu", &basic("alice", "secret")).await;
        assert!(outcome.starts_with("503 source eu: ") && outcome.contains(cause), "{text}: {outcome}");
        assert!(
            !outcome.contains("$apr1") && !outcome.contains("clear") && !outcome.contains(&good[7..]),
            "{outcome}"
        );
    }
}

#[tokio::test]
async fn a_changed_users_file_counts_at_once_and_forgets_what_was_compared() {
    let folder = Folder::new();
    let file = folder.write("users", format!("alice:{}", hash("old")));
    let credentials = SourceCredentials::new(&sources([("eu", users_file(&file))]), None);
    assert_eq!(credentials.outcome("eu", &basic("alice", "old")).await, "ok");
    assert_eq!(credentials.outcome("eu", &basic("alice", "new")).await, "401 wrong");
    folder.write("users", format!("alice:{}", hash("new")));
    assert_eq!(credentials.outcome("eu", &basic("alice", "new")).await, "ok");
    assert_eq!(credentials.outcome("eu", &basic("alice", "old")).await, "401 wrong");
    folder.write("users", format!("bob:{}", hash("new")));
    advance(Duration::from_secs(1)).await;
    assert_eq!(credentials.outcome("eu", &basic("alice", "new")).await, "401 wrong");
}

#[tokio::test]
async fn a_source_without_credentials_takes_the_users_of_the_web_config_file() {
    let users = BTreeMap::from([("alice".to_owned(), Secret::new(hash("secret")))]);
    let config = WebConfig { path: "web.yml".into(), basic_auth_users: users, headers: Vec::new() };
    let folder = Folder::new();
    let auth = sources([("own", users_file(&folder.write("users", format!("bob:{}", hash("secret")))))]);
    let credentials = SourceCredentials::new(&auth, Some(&config));
    for (source, headers, expected) in [
        ("any", basic("alice", "secret"), "ok"),
        ("any", basic("alice", "wrong"), "401 wrong"),
        ("any", headers([]), "401 missing"),
        ("any", bearer("secret"), "401 wrong"),
        ("own", basic("alice", "secret"), "401 wrong"),
        ("own", basic("bob", "secret"), "ok"),
    ] {
        assert_eq!(credentials.outcome(source, &headers).await, expected, "{source} {headers:?}");
    }
    let users = BTreeMap::from([("alice".to_owned(), Secret::new("secret".to_owned()))]);
    let config = WebConfig { basic_auth_users: users, ..config };
    let outcome = credentials.reloaded(&auth, Some(&config)).outcome("any", &basic("alice", "x")).await;
    assert!(
        outcome.starts_with("503 source any: web.yml: basic_auth_users: user `alice`: not a bcrypt"),
        "{outcome}"
    );
}

fn table<const N: usize>(users: [(&str, String); N]) -> Arc<UserTable> {
    let users = users.map(|(name, hash)| (name.to_owned(), Secret::new(hash)));
    Arc::new(UserTable::new(&BTreeMap::from(users), None).unwrap())
}

fn attempt<'r>(peer: IpAddr, user: &'r str, password: &'r [u8]) -> Attempt<'r> {
    Attempt { peer, user, password }
}

/// The address of one of many peers.
fn peer(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0A00_0000 + number).into()
}

/// The outcome if it takes no waiting at all.
async fn at_once(
    comparisons: &Comparisons,
    table: &Arc<UserTable>,
    user: &str,
    password: &str,
) -> Option<Outcome> {
    tokio::time::timeout(Duration::ZERO, comparisons.compare(table, attempt(PEER, user, password.as_bytes())))
        .await
        .ok()
}

#[tokio::test]
async fn what_was_compared_before_does_not_wait_behind_wrong_attempts() {
    let comparisons = Arc::new(Comparisons::new([7; 32]));
    let costly = hash("x").replacen("$04$", "$11$", 1);
    let table = table([("alice", hash("secret")), ("bob", hash("secret")), ("mallory", costly)]);
    assert_eq!(comparisons.compare(&table, attempt(PEER, "alice", b"secret")).await, Outcome::Matches);
    assert_eq!(comparisons.compare(&table, attempt(PEER, "alice", b"wrong")).await, Outcome::Wrong);
    let attempts: Vec<_> = (0..32)
        .map(|number| {
            let (comparisons, table) = (comparisons.clone(), table.clone());
            tokio::spawn(async move {
                comparisons
                    .compare(&table, attempt(peer(number), "mallory", format!("{number}").as_bytes()))
                    .await
            })
        })
        .collect();
    tokio::task::yield_now().await;
    assert_eq!(at_once(&comparisons, &table, "mallory", "33").await, Some(Outcome::Busy));
    assert_eq!(at_once(&comparisons, &table, "alice", "secret").await, Some(Outcome::Matches));
    assert_eq!(at_once(&comparisons, &table, "alice", "wrong").await, Some(Outcome::Wrong));
    assert_eq!(at_once(&comparisons, &table, "mallory", &"x".repeat(73)).await, Some(Outcome::Wrong));
    // A user that nobody attacks gets a place in the queue.
    assert_eq!(at_once(&comparisons, &table, "bob", "secret").await, None);
    attempts.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn attempts_of_one_address_hold_up_no_other_address() {
    let comparisons = Arc::new(Comparisons::new([7; 32]));
    let table = table([("alice", hash("secret")), ("bob", hash("secret"))]);
    let (attacker, sender) = (peer(1), peer(2));
    let attempts = |peer: IpAddr, user: &'static str, passwords: Vec<String>| -> Vec<_> {
        let of_password = |password: String| {
            let (comparisons, table) = (comparisons.clone(), table.clone());
            tokio::spawn(async move {
                comparisons.compare(&table, attempt(peer, user, password.as_bytes())).await
            })
        };
        passwords.into_iter().map(of_password).collect()
    };
    let turn = comparisons.hold_turn();
    let wrong = attempts(attacker, "alice", (0..100).map(|number| format!("wrong-{number}")).collect());
    // A sender with many notifications, before its password was ever compared.
    let right = attempts(sender, "alice", vec!["secret".to_owned(); 100]);
    let other_user = attempts(attacker, "bob", vec!["secret".to_owned()]);
    // Tasks start in their order: once the last has its answer, each has a place or was refused.
    for _ in 0..100_000 {
        if other_user.iter().all(tokio::task::JoinHandle::is_finished) {
            break;
        }
        tokio::task::yield_now().await;
    }
    drop(turn);
    let mut outcomes = Vec::new();
    for attempt in wrong {
        outcomes.push(attempt.await.unwrap());
    }
    let compared = outcomes.iter().filter(|outcome| **outcome == Outcome::Wrong).count();
    let busy = outcomes.iter().filter(|outcome| **outcome == Outcome::Busy).count();
    assert_eq!((compared, busy), (2, 98), "two of the attempts wait, the others are refused");
    for attempt in right {
        assert_eq!(attempt.await.unwrap(), Outcome::Matches);
    }
    for attempt in other_user {
        assert_eq!(attempt.await.unwrap(), Outcome::Busy, "the address has no place for any user");
    }
    let later = comparisons.compare(&table, attempt(attacker, "bob", b"secret")).await;
    assert_eq!(later, Outcome::Matches, "the places are given back");
}

#[tokio::test]
async fn an_attempt_that_is_given_up_keeps_its_place_until_it_is_compared() {
    let comparisons = Comparisons::new([7; 32]);
    let costly = hash("x").replacen("$04$", "$11$", 1);
    let table = table([("alice", costly)]);
    assert_eq!(at_once(&comparisons, &table, "alice", "first").await, None);
    // It runs on a thread by now, and its request has gone.
    let second = comparisons.compare(&table, attempt(PEER, "alice", b"second"));
    let third = async {
        tokio::task::yield_now().await;
        comparisons.compare(&table, attempt(PEER, "alice", b"third")).await
    };
    assert_eq!(tokio::join!(biased; second, third), (Outcome::Wrong, Outcome::Busy));
}

#[tokio::test]
async fn a_user_whose_hash_is_unchanged_does_not_wait_after_a_change_of_the_file() {
    let comparisons = Comparisons::new([7; 32]);
    let (alice, bob) = (hash("secret"), hash("secret"));
    let first = UserTable::parse(&format!("alice:{alice}\nbob:{bob}"), None).map(Arc::new).unwrap();
    for user in ["alice", "bob"] {
        assert_eq!(comparisons.compare(&first, attempt(PEER, user, b"secret")).await, Outcome::Matches);
    }
    let text = format!("alice:{alice}\nbob:{}", hash("other"));
    let second = UserTable::parse(&text, Some(&first)).map(Arc::new).unwrap();
    assert_eq!(at_once(&comparisons, &second, "alice", "secret").await, Some(Outcome::Matches));
    assert_eq!(
        comparisons.compare(&second, attempt(PEER, "bob", b"secret")).await,
        Outcome::Wrong,
        "another hash"
    );
}

#[tokio::test]
async fn attempts_on_unknown_users_have_one_queue_and_give_back_their_places() {
    let comparisons = Arc::new(Comparisons::new([7; 32]));
    let table = table([("alice", hash("secret"))]);
    let attempts: Vec<_> = (0..200)
        .map(|number| {
            let (comparisons, table) = (comparisons.clone(), table.clone());
            tokio::spawn(async move {
                comparisons.compare(&table, attempt(peer(number), &format!("user-{number}"), b"x")).await
            })
        })
        .collect();
    let mut outcomes = Vec::new();
    for attempt in attempts {
        outcomes.push(attempt.await.unwrap());
    }
    assert!(!outcomes.contains(&Outcome::Matches));
    assert!(outcomes.contains(&Outcome::Busy) && outcomes.contains(&Outcome::Wrong), "{outcomes:?}");
    for number in 0..10 {
        let user = format!("later-{number}");
        assert_eq!(
            comparisons.compare(&table, attempt(PEER, &user, b"x")).await,
            Outcome::Wrong,
            "the queue is empty again"
        );
    }
}

#[tokio::test]
async fn a_password_longer_than_bcrypt_reads_never_matches() {
    let comparisons = Comparisons::new([7; 32]);
    let (longest, longer) = ("x".repeat(72), "x".repeat(73));
    let table = table([("alice", hash(&longest)), ("bob", hash(&longer))]);
    assert_eq!(
        comparisons.compare(&table, attempt(PEER, "alice", longest.as_bytes())).await,
        Outcome::Matches
    );
    assert_eq!(comparisons.compare(&table, attempt(PEER, "alice", longer.as_bytes())).await, Outcome::Wrong);
    assert_eq!(comparisons.compare(&table, attempt(PEER, "bob", longer.as_bytes())).await, Outcome::Wrong);
}

#[tokio::test]
async fn a_password_with_a_nul_byte_never_matches() {
    let comparisons = Comparisons::new([7; 32]);
    let table = table([("alice", hash("a"))]);
    assert_eq!(comparisons.compare(&table, attempt(PEER, "alice", b"a\0a")).await, Outcome::Wrong);
    assert_eq!(comparisons.compare(&table, attempt(PEER, "alice", b"a")).await, Outcome::Matches);
}
