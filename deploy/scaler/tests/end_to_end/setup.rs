//! Emulators with groups, services, queues and a ledger, and the scaler's configuration for them.

use aws_config::SdkConfig;
use aws_sdk_sqs::types::QueueAttributeName as Attribute;
use serde_json::{Value, json};

use crate::process::{Process, eventually};
use crate::test_support::cloud::{create_group, create_nodegroup, create_service, create_table};
use crate::test_support::emulators::{Emulator, ministack, moto};
use crate::test_support::{REGION, config};

pub(crate) const TABLE: &str = "scaler";
/// What each platform has before the first event: [`create_nodegroup`] and the others.
pub(crate) const BEFORE: [u32; 3] = [5, 5, 5];

/// An AWS account: EKS and Application Auto Scaling of moto, everything else of ministack.
pub(crate) struct Cloud {
    main: Emulator,
    eks: Emulator,
    pub(crate) config: SdkConfig,
    eks_config: SdkConfig,
    pub(crate) sqs: aws_sdk_sqs::Client,
}

impl Cloud {
    pub(crate) async fn start() -> Self {
        let (main, eks) = tokio::join!(ministack(), moto());
        let (config, eks_config) = (config(&main.url()).await, config(&eks.url()).await);
        create_nodegroup(&eks_config).await;
        create_group(&config).await;
        create_service(&config).await;
        create_table(&config, TABLE).await;
        let sqs = aws_sdk_sqs::Client::new(&config);
        Self { main, eks, config, eks_config, sqs }
    }

    /// What programs need to call it.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        [
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("AWS_ENDPOINT_URL", self.main.url()),
            ("AWS_ENDPOINT_URL_EKS", self.eks.url()),
            ("AWS_ENDPOINT_URL_APPLICATION_AUTO_SCALING", self.eks.url()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    pub(crate) fn url(&self) -> String {
        self.main.url()
    }

    /// EKS and Application Auto Scaling.
    pub(crate) fn eks_url(&self) -> String {
        self.eks.url()
    }

    /// Creates a queue whose messages are received again after `visibility` seconds, and returns its URL.
    pub(crate) async fn queue(&self, name: &str, visibility: u32) -> String {
        let mut create = self.sqs.create_queue().queue_name(name);
        create = create.attributes(Attribute::VisibilityTimeout, visibility.to_string());
        if name.ends_with(".fifo") {
            create = create.attributes(Attribute::FifoQueue, "true");
        }
        create.send().await.unwrap().queue_url.unwrap()
    }

    /// Nodes, instances and tasks.
    pub(crate) async fn capacities(&self) -> [u32; 3] {
        let eks = aws_sdk_eks::Client::new(&self.eks_config);
        let nodes = eks.describe_nodegroup().cluster_name("prod-eu").nodegroup_name("workers").send();
        let nodes = nodes.await.unwrap().nodegroup.unwrap().scaling_config.unwrap().desired_size.unwrap();
        let group = aws_sdk_autoscaling::Client::new(&self.config).describe_auto_scaling_groups();
        let group = group.auto_scaling_group_names("web").send().await.unwrap();
        let instances = group.auto_scaling_groups()[0].desired_capacity.unwrap();
        let service = aws_sdk_ecs::Client::new(&self.config).describe_services();
        let service = service.cluster("prod-eu").services("web").send().await.unwrap();
        [nodes, instances, service.services()[0].desired_count].map(|count| u32::try_from(count).unwrap())
    }

    /// The messages of a queue, which it keeps no longer.
    pub(crate) async fn receive(&self, queue: &str) -> Vec<String> {
        let receive = self.sqs.receive_message().queue_url(queue).max_number_of_messages(10);
        let mut bodies = Vec::new();
        for message in receive.send().await.unwrap().messages.unwrap_or_default() {
            let delete = self.sqs.delete_message().queue_url(queue);
            delete.receipt_handle(message.receipt_handle.unwrap()).send().await.unwrap();
            bodies.push(message.body.unwrap());
        }
        bodies
    }

    pub(crate) async fn is_empty(&self, queue: &str) -> bool {
        let names = [
            Attribute::ApproximateNumberOfMessages,
            Attribute::ApproximateNumberOfMessagesNotVisible,
            Attribute::ApproximateNumberOfMessagesDelayed,
        ];
        let get = self.sqs.get_queue_attributes().queue_url(queue).set_attribute_names(Some(names.into()));
        get.send().await.unwrap().attributes.unwrap().values().all(|count| count == "0")
    }
}

/// The scaler's configuration. Names of targets that begin with `other` are not configured.
pub(crate) fn scaler_config(queue: Option<&str>, refusals: Option<&str>) -> String {
    let targets = ["eks/nodegroup/*/*/*/*/w*", "ec2/autoscaling-group/*/*/*/*/w*"]
        .map(|pattern| json!({ "match": pattern, "managed_by": "nobody" }));
    let mut config = json!({
        "ledger": { "dynamodb": { "table": TABLE } },
        "clusters": { "prod-eu": { "eks": { "name": "prod-eu", "region": REGION } } },
        "targets": targets.into_iter().chain([json!({ "match": "ecs/service/*/*/*/*/w*" })]).collect::<Value>(),
    });
    if let Some(url) = queue {
        config["queue"] = json!({ "queue_url": url });
    }
    if let Some(url) = refusals {
        config["refusals"] = json!({ "queue_url": url });
    }
    config.to_string()
}

/// A worker.
pub(crate) struct Worker {
    pub(crate) process: Process,
    directory: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

impl Worker {
    pub(crate) async fn start(cloud: &Cloud, config: String, more: &[(&str, String)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut environment = cloud.environment();
        environment.push(("SCALEBRIDGE_SCALER_CONFIG".to_owned(), config));
        environment.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let process = Self::launch(&directory, &environment);
        let mut worker = Self { process, directory, environment };
        worker.wait_ready(1).await;
        worker
    }

    fn launch(directory: &tempfile::TempDir, environment: &[(String, String)]) -> Process {
        let arguments = ["worker", "--listen", "127.0.0.1:0"];
        Process::start("scalebridge-scaler", directory.path(), &arguments, environment)
    }

    /// After it was killed.
    pub(crate) async fn start_again(&mut self) {
        let starts = self.starts().len();
        self.process = Self::launch(&self.directory, &self.environment);
        self.wait_ready(starts + 1).await;
    }

    async fn wait_ready(&mut self, starts: usize) {
        eventually("the worker to listen", async || {
            self.process.assert_runs();
            (self.starts().len() >= starts).then_some(())
        })
        .await;
    }

    fn starts(&self) -> Vec<Value> {
        self.lines("the worker has started")
    }

    /// The lines of its log with this message.
    pub(crate) fn lines(&self, message: &str) -> Vec<Value> {
        let log = self.process.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == message).collect()
    }

    /// The outcomes of all events, with how often each was answered.
    pub(crate) fn outcomes(&self, outcome: &str) -> usize {
        self.lines("event").iter().filter(|line| line["outcome"] == outcome).count()
    }

    /// A route of its listener.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let started = self.starts();
        let address = started.last().unwrap()["listen"].as_str().expect("an address").to_owned();
        let answer = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = answer.get(format!("http://{address}{path}")).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}
