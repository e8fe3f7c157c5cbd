//! One problem for each platform, as the exporters show it.

use serde_json::{Value, json};

use super::metrics::{CALM, PROMETHEUS_JOB};
use crate::support::tools::Exporter;

/// A problem of one platform, and what the rule table makes of it.
pub(crate) struct Problem {
    pub(crate) rule: &'static str,
    /// What the rule adds, and how often while the alert fires.
    pub(crate) by: u32,
    pub(crate) times: u32,
    /// A line of the metrics, and what takes its place.
    line: &'static str,
    becomes: &'static str,
}

/// In the order of the capacities.
pub(crate) const PROBLEMS: [Problem; 4] = [
    Problem {
        rule: "unschedulable-pods",
        by: 2,
        times: 1,
        line: r#"kube_node_created{node="n"} 1.7e+09"#,
        becomes: r#"kube_node_created{node="n"} 1.7e+09
kube_pod_status_unschedulable{namespace="shop",pod="a",uid="1"} 1"#,
    },
    Problem {
        rule: "group-is-busy",
        by: 2,
        times: 3,
        line: r#"aws_ec2_cpuutilization_average{dimension_AutoScalingGroupName="web",region="eu-west-1"} 30"#,
        becomes: r#"aws_ec2_cpuutilization_average{dimension_AutoScalingGroupName="web",region="eu-west-1"} 95"#,
    },
    Problem {
        rule: "queue-is-old",
        by: 1,
        times: 1,
        line: r#"tag_scalebridge_service="web"} 2"#,
        becomes: r#"tag_scalebridge_service="web"} 100"#,
    },
    Problem {
        rule: "backlog-is-high",
        by: 2,
        times: 1,
        line: r#"tag_scalebridge_deployment="web"} 3"#,
        becomes: r#"tag_scalebridge_deployment="web"} 1000"#,
    },
];

/// The exporters, and the names of their jobs.
pub(crate) struct Exporters(Vec<(&'static str, Exporter)>);

impl Exporters {
    /// Starts them. There is no problem.
    pub(crate) async fn start() -> Self {
        let mut exporters = Self(Vec::new());
        for (job, _) in CALM {
            exporters.0.push((job, Exporter::start().await));
        }
        exporters.show(&[]);
        exporters
    }

    /// Shows these problems and no others.
    pub(crate) fn show(&self, problems: &[Problem]) {
        let mut shown = 0;
        for ((_, exporter), (_, calm)) in self.0.iter().zip(CALM) {
            let mut metrics = calm.to_owned();
            for Problem { line, becomes, .. } in problems {
                shown += metrics.matches(line).count();
                metrics = metrics.replace(line, becomes);
            }
            exporter.set_metrics(metrics);
        }
        assert_eq!(shown, problems.len(), "each problem has one line");
    }

    /// All of them, without Prometheus itself.
    fn others(&mut self) -> impl Iterator<Item = &mut Exporter> {
        self.0.iter_mut().filter(|(job, _)| *job != PROMETHEUS_JOB).map(|(_, exporter)| exporter)
    }

    /// From now on, they refuse connections.
    pub(crate) async fn stop(&mut self) {
        for exporter in self.others() {
            exporter.stop().await;
        }
    }

    pub(crate) async fn start_again(&mut self) {
        for exporter in self.others() {
            exporter.start_again().await;
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn scrape_configs(&self) -> Value {
        let jobs = self.0.iter().map(|(job, exporter)| {
            json!({ "job_name": job, "static_configs": [{ "targets": [exporter.address()] }] })
        });
        jobs.collect()
    }
}
