//! The templates of CloudFormation are valid, and keep what they promise. `deploy/scaler/tests/end_to_end/by_stack.rs`
//! creates them in an emulator.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::support::tools::tool;
use crate::support::{repository, run};

const DIRECTORY: &str = "deploy/cloudformation";
const TEMPLATES: [&str; 6] = ["queues", "ledger", "scaler", "bridge-role", "alerts", "pod-identity"];

fn path(template: &str) -> String {
    repository(DIRECTORY).join(format!("{template}.yaml")).display().to_string()
}

/// A template, with its functions in their long form.
fn template(name: &str) -> Value {
    // One process for all of them: it takes seconds to load its modules.
    static DECODED: LazyLock<Value> = LazyLock::new(|| {
        let script = "import json, sys\nfrom cfnlint.decode import decode\n\
                      print(json.dumps([decode(path)[0] for path in sys.argv[1:]]))";
        let out = run(tool("deploy/bin/python").args(["-c", script]).args(TEMPLATES.map(path)));
        serde_json::from_str(&out).expect("JSON")
    });
    let position = TEMPLATES.iter().position(|template| *template == name).expect("a template");
    DECODED[position].clone()
}

fn readme() -> String {
    fs::read_to_string(repository(DIRECTORY).join("README.md")).expect("the README")
}

/// The resources of a type by their names.
fn resources(template: &Value, kind: &str) -> BTreeMap<String, Value> {
    let resources = template["Resources"].as_object().expect("resources").iter();
    let of_kind = resources.filter(|(_, resource)| resource["Type"] == kind);
    of_kind.map(|(name, resource)| (name.clone(), resource.clone())).collect()
}

fn names(section: &Value) -> BTreeSet<String> {
    section.as_object().map(|section| section.keys().cloned().collect()).unwrap_or_default()
}

#[test]
fn cfn_lint_reports_nothing() {
    let regions = ["--regions", "eu-west-1", "us-east-1", "--"];
    run(tool("deploy/bin/cfn-lint").args(regions).args(TEMPLATES.map(path)));
    for name in TEMPLATES {
        let text = fs::read_to_string(path(name)).expect("a template");
        assert!(!text.contains("cfn-lint"), "{name}: a check is turned off");
    }
    let directory = fs::read_dir(repository(DIRECTORY)).expect("a directory");
    let files = directory.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let templates = files.filter(|file| file.ends_with(".yaml") && !file.contains(".example."));
    assert_eq!(templates.count(), TEMPLATES.len(), "all templates are checked");
}

#[test]
fn every_parameter_says_what_it_is_and_what_it_allows() {
    for name in TEMPLATES {
        let template = template(name);
        for (parameter, of) in template["Parameters"].as_object().expect("parameters") {
            assert!(of["Description"].is_string(), "{name}: {parameter} has no description");
            let limits = ["AllowedPattern", "AllowedValues", "MinValue", "MaxLength"];
            assert!(limits.iter().any(|limit| !of[limit].is_null()), "{name}: {parameter} has no limit");
            let explained = of["AllowedPattern"].is_null() || of["ConstraintDescription"].is_string();
            assert!(explained, "{name}: {parameter} has a pattern that nothing explains");
        }
        for (output, of) in template["Outputs"].as_object().expect("outputs") {
            assert!(of["Description"].is_string(), "{name}: {output} has no description");
        }
    }
}

#[test]
fn a_message_is_hidden_for_six_times_as_long_as_the_function_may_take() {
    let (queues, scaler) = (template("queues"), template("scaler"));
    let function = &scaler["Resources"]["Function"]["Properties"];
    let queue = &queues["Resources"]["Queue"]["Properties"];
    let seconds = |value: &Value| value.as_u64().expect("a number");
    assert!(seconds(&queue["VisibilityTimeout"]) >= 6 * seconds(&function["Timeout"]));
    // docs/scaler.md: waiting for an update is no failure.
    assert!(seconds(&queue["RedrivePolicy"]["maxReceiveCount"]) >= 100);
    let mapping = &scaler["Resources"]["EventSourceMapping"]["Properties"];
    assert_eq!(mapping["FunctionResponseTypes"], json!(["ReportBatchItemFailures"]));
}

#[test]
fn every_queue_is_encrypted_and_refuses_connections_without_tls() {
    let template = template("queues");
    let policies = resources(&template, "AWS::SQS::QueuePolicy");
    let queues = resources(&template, "AWS::SQS::Queue");
    assert_eq!(queues.len(), 3);
    for (name, queue) in queues {
        assert_eq!(queue["UpdateReplacePolicy"], "Retain", "{name}");
        let properties = &queue["Properties"];
        let no_value = json!({ "Ref": "AWS::NoValue" });
        assert_eq!(
            properties["SqsManagedSseEnabled"],
            json!({ "Fn::If": ["UsesKms", no_value, true] }),
            "{name}"
        );
        let key = &properties["KmsMasterKeyId"]["Fn::If"];
        assert_eq!((&key[0], &key[1]), (&json!("HasKeyArn"), &json!({ "Ref": "KmsKeyArn" })), "{name}");
        let policy =
            policies.values().find(|policy| policy["Properties"]["Queues"] == json!([{ "Ref": name }]));
        let statement = &policy.unwrap_or_else(|| panic!("{name} has no policy"))["Properties"]["PolicyDocument"]
            ["Statement"];
        let deny = json!([{
            "Sid": "OnlyTls", "Effect": "Deny", "Principal": "*", "Action": "sqs:*",
            "Resource": { "Fn::GetAtt": [name, "Arn"] },
            "Condition": { "Bool": { "aws:SecureTransport": "false" } },
        }]);
        assert_eq!(statement, &deny, "{name}");
    }
    let dead_letters = &template["Resources"]["DeadLetterQueue"]["Properties"];
    assert_eq!(dead_letters["FifoQueue"], true, "as its source");
}

#[test]
fn only_the_topic_sends_to_the_queue_of_notifications() {
    let template = template("alerts");
    let queues = resources(&template, "AWS::SQS::Queue");
    assert_eq!(queues.len(), 2);
    for (name, queue) in queues {
        assert_eq!(queue["Properties"]["SqsManagedSseEnabled"], true, "{name}");
        let policies = resources(&template, "AWS::SQS::QueuePolicy");
        let policy =
            policies.values().find(|policy| policy["Properties"]["Queues"] == json!([{ "Ref": name }]));
        let statements = &policy.unwrap_or_else(|| panic!("{name} has no policy"))["Properties"]["PolicyDocument"]
            ["Statement"];
        assert_eq!(
            statements[0]["Condition"],
            json!({ "Bool": { "aws:SecureTransport": "false" } }),
            "{name}"
        );
        let allowed: Vec<&Value> =
            statements.as_array().expect("a list").iter().filter(|it| it["Effect"] == "Allow").collect();
        let of_topic = json!({
            "Sid": "Topic", "Effect": "Allow", "Principal": { "Service": "sns.amazonaws.com" },
            "Action": "sqs:SendMessage", "Resource": { "Fn::GetAtt": ["Queue", "Arn"] },
            "Condition": { "ArnEquals": { "aws:SourceArn": { "Ref": "Topic" } } },
        });
        assert_eq!(allowed, if name == "Queue" { vec![&of_topic] } else { Vec::new() }, "{name}");
    }
    let queue = &template["Resources"]["Queue"]["Properties"];
    assert_eq!(
        queue["RedrivePolicy"]["deadLetterTargetArn"],
        json!({ "Fn::GetAtt": ["DeadLetterQueue", "Arn"] })
    );
    let subscription = &template["Resources"]["Subscription"]["Properties"];
    assert_eq!(subscription["RawMessageDelivery"], false, "the envelope has the topic");
}

#[test]
fn the_ledger_is_as_the_scaler_uses_it_and_outlives_its_stack() {
    let table = &template("ledger")["Resources"]["Table"];
    assert_eq!(
        (&table["DeletionPolicy"], &table["UpdateReplacePolicy"]),
        (&json!("Retain"), &json!("Retain"))
    );
    let properties = &table["Properties"];
    assert_eq!(properties["KeySchema"], json!([{ "AttributeName": "pk", "KeyType": "HASH" }]));
    assert_eq!(properties["TimeToLiveSpecification"], json!({ "AttributeName": "ttl", "Enabled": true }));
    assert_eq!(properties["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"], true);
    assert_eq!(properties["DeletionProtectionEnabled"], true);
}

#[test]
fn the_readme_names_every_alarm() {
    let readme = readme();
    for name in TEMPLATES {
        for (alarm, of) in resources(&template(name), "AWS::CloudWatch::Alarm") {
            assert!(readme.contains(&format!("\n| `{alarm}` |")), "{alarm}");
            let action =
                json!({ "Fn::If": ["HasTopic", [{ "Ref": "AlarmTopicArn" }], { "Ref": "AWS::NoValue" }] });
            assert_eq!(of["Properties"]["AlarmActions"], action, "{alarm}");
        }
    }
}

/// Emulators do not have its type.
#[test]
fn pod_identity_gives_the_role_to_the_pods_that_it_trusts() {
    let (identity, role) = (template("pod-identity"), template("bridge-role"));
    let association = resources(&identity, "AWS::EKS::PodIdentityAssociation");
    let properties = &association["Association"]["Properties"];
    for name in ["ClusterName", "Namespace", "ServiceAccount", "RoleArn"] {
        assert_eq!(properties[name], json!({ "Ref": name }));
    }
    let of_cluster = "arn:${AWS::Partition}:eks:${AWS::Region}:${AWS::AccountId}:cluster/${ClusterName}";
    let trust = role["Resources"]["Role"]["Properties"]["AssumeRolePolicyDocument"].to_string();
    let condition = json!({ "aws:RequestTag/eks-cluster-arn": { "Fn::Sub": of_cluster } }).to_string();
    assert!(trust.contains(condition.trim_matches(['{', '}'])), "pods of other clusters: {trust}");
    for name in ["Namespace", "ServiceAccount"] {
        assert_eq!(identity["Parameters"][name]["Default"], role["Parameters"][name]["Default"]);
    }
}

/// Whether a template needs the capability to create resources of IAM.
fn creates_roles(template: &Value) -> bool {
    let resources = template["Resources"].as_object().expect("resources");
    resources
        .values()
        .any(|resource| resource["Type"].as_str().is_some_and(|kind| kind.starts_with("AWS::IAM::")))
}

/// The name of the template in a text that ends with `deploy/cloudformation/NAME.yaml`, or continues after it.
fn template_in(text: &str) -> Option<&str> {
    text.split("deploy/cloudformation/").nth(1)?.split(".yaml").next()
}

/// AWS refuses what emulators accept.
#[test]
fn the_commands_of_the_readme_have_the_parameters_and_capabilities_of_their_templates() {
    let readme = readme().replace("\\\n", " ");
    let mut deployed = BTreeSet::new();
    for command in readme.lines().filter(|line| line.starts_with("aws cloudformation deploy ")) {
        let name = template_in(command).expect("a template");
        let template = template(name);
        deployed.insert(name.to_owned());
        assert_eq!(command.contains("--capabilities CAPABILITY_IAM "), creates_roles(&template), "{command}");
        let parameters = command.split("--parameter-overrides ").nth(1).unwrap_or_default();
        for parameter in parameters.split(' ').filter_map(|word| word.split_once('=')).map(|(name, _)| name) {
            assert!(!template["Parameters"][parameter].is_null(), "{parameter}: {command}");
        }
    }
    assert_eq!(deployed, TEMPLATES.map(str::to_owned).into(), "every template is deployed");
}

#[test]
fn the_terraform_of_the_readme_has_the_parameters_and_outputs_of_the_templates() {
    let readme = readme();
    let snippet =
        readme.split("```hcl\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a snippet");
    let script = "import hcl2, json, sys\nprint(json.dumps(hcl2.loads(sys.argv[1])))";
    let parsed = run(tool("deploy/bin/python").args(["-c", script, snippet]));
    let parsed: Value = serde_json::from_str(&parsed.replace("\\\"", "")).expect("JSON");
    let blocks = parsed["resource"].as_array().expect("resources").iter();
    let stacks = blocks.filter_map(|block| block["aws_cloudformation_stack"].as_object());
    let stacks: BTreeMap<&String, &Value> = stacks.flatten().collect();
    assert_eq!(stacks.len(), TEMPLATES.len());
    let template_of = |stack: &Value| {
        template(template_in(stack["template_body"].as_str().expect("a file")).expect("a name"))
    };
    for (name, stack) in &stacks {
        let template = template_of(stack);
        assert_eq!(stack["capabilities"] == json!(["CAPABILITY_IAM"]), creates_roles(&template), "{name}");
        let given = names(&stack["parameters"]);
        let parameters = template["Parameters"].as_object().expect("parameters");
        let required = parameters.iter().filter(|(_, of)| of["Default"].is_null()).map(|(name, _)| name);
        required.for_each(|parameter| assert!(given.contains(parameter), "{name}: {parameter} is missing"));
        assert!(given.is_subset(&names(&template["Parameters"])), "{name}: {given:?}");
        for (parameter, value) in stack["parameters"].as_object().into_iter().flatten() {
            let value = value.as_str().expect("a text");
            let Some((other, output)) = value.split_once(".outputs[") else { continue };
            let other = other.rsplit('.').next().expect("a name").to_owned();
            let outputs = names(&template_of(stacks[&other])["Outputs"]);
            assert!(outputs.contains(output.trim_end_matches("]}")), "{name}: {parameter} = {value}");
        }
    }
}
