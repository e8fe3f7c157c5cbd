//! Through the stacks of CloudFormation, by the commands of deploy/cloudformation/README.md.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aws_sdk_sqs::types::QueueAttributeName as Attribute;
use serde_json::{Value, json};

use crate::bridge::{ALERTS, Bridge, now};
use crate::process::{eventually, program};
use crate::setup::{BEFORE, Cloud};
use crate::test_support::emulators::tools;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../cloudformation");
/// The bucket of the README.
const BUCKET: &str = "my-deployments";

/// An account in which a person runs the commands of the README.
struct Shell {
    cloud: Cloud,
    directory: tempfile::TempDir,
    readme: String,
}

impl Shell {
    async fn start() -> Self {
        let cloud = Cloud::start().await;
        let directory = tempfile::tempdir().unwrap();
        let readme = fs::read_to_string(Path::new(DIRECTORY).join("README.md")).unwrap();
        let shell = Self { cloud, directory, readme };
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
        std::os::unix::fs::symlink(repository.join("deploy"), shell.path("deploy")).unwrap();
        shell.write_program("bin/aws", &aws_command());
        shell.write_program("bin/make", "test -e target/scaler.zip");
        shell
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn write_program(&self, path: &str, command: &str) {
        use std::os::unix::fs::PermissionsExt as _;

        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{command}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Writes `target/scaler.zip` as `package.sh` does, except that the program is started with the addresses of the
    /// emulators: ministack tells them only to Python functions.
    fn package(&self, config: &str) {
        let mut environment = String::new();
        for (name, value) in self.cloud.environment() {
            environment += &format!("export {name}='{value}'\n");
        }
        self.write_program("parts/bootstrap", &format!("{environment}exec \"$LAMBDA_TASK_ROOT/program\""));
        self.run_commands(&format!(
            "deploy/scaler/package.sh '{}' packed.zip {config}\n\
             python3 -m zipfile -e packed.zip unpacked && mv unpacked/bootstrap parts/program && chmod 755 parts/program\n\
             if [ -e unpacked/config ]; then mv unpacked/config parts/; fi\n\
             mkdir -p target && python3 -m zipfile -c target/scaler.zip parts/*",
            program("scalebridge-scaler").display()
        ));
    }

    /// The commands under a heading of the README, one text for each block.
    fn blocks(&self, heading: &str) -> Vec<String> {
        let section = self.readme.split("\n## ").find(|section| section.starts_with(&format!("{heading}\n")));
        let section = section.unwrap_or_else(|| panic!("no heading {heading}"));
        let blocks = section.split("```bash\n").skip(1);
        blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
    }

    /// Runs all commands under a heading of the README.
    fn run(&self, heading: &str) -> String {
        self.run_commands(&format!("{}{}", self.blocks("Prepare").concat(), self.blocks(heading).concat()))
    }

    fn run_commands(&self, commands: &str) -> String {
        let search =
            format!("{}:{}", self.path("bin").display(), program("scalebridge").parent().unwrap().display());
        let mut command = Command::new("bash");
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy().to_ascii_uppercase();
            if text.starts_with("AWS_") || text.ends_with("_PROXY") {
                command.env_remove(variable);
            }
        }
        command.args(["-euo", "pipefail", "-c", commands]).current_dir(self.directory.path());
        command.envs(self.cloud.environment()).env("HOME", self.directory.path()).env("AWS_PAGER", "");
        command.env("AWS_DEFAULT_REGION", "eu-west-1");
        command.env("PATH", format!("{search}:{}", std::env::var("PATH").unwrap()));
        let done = command.output().expect("bash starts");
        let (out, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{commands}\n{}\n{out}{errors}", done.status);
        out.into_owned()
    }

    /// What a command of the AWS CLI prints, in JSON.
    fn aws(&self, arguments: &str) -> Value {
        let out = self.run_commands(&format!("aws {arguments} --output json"));
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("aws {arguments}: {error}: {out}"))
    }

    fn deploy(&self, stack: &str, template: &str, parameters: &str) {
        self.run_commands(&format!(
            "aws cloudformation deploy --stack-name {stack} --template-file deploy/cloudformation/{template} \
             --capabilities CAPABILITY_IAM --parameter-overrides {parameters}"
        ));
    }

    fn outputs(&self, stack: &str) -> BTreeMap<String, String> {
        let stack = self.aws(&format!("cloudformation describe-stacks --stack-name {stack}"));
        let outputs = stack["Stacks"][0]["Outputs"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        outputs.map(|output| (text(&output["OutputKey"]), text(&output["OutputValue"]))).collect()
    }

    /// All roles with their policies, as IAM has them.
    fn roles(&self) -> Vec<Value> {
        let details = self.aws("iam get-account-authorization-details --filter Role");
        details["RoleDetailList"].as_array().unwrap().clone()
    }

    /// The keys of the items of the scaler's table.
    async fn ledger(&self) -> Vec<String> {
        let scan = aws_sdk_dynamodb::Client::new(&self.cloud.config).scan().table_name("scalebridge-scaler");
        let items = scan.send().await.unwrap().items.unwrap();
        let mut keys: Vec<String> = items.iter().map(|item| item["pk"].as_s().unwrap().clone()).collect();
        keys.sort();
        keys
    }

    async fn attributes(&self, queue: &str) -> Option<HashMap<Attribute, String>> {
        let get = self.cloud.sqs.get_queue_attributes().queue_url(queue).attribute_names(Attribute::All);
        get.send().await.ok()?.attributes
    }
}

/// The role of a stack: its trust policy, and its policies by name.
fn role_of(roles: &[Value], stack: &str) -> (Value, BTreeMap<String, Value>) {
    let name = format!("{stack}-Role-");
    let role = roles.iter().find(|role| role["RoleName"].as_str().unwrap().starts_with(&name));
    let role = role.unwrap_or_else(|| panic!("no role {name}"));
    assert_eq!(role["AttachedManagedPolicies"], json!([]), "all of its rights are in the stack");
    let policies = role["RolePolicyList"].as_array().unwrap().iter();
    let policies = policies.map(|policy| (policy["PolicyName"].as_str().unwrap(), &policy["PolicyDocument"]));
    let policies: BTreeMap<_, _> = policies.map(|(name, policy)| (name.to_owned(), policy.clone())).collect();
    let trust = role["AssumeRolePolicyDocument"].clone();
    assert_valid(&trust, "IAMTrustPolicyDocumentValidator");
    policies.values().for_each(|policy| assert_valid(policy, "IAMPolicyDocumentValidator"));
    (trust, policies)
}

/// The AWS CLI, with two differences: it calls the emulator for queues, too, whose address it takes from the queue
/// otherwise; and it looks twice a second whether a stack is complete, and not every 30 seconds.
fn aws_command() -> String {
    let script = "import sys, time; from awscli import clidriver; sleep = time.sleep; \
                  time.sleep = lambda seconds: sleep(min(seconds, 0.5)); sys.exit(clidriver.main())";
    format!("exec '{}' -c '{script}' --endpoint-url \"$AWS_ENDPOINT_URL\" \"$@\"", tool("python").display())
}

/// A program that checks what is in `deploy/`.
fn tool(name: &str) -> PathBuf {
    let tool = tools().join("deploy/bin").join(name);
    assert!(tool.exists(), "{} is missing: run deploy/tools.sh", tool.display());
    tool
}

/// What IAM would refuse: moto's validators have its grammar.
fn assert_valid(policy: &Value, validator: &str) {
    let script = format!(
        "import sys\nfrom moto.iam.policy_validation import {validator} as validator\nvalidator(sys.argv[1]).validate()"
    );
    let python = tools().join("moto/bin/python");
    let done =
        Command::new(python).args(["-c", &script, &policy.to_string()]).output().expect("python starts");
    assert!(done.status.success(), "{policy:#}\n{}", String::from_utf8_lossy(&done.stderr));
}

/// The role of the function has what `iam-policy` prints, and may write its log.
fn assert_least_rights(shell: &Shell, queue: &str) {
    let (trust, policies) = role_of(&shell.roles(), "scalebridge-scaler");
    let expected = shell.run_commands(&format!(
        "scalebridge-scaler iam-policy --config scaler.yaml --account 000000000000 --region eu-west-1 \
         --queue-url {queue} --output json"
    ));
    let expected: Value = serde_json::from_str(&expected).unwrap();
    assert_eq!(policies.len(), 2, "{policies:?}");
    assert_eq!(
        (&policies["scaler"], &trust),
        (&expected["role"]["policy"], &expected["role"]["trust_policy"])
    );
    let log = &shell.outputs("scalebridge-scaler")["LogGroupName"];
    let statement = &policies["log"]["Statement"][0];
    assert_eq!(statement["Action"], json!(["logs:CreateLogStream", "logs:PutLogEvents"]));
    assert!(statement["Resource"].as_str().unwrap().contains(log), "{statement}");
}

/// A change of each stack keeps messages and ledger.
async fn assert_updates_keep(shell: &Shell, outputs: &BTreeMap<String, String>) {
    let ledger = shell.ledger().await;
    assert_eq!(ledger.len(), 4, "two targets and two events: {ledger:?}");
    let refusals = &outputs["RefusalsQueueUrl"];
    shell.cloud.sqs.send_message().queue_url(refusals).message_body("kept").send().await.unwrap();
    let topic = "AlarmTopicArn=arn:aws:sns:eu-west-1:000000000000:alarms";
    shell.deploy("scalebridge-queues", "queues.yaml", topic);
    shell.deploy("scalebridge-scaler", "scaler.yaml", &format!("{topic} MaximumConcurrency=2"));
    assert_eq!((shell.ledger().await, &shell.outputs("scalebridge-queues")), (ledger, outputs));
    assert_eq!(shell.cloud.receive(refusals).await, ["kept"]);
}

/// The commands that remove everything leave the table, which the last of them delete.
async fn assert_removal_keeps_the_ledger(shell: &Shell, queue: &str) {
    let ledger = shell.ledger().await;
    let (prepare, remove) = (shell.blocks("Prepare").concat(), shell.blocks("Remove"));
    shell.run_commands(&format!("{prepare}{}", remove[0]));
    eventually("no stacks", async || {
        let stacks = shell.aws("cloudformation describe-stacks --query Stacks[].StackName");
        (stacks == json!([])).then_some(())
    })
    .await;
    assert_eq!(shell.attributes(queue).await, None, "the queue is deleted");
    assert_eq!(shell.ledger().await, ledger);
    shell.run_commands(&format!("{prepare}{}", remove[1]));
    let tables = shell.aws("dynamodb list-tables --query TableNames");
    assert!(!tables.to_string().contains("scalebridge-scaler"), "{tables}");
}

#[tokio::test]
async fn the_stacks_of_the_readme_scale_by_their_queue_and_keep_what_they_have() {
    let shell = Shell::start().await;
    let cloud = &shell.cloud;
    shell.run_commands(&format!("aws s3 mb s3://{BUCKET}"));
    shell.package("");
    shell.run("Queues and ledger");
    shell.run("Scaler");
    let printed = shell.run("Bridge");
    let outputs = shell.outputs("scalebridge-queues");
    let queue = &outputs["QueueUrl"];
    assert_least_rights(&shell, queue);

    // The line that the commands print for the configuration of the bridge.
    let destination = printed.lines().find_map(|line| line.strip_prefix("destinations: { scaler: { "));
    let destination = destination.and_then(|line| line.strip_suffix(" } }")).expect("a destination");
    let mut bridge = Bridge::start(destination, &cloud.environment()).await;
    let started = now();
    bridge.notify(ALERTS[0], &started, None).await;
    eventually("a handled event", async || cloud.is_empty(queue).await.then_some(())).await;
    eventually("the log", async || shell.run("Verify").contains(r#""outcome":"dry_run""#).then_some(()))
        .await;
    assert_eq!(
        (cloud.capacities().await, shell.ledger().await),
        (BEFORE, Vec::new()),
        "dry_run changes nothing"
    );

    shell.run("Go live");
    bridge.notify(ALERTS[1], &started, None).await;
    bridge.notify(ALERTS[2], &started, None).await;
    eventually("both increases", async || (cloud.capacities().await == [5, 8, 9]).then_some(())).await;
    eventually("an empty queue", async || cloud.is_empty(queue).await.then_some(())).await;
    assert_updates_keep(&shell, &outputs).await;

    // The configuration in the zip file, in place of the variable.
    shell.package("scaler.yaml");
    shell.run_commands(&format!("aws s3 cp target/scaler.zip s3://{BUCKET}/second.zip"));
    shell.deploy("scalebridge-scaler", "scaler.yaml", "CodeKey=second.zip ScalerConfig=");
    let function = shell.aws("lambda get-function-configuration --function-name scalebridge-scaler");
    assert!(!function.to_string().contains("SCALEBRIDGE_SCALER_CONFIG"), "{function:#}");
    for alert in ALERTS {
        bridge.notify(alert, &started, Some(&now())).await;
    }
    eventually("the decreases", async || (cloud.capacities().await == BEFORE).then_some(())).await;
    eventually("an empty queue", async || cloud.is_empty(queue).await.then_some(())).await;
    assert_removal_keeps_the_ledger(&shell, queue).await;
}

#[tokio::test]
async fn a_key_of_ones_own_encrypts_every_queue() {
    let shell = Shell::start().await;
    shell.deploy("keyed", "queues.yaml", "Name=keyed CreateKmsKey=true");
    let outputs = shell.outputs("keyed");
    let key = &outputs["KmsKeyArn"];
    for name in ["QueueUrl", "DeadLetterQueueUrl", "RefusalsQueueUrl"] {
        let attributes = shell.attributes(&outputs[name]).await.expect("a queue");
        assert_eq!(attributes.get(&Attribute::KmsMasterKeyId), Some(key), "{attributes:?}");
    }
    let policy =
        shell.aws(&format!("kms get-key-policy --key-id {key} --policy-name default --query Policy"));
    let policy: Value = serde_json::from_str(policy.as_str().unwrap()).unwrap();
    assert_eq!(policy["Statement"][0]["Principal"]["AWS"], "arn:aws:iam::000000000000:root");
}

const BRIDGE: &str = r#"
sources: { prod: {} }
destinations: { scaler: { sqs: { queue_url: "https://sqs.eu-west-1.amazonaws.com/000000000000/scaling.fifo" } } }
rules: [rules.yaml]
"#;
const RULE: &str = "rules: [{ name: all, target: { platform: ecs, kind: service, name: web }, \
                    on_firing: { notify: {} }, send_to: [scaler] }]";

#[tokio::test]
async fn the_role_of_the_bridge_has_what_iam_policy_prints_and_trusts_what_the_bridge_runs_as() {
    let shell = Shell::start().await;
    fs::write(shell.path("bridge.yaml"), BRIDGE).unwrap();
    fs::write(shell.path("rules.yaml"), RULE).unwrap();
    let print = |options: &str| -> Value {
        let policy = shell.run_commands(&format!("scalebridge iam-policy --config bridge.yaml {options}"));
        serde_json::from_str(&policy).unwrap()
    };
    let key = "arn:aws:kms:eu-west-1:000000000000:key/0f1e";
    let other = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"rds-db:connect","Resource":"*"}]}"#;
    let (with_key, with_policy) =
        (format!("RunsAs=ecs KmsKeyArn={key}"), format!("RunsAs=ecs Policy='{other}'"));
    let cases = [
        ("irsa", "RunsAs=irsa OidcProvider=oidc.example/id/0123", print("")),
        ("pod-identity", "RunsAs=pod-identity ClusterName=prod-eu", print("")),
        ("ec2", "RunsAs=ec2", print("")),
        ("ecs", &with_key, print(&format!("--kms-key-arn {key}"))),
        ("other", &with_policy, serde_json::from_str(other).unwrap()),
    ];
    for (stack, parameters, _) in &cases {
        let queue = "QueueArn=arn:aws:sqs:eu-west-1:000000000000:scaling.fifo";
        shell.deploy(stack, "bridge-role.yaml", &format!("{queue} {parameters}"));
    }
    let roles = shell.roles();
    for (stack, _, policy) in &cases {
        let (trust, policies) = role_of(&roles, stack);
        assert_eq!(policies.values().collect::<Vec<_>>(), [policy], "{stack}");
        assert_eq!(trust["Statement"], json!([trust_of(stack)]), "{stack}");
    }
    assert!(shell.outputs("ec2").contains_key("InstanceProfileName"));
}

fn trust_of(stack: &str) -> Value {
    let service = |name: &str| json!({ "Service": format!("{name}.amazonaws.com") });
    let (principal, action, condition) = match stack {
        "irsa" => (
            json!({ "Federated": "arn:aws:iam::000000000000:oidc-provider/oidc.example/id/0123" }),
            json!("sts:AssumeRoleWithWebIdentity"),
            json!({
                "oidc.example/id/0123:aud": "sts.amazonaws.com",
                "oidc.example/id/0123:sub": "system:serviceaccount:scalebridge:scalebridge",
            }),
        ),
        "pod-identity" => (
            service("pods.eks"),
            json!(["sts:AssumeRole", "sts:TagSession"]),
            json!({
                "aws:RequestTag/eks-cluster-arn": "arn:aws:eks:eu-west-1:000000000000:cluster/prod-eu",
                "aws:RequestTag/kubernetes-namespace": "scalebridge",
                "aws:RequestTag/kubernetes-service-account": "scalebridge",
            }),
        ),
        "ec2" => return json!({ "Effect": "Allow", "Principal": service("ec2"), "Action": "sts:AssumeRole" }),
        _ => (service("ecs-tasks"), json!("sts:AssumeRole"), json!({ "aws:SourceAccount": "000000000000" })),
    };
    json!({
        "Effect": "Allow", "Principal": principal, "Action": action, "Condition": { "StringEquals": condition },
    })
}
