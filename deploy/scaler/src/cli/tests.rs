use std::fs;
use std::path::Path;

use super::*;

const CONFIG: &str = "
ledger: { sqlite: { path: x } }
clusters: { prod: { eks: { name: prod, region: eu-west-1 } } }
targets:
  - { match: 'eks/nodegroup/*/*/prod/*', managed_by: nobody, max_capacity: 10, dry_run: true }
";
const EVENT: &str = r#"{
    "specversion": "1.0", "id": "0123456789abcdef0123456789abcdef", "type": "io.scalebridge.scale_out.v1",
    "subject": "eks/nodegroup/-/eu-west-1/prod/-/workers", "sequence": "7", "expirytime": "2026-11-22T17:55:20.062Z",
    "data": { "rule": "r", "action": "scale_out", "adjustment": { "type": "ChangeInCapacity", "value": 2, "min_magnitude": null },
        "target": { "platform": "eks", "kind": "nodegroup", "name": "workers", "cluster": "prod", "region": "eu-west-1" } }
}"#;

/// Runs a command in a directory with the files. Returns the exit code, stdout and stderr.
fn command(arguments: &str, state: &str, config: &str) -> (u8, String, String) {
    let directory = std::env::temp_dir().join(format!("scaler-cli-{}-{}", std::process::id(), fastrand()));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("event.json"), EVENT).unwrap();
    fs::write(directory.join("state.yaml"), state).unwrap();
    fs::write(directory.join("scaler.yaml"), config).unwrap();
    let in_directory = |word: &str| match word.contains(".yaml") || word.contains(".json") {
        true => directory.join(Path::new(word)).into_os_string(),
        false => word.into(),
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let arguments = ["scalebridge-scaler"].into_iter().chain(arguments.split_whitespace()).map(in_directory);
    let mut io = Io {
        out: &mut out,
        err: &mut err,
        config_text: None,
        user: None,
        now_millis: 1_795_366_520_062,
        is_function: false,
    };
    let code = run_to(arguments, &mut io);
    fs::remove_dir_all(&directory).unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(directory.to_str().unwrap(), "DIR");
    (code, text(out), text(err))
}

/// A number for a name.
fn fastrand() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

#[test]
fn a_plan_shows_what_would_be_done_and_changes_nothing() {
    let plan = |state: &str| {
        let (code, out, err) =
            command("plan --config scaler.yaml --event event.json --state state.yaml", state, CONFIG);
        (code, format!("{out}{err}"))
    };
    assert_eq!(plan("size: 4"), (0, "4 to 6, applied\n".to_owned()));
    assert_eq!(
        plan("{ size: 9 }"),
        (0, "9 to 10, capped: the maximum of the configuration is 10\n".to_owned())
    );
    assert_eq!(
        plan("{ size: 4, max: 4 }"),
        (0, "4 to 4, capped: the maximum of the group is 4\n".to_owned())
    );
    assert_eq!(plan("{ floor: 2, current: 5 }"), (0, "2 to 7, applied\n".to_owned()));
    assert_eq!(
        plan("{ size: 4, refuses_increase: Launch is suspended }"),
        (1, "refused: Launch is suspended\n".to_owned())
    );
    let (code, text) = plan("{ size: 4, frozen: [increase] }");
    assert_eq!(code, 1);
    assert!(text.starts_with("retry: increases are frozen"), "{text}");
    let applied = "{ size: 6, applied: { 0123456789abcdef0123456789abcdef: { from: 4, to: 6 } } }";
    assert_eq!(plan(applied), (0, "4 to 6, already applied\n".to_owned()));
    assert_eq!(
        plan("{}"),
        (2, "error: DIR/state.yaml: the state has either `size`, or `floor` and `current`\n".to_owned())
    );
    assert_eq!(plan("{ sze: 4 }").0, 2);
}

#[test]
fn a_plan_is_also_json() {
    let (code, out, _) =
        command("plan --config scaler.yaml --event event.json --state state.yaml -o json", "size: 4", CONFIG);
    assert_eq!(
        (code, out.as_str()),
        (0, "{\"id\":\"0123456789abcdef0123456789abcdef\",\"outcome\":\"applied\",\"from\":4,\"to\":6}\n")
    );
}

#[test]
fn check_reports_every_error_with_its_place() {
    let (code, out, err) = command("check --config scaler.yaml", "", CONFIG);
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "DIR/scaler.yaml: 1 patterns of targets, no errors");
    assert!(
        lines[1].starts_with("note: the ledger is a file of SQLite, for workers on one machine only"),
        "{out}"
    );
    assert!(
        lines[2].starts_with("note: `match: eks/nodegroup/*/*/prod/*` has less than seven parts"),
        "{out}"
    );
    assert_eq!(lines.len(), 3, "{out}");
    let bad = CONFIG
        .replace("managed_by: nobody", "managed_by: auto")
        .replace("{ path: x }", "{ path: x }, dynamodb: { table: t }");
    let (code, _, err) = command("check --config scaler.yaml", "", &bad);
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!((code, lines.len()), (1, 2), "{err}");
    assert!(lines[0].starts_with("DIR/scaler.yaml:2:9: `ledger` has exactly one"), "{err}");
    assert!(lines[1].starts_with("DIR/scaler.yaml:5:"), "{err}");
}

#[test]
fn unusable_input_ends_with_2() {
    assert_eq!(command("", "", CONFIG).0, 2);
    assert_eq!(command("plan", "", CONFIG).0, 2);
    let (code, _, err) = command("check --config missing.yaml", "", CONFIG);
    assert_eq!(code, 2);
    assert!(err.contains("missing.yaml cannot be read") && err.contains("--config"), "{err}");
    assert_eq!(
        command("plan --config scaler.yaml --event missing.json --state state.yaml", "size: 1", CONFIG).0,
        2
    );
    assert_eq!(command("--help", "", CONFIG).0, 0);
}

#[test]
fn iam_policy_prints_labelled_documents_or_one_object() {
    let (code, out, err) = command("iam-policy --config scaler.yaml --account 111122223333", "", CONFIG);
    assert_eq!(code, 0, "{err}");
    let titles: Vec<&str> = out.lines().filter(|line| line.starts_with("# ")).collect();
    let role = "# The scaler's role, arn:aws:iam::ACCOUNT_ID:role/scalebridge-scaler";
    assert_eq!(titles, [format!("{role}: its policy"), format!("{role}: its trust policy")]);
    assert!(out.contains("arn:aws:eks:eu-west-1:111122223333:nodegroup/prod/*/*"), "{out}");
    assert!(err.lines().all(|line| line.starts_with("note: ")) && err.contains("--role-arn"), "{err}");

    let (code, out, err) = command("iam-policy --config scaler.yaml -o json --principal ecs", "", CONFIG);
    assert_eq!((code, err.as_str()), (0, ""));
    let object: serde_json::Value = serde_json::from_str(&out).unwrap();
    let service = &object["role"]["trust_policy"]["Statement"][0]["Principal"]["Service"];
    assert_eq!(service, "ecs-tasks.amazonaws.com");
    assert!(object["notes"][0].as_str().unwrap().contains("--role-arn"));
    assert_eq!(command("iam-policy --config missing.yaml", "", CONFIG).0, 2);
}

#[test]
fn schema_needs_no_configuration() {
    let (code, out, err) = command("schema", "", CONFIG);
    assert_eq!((code, err.as_str()), (0, ""));
    let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(schema["$id"], "urn:scalebridge:schema:scaler-config");
}

/// Runs a command with this configuration as its text, and with this as stdout.
fn run_with(arguments: &[&str], config: &str, out: &mut dyn Write, is_function: bool) -> (u8, String) {
    let mut err = Vec::new();
    let mut io = Io {
        out,
        err: &mut err,
        config_text: Some(config.to_owned()),
        user: None,
        now_millis: 1_795_366_520_062,
        is_function,
    };
    let code = run_to(["scalebridge-scaler"].iter().chain(arguments).map(Into::into), &mut io);
    (code, String::from_utf8(err).unwrap())
}

#[test]
fn a_function_with_a_ledger_in_a_file_does_not_start() {
    let (code, err) = run_with(&[], CONFIG, &mut Vec::new(), true);
    assert_eq!(code, 2);
    assert!(err.contains("cannot be a file of SQLite") && err.contains("dynamodb: { table"), "{err}");
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    /// As /dev/full, or a pipe that nobody reads any more.
    struct Broken(io::ErrorKind);
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for command in
        [&["check"] as &[&str], &["schema"], &["--help"], &["iam-policy"], &["iam-policy", "-o", "json"]]
    {
        let (code, err) = run_with(command, CONFIG, &mut Broken(io::ErrorKind::StorageFull), false);
        assert_eq!(code, 2, "{command:?}");
        assert!(err.contains("error: the output cannot be written"), "{err}");
        assert_eq!(run_with(command, CONFIG, &mut Broken(io::ErrorKind::BrokenPipe), false).0, 0);
    }
}

#[test]
fn arguments_that_cannot_be_meant_are_refused() {
    let seconds = "worker --config scaler.yaml --drain-timeout";
    for value in ["18446744073709551615", "43201", "-1"] {
        let (code, _, err) = command(&format!("{seconds}={value}"), "", CONFIG);
        assert!(code == 2 && err.contains("--drain-timeout"), "{value}: {err}");
    }
    // It is the queue that is missing.
    let (_, _, err) = command(&format!("{seconds} 43200"), "", CONFIG);
    assert!(err.contains("`queue` is missing"), "{err}");
    let policy = "iam-policy --config scaler.yaml";
    for option in [
        "--account=1234",
        "--account=11112222333x",
        "--region=evil.example/x",
        "--queue-url=https://me:s3cr3t@host",
    ] {
        let (code, _, err) = command(&format!("{policy} {option}"), "", CONFIG);
        assert_eq!(code, 2, "{option}: {err}");
    }
    assert_eq!(command(&format!("{policy} --account=* --region=eu-west-1"), "", CONFIG).0, 0);
    let refusals = format!("refusals: {{ queue_url: 'https://host/1/q' }}{CONFIG}");
    let (code, _, err) = command(&format!("{policy} --queue-url=https://host/1/q"), "", &refusals);
    assert!(code == 2 && err.contains("each refusal would be refused again"), "{err}");
}

#[test]
fn a_configuration_with_a_queue_gets_what_a_worker_needs() {
    let queue =
        format!("queue: {{ queue_url: 'https://sqs.eu-west-1.amazonaws.com/111122223333/q' }}{CONFIG}");
    let (_, out, err) = command("iam-policy --config scaler.yaml", "", &queue);
    assert!(
        out.contains("sqs:ChangeMessageVisibility") && err.contains("--principal pod-identity, ec2 or ecs"),
        "{out}{err}"
    );
    let (_, out, err) = command("iam-policy --config scaler.yaml --principal ec2", "", &queue);
    assert!(out.contains("sqs:ChangeMessageVisibility") && !out.contains("sqs:GetQueueAttributes"), "{out}");
    assert!(!err.contains("for a worker"), "{err}");
}

/// A worker that has this answer to one request.
fn answering(answer: &'static str) -> (std::net::SocketAddr, std::thread::JoinHandle<String>) {
    use std::io::Read as _;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answered = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let length = stream.read(&mut request).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request[..length].to_vec()).unwrap()
    });
    (address, answered)
}

#[test]
fn a_healthcheck_ends_as_the_worker_answers() {
    let ready = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nready\n";
    let (address, answered) = answering(ready);
    let (code, out, err) = command(&format!("healthcheck --ready --listen {address}"), "", "");
    assert_eq!((code, out), (0, format!("http://{address}/-/ready: ready\n")), "{err}");
    assert!(answered.join().unwrap().starts_with("GET /-/ready HTTP/1.1\r\n"));

    let problem = "HTTP/1.1 503 Service Unavailable\r\n\r\nthe queue was not polled yet\n";
    let (address, answered) = answering(problem);
    let (code, out, err) = command(&format!("healthcheck --listen 0.0.0.0:{}", address.port()), "", "");
    let said = format!("error: http://{address}/-/healthy returned 503: the queue was not polled yet\n");
    assert_eq!((code, out, err), (1, String::new(), said));
    drop(answered.join());

    let (address, _answered) = answering("SSH-2.0-OpenSSH\r\n");
    let (code, _, err) = command(&format!("healthcheck --listen {address}"), "", "");
    assert!(code == 1 && err.contains("not one of HTTP"), "{err}");
    // Nobody listens at the port of a listener that is gone.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, _, err) = command(&format!("healthcheck --listen {gone}"), "", "");
    assert!(code == 1 && err.contains("--listen of a running worker"), "{err}");
    assert_eq!(command("healthcheck --timeout 0", "", "").0, 2);
}
