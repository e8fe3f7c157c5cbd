//! Who reaches whom: the policies that the chart renders, evaluated as networking.k8s.io/v1 defines them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use super::rendering::{Objects, chart, rendering};

type Labels = BTreeMap<String, String>;

/// One end of a connection.
enum Endpoint {
    Pod {
        namespace: &'static str,
        labels: Labels,
        address: IpAddr,
    },
    /// Outside of the cluster, or a node.
    Address(IpAddr),
}

/// Of pods, unless they are said to have another one.
const POD_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 128, 7));

fn pod(namespace: &'static str, labels: &[(&str, &str)]) -> Endpoint {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Endpoint::Pod { namespace, labels, address: POD_ADDRESS }
}

fn named(namespace: &'static str, name: &str) -> Endpoint {
    pod(namespace, &[("app.kubernetes.io/name", name), ("app.kubernetes.io/instance", "scalebridge")])
}

fn address(text: &str) -> Endpoint {
    Endpoint::Address(text.parse().expect("an address"))
}

/// Whether the policies of both ends allow a connection.
fn is_allowed(objects: &Objects, from: &Endpoint, to: &Endpoint, protocol: &str, port: u16) -> bool {
    let sides = [("Ingress", "ingress", "from", to, from), ("Egress", "egress", "to", from, to)];
    sides.into_iter().all(|(kind, rules, peers, own, other)| {
        let Endpoint::Pod { namespace, labels, .. } = own else { return true };
        let selected: Vec<&Value> = objects
            .of_kind("NetworkPolicy")
            .filter(|policy| policy["metadata"]["namespace"] == *namespace)
            .filter(|policy| list(&policy["spec"]["policyTypes"]).iter().any(|one| one == kind))
            .filter(|policy| selects(&policy["spec"]["podSelector"], labels))
            .collect();
        // A pod that no policy selects is open.
        selected.is_empty()
            || selected.iter().flat_map(|policy| list(&policy["spec"][rules])).any(|rule| {
                let of_peer = |peer: &Value| matches_peer(peer, namespace, other);
                // Without peers or ports, a rule is about all of them.
                (list(&rule[peers]).is_empty() || list(&rule[peers]).iter().any(of_peer))
                    && (list(&rule["ports"]).is_empty()
                        || list(&rule["ports"]).iter().any(|one| matches_port(one, protocol, port)))
            })
    })
}

fn matches_port(rule: &Value, protocol: &str, port: u16) -> bool {
    let first = rule["port"].as_u64().unwrap_or_else(|| panic!("only numbers are evaluated: {rule}"));
    let last = rule["endPort"].as_u64().unwrap_or(first);
    rule["protocol"].as_str().unwrap_or("TCP") == protocol && (first..=last).contains(&u64::from(port))
}

fn matches_peer(peer: &Value, own_namespace: &str, other: &Endpoint) -> bool {
    if !peer["ipBlock"].is_null() {
        // Blocks are also about the addresses of pods, as Calico sees it.
        let (Endpoint::Address(address) | Endpoint::Pod { address, .. }) = other;
        let is_within = |cidr: &Value| is_within(*address, cidr.as_str().expect("a CIDR"));
        let block = &peer["ipBlock"];
        return is_within(&block["cidr"]) && !list(&block["except"]).iter().any(is_within);
    }
    let Endpoint::Pod { namespace, labels, .. } = other else { return false };
    let of_namespace = match &peer["namespaceSelector"] {
        Value::Null => *namespace == own_namespace,
        selector => {
            let name = ("kubernetes.io/metadata.name".to_owned(), (*namespace).to_owned());
            selects(selector, &Labels::from([name]))
        }
    };
    of_namespace && selects(&peer["podSelector"], labels)
}

/// Whether a selector selects labels. Null is a missing selector of a peer, which selects all.
fn selects(selector: &Value, labels: &Labels) -> bool {
    let pairs = selector["matchLabels"].as_object().into_iter().flatten();
    let mut expressions = list(&selector["matchExpressions"]).iter();
    pairs.into_iter().all(|(name, value)| labels.get(name).map(String::as_str) == value.as_str())
        && expressions.all(|one| {
            let label = labels.get(one["key"].as_str().expect("a key"));
            let is_among = label.is_some_and(|label| list(&one["values"]).iter().any(|value| value == label));
            match one["operator"].as_str() {
                Some("In") => is_among,
                Some("NotIn") => !is_among,
                Some("Exists") => label.is_some(),
                Some("DoesNotExist") => label.is_none(),
                other => panic!("operator {other:?}"),
            }
        })
}

fn is_within(address: IpAddr, cidr: &str) -> bool {
    let (network, length) = cidr.split_once('/').expect("a CIDR");
    let length: u32 = length.parse().expect("a length");
    match (address, network.parse().expect("an address")) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (address.to_bits() ^ network.to_bits()).checked_shr(32 - length).unwrap_or(0) == 0
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            (address.to_bits() ^ network.to_bits()).checked_shr(128 - length).unwrap_or(0) == 0
        }
        _ => false,
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn assert_all(objects: &Objects, rows: &[(&str, Endpoint, Endpoint, &str, u16, bool)]) {
    for (what, from, to, protocol, port, expected) in rows {
        assert_eq!(is_allowed(objects, from, to, protocol, *port), *expected, "{what}, {protocol} {port}");
    }
}

fn bridge() -> Endpoint {
    named("scalebridge", "scalebridge")
}

fn scaler() -> Endpoint {
    named("scalebridge", "scalebridge-scaler")
}

#[test]
fn only_alertmanager_reaches_the_webhook_and_only_prometheus_and_operators_the_admin_listener() {
    let alertmanager = || named("monitoring", "alertmanager");
    let prometheus = || named("monitoring", "prometheus");
    let operator = |namespace| pod(namespace, &[("scalebridge.io/access", "admin")]);
    for name in ["chart-default", "chart-scaler", "base", "eks-irsa", "eks-pod-identity", "all-components"] {
        assert_all(
            rendering(name),
            &[
                ("Alertmanager to the webhook", alertmanager(), bridge(), "TCP", 9096, true),
                ("Alertmanager to the admin listener", alertmanager(), bridge(), "TCP", 9097, false),
                ("Alertmanager to another port", alertmanager(), bridge(), "TCP", 22, false),
                ("Alertmanager by UDP", alertmanager(), bridge(), "UDP", 9096, false),
                ("an Alertmanager of a tenant", named("shop", "alertmanager"), bridge(), "TCP", 9096, false),
                ("another pod of monitoring", named("monitoring", "grafana"), bridge(), "TCP", 9096, false),
                ("Prometheus to the admin listener", prometheus(), bridge(), "TCP", 9097, true),
                ("Prometheus to the webhook", prometheus(), bridge(), "TCP", 9096, false),
                ("a Prometheus of a tenant", named("shop", "prometheus"), bridge(), "TCP", 9097, false),
                ("an operator", operator("scalebridge"), bridge(), "TCP", 9097, true),
                ("an operator to the webhook", operator("scalebridge"), bridge(), "TCP", 9096, false),
                ("the label in another namespace", operator("shop"), bridge(), "TCP", 9097, false),
                ("a pod without labels", pod("scalebridge", &[]), bridge(), "TCP", 9097, false),
                ("from outside", address("10.0.0.10"), bridge(), "TCP", 9096, false),
                ("from outside, admin", address("10.0.0.10"), bridge(), "TCP", 9097, false),
            ],
        );
    }
}

#[test]
fn only_prometheus_reaches_the_scaler_which_reaches_no_bridge() {
    assert_all(
        rendering("all-components"),
        &[
            ("Prometheus", named("monitoring", "prometheus"), scaler(), "TCP", 9098, true),
            ("Alertmanager", named("monitoring", "alertmanager"), scaler(), "TCP", 9098, false),
            ("the bridge", bridge(), scaler(), "TCP", 9098, false),
            ("the scaler to the webhook", scaler(), bridge(), "TCP", 9096, false),
            ("the scaler to the admin listener", scaler(), bridge(), "TCP", 9097, false),
            ("the scaler to AWS", scaler(), address("52.95.110.1"), "TCP", 443, true),
            ("the scaler to a database", scaler(), address("10.0.1.5"), "TCP", 5432, false),
            ("the scaler to the node's role", scaler(), address("169.254.169.254"), "TCP", 80, false),
        ],
    );
}

#[test]
fn with_egress_the_bridge_reaches_dns_aws_and_the_agent_of_pod_identity_and_nothing_else() {
    let dns = || pod("kube-system", &[("k8s-app", "kube-dns")]);
    for name in ["chart-egress", "eks-irsa", "eks-pod-identity", "replicas-postgres", "several-clusters"] {
        assert_all(
            rendering(name),
            &[
                ("DNS", bridge(), dns(), "UDP", 53, true),
                ("DNS by TCP", bridge(), dns(), "TCP", 53, true),
                ("NodeLocal DNSCache", bridge(), address("169.254.20.10"), "UDP", 53, true),
                ("another server of names", bridge(), address("8.8.8.8"), "UDP", 53, false),
                ("another port of DNS", bridge(), dns(), "TCP", 9153, false),
                ("another pod", bridge(), pod("kube-system", &[]), "UDP", 53, false),
                ("STS", bridge(), address("52.95.110.1"), "TCP", 443, true),
                ("STS by IPv6", bridge(), address("2600:1f18::1"), "TCP", 443, true),
                ("plain HTTP", bridge(), address("52.95.110.1"), "TCP", 80, false),
                ("the agent of Pod Identity", bridge(), address("169.254.170.23"), "TCP", 80, true),
                ("the agent by IPv6", bridge(), address("fd00:ec2::23"), "TCP", 80, true),
                ("its neighbour", bridge(), address("169.254.170.2"), "TCP", 80, false),
                ("the node's role", bridge(), address("169.254.169.254"), "TCP", 80, false),
                ("the node's role by TLS", bridge(), address("169.254.169.254"), "TCP", 443, false),
                ("the node's role by IPv6", bridge(), address("fd00:ec2::254"), "TCP", 443, false),
                ("a pod by HTTPS", bridge(), named("shop", "web"), "TCP", 443, true),
                ("a pod by HTTP", bridge(), named("shop", "web"), "TCP", 80, false),
                ("the database", bridge(), address("10.0.1.5"), "TCP", 5432, name == "replicas-postgres"),
                ("another network", bridge(), address("10.1.1.5"), "TCP", 5432, false),
            ],
        );
    }
    let open = (bridge(), address("8.8.8.8"));
    assert!(is_allowed(rendering("base"), &open.0, &open.1, "UDP", 53), "without the component all is open");
}

#[test]
fn the_load_balancer_of_several_clusters_reaches_the_webhook_only() {
    let in_subnet = Endpoint::Pod {
        namespace: "shop",
        labels: Labels::new(),
        address: IpAddr::V4(Ipv4Addr::new(10, 0, 1, 7)),
    };
    assert_all(
        rendering("several-clusters"),
        &[
            ("the balancer", address("10.0.0.10"), bridge(), "TCP", 9096, true),
            ("the balancer, admin", address("10.0.0.10"), bridge(), "TCP", 9097, false),
            ("another subnet", address("10.0.64.10"), bridge(), "TCP", 9096, false),
            ("a pod in its subnet", in_subnet, bridge(), "TCP", 9096, true),
            ("an Alertmanager beside it", named("monitoring", "alertmanager"), bridge(), "TCP", 9096, false),
        ],
    );
}

#[test]
fn an_empty_list_of_peers_admits_nobody() {
    let nobody = "networkPolicy.alertmanager=[],networkPolicy.prometheus=[],networkPolicy.operators=[]";
    for (arguments, port) in [(nobody, 9096), (nobody, 9097), ("networkPolicy.alertmanager=[]", 9096)] {
        let objects = chart(&[], &["--set-json", arguments]);
        for name in ["alertmanager", "prometheus"] {
            assert!(!is_allowed(&objects, &named("monitoring", name), &bridge(), "TCP", port), "{arguments}");
        }
    }
}
