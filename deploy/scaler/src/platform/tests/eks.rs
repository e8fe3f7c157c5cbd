use super::*;
use crate::capacity::Lever;
use crate::event::Limits;
use crate::platform::LeverKind::{self, Floor, Size};
use crate::platform::eks::NodeGroup;

fn described(status: &str) -> String {
    format!(
        r#"{{"nodegroup":{{"nodegroupName":"workers","status":"{status}",
            "scalingConfig":{{"minSize":2,"maxSize":40,"desiredSize":5}}}}}}"#
    )
}

async fn start(kind: LeverKind) -> (Stub, NodeGroup) {
    let stub = Stub::start().await;
    stub.reply("DescribeNodegroup", ok(&described("ACTIVE"))).reply("UpdateNodegroupConfig", ok("{}"));
    let group = NodeGroup::new(account(&stub).await.eks, "prod-eu", "workers", kind);
    (stub, group)
}

#[tokio::test]
async fn the_size_is_read_and_set_with_the_event_as_token() {
    let (stub, group) = start(Size).await;
    let read = read_and_set(&group, 8).await.unwrap();
    assert_eq!(read.lever, Lever::Size(5));
    assert_eq!(read.limits, Limits { min_capacity: Some(2), max_capacity: Some(40) });
    let body: serde_json::Value = serde_json::from_str(&stub.body("UpdateNodegroupConfig")).unwrap();
    assert_eq!(body, serde_json::json!({"scalingConfig": {"desiredSize": 8}, "clientRequestToken": "b3f0"}));
}

#[tokio::test]
async fn a_floor_above_the_size_raises_the_size_which_eks_requires() {
    for (to, expected) in [
        (8, serde_json::json!({"minSize": 8, "desiredSize": 8})),
        (5, serde_json::json!({"minSize": 5})),
        (1, serde_json::json!({"minSize": 1})),
    ] {
        let (stub, group) = start(Floor).await;
        let read = read_and_set(&group, to).await.unwrap();
        assert_eq!(read.lever, Lever::Floor { floor: 2, current: 5 });
        assert_eq!(read.limits, Limits { min_capacity: None, max_capacity: Some(40) });
        let body: serde_json::Value = serde_json::from_str(&stub.body("UpdateNodegroupConfig")).unwrap();
        assert_eq!(body["scalingConfig"], expected);
    }
}

#[tokio::test]
async fn the_status_says_whether_it_can_be_changed() {
    let (stub, group) = start(Size).await;
    for status in ["ACTIVE", "DEGRADED", "A_LATER_ONE"] {
        stub.reply("DescribeNodegroup", ok(&described(status)));
        assert_eq!(group.read().await.unwrap().busy, None, "{status}");
    }
    for status in ["CREATING", "UPDATING"] {
        stub.reply("DescribeNodegroup", ok(&described(status)));
        let busy = group.read().await.unwrap().busy.unwrap();
        assert!(busy.contains("`workers`") && busy.contains("`prod-eu`") && busy.contains(status), "{busy}");
    }
    for status in ["DELETING", "CREATE_FAILED", "DELETE_FAILED"] {
        stub.reply("DescribeNodegroup", ok(&described(status)));
        refusal(group.read()).await;
    }
}

#[tokio::test]
async fn an_update_that_has_begun_meanwhile_is_waited_for() {
    let (stub, group) = start(Size).await;
    let said = "Nodegroup cannot be updated as it is currently not in Active State";
    stub.reply("UpdateNodegroupConfig", [Reply::Error(409, "ResourceInUseException", said)]);
    let text = format!(
        "eks:UpdateNodegroupConfig of node group `workers` of EKS cluster `prod-eu`: \
         ResourceInUseException: {said}"
    );
    assert_eq!(read_and_set(&group, 8).await, Err(PlatformError::Busy(text)));
}

#[tokio::test]
async fn what_eks_does_not_accept_is_refused() {
    let (stub, group) = start(Size).await;
    let said = "desired capacity 50 can't be greater than max size 40";
    stub.reply("UpdateNodegroupConfig", [Reply::Error(400, "InvalidParameterException", said)]);
    let why = refusal(read_and_set(&group, 50)).await;
    assert!(why.ends_with(said), "{why}");
}

#[tokio::test]
async fn a_group_that_does_not_exist_is_refused_by_name() {
    let (stub, group) = start(Size).await;
    let said = "No node group found for name: workers.";
    stub.reply("DescribeNodegroup", [Reply::Error(404, "ResourceNotFoundException", said)]);
    let why = refusal(group.read()).await;
    assert!(why.contains("node group `workers` of EKS cluster `prod-eu`") && why.ends_with(said), "{why}");
}
