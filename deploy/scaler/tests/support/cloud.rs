//! What tests create in the emulators.

use aws_config::SdkConfig;
use aws_sdk_applicationautoscaling::types::{ScalableDimension, ServiceNamespace};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use aws_sdk_ecs::types::ContainerDefinition;
use aws_sdk_eks::types::{NodegroupScalingConfig, VpcConfigRequest};

const ROLE: &str = "arn:aws:iam::123456789012:role/nodes";

/// `workers` of `prod-eu`, with 5 of 2 to 40 nodes.
pub(crate) async fn create_nodegroup(config: &SdkConfig) {
    let eks = aws_sdk_eks::Client::new(config);
    let vpc = VpcConfigRequest::builder().build();
    let cluster = eks.create_cluster().name("prod-eu").role_arn(ROLE).resources_vpc_config(vpc);
    cluster.send().await.unwrap();
    let scaling = NodegroupScalingConfig::builder().min_size(2).desired_size(5).max_size(40).build();
    let group = eks.create_nodegroup().cluster_name("prod-eu").nodegroup_name("workers");
    group.scaling_config(scaling).subnets("subnet-1").node_role(ROLE).send().await.unwrap();
}

/// `web`, with 5 of 2 to 40 instances.
pub(crate) async fn create_group(config: &SdkConfig) {
    let autoscaling = aws_sdk_autoscaling::Client::new(config);
    let launch = autoscaling.create_launch_configuration().launch_configuration_name("launch");
    launch.image_id("ami-1").instance_type("t3.micro").send().await.unwrap();
    let group = autoscaling.create_auto_scaling_group().auto_scaling_group_name("web");
    let group = group.launch_configuration_name("launch").availability_zones("eu-west-1a");
    group.min_size(2).desired_capacity(5).max_size(40).send().await.unwrap();
}

/// `web` of `prod-eu`, with 5 tasks.
pub(crate) async fn create_service(config: &SdkConfig) {
    let ecs = aws_sdk_ecs::Client::new(config);
    ecs.create_cluster().cluster_name("prod-eu").send().await.unwrap();
    let container = ContainerDefinition::builder().name("web").image("web").memory(128).build();
    let task = ecs.register_task_definition().family("web").container_definitions(container);
    task.send().await.unwrap();
    let service = ecs.create_service().cluster("prod-eu").service_name("web").task_definition("web");
    service.desired_count(5).send().await.unwrap();
}

/// Of this service, with 2 to 40 tasks.
pub(crate) async fn create_scalable_target(config: &SdkConfig) {
    let scaling = aws_sdk_applicationautoscaling::Client::new(config);
    let target = scaling.register_scalable_target().service_namespace(ServiceNamespace::Ecs);
    let target = target.scalable_dimension(ScalableDimension::EcsServiceDesiredCount);
    let target = target.resource_id("service/prod-eu/web").min_capacity(2).max_capacity(40);
    target.send().await.unwrap();
}

/// The table of a ledger.
pub(crate) async fn create_table(config: &SdkConfig, name: &str) {
    let key = KeySchemaElement::builder().attribute_name("pk").key_type(KeyType::Hash).build().unwrap();
    let attribute = AttributeDefinition::builder();
    let attribute = attribute.attribute_name("pk").attribute_type(ScalarAttributeType::S).build().unwrap();
    let create = aws_sdk_dynamodb::Client::new(config).create_table().table_name(name).key_schema(key);
    create.attribute_definitions(attribute).billing_mode(BillingMode::PayPerRequest).send().await.unwrap();
}
