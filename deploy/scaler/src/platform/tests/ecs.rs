use super::*;
use crate::capacity::Lever;
use crate::event::Limits;
use crate::platform::ecs::{Owner, Service};

const TARGET: &str = r#"{"ScalableTargets":[{"ServiceNamespace":"ecs","ResourceId":"service/prod-eu/web",
    "ScalableDimension":"ecs:service:DesiredCount","MinCapacity":2,"MaxCapacity":40,"RoleARN":"","CreationTime":0}]}"#;

fn described(more: &str) -> String {
    format!(r#"{{"services":[{{"serviceName":"web","desiredCount":5{more}}}],"failures":[]}}"#)
}

async fn start(cluster: &str, owner: Owner) -> (Stub, Service) {
    let stub = Stub::start().await;
    stub.reply("DescribeServices", ok(&described(r#","status":"ACTIVE","schedulingStrategy":"REPLICA""#)))
        .reply("DescribeScalableTargets", ok(r#"{"ScalableTargets":[]}"#))
        .reply("UpdateService", ok("{}"))
        .reply("RegisterScalableTarget", ok("{}"));
    let account = account(&stub).await;
    let service = Service::new(account.ecs, account.application_autoscaling, cluster, "web", owner);
    (stub, service)
}

#[tokio::test]
async fn the_number_of_tasks_is_set_where_nobody_else_sets_it() {
    for owner in [Owner::Auto, Owner::Nobody] {
        let (stub, service) = start("prod-eu", owner).await;
        let read = read_and_set(&service, 8).await.unwrap();
        assert_eq!((read.lever, read.limits), (Lever::Size(5), Limits::default()));
        let body: serde_json::Value = serde_json::from_str(&stub.body("UpdateService")).unwrap();
        assert_eq!(body, serde_json::json!({"cluster": "prod-eu", "service": "web", "desiredCount": 8}));
        assert!(stub.calls("RegisterScalableTarget").is_empty());
    }
}

#[tokio::test]
async fn the_minimum_is_set_where_application_auto_scaling_owns_it() {
    for cluster in ["prod-eu", "arn:aws:ecs:eu-west-1:222233334444:cluster/prod-eu"] {
        let (stub, service) = start(cluster, Owner::Auto).await;
        stub.reply("DescribeScalableTargets", ok(TARGET));
        let read = read_and_set(&service, 8).await.unwrap();
        assert_eq!(read.lever, Lever::Floor { floor: 2, current: 5 });
        assert_eq!(read.limits, Limits { min_capacity: None, max_capacity: Some(40) });
        let expected = serde_json::json!({
            "ServiceNamespace": "ecs", "ResourceId": "service/prod-eu/web",
            "ScalableDimension": "ecs:service:DesiredCount", "MinCapacity": 8,
        });
        let body: serde_json::Value = serde_json::from_str(&stub.body("RegisterScalableTarget")).unwrap();
        assert_eq!(body, expected);
        assert!(stub.calls("UpdateService").is_empty());
    }
}

#[tokio::test]
async fn an_owner_that_should_not_be_there_refuses_all_changes() {
    let (stub, service) = start("prod-eu", Owner::Nobody).await;
    stub.reply("DescribeScalableTargets", ok(TARGET));
    let read = service.read().await.unwrap();
    assert!(read.refuses_increase.unwrap().contains("`managed_by: auto`"));
    assert!(read.refuses_decrease.unwrap().contains("`web`"));
}

#[tokio::test]
async fn a_service_without_a_number_of_tasks_is_refused() {
    let (stub, service) = start("prod-eu", Owner::Auto).await;
    for (more, said) in [
        (r#","status":"ACTIVE","schedulingStrategy":"DAEMON""#, "daemon"),
        (r#","status":"DRAINING""#, "DRAINING"),
        (r#","status":"INACTIVE""#, "INACTIVE"),
    ] {
        stub.reply("DescribeServices", ok(&described(more)));
        let why = refusal(service.read()).await;
        assert!(why.contains("service `web` of ECS cluster `prod-eu`") && why.contains(said), "{why}");
    }
}

#[tokio::test]
async fn a_service_that_does_not_exist_is_refused_by_name() {
    let (stub, service) = start("prod-eu", Owner::Auto).await;
    stub.reply("DescribeServices", ok(r#"{"services":[],"failures":[{"arn":"…","reason":"MISSING"}]}"#));
    assert!(
        refusal(service.read()).await.starts_with("service `web` of ECS cluster `prod-eu` does not exist")
    );
    stub.reply("DescribeServices", [Reply::Error(400, "ClusterNotFoundException", "Cluster not found.")]);
    assert!(refusal(service.read()).await.contains("ECS cluster `prod-eu`: ClusterNotFoundException"));
    let (stub, service) = start("prod-eu", Owner::Auto).await;
    stub.reply("UpdateService", [Reply::Error(400, "ServiceNotFoundException", "Service not found.")]);
    assert!(refusal(read_and_set(&service, 8)).await.contains("`web`"));
}

#[tokio::test]
async fn concurrent_updates_of_a_scalable_target_are_waited_for() {
    let (stub, service) = start("prod-eu", Owner::Auto).await;
    stub.reply("DescribeScalableTargets", ok(TARGET));
    stub.reply("RegisterScalableTarget", [Reply::Error(500, "ConcurrentUpdateException", "wait")]);
    let error = read_and_set(&service, 8).await.unwrap_err();
    assert!(matches!(error, PlatformError::Busy(_)), "{error:?}");
}
