use std::collections::BTreeSet;
use std::path::Path;

use scalebridge::domain::target_pattern::TargetPattern;

use super::parts::Parts;
use super::*;

/// Every platform, and every way to own a size.
const WHOLE: &str = r#"
queue: { queue_url: "https://sqs.eu-west-1.amazonaws.com/111122223333/scaling.fifo" }
refusals: { queue_url: "https://sqs.eu-west-1.amazonaws.com/111122223333/refusals" }
ledger: { dynamodb: { table: scalebridge-scaler, region: eu-west-1 } }
accounts:
  "222233334444": { role_arn: "arn:aws:iam::222233334444:role/scaler", external_id: x-42 }
clusters:
  prod-eu: { eks: { name: prod-1, region: eu-west-1, account: "222233334444" } }
  own: { eks: { name: own-1, region: eu-central-1 } }
  lab: { kubeconfig: /etc/kube/config }
  here: { in_cluster: true }
targets:
  - { match: "eks/nodegroup/*/*/prod-eu/*/spare-*", managed_by: cluster-autoscaler, buffer: "scaling/{{ name }}" }
  - { match: "eks/nodegroup/*/*/prod-eu/*/workers-*", managed_by: nobody }
  - { match: "ec2/autoscaling-group/-/eu-west-1/-/-/web", managed_by: nobody }
  - { match: "ec2/autoscaling-group/222233334444/eu-west-1/*", managed_by: cluster-autoscaler }
  - { match: "ecs/service/-/eu-west-1/shop/-/*" }
  - { match: "kubernetes/deployment/-/-/own/shop/*" }
  - { match: "kubernetes/nodepools.karpenter.sh/-/-/own/-/spare", managed_by: karpenter }
  - { match: "kubernetes/*/-/-/lab/*" }
"#;

fn options<'o>() -> Options<'o> {
    Options {
        principal: Principal::Lambda,
        account: "111122223333",
        region: "*",
        role_arn: Some("arn:aws:iam::111122223333:role/scaler"),
        queue_url: None,
        kms_key_arn: None,
    }
}

fn documents_of(config: &str, options: &Options<'_>) -> Documents {
    documents(&Config::read(config).unwrap(), options)
}

/// `action resource` of every statement.
fn grants(policy: &Value) -> BTreeSet<String> {
    let list = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    let statements = policy["Statement"].as_array().unwrap();
    let of_statement = |statement: &Value| {
        let resources = list(&statement["Resource"]);
        let pairs = list(&statement["Action"]).into_iter().flat_map(move |action| {
            resources.clone().into_iter().map(move |resource| format!("{action} {resource}"))
        });
        pairs.collect::<Vec<_>>()
    };
    statements.iter().flat_map(of_statement).collect()
}

#[test]
fn all_documents_of_a_whole_configuration() {
    insta::assert_json_snapshot!(documents_of(WHOLE, &options()));
}

/// The actions that the sources name in their errors, and those of calls whose errors name none.
fn called() -> BTreeSet<String> {
    const UNNAMED: [(&str, &str); 5] = [
        (".receive_message()", "sqs:ReceiveMessage"),
        (".delete_message()", "sqs:DeleteMessage"),
        (".change_message_visibility_batch()", "sqs:ChangeMessageVisibility"),
        (".send_message()", "sqs:SendMessage"),
        ("AssumeRoleProvider::", "sts:AssumeRole"),
    ];
    const SERVICES: [&str; 7] =
        ["application-autoscaling", "autoscaling", "dynamodb", "ecs", "eks", "sqs", "sts"];
    let mut found = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                if name != "iam" && name != "tests" {
                    folders.push(path);
                }
                continue;
            }
            if name == "tests.rs" {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for quoted in text.split('"') {
                let Some((service, action)) = quoted.split_once(':') else { continue };
                let is_action = action.starts_with(|first: char| first.is_ascii_uppercase())
                    && action.chars().all(char::is_alphanumeric);
                if SERVICES.contains(&service) && is_action {
                    found.insert(quoted.to_owned());
                }
            }
            let unnamed = UNNAMED.iter().filter(|(call, _)| text.contains(call));
            found.extend(unnamed.map(|(_, action)| (*action).to_owned()));
        }
    }
    found
}

#[test]
fn exactly_the_actions_that_are_called_are_granted() {
    let granted: BTreeSet<String> = [Principal::Lambda, Principal::Ec2]
        .into_iter()
        .flat_map(|principal| {
            let documents = documents_of(WHOLE, &Options { principal, ..options() });
            let roles = std::iter::once(documents.role).chain(documents.accounts.into_values());
            roles.flat_map(|role| grants(&role.policy)).collect::<Vec<_>>()
        })
        .map(|grant| grant.split(' ').next().unwrap().to_owned())
        // By Lambda's event source mapping.
        .filter(|action| action != "sqs:GetQueueAttributes")
        .collect();
    let called = called();
    assert!(called.len() > 15, "{called:?}");
    assert_eq!(granted, called, "granted on the left, called on the right");
}

#[test]
fn patterns_limit_the_resources() {
    let of_own = |targets: &str| {
        let config = format!(
            "ledger: {{ sqlite: {{ path: x }} }}\n\
             accounts: {{ '222233334444': {{ role_arn: 'arn:aws:iam::222233334444:role/r' }} }}\n\
             clusters:\n  own: {{ eks: {{ name: own-1, region: eu-central-1 }} }}\n  \
             other: {{ eks: {{ name: other-1, region: us-east-1, account: '222233334444' }} }}\n\
             targets: [{{ {targets} }}]"
        );
        let documents = documents_of(&config, &options());
        let mut own = grants(&documents.role.policy);
        assert!(own.remove("sts:AssumeRole arn:aws:iam::222233334444:role/r"));
        (own, grants(&documents.accounts["222233334444"].policy))
    };
    let set = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<BTreeSet<_>>();
    let node_group = |arn: &str| {
        set(&[&format!("eks:DescribeNodegroup {arn}"), &format!("eks:UpdateNodegroupConfig {arn}")])
    };
    let own_group = node_group("arn:aws:eks:eu-central-1:111122223333:nodegroup/own-1/*/*");
    let other_group = node_group("arn:aws:eks:us-east-1:222233334444:nodegroup/other-1/*/*");
    let none = BTreeSet::new;
    let nobody = |pattern: &str| of_own(&format!("match: '{pattern}', managed_by: nobody"));

    assert_eq!(nobody("eks/*"), (own_group.clone(), other_group.clone()));
    assert_eq!(nobody("eks/nodegroup/*/eu-central-1/*/-/*"), (own_group.clone(), none()));
    assert_eq!(nobody("eks/nodegroup/222233334444/*"), (none(), other_group.clone()));
    assert_eq!(nobody("eks/nodegroup/*/*/own/-/*"), (own_group.clone(), none()));
    // It also matches a namespace `own` in any cluster.
    assert_eq!(nobody("eks/nodegroup/*/*/own/*"), (own_group, other_group));
    assert_eq!(
        nobody("eks/nodegroup/-/-/own/-/a%20b-*").0,
        node_group("arn:aws:eks:eu-central-1:111122223333:nodegroup/own-1/a b-*/*")
    );
    assert_eq!(nobody("eks/nodegroup/*/*/missing/-/*"), (none(), none()));
    let find = "autoscaling:DescribeAutoScalingGroups *";
    let group =
        "arn:aws-cn:autoscaling:cn-north-1:111122223333:autoScalingGroup:*:autoScalingGroupName/web-*";
    assert_eq!(
        nobody("ec2/autoscaling-group/-/cn-north-1/-/-/web-*"),
        (set(&[find, &format!("autoscaling:SetDesiredCapacity {group}")]), none())
    );
    let (own, _) = of_own("match: 'ec2/*/-/cn-north-1/-/-/web-*', managed_by: cluster-autoscaler");
    assert_eq!(own, set(&[find, &format!("autoscaling:UpdateAutoScalingGroup {group}")]));
    let service = "arn:aws:ecs:eu-west-1:111122223333:service/shop/*";
    let (own, other) = nobody("ecs/service/-/eu-west-1/shop/*");
    let expected = [
        &format!("ecs:DescribeServices {service}") as &str,
        &format!("ecs:UpdateService {service}"),
        "application-autoscaling:DescribeScalableTargets *",
    ];
    assert_eq!((own, other), (set(&expected), none()));
    let cluster = "eks:DescribeCluster arn:aws:eks:eu-central-1:111122223333:cluster/own-1";
    assert_eq!(nobody("kubernetes/deployment/-/-/own/*"), (set(&[cluster]), none()));
    let buffer = "match: 'eks/nodegroup/*/*/own/-/*', managed_by: karpenter, buffer: 'spare/{{ name }}'";
    assert_eq!(of_own(buffer), (set(&[cluster]), none()), "the node group is left alone");
    assert_eq!(nobody("nomad/*"), (none(), none()));
}

#[test]
fn the_parts_of_patterns() {
    let parts = |pattern: &str| Parts::of(&TargetPattern::new(pattern).unwrap());
    // Region, cluster, namespace and name.
    let shown = |pattern: &str| -> Vec<String> {
        let named = |parts: &Parts| [parts.region(), parts.cluster(), parts.namespace(), parts.name()];
        let show = |part: Option<String>| part.unwrap_or_else(|| "-".to_owned());
        parts(pattern).iter().map(|parts| named(parts).map(show).join(" ")).collect()
    };
    assert_eq!(shown("eks/nodegroup/*/*/prod-*/*/*"), ["* prod-* * *"]);
    assert_eq!(shown("eks/nodegroup/-/eu-west-1/prod/-/x"), ["eu-west-1 prod - x"]);
    assert_eq!(shown("*"), ["* * * *"]);
    assert_eq!(shown("kubernetes/*"), ["* * * *"]);
    assert_eq!(shown("*/shop/web"), ["* * shop web"]);
    assert_eq!(shown("ecs/service/-/eu-*/web"), ["eu-* * * web"]);
    assert_eq!(shown("ecs/service/-/eu-west-1/prod*"), ["eu-west-1 prod* * *"]);
    // The first `*` is the kind, or the kind and the account: it decides what `lab` is.
    assert_eq!(shown("kubernetes/*/-/-/lab/*"), ["- lab * *", "- - lab *"]);
    for never in ["eks/nodegroup/x", "a/b/c/d/e/f/g/h", "a/*/c/d/e/f/g/*"] {
        assert_eq!(parts(never), [], "{never}");
    }
    let everything = "*a".repeat(9);
    assert_eq!(shown(&everything), ["* * * *"]);
    let ecs = &parts("ecs/*")[0];
    assert!(ecs.has_platform("ecs") && !ecs.has_platform("eks") && ecs.has_kind("service"));
    assert!(parts("k*/web")[0].has_platform("kubernetes"));
}

#[test]
fn each_principal_has_its_trust_policy() {
    for (principal, service, actions) in [
        (Principal::Lambda, "lambda.amazonaws.com", 1),
        (Principal::PodIdentity, "pods.eks.amazonaws.com", 2),
        (Principal::Ec2, "ec2.amazonaws.com", 1),
        (Principal::Ecs, "ecs-tasks.amazonaws.com", 1),
    ] {
        let Documents { role, accounts, .. } = documents_of(WHOLE, &Options { principal, ..options() });
        let trust = &role.trust_policy["Statement"][0];
        assert_eq!(trust["Principal"]["Service"], service);
        assert_eq!(trust["Action"].as_array().unwrap().len(), actions, "{trust}");
        let other = &accounts["222233334444"].trust_policy["Statement"];
        assert_eq!(other[0]["Principal"]["AWS"], "arn:aws:iam::111122223333:role/scaler");
        assert_eq!(other[0]["Condition"]["StringEquals"]["sts:ExternalId"], "x-42");
        assert_eq!(other.as_array().unwrap().len(), actions);
        let tags = "sts:TagSession arn:aws:iam::222233334444:role/scaler";
        assert_eq!(grants(&role.policy).contains(tags), actions == 2);
    }
}

#[test]
fn what_is_not_known_is_said() {
    let config = "ledger: { dynamodb: { table: t } }\ntargets: [{ match: 'kubernetes/*' }]";
    let unknown = Options { account: "*", role_arn: None, ..options() };
    let Documents { role, notes, clusters, .. } = documents_of(config, &unknown);
    assert_eq!(role.role_arn, UNKNOWN_ROLE);
    assert!(grants(&role.policy).contains("dynamodb:PutItem arn:aws:dynamodb:*:*:table/t"));
    assert!(notes[0].contains("--role-arn") && notes[2].contains("--queue-url"), "{notes:?}");
    assert!(clusters.is_empty());
    let unused = format!(
        "accounts: {{ '222233334444': {{ role_arn: 'arn:aws:iam::222233334444:role/r' }} }}\n{config}"
    );
    let Documents { notes, .. } = documents_of(&unused, &options());
    assert!(notes.iter().any(|note| note.contains("no pattern leads to account 222233334444")), "{notes:?}");
    let queue_url = Some("https://sqs.cn-north-1.amazonaws.com.cn/1234/q.fifo");
    let Documents { role, .. } = documents_of(config, &Options { queue_url, ..unknown });
    assert!(grants(&role.policy).contains("sqs:ReceiveMessage arn:aws-cn:sqs:cn-north-1:1234:q.fifo"));
    assert!(!grants(&role.policy).iter().any(|grant| grant.starts_with("sqs:ChangeMessageVisibility")));
}

#[test]
fn a_worker_and_a_function_with_queues_of_their_own_get_the_rights_for_their_own() {
    let queue_url = Some("https://sqs.eu-west-1.amazonaws.com/111122223333/other.fifo");
    let Documents { role, .. } = documents_of(WHOLE, &Options { queue_url, ..options() });
    let granted = grants(&role.policy);
    for (action, queue) in [
        ("ReceiveMessage", "scaling.fifo"),
        ("ReceiveMessage", "other.fifo"),
        ("ChangeMessageVisibility", "scaling.fifo"),
        ("GetQueueAttributes", "other.fifo"),
    ] {
        let grant = format!("sqs:{action} arn:aws:sqs:eu-west-1:111122223333:{queue}");
        assert!(granted.contains(&grant), "{granted:?}");
    }
    for action in ["sqs:GetQueueAttributes", "sqs:ChangeMessageVisibility"] {
        assert_eq!(granted.iter().filter(|grant| grant.starts_with(action)).count(), 1, "{granted:?}");
    }
}

#[test]
fn the_key_of_the_queues_is_granted_for_what_is_done_with_them() {
    let key = "arn:aws:kms:eu-west-1:111122223333:key/0f1e";
    let of = |config: &str, options: Options<'_>| {
        let documents = documents_of(config, &Options { kms_key_arn: Some(key), ..options });
        assert!(!documents.notes.iter().any(|note| note.contains("--kms-key-arn")), "{:?}", documents.notes);
        let granted = grants(&documents.role.policy);
        granted.into_iter().filter(|grant| grant.starts_with("kms:")).collect::<Vec<_>>()
    };
    let decrypt = format!("kms:Decrypt {key}");
    let both = [decrypt.clone(), format!("kms:GenerateDataKey {key}")];
    assert_eq!(of(WHOLE, options()), both, "refusals are sent");
    let function = "ledger: { dynamodb: { table: t } }\ntargets: [{ match: 'kubernetes/*' }]";
    let queue_url = Some("https://sqs.eu-west-1.amazonaws.com/111122223333/scaling.fifo");
    assert_eq!(of(function, Options { queue_url, ..options() }), [decrypt]);
    assert!(of(function, options()).is_empty(), "no queue");
}
