//! What exporters show while there is no problem: the metrics of every alert rule that is shipped, so that no
//! `…MetricsMissing` alert fires.

/// The name of a job, and its metrics.
pub(super) const CALM: [(&str, &str); 8] = [
    (PROMETHEUS_JOB, PROMETHEUS),
    ("kube-state-metrics", KUBE_STATE_METRICS),
    ("node-exporter", NODE_EXPORTER),
    ("aws-node", AWS_NODE),
    ("yace", YACE),
    ("aws-subnet-exporter", AWS_SUBNET_EXPORTER),
    ("nomad-server", NOMAD_SERVER),
    ("nomad-client", NOMAD_CLIENT),
];

/// The job of Prometheus' own metrics: it does not end with the exporters.
pub(super) const PROMETHEUS_JOB: &str = "prometheus";

const PROMETHEUS: &str = r#"
prometheus_rule_evaluation_failures_total{rule_group="capacity.rules.yml;capacity-ec2"} 0
"#;

const KUBE_STATE_METRICS: &str = r#"
kube_pod_nodeselectors{namespace="shop",pod="a",uid="1",nodeselector_eks_amazonaws_com_nodegroup="workers"} 1
kube_node_labels{node="n",label_eks_amazonaws_com_nodegroup="workers"} 1
kube_node_created{node="n"} 1.7e+09
"#;

const NODE_EXPORTER: &str = r#"
node_cpu_seconds_total{node="n",cpu="0",mode="idle"} 900
node_cpu_seconds_total{node="n",cpu="0",mode="user"} 100
node_memory_MemAvailable_bytes{node="n"} 8e+09
node_memory_MemTotal_bytes{node="n"} 1.6e+10
"#;

const AWS_NODE: &str = r#"
awscni_assigned_ip_addresses{node="n"} 10
awscni_ip_max{node="n"} 50
"#;

const YACE: &str = r#"
aws_ec2_cpuutilization_average{dimension_AutoScalingGroupName="web",region="eu-west-1"} 30
aws_sqs_approximate_age_of_oldest_message_maximum{dimension_QueueName="orders",region="eu-west-1",tag_scalebridge_cluster="prod-eu",tag_scalebridge_service="web"} 2
aws_sqs_approximate_number_of_messages_visible_maximum{dimension_QueueName="mails",region="eu-west-1",tag_scalebridge_namespace="shop",tag_scalebridge_deployment="web"} 3
aws_ecs_cpuutilization_average{dimension_ClusterName="prod-eu",dimension_ServiceName="web",region="eu-west-1"} 30
aws_ecs_containerinsights_desired_task_count_average{dimension_ClusterName="prod-eu",dimension_ServiceName="web",region="eu-west-1"} 5
aws_ecs_containerinsights_running_task_count_average{dimension_ClusterName="prod-eu",dimension_ServiceName="web",region="eu-west-1"} 5
aws_autoscaling_group_desired_capacity_maximum{region="eu-west-1",tag_eks_cluster_name="prod-eu",tag_eks_nodegroup_name="workers"} 5
aws_autoscaling_group_max_size_maximum{region="eu-west-1",tag_eks_cluster_name="prod-eu",tag_eks_nodegroup_name="workers"} 40
"#;

const AWS_SUBNET_EXPORTER: &str = r#"
aws_subnet_exporter_available_ips{region="eu-west-1",subnetid="subnet-1"} 200
aws_subnet_exporter_max_ips{region="eu-west-1",subnetid="subnet-1"} 251
"#;

const NOMAD_SERVER: &str = r#"
nomad_nomad_blocked_evals_total_blocked 0
nomad_nomad_heartbeat_active 1
"#;

const NOMAD_CLIENT: &str = r#"
nomad_client_allocs_cpu_total_ticks{namespace="shop",exported_job="worker",task_group="worker"} 100
nomad_client_allocs_cpu_allocated{namespace="shop",exported_job="worker",task_group="worker"} 500
"#;
