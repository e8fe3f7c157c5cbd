//! The platforms against emulators, which know the protocols without us.

use aws_sdk_applicationautoscaling::types::{ScalableDimension, ServiceNamespace};
use aws_sdk_ecs::types::ContainerDefinition;
use aws_sdk_eks::types::{NodegroupScalingConfig, VpcConfigRequest};

use super::*;
use crate::capacity::Lever;
use crate::event::Limits;
use crate::ledger::dynamodb::tests::ledger_of;
use crate::outcome::{Answer, Outcome};
use crate::plan::Policy;
use crate::plan::test_support::{NOW, event, id};
use crate::platform::LeverKind::{Floor, Size};
use crate::platform::ec2::AutoScalingGroup;
use crate::platform::ecs::{Owner, Service};
use crate::platform::eks::NodeGroup;
use crate::test_support::config;
use crate::test_support::emulators::{Emulator, ministack, moto};

const ROLE: &str = "arn:aws:iam::123456789012:role/nodes";

async fn account_of(emulator: &Emulator) -> Account {
    Accounts::new(config(&emulator.url())).account(REGION, None).await
}

async fn lever(capacity: &impl Capacity) -> Lever {
    capacity.read().await.unwrap().lever
}

/// `workers` of `prod-eu`, with 5 of 2 to 40 nodes.
async fn create_nodegroup(eks: &aws_sdk_eks::Client) {
    let vpc = VpcConfigRequest::builder().build();
    let cluster = eks.create_cluster().name("prod-eu").role_arn(ROLE).resources_vpc_config(vpc);
    cluster.send().await.unwrap();
    let scaling = NodegroupScalingConfig::builder().min_size(2).desired_size(5).max_size(40).build();
    let group = eks.create_nodegroup().cluster_name("prod-eu").nodegroup_name("workers");
    group.scaling_config(scaling).subnets("subnet-1").node_role(ROLE).send().await.unwrap();
}

/// `web`, with 5 of 2 to 40 instances.
async fn create_group(autoscaling: &aws_sdk_autoscaling::Client) {
    let launch = autoscaling.create_launch_configuration().launch_configuration_name("launch");
    launch.image_id("ami-1").instance_type("t3.micro").send().await.unwrap();
    let group = autoscaling.create_auto_scaling_group().auto_scaling_group_name("web");
    let group = group.launch_configuration_name("launch").availability_zones("eu-west-1a");
    group.min_size(2).desired_capacity(5).max_size(40).send().await.unwrap();
}

/// `web` of `prod-eu`, with 5 tasks.
async fn create_service(ecs: &aws_sdk_ecs::Client) {
    ecs.create_cluster().cluster_name("prod-eu").send().await.unwrap();
    let container = ContainerDefinition::builder().name("web").image("web").memory(128).build();
    let task = ecs.register_task_definition().family("web").container_definitions(container);
    task.send().await.unwrap();
    let service = ecs.create_service().cluster("prod-eu").service_name("web").task_definition("web");
    service.desired_count(5).send().await.unwrap();
}

#[tokio::test]
async fn a_node_group() {
    let emulator = moto().await;
    let eks = account_of(&emulator).await.eks;
    create_nodegroup(&eks).await;
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

async fn changes_a_group(emulator: &Emulator) {
    let autoscaling = account_of(emulator).await.autoscaling;
    create_group(&autoscaling).await;
    let group = |name, kind| AutoScalingGroup::new(autoscaling.clone(), name, kind, false);
    let read = read_and_set(&group("web", Size), 8).await.unwrap();
    assert_eq!(read.limits, Limits { min_capacity: Some(2), max_capacity: Some(40) });
    assert_eq!((read.refuses_increase, read.refuses_decrease), (None, None));
    assert_eq!(lever(&group("web", Size)).await, Lever::Size(8));
    read_and_set(&group("web", Floor), 6).await.unwrap();
    assert_eq!(lever(&group("web", Floor)).await, Lever::Floor { floor: 6, current: 8 });
    assert!(refusal(group("other", Size).read()).await.contains("`other` does not exist"));
}

#[tokio::test]
async fn an_auto_scaling_group_on_ministack() {
    changes_a_group(&ministack().await).await;
}

#[tokio::test]
async fn an_auto_scaling_group_on_moto() {
    let emulator = moto().await;
    changes_a_group(&emulator).await;
    let autoscaling = account_of(&emulator).await.autoscaling;
    let suspend = autoscaling.suspend_processes().auto_scaling_group_name("web");
    suspend.scaling_processes("Launch").send().await.unwrap();
    let read = AutoScalingGroup::new(autoscaling, "web", Size, false).read().await.unwrap();
    assert!(read.refuses_increase.unwrap().contains("`Launch`"));
    assert_eq!(read.refuses_decrease, None);
}

#[tokio::test]
async fn a_service_without_another_owner() {
    // ministack has no Application Auto Scaling.
    let (services, scaling) = (ministack().await, moto().await);
    let ecs = account_of(&services).await.ecs;
    let scaling = account_of(&scaling).await.application_autoscaling;
    create_service(&ecs).await;
    let service = |name| Service::new(ecs.clone(), scaling.clone(), "prod-eu", name, Owner::Auto);
    read_and_set(&service("web"), 8).await.unwrap();
    assert_eq!(lever(&service("web")).await, Lever::Size(8));
    assert!(refusal(service("other").read()).await.contains("`other` of ECS cluster `prod-eu` does not exist"));
}

#[tokio::test]
async fn a_service_of_application_auto_scaling() {
    let emulator = moto().await;
    let Account { ecs, application_autoscaling: scaling, .. } = account_of(&emulator).await;
    create_service(&ecs).await;
    let target = scaling.register_scalable_target().service_namespace(ServiceNamespace::Ecs);
    let target = target.scalable_dimension(ScalableDimension::EcsServiceDesiredCount);
    let target = target.resource_id("service/prod-eu/web").min_capacity(2).max_capacity(40);
    target.send().await.unwrap();
    let service = Service::new(ecs, scaling, "prod-eu", "web", Owner::Auto);
    let read = read_and_set(&service, 4).await.unwrap();
    assert_eq!(read.limits, Limits { min_capacity: None, max_capacity: Some(40) });
    assert_eq!(lever(&service).await, Lever::Floor { floor: 4, current: 5 });
}

/// Events through the driver, with both ledger and platform on emulators.
#[tokio::test]
async fn an_increase_acts_once_and_is_taken_back_once() {
    let (tables, clusters) = (ministack().await, moto().await);
    let ledger = ledger_of(&tables).await;
    let eks = account_of(&clusters).await.eks;
    create_nodegroup(&eks).await;
    let group = NodeGroup::new(eks, "prod-eu", "workers", Size);
    let policy = Policy::default();
    let apply = async |worker, event| {
        let answer = crate::apply::apply(worker, &event, &ledger, &group, &policy, || NOW).await;
        let Answer { outcome, from, to, .. } = answer;
        (outcome, from.zip(to))
    };
    let revert = |number| crate::event::ScalingEvent {
        reverts: vec![id(1)],
        ..event(number, u64::from(number), "-100")
    };
    assert_eq!(apply(1, event(1, 1, "+60")).await, (Outcome::Capped, Some((5, 40))));
    assert_eq!(apply(2, event(1, 1, "+60")).await, (Outcome::AlreadyApplied, Some((5, 40))));
    assert_eq!(apply(3, revert(2)).await, (Outcome::Capped, Some((40, 5))));
    assert_eq!(apply(4, revert(2)).await, (Outcome::AlreadyApplied, Some((40, 5))));
    assert_eq!(lever(&group).await, Lever::Size(5));
}
