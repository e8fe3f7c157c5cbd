//! `deploy/ecs`: task definitions and services that the services of AWS understand, and that keep the store safe.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::scaler::scaler_program;
use crate::support::tools::{Server, tool};
use crate::support::{assert_checked, copy_with_rules, repository, run};

fn read(name: &str) -> Value {
    let text = fs::read_to_string(repository(&format!("deploy/ecs/{name}"))).expect("a file");
    serde_json::from_str(&text).expect("JSON")
}

/// The container with our program.
fn main_container(task: &Value) -> Value {
    let containers = task["containerDefinitions"].as_array().expect("a list");
    let essential: Vec<&Value> =
        containers.iter().filter(|container| container["essential"] == true).collect();
    assert_eq!(essential.len(), 1);
    essential[0].clone()
}

const TASKS: [&str; 3] = ["bridge-fargate", "bridge-ec2", "scaler-fargate"];

#[tokio::test(flavor = "multi_thread")]
async fn the_services_of_aws_understand_every_field() {
    let directory = tempfile::tempdir().expect("a directory");
    let aws = Server::start("moto", directory.path(), "/moto-api/data.json", |port| {
        let mut command = tool("moto/bin/moto_server");
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command
    })
    .await;
    let mut register = tool("moto/bin/python");
    register.arg("-B").arg(repository("deploy/ecs/register.py")).args(["--endpoint", &aws.url()]);
    register.envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")]);
    let registered: Value = serde_json::from_str(&run(&mut register)).expect("JSON");
    for (name, family, containers, desired) in [
        ("bridge-fargate", "scalebridge", json!(["secrets", "bridge"]), 2),
        ("bridge-ec2", "scalebridge-sqlite", json!(["secrets", "bridge"]), 1),
        ("scaler-fargate", "scalebridge-scaler", json!(["scaler"]), 2),
    ] {
        let expected = json!({ "family": family, "containers": containers, "desired": desired });
        assert_eq!(registered[name], expected, "{name}");
    }
}

/// An emulator with a network, and the AWS CLI in front of it.
struct Account {
    directory: tempfile::TempDir,
    aws: Server,
}

impl Account {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let aws = Server::start("moto", directory.path(), "/moto-api/data.json", |port| {
            let mut command = tool("moto/bin/moto_server");
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
            command
        })
        .await;
        copy_with_rules("ecs", directory.path());
        let script = directory.path().join("aws");
        let python = tool("deploy/bin/python").get_program().to_owned();
        fs::write(&script, format!("#!/bin/sh\nexec '{}' -m awscli \"$@\"\n", Path::new(&python).display()))
            .expect("a script");
        fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("its mode");
        Self { directory, aws }
    }

    /// Runs commands in the copy of `deploy/ecs`.
    fn bash(&self, commands: &str) -> String {
        let path = std::env::var("PATH").expect("a path");
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", commands]).current_dir(self.directory.path().join("deploy/ecs"));
        bash.env("PATH", format!("{}:{path}", self.directory.path().display()));
        bash.envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_PAGER", "")]);
        bash.envs([("AWS_DEFAULT_REGION", "eu-west-1"), ("AWS_ENDPOINT_URL", &self.aws.url())]);
        run(bash.env("HOME", self.directory.path())).trim().to_owned()
    }

    /// Creates one of what the files have by an example's id, and puts its id into the files.
    fn create(&self, example: &str, command: &str, query: &str) -> String {
        let id = self.bash(&format!("aws {command} --query {query} --output text"));
        self.bash(&format!("sed -i 's|{example}|{id}|' README.md *.json"));
        id
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_readme_put_a_listener_before_the_services() {
    let account = Account::start().await;
    let vpc = account.create("vpc-0aaaaaaaaaaaaaaaa", "ec2 create-vpc --cidr-block 10.0.0.0/16", "Vpc.VpcId");
    for (name, network) in [("a", 0), ("b", 1)] {
        let subnet = format!("ec2 create-subnet --vpc-id {vpc} --cidr-block 10.0.{network}.0/24");
        account.create(&format!("subnet-0{}", name.repeat(16)), &subnet, "Subnet.SubnetId");
    }
    for name in ["a", "b", "c"] {
        let group = format!("ec2 create-security-group --vpc-id {vpc} --group-name {name} --description -");
        account.create(&format!("sg-0{}", name.repeat(16)), &group, "GroupId");
    }
    let request = "acm request-certificate --domain-name scalebridge.example";
    account.create("arn:aws:acm:.*certificate/[0-9a-f-]*", request, "CertificateArn");
    let readme = account.bash("cat README.md");
    let step = readme
        .split("```bash\n")
        .find(|block| block.contains("create-service"))
        .expect("a block of commands");
    let step = step.split("```").next().unwrap_or_default();
    let before_services = step.split("aws ecs create-service").next().unwrap_or_default();
    assert!(before_services.contains("aws elbv2 create-listener"), "ECS refuses a target group without one");
    account.bash(step);
    let listener = "aws elbv2 describe-listeners --load-balancer-arn \
        $(aws elbv2 describe-load-balancers --query 'LoadBalancers[0].LoadBalancerArn' --output text) \
        --query 'Listeners[].[Protocol,DefaultActions[0].TargetGroupArn]' --output text";
    let services = "aws ecs describe-services --cluster platform --services scalebridge scalebridge-scaler \
        --query 'services[].loadBalancers[].targetGroupArn' --output text";
    assert_eq!(account.bash(listener), format!("TLS\t{}", account.bash(services)));
}

#[test]
fn tasks_are_confined_and_checked_for_liveness_by_a_program_of_the_image() {
    let containerfile = fs::read_to_string(repository("deploy/container/Containerfile")).expect("a file");
    for name in TASKS {
        let task = read(&format!("{name}.task.json"));
        let container = main_container(&task);
        for container in task["containerDefinitions"].as_array().expect("a list") {
            assert_eq!(container["readonlyRootFilesystem"], true, "{name}");
        }
        assert_eq!(container["user"], "65532:65532", "{name}");
        // Not readiness: ECS replaces a task that is unhealthy, and a database that is away would replace all of them.
        let check: Vec<&str> = container["healthCheck"]["command"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert_eq!((check[0], check.len(), check[2]), ("CMD", 3, "healthcheck"), "{name}");
        let of_the_image = format!("CMD [\"{}\", \"healthcheck\"]", check[1]);
        assert!(containerfile.contains(&of_the_image), "{of_the_image}");
    }
    assert_eq!(read("target-group.json")["HealthCheckPath"], "/-/healthy", "ECS replaces those tasks, too");
}

#[test]
fn a_task_has_the_time_to_finish_what_it_has_begun() {
    let stop_timeout = |name: &str| main_container(&read(name))["stopTimeout"].as_u64().expect("a number");
    let config = fs::read_to_string(repository("deploy/ecs/scalebridge.yaml")).expect("a file");
    let (_, drain) = config.split_once("drain_timeout: ").expect("a setting");
    let drain: u64 = drain.split('s').next().and_then(|seconds| seconds.parse().ok()).expect("seconds");
    for name in ["bridge-fargate.task.json", "bridge-ec2.task.json"] {
        // Fargate allows at most 120.
        assert!((drain + 1..=120).contains(&stop_timeout(name)), "{name}");
    }
    let scaler = main_container(&read("scaler-fargate.task.json"));
    let words: Vec<&str> =
        scaler["command"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let at = words.iter().position(|word| *word == "--drain-timeout").expect("an option");
    let drain: u64 = words[at + 1].parse().expect("seconds");
    assert!((drain + 1..=120).contains(&stop_timeout("scaler-fargate.task.json")));
    // An unknown option is an error, also before --help.
    run(Command::new(scaler_program()).args(words).arg("--help"));
}

#[test]
fn two_tasks_never_share_a_store_of_sqlite() {
    let service = read("bridge-ec2.service.json");
    let deployment = &service["deploymentConfiguration"];
    assert_eq!(
        (&deployment["maximumPercent"], &deployment["minimumHealthyPercent"]),
        (&json!(100), &json!(0))
    );
    assert_eq!(
        (&service["desiredCount"], &service["availabilityZoneRebalancing"]),
        (&json!(1), &json!("DISABLED"))
    );
    let task = read("bridge-ec2.task.json");
    let data = json!({ "name": "data", "host": { "sourcePath": "/var/lib/scalebridge" } });
    assert!(task["volumes"].as_array().expect("a list").contains(&data), "it outlives the task");
    let mounted =
        json!({ "sourceVolume": "data", "containerPath": "/var/lib/scalebridge", "readOnly": false });
    assert!(main_container(&task)["mountPoints"].as_array().expect("a list").contains(&mounted));
    assert_eq!(task["placementConstraints"][0]["expression"], "attribute:scalebridge.data == yes");
    // A volume of Fargate ends with its task.
    let fargate = read("bridge-fargate.task.json");
    assert_eq!(fargate["volumes"], json!([{ "name": "secrets" }]));
    let config = fs::read_to_string(repository("deploy/ecs/scalebridge.yaml")).expect("a file");
    assert!(config.contains("postgres:") && !config.contains("sqlite:"));
}

/// Runs the command of the container `secrets`, with a directory of the test for `/run/secrets`.
fn write_secrets(container: &Value, directory: &Path) {
    let words: Vec<&str> =
        container["command"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let script = words[2].replace("/run/secrets", &directory.display().to_string());
    assert_eq!(&words[..2], ["sh", "-ec"]);
    // Only root can give files away.
    let script = format!("chown() {{ echo \"$@\" >../owners; }}; {script}");
    let names =
        container["secrets"].as_array().expect("a list").iter().filter_map(|secret| secret["name"].as_str());
    run(Command::new("sh").args(["-ec", &script]).envs(names.map(|name| (name, format!("value-of-{name}")))));
}

#[test]
fn secrets_become_the_files_that_the_configuration_names() {
    let config = fs::read_to_string(repository("deploy/ecs/scalebridge.yaml")).expect("a file");
    let named: BTreeSet<&str> =
        config.split("/run/secrets/").skip(1).filter_map(|rest| rest.split([' ', ']']).next()).collect();
    for name in ["bridge-fargate", "bridge-ec2"] {
        let task = read(&format!("{name}.task.json"));
        let (directory, init) = (tempfile::tempdir().expect("a directory"), &task["containerDefinitions"][0]);
        let secrets = directory.path().join("secrets");
        fs::create_dir(&secrets).expect("a directory");
        write_secrets(init, &secrets);
        let mut written = BTreeSet::new();
        for entry in fs::read_dir(&secrets).expect("files") {
            let entry = entry.expect("a file");
            assert_eq!(
                entry.metadata().expect("its mode").permissions().mode() & 0o077,
                0,
                "only its owner reads it"
            );
            let text = fs::read_to_string(entry.path()).expect("a secret");
            let file = entry.file_name().into_string().expect("UTF-8");
            assert_eq!(text, format!("value-of-{}", file.to_uppercase().replace('-', "_")));
            written.insert(file);
        }
        assert_eq!(written.iter().map(String::as_str).collect::<BTreeSet<_>>(), named, "{name}");
        let owners = fs::read_to_string(directory.path().join("owners")).expect("owners");
        assert_eq!(
            owners.split_whitespace().collect::<BTreeSet<_>>(),
            named.iter().copied().chain(["65532:65532"]).collect()
        );
        let bridge = main_container(&task);
        assert_eq!(bridge["dependsOn"], json!([{ "containerName": "secrets", "condition": "SUCCESS" }]));
        assert!(bridge.get("secrets").is_none(), "no secret is in the environment of the bridge");
    }
}

#[test]
fn the_configuration_of_the_image_is_valid() {
    let directory = tempfile::tempdir().expect("a directory");
    let copy = copy_with_rules("ecs", directory.path());
    let secrets = directory.path().join("secrets");
    fs::create_dir(&secrets).expect("a directory");
    write_secrets(&read("bridge-fargate.task.json")["containerDefinitions"][0], &secrets);
    for (file, in_the_task, here) in [
        ("scalebridge.yaml", "/run/secrets", secrets.display()),
        ("database-url", "/etc/scalebridge", copy.display()),
    ] {
        let text = fs::read_to_string(copy.join(file)).expect("a file");
        fs::write(copy.join(file), text.replace(in_the_task, &here.to_string())).expect("a file");
    }
    let rds = rcgen::generate_simple_self_signed(vec!["rds".to_owned()]).expect("a certificate");
    fs::write(copy.join("rds.pem"), rds.cert.pem()).expect("a certificate");
    // Of the image, which only has this configuration and its user.
    fs::set_permissions(copy.join("database-url"), Permissions::from_mode(0o640)).expect("its mode");
    assert_checked(&copy.join("scalebridge.yaml"));
}
