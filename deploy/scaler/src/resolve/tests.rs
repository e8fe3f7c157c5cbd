use super::*;
use crate::plan::test_support::event;

const CONFIG: &str = r#"
ledger: { sqlite: { path: x } }
accounts: { "222233334444": { role_arn: "arn:aws:iam::222233334444:role/scaler" } }
clusters:
  prod: { eks: { name: prod-1, region: eu-west-1, account: "222233334444" } }
  own: { eks: { name: own-1, region: eu-west-1 } }
  lab: { in_cluster: true }
nomad: { default: { address: "https://nomad:4646" } }
targets:
  - { match: "eks/nodegroup/*/*/prod/*/spare-*", managed_by: cluster-autoscaler, buffer: "scaling/{{ name }}" }
  - { match: "eks/nodegroup/*/*/own/*/by-namespace", managed_by: karpenter, buffer: "{{ namespace }}/{{ name }}" }
  - { match: "eks/*", managed_by: cluster-autoscaler }
  - { match: "ec2/autoscaling-group/*/eu-west-1/*", managed_by: nobody }
  - { match: "ecs/*" }
  - { match: "kubernetes/*" }
  - { match: "nomad/*" }
"#;

/// The resource and owner of a subject, in short.
fn resolved(subject: &str) -> String {
    let config = Config::read(CONFIG).unwrap();
    let parts: Vec<&str> = subject.split('/').collect();
    let part = |at: usize| Some(parts[at]).filter(|part| *part != "-").map(|part| part.replace("%2F", "/"));
    let mut event = event(1, 1, "+1");
    event.target = Target {
        platform: *Platform::ALL.iter().find(|platform| platform.as_str() == parts[0]).unwrap(),
        kind: parts[1].to_owned(),
        account: part(2),
        region: part(3),
        cluster: part(4),
        namespace: part(5),
        name: part(6).unwrap(),
    };
    event.subject = event.target.key().to_string();
    assert_eq!(event.subject, subject);
    let show_aws =
        |aws: Aws<'_>| format!("{} {}", aws.account.map_or("own", |role| &role.role_arn), aws.region);
    match resolve(&config, &event) {
        Err(why) => format!("refused: {why}"),
        Ok(Resolved { resource, owner, .. }) => match resource {
            ResourceRef::NodeGroup { aws, cluster, name } => {
                format!("node group {cluster} {name} by {}, {owner:?}", show_aws(aws))
            }
            ResourceRef::AutoScalingGroup { aws, name } => {
                format!("group {name} by {}, {owner:?}", show_aws(aws))
            }
            ResourceRef::EcsService { aws, cluster, name } => {
                format!("service {cluster} {name} by {}, {owner:?}", show_aws(aws))
            }
            ResourceRef::Workload { kind, namespace, name, .. } => {
                format!("{kind} {} {name}, {owner:?}", namespace.unwrap_or_default())
            }
            ResourceRef::CapacityBuffer { namespace, name, .. } => {
                format!("buffer {namespace}/{name}, {owner:?}")
            }
            ResourceRef::NomadGroup { name, .. } => format!("job {name}, {owner:?}"),
        },
    }
}

#[test]
fn the_configuration_determines_role_region_and_cluster() {
    let role = "arn:aws:iam::222233334444:role/scaler";
    let cases = [
        (
            "eks/nodegroup/-/-/prod/-/workers",
            format!("node group prod-1 workers by {role} eu-west-1, Autoscaler"),
        ),
        (
            "eks/nodegroup/222233334444/eu-west-1/prod/-/workers",
            format!("node group prod-1 workers by {role} eu-west-1, Autoscaler"),
        ),
        (
            "eks/nodegroup/-/-/own/-/workers",
            "node group own-1 workers by own eu-west-1, Autoscaler".to_owned(),
        ),
        ("eks/nodegroup/-/-/prod/-/spare-a", "buffer scaling/spare-a, Scaler".to_owned()),
        ("ec2/autoscaling-group/-/eu-west-1/-/-/web", "group web by own eu-west-1, Scaler".to_owned()),
        (
            "ec2/autoscaling-group/222233334444/eu-west-1/-/-/web",
            format!("group web by {role} eu-west-1, Scaler"),
        ),
        ("ecs/service/-/eu-west-1/shop/-/cart", "service shop cart by own eu-west-1, FoundOut".to_owned()),
        ("kubernetes/deployment/-/-/lab/shop/cart", "deployment shop cart, FoundOut".to_owned()),
        ("nomad/job/-/-/-/-/web%2Fapi", "job web/api, FoundOut".to_owned()),
        ("nomad/job/-/-/-/-/web", "job web, FoundOut".to_owned()),
    ];
    for (subject, expected) in cases {
        assert_eq!(resolved(subject), expected, "{subject}");
    }
}

#[test]
fn what_is_not_configured_is_refused() {
    let cases = [
        ("eks/nodegroup/-/-/other/-/workers", "`clusters` has no cluster other"),
        ("eks/nodegroup/-/-/-/-/workers", "data.target has no `cluster`"),
        ("eks/nodegroup/-/-/lab/-/workers", "cluster lab is not configured as `eks`"),
        (
            "eks/nodegroup/-/us-east-1/prod/-/workers",
            "is in region us-east-1, but cluster prod is in eu-west-1",
        ),
        (
            "eks/nodegroup/999999999999/-/prod/-/workers",
            "is in account 999999999999, but cluster prod is in 222233334444",
        ),
        ("eks/nodegroup/222233334444/-/own/-/workers", "but cluster own is in the scaler's own"),
        ("eks/nodegroup/-/-/prod/-/spare-..%2F..%2Fkube-system", "is not namespace/name"),
        ("eks/nodegroup/-/-/prod/-/spare-A", "is not namespace/name"),
        ("eks/nodegroup/-/-/own/-/by-namespace", "names a field that the target does not have"),
        ("ec2/autoscaling-group/-/us-east-1/-/-/web", "no pattern of `targets` matches ec2/"),
        ("ec2/autoscaling-group/999999999999/eu-west-1/-/-/web", "`accounts` has no account 999999999999"),
        ("ecs/service/-/-/shop/-/cart", "data.target has no `region`"),
        ("ecs/service/-/eu-west-1/-/-/cart", "data.target has no `cluster`"),
        ("kubernetes/deployment/-/-/other/shop/cart", "`clusters` has no cluster other"),
        ("nomad/job/-/-/other/-/web", "`nomad` has no cluster other"),
        ("custom/x/-/-/-/-/y", "no pattern of `targets` matches custom/"),
    ];
    for (subject, expected) in cases {
        let got = resolved(subject);
        assert!(got.starts_with("refused: ") && got.contains(expected), "{subject}: {got}");
    }
}

#[test]
fn subjects_of_one_group_have_one_key_in_the_ledger() {
    let text =
        CONFIG.replace("clusters:\n", "clusters:\n  again: { eks: { name: own-1, region: eu-west-1 } }\n");
    let config = Config::read(&text).unwrap();
    let key = |cluster: &str, region: Option<&str>| {
        let mut event = event(1, 1, "+1");
        event.target.cluster = Some(cluster.to_owned());
        event.target.region = region.map(str::to_owned);
        event.subject = event.target.key().to_string();
        resolve(&config, &event).unwrap().ledger_key(&event.subject)
    };
    let own = "eks/nodegroup/-/eu-west-1/own-1/-/workers";
    assert_eq!([key("own", Some("eu-west-1")), key("own", None), key("again", None)], [own; 3]);
    assert_eq!(key("prod", None), "eks/nodegroup/222233334444/eu-west-1/prod-1/-/workers");
}
