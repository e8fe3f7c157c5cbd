use super::*;
use crate::capacity::Lever;
use crate::event::Limits;
use crate::platform::LeverKind::{self, Floor, Size};
use crate::platform::ec2::AutoScalingGroup;

const TAGGED: &str =
    "<Tags><member><Key>kubernetes.io/cluster/prod-eu</Key><Value>owned</Value></member></Tags>";
const OF_EKS: &str = "<Tags><member><Key>eks:nodegroup-name</Key><Value>workers</Value></member>\
                      <member><Key>kubernetes.io/cluster/prod-eu</Key><Value>owned</Value></member></Tags>";

fn described(more: &str) -> String {
    group(&format!(
        "<AutoScalingGroupName>web</AutoScalingGroupName><MinSize>2</MinSize><MaxSize>40</MaxSize>\
         <DesiredCapacity>5</DesiredCapacity>{more}"
    ))
}

fn group(fields: &str) -> String {
    format!(
        "<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult><AutoScalingGroups>\
         <member>{fields}</member></AutoScalingGroups></DescribeAutoScalingGroupsResult>\
         </DescribeAutoScalingGroupsResponse>"
    )
}

fn suspended(process: &str) -> String {
    format!(
        "<SuspendedProcesses><member><ProcessName>{process}</ProcessName>\
         <SuspensionReason>User suspended at 2026-11-30</SuspensionReason></member></SuspendedProcesses>"
    )
}

async fn start(kind: LeverKind, allow_undrained: bool) -> (Stub, AutoScalingGroup) {
    let stub = Stub::start().await;
    stub.reply("DescribeAutoScalingGroups", ok(&described("")))
        .reply("SetDesiredCapacity", ok("<SetDesiredCapacityResponse/>"))
        .reply("UpdateAutoScalingGroup", ok("<UpdateAutoScalingGroupResponse/>"));
    let group = AutoScalingGroup::new(account(&stub).await.autoscaling, "web", kind, allow_undrained);
    (stub, group)
}

/// What is refused of an increase and of a decrease, for a group with `more`.
async fn refusals(kind: LeverKind, allow_undrained: bool, more: &str) -> (Option<String>, Option<String>) {
    let (stub, group) = start(kind, allow_undrained).await;
    stub.reply("DescribeAutoScalingGroups", ok(&described(more)));
    let read = group.read().await.unwrap();
    (read.refuses_increase, read.refuses_decrease)
}

#[tokio::test]
async fn the_size_is_set_without_waiting_for_a_cooldown() {
    let (stub, group) = start(Size, false).await;
    let read = read_and_set(&group, 8).await.unwrap();
    assert_eq!(read.lever, Lever::Size(5));
    assert_eq!(read.limits, Limits { min_capacity: Some(2), max_capacity: Some(40) });
    let body = stub.body("SetDesiredCapacity");
    assert!(body.contains("DesiredCapacity=8") && body.contains("HonorCooldown=false"), "{body}");
}

#[tokio::test]
async fn a_floor_is_the_minimum_of_the_group() {
    let (stub, group) = start(Floor, false).await;
    let read = read_and_set(&group, 8).await.unwrap();
    assert_eq!(read.lever, Lever::Floor { floor: 2, current: 5 });
    assert_eq!(read.limits, Limits { min_capacity: None, max_capacity: Some(40) });
    let body = stub.body("UpdateAutoScalingGroup");
    assert!(body.contains("MinSize=8") && !body.contains("DesiredCapacity"), "{body}");
    assert!(stub.calls("SetDesiredCapacity").is_empty());
}

#[tokio::test]
async fn a_suspended_process_refuses_what_it_would_not_carry_out() {
    let (increase, decrease) = refusals(Size, false, &suspended("Launch")).await;
    let why = "the process `Launch` of Auto Scaling group `web` is suspended (User suspended at 2026-11-30): \
               resume it";
    assert_eq!((increase.as_deref(), decrease), (Some(why), None));

    let (increase, decrease) = refusals(Size, false, &suspended("Terminate")).await;
    assert_eq!(increase, None);
    assert!(decrease.unwrap().contains("`Terminate`"));

    assert_eq!(refusals(Size, false, &suspended("AZRebalance")).await, (None, None));
    // The owner of the size ends instances, not the group.
    assert_eq!(refusals(Floor, false, &suspended("Terminate")).await, (None, None));
    assert!(refusals(Floor, false, &suspended("Launch")).await.0.is_some());
}

#[tokio::test]
async fn nodes_of_a_cluster_are_not_ended_undrained() {
    let (increase, decrease) = refusals(Size, false, TAGGED).await;
    assert_eq!(increase, None);
    let decrease = decrease.unwrap();
    assert!(decrease.contains("kubernetes.io/cluster/prod-eu"), "{decrease}");
    assert!(decrease.contains("allow_undrained: true"), "{decrease}");

    let (_, decrease) = refusals(Size, false, OF_EKS).await;
    assert!(decrease.unwrap().contains("eks/nodegroup"));

    assert_eq!(refusals(Size, true, TAGGED).await, (None, None));
    assert_eq!(refusals(Floor, false, TAGGED).await, (None, None));
    assert!(refusals(Size, true, &suspended("Terminate")).await.1.is_some());
}

#[tokio::test]
async fn conflicts_are_waited_for_and_errors_refused() {
    let (stub, group) = start(Size, false).await;
    for (status, code) in
        [(400, "ScalingActivityInProgress"), (500, "ResourceContention"), (400, "Throttling")]
    {
        stub.reply("SetDesiredCapacity", [Reply::Error(status, code, "wait")]);
        let error = read_and_set(&group, 8).await.unwrap_err();
        assert!(matches!(&error, PlatformError::Busy(text) if text.contains(code)), "{error:?}");
    }
    let said = "New SetDesiredCapacity value 50 is above max value 40 for the AutoScalingGroup.";
    stub.reply("SetDesiredCapacity", [Reply::Error(400, "ValidationError", said)]);
    assert!(refusal(read_and_set(&group, 50)).await.ends_with(said));
}

#[tokio::test]
async fn a_group_that_does_not_exist_is_refused_by_name() {
    let (stub, group) = start(Size, false).await;
    stub.reply("DescribeAutoScalingGroups", ok(&self::group("").replace("<member></member>", "")));
    assert!(refusal(group.read()).await.contains("Auto Scaling group `web` does not exist"));
    // Another one is not taken for it.
    stub.reply(
        "DescribeAutoScalingGroups",
        ok(&self::group("<AutoScalingGroupName>other</AutoScalingGroupName><MinSize>1</MinSize>")),
    );
    assert!(refusal(group.read()).await.contains("Auto Scaling group `web` does not exist"));
    stub.reply("DescribeAutoScalingGroups", ok(&described("<Status>Delete in progress</Status>")));
    assert!(refusal(group.read()).await.contains("Delete in progress"));
}
