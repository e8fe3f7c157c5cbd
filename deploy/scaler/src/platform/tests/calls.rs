//! Attempts, timeouts, permissions and roles: the same for all services.

use std::time::Duration;

use super::*;
use crate::aws::Role;
use crate::capacity::Lever;
use crate::event::Limits;
use crate::platform::LeverKind::{Floor, Size};
use crate::platform::ec2::AutoScalingGroup;
use crate::platform::ecs::{Owner, Service};
use crate::platform::eks::NodeGroup;
use crate::test_support::ACCESS_KEY;

const NODEGROUP: &str = r#"{"nodegroup":{"scalingConfig":{"minSize":2,"maxSize":40,"desiredSize":5}}}"#;
const NO_GROUP: &str = "<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult><AutoScalingGroups/>\
    </DescribeAutoScalingGroupsResult></DescribeAutoScalingGroupsResponse>";
const SESSION: &str = "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>AKIDROLE</AccessKeyId>\
    <SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken>\
    <Expiration>2126-11-30T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>";

fn present(lever: Lever) -> Present {
    Present {
        lever,
        revision: String::new(),
        limits: Limits::default(),
        busy: None,
        refuses_increase: None,
        refuses_decrease: None,
    }
}

async fn nodegroup(stub: &Stub) -> NodeGroup {
    NodeGroup::new(account(stub).await.eks, "prod-eu", "workers", Size)
}

#[tokio::test]
async fn a_read_is_tried_again_and_a_write_is_not() {
    let stub = Stub::start().await;
    let group = nodegroup(&stub).await;
    let throttled = || Reply::Error(429, "ThrottlingException", "Rate exceeded");
    stub.reply(
        "DescribeNodegroup",
        [throttled(), Reply::Page(503, "a proxy"), Reply::Ok(NODEGROUP.to_owned())],
    );
    assert_eq!(group.read().await.unwrap().lever, Lever::Size(5));

    for reply in [throttled(), Reply::Page(503, "a proxy"), Reply::Close] {
        let stub = Stub::start().await;
        let group = nodegroup(&stub).await;
        stub.reply("UpdateNodegroupConfig", [reply, Reply::Ok("{}".to_owned())]);
        assert!(group.set(&present(Lever::Size(5)), 8, "b3f0").await.is_err());
        assert_eq!(stub.calls("UpdateNodegroupConfig").len(), 1);
    }
}

#[tokio::test]
async fn a_lost_answer_of_a_write_leaves_it_unknown_and_one_of_a_read_does_not() {
    let stub = Stub::start().await;
    let group = nodegroup(&stub).await;
    let read = present(Lever::Size(5));
    for reply in [Reply::Close, Reply::Error(500, "ServerException", "…"), Reply::Page(502, "a proxy")] {
        stub.reply("UpdateNodegroupConfig", [reply.clone()]).reply("DescribeNodegroup", [reply.clone()]);
        let error = group.set(&read, 8, "b3f0").await.unwrap_err();
        assert!(matches!(error, PlatformError::Unknown(_)), "{reply:?}: {error:?}");
        let error = group.read().await.unwrap_err();
        assert!(matches!(error, PlatformError::Busy(_)), "{reply:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_write_that_was_never_sent_has_changed_nothing() {
    let unused = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let account = Accounts::new(crate::test_support::config(&unused).await).account(REGION, None).await;
    let group = NodeGroup::new(account.eks, "prod-eu", "workers", Size);
    let error = group.set(&present(Lever::Size(5)), 8, "b3f0").await.unwrap_err();
    assert!(matches!(error, PlatformError::Busy(_)), "{error:?}");
}

/// The driver relies on it: another worker takes a change over after a time in which no call of the first one is on
/// its way any more.
#[tokio::test]
async fn no_write_is_on_its_way_for_longer_than_its_timeout() {
    const LIMIT: Duration = Duration::from_secs(10);
    let stub = Stub::start().await;
    let writes = [
        "UpdateNodegroupConfig",
        "SetDesiredCapacity",
        "UpdateAutoScalingGroup",
        "UpdateService",
        "RegisterScalableTarget",
    ];
    for action in writes {
        stub.reply(action, [Reply::Silence]);
    }
    let Account { eks, autoscaling, ecs, application_autoscaling, .. } = account(&stub).await;
    let nodes = NodeGroup::new(eks, "prod-eu", "workers", Size);
    let size = AutoScalingGroup::new(autoscaling.clone(), "web", Size, false);
    let min = AutoScalingGroup::new(autoscaling, "web", Floor, false);
    let service = Service::new(ecs, application_autoscaling, "prod-eu", "web", Owner::Auto);
    let (read, floor) = (present(Lever::Size(5)), present(Lever::Floor { floor: 2, current: 5 }));
    let all = async {
        tokio::join!(
            nodes.set(&read, 8, "b3f0"),
            size.set(&read, 8, "b3f0"),
            min.set(&floor, 8, "b3f0"),
            service.set(&read, 8, "b3f0"),
            service.set(&floor, 8, "b3f0"),
        )
    };
    let all = tokio::time::timeout(LIMIT, all).await.expect("they end");
    for result in [all.0, all.1, all.2, all.3, all.4] {
        assert!(
            matches!(&result, Err(PlatformError::Unknown(text)) if text.contains("no answer in time")),
            "{result:?}"
        );
    }
    for action in writes {
        assert_eq!(stub.calls(action).len(), 1, "{action}");
    }
}

#[tokio::test]
async fn a_missing_permission_is_waited_for_and_says_what_to_grant() {
    let stub = Stub::start().await;
    let group = nodegroup(&stub).await;
    stub.reply("DescribeNodegroup", [Reply::Error(403, "AccessDeniedException", "User is not authorized")]);
    let expected = "eks:DescribeNodegroup of node group `workers` of EKS cluster `prod-eu`: AccessDeniedException: \
                    User is not authorized; grant it to the scaler's role, see `scalebridge-scaler iam-policy`";
    assert_eq!(group.read().await, Err(PlatformError::Busy(expected.to_owned())));
}

#[tokio::test]
async fn another_account_is_called_with_its_role_which_is_assumed_once() {
    let stub = Stub::start().await;
    stub.reply("AssumeRole", ok(SESSION)).reply("DescribeNodegroup", ok(NODEGROUP));
    stub.reply("DescribeAutoScalingGroups", ok(NO_GROUP));
    let accounts = Accounts::new(stub.config().await);
    let arn = "arn:aws:iam::222233334444:role/scaler".to_owned();
    let role = Role { arn, external_id: Some("of-the-scaler".to_owned()) };
    for _ in 0..2 {
        let Account { eks, autoscaling, .. } = accounts.account(REGION, Some(&role)).await;
        NodeGroup::new(eks, "prod-eu", "workers", Size).read().await.unwrap();
        refusal(AutoScalingGroup::new(autoscaling, "web", Size, false).read()).await;
    }
    let assumed = stub.calls("AssumeRole");
    assert_eq!(assumed.len(), 1);
    assert_eq!(assumed[0].access_key, ACCESS_KEY);
    assert!(assumed[0].body.contains("ExternalId=of-the-scaler"), "{}", assumed[0].body);
    assert!(assumed[0].body.contains("RoleSessionName=scalebridge-scaler"), "{}", assumed[0].body);
    for action in ["DescribeNodegroup", "DescribeAutoScalingGroups"] {
        let keys: Vec<String> = stub.calls(action).into_iter().map(|call| call.access_key).collect();
        assert_eq!(keys, ["AKIDROLE", "AKIDROLE"]);
    }
    NodeGroup::new(accounts.account(REGION, None).await.eks, "prod-eu", "workers", Size)
        .read()
        .await
        .unwrap();
    assert_eq!(stub.calls("DescribeNodegroup").last().unwrap().access_key, ACCESS_KEY);
}

#[tokio::test]
async fn a_role_that_cannot_be_assumed_changes_nothing_and_says_why() {
    let stub = Stub::start().await;
    let said = "User is not authorized to perform sts:AssumeRole";
    stub.reply("AssumeRole", [Reply::Error(403, "AccessDenied", said)]);
    let role = Role { arn: "arn:aws:iam::222233334444:role/scaler".to_owned(), external_id: None };
    let account = Accounts::new(stub.config().await).account(REGION, Some(&role)).await;
    let group = NodeGroup::new(account.eks, "prod-eu", "workers", Size);
    let error = group.set(&present(Lever::Size(5)), 8, "b3f0").await.unwrap_err();
    assert!(matches!(&error, PlatformError::Busy(text) if text.contains(said)), "{error:?}");
    assert!(stub.calls("UpdateNodegroupConfig").is_empty());
}
