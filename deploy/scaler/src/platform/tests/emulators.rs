//! The platforms against emulators, which know the protocols without us.

use aws_config::SdkConfig;

use super::*;
use crate::apply::PlatformError;
use crate::capacity::Lever;
use crate::event::{Limits, ScalingEvent};
use crate::ledger::dynamodb::DynamoDb;
use crate::ledger::dynamodb::tests::ledger_of;
use crate::outcome::Outcome;
use crate::plan::Policy;
use crate::plan::test_support::{NOW, event, id};
use crate::platform::LeverKind::{Floor, Size};
use crate::platform::ec2::AutoScalingGroup;
use crate::platform::ecs::{Owner, Service};
use crate::platform::eks::NodeGroup;
use crate::platform::kubernetes::EksConnection;
use crate::test_support::cloud::{create_group, create_nodegroup, create_scalable_target, create_service};
use crate::test_support::config;
use crate::test_support::emulators::{Emulator, ministack, moto};

/// Without timeouts: the machine may be busy with other tests.
async fn config_of(emulator: &Emulator) -> SdkConfig {
    config(&emulator.url()).await
}

#[tokio::test]
async fn all_services_of_moto() {
    let emulator = moto().await;
    let config = config_of(&emulator).await;
    let account = Account::new(&config);
    let Account { eks, autoscaling, ecs, application_autoscaling, .. } = account.clone();
    create_nodegroup(&config).await;
    changes_a_node_group(&eks).await;
    finds_a_cluster(&account).await;

    create_group(&config).await;
    changes_a_group(&autoscaling).await;
    suspends_a_process(&autoscaling).await;

    create_service(&config).await;
    create_scalable_target(&config).await;
    let service = Service::new(ecs, application_autoscaling, "prod-eu", "web", Owner::Auto);
    changes_a_service_of_application_auto_scaling(&service).await;

    let tables = ministack().await;
    let ledger = ledger_of(&config_of(&tables).await).await;
    acts_once_and_is_taken_back_once(&ledger, &NodeGroup::new(eks, "prod-eu", "workers", Size)).await;
}

#[tokio::test]
async fn auto_scaling_of_ministack() {
    let emulator = ministack().await;
    let config = config_of(&emulator).await;
    let account = Account::new(&config);
    create_group(&config).await;
    changes_a_group(&account.autoscaling).await;
    let ledger = ledger_of(&config).await;
    let group = AutoScalingGroup::new(account.autoscaling, "web", Size, false);
    acts_once_and_is_taken_back_once(&ledger, &group).await;
}

#[tokio::test]
async fn services_of_ministack() {
    let emulator = ministack().await;
    let config = config_of(&emulator).await;
    let ecs = Account::new(&config).ecs;
    // It has no Application Auto Scaling.
    let stub = Stub::start().await;
    stub.reply("DescribeScalableTargets", ok(r#"{"ScalableTargets":[]}"#));
    let scaling = account(&stub).await.application_autoscaling;
    create_service(&config).await;
    let service = |name| Service::new(ecs.clone(), scaling.clone(), "prod-eu", name, Owner::Auto);
    read_and_set(&service("web"), 8).await.unwrap();
    assert_eq!(lever(&service("web")).await, Lever::Size(8));
    assert!(
        refusal(service("other").read()).await.contains("`other` of ECS cluster `prod-eu` does not exist")
    );
}

/// The authority that moto gives is a random text: all but the connection can be tested.
async fn finds_a_cluster(account: &Account) {
    let error = EksConnection::new(account, "prod-eu").cluster().await.map(drop).unwrap_err();
    assert!(
        matches!(&error, PlatformError::Busy(why) if why.contains("certificate authority has no certificate")),
        "{error:?}"
    );
    let missing = EksConnection::new(account, "other");
    let why = refusal(async { missing.cluster().await.map(drop) }).await;
    assert!(why.contains("eks:DescribeCluster of EKS cluster `other`"), "{why}");
}

async fn lever(capacity: &impl Capacity) -> Lever {
    capacity.read().await.unwrap().lever
}

async fn changes_a_node_group(eks: &aws_sdk_eks::Client) {
    let group = |name, kind| NodeGroup::new(eks.clone(), "prod-eu", name, kind);
    let read = read_and_set(&group("workers", Size), 8).await.unwrap();
    assert_eq!(read.limits, Limits { min_capacity: Some(2), max_capacity: Some(40) });
    assert_eq!(lever(&group("workers", Size)).await, Lever::Size(8));
    read_and_set(&group("workers", Floor), 6).await.unwrap();
    assert_eq!(lever(&group("workers", Floor)).await, Lever::Floor { floor: 6, current: 8 });
    read_and_set(&group("workers", Floor), 9).await.unwrap();
    assert_eq!(lever(&group("workers", Floor)).await, Lever::Floor { floor: 9, current: 9 });
    assert!(refusal(group("other", Size).read()).await.contains("`other` of EKS cluster `prod-eu`"));
}

async fn changes_a_group(autoscaling: &aws_sdk_autoscaling::Client) {
    let group = |name, kind| AutoScalingGroup::new(autoscaling.clone(), name, kind, false);
    let read = read_and_set(&group("web", Size), 8).await.unwrap();
    assert_eq!(read.limits, Limits { min_capacity: Some(2), max_capacity: Some(40) });
    assert_eq!((read.refuses_increase, read.refuses_decrease), (None, None));
    assert_eq!(lever(&group("web", Size)).await, Lever::Size(8));
    read_and_set(&group("web", Floor), 6).await.unwrap();
    assert_eq!(lever(&group("web", Floor)).await, Lever::Floor { floor: 6, current: 8 });
    assert!(refusal(group("other", Size).read()).await.contains("`other` does not exist"));
}

async fn suspends_a_process(autoscaling: &aws_sdk_autoscaling::Client) {
    let suspend = autoscaling.suspend_processes().auto_scaling_group_name("web");
    suspend.scaling_processes("Launch").send().await.unwrap();
    let read = AutoScalingGroup::new(autoscaling.clone(), "web", Size, false).read().await.unwrap();
    assert!(read.refuses_increase.unwrap().contains("`Launch`"));
    assert_eq!(read.refuses_decrease, None);
}

async fn changes_a_service_of_application_auto_scaling(service: &Service) {
    let read = read_and_set(service, 4).await.unwrap();
    assert_eq!(read.limits, Limits { min_capacity: None, max_capacity: Some(40) });
    assert_eq!(lever(service).await, Lever::Floor { floor: 4, current: 5 });
}

/// Events through the driver, with both ledger and platform on emulators: an increase that the maximum cuts, and the
/// decrease that takes it back, each delivered twice.
async fn acts_once_and_is_taken_back_once(ledger: &DynamoDb, group: &impl Capacity) {
    let policy = Policy::default();
    let apply = async |worker, event: ScalingEvent| {
        let answer = crate::apply::apply(worker, &event, ledger, group, &policy, || NOW, |_| ()).await;
        (answer.outcome, answer.from.zip(answer.to))
    };
    let increase = || event(1, 1, "+60");
    let decrease = || ScalingEvent { reverts: vec![id(1)], ..event(2, 2, "-100") };
    let before = lever(group).await.value();
    assert_eq!(apply(1, increase()).await, (Outcome::Capped, Some((before, 40))));
    assert_eq!(apply(2, increase()).await, (Outcome::AlreadyApplied, Some((before, 40))));
    assert_eq!(lever(group).await, Lever::Size(40));
    assert_eq!(apply(3, decrease()).await, (Outcome::Capped, Some((40, before))));
    assert_eq!(apply(4, decrease()).await, (Outcome::AlreadyApplied, Some((40, before))));
    assert_eq!(lever(group).await, Lever::Size(before));
}
