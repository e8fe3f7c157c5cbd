//! What a bridge has decided about a problem.

use scalebridge::domain::time::Time;
use serde_json::Value;

use super::problems::Problem;
use crate::bridge::Bridge;

impl Bridge {
    /// The decisions that a query selects, oldest first.
    pub(crate) async fn decisions(&self, query: &str) -> Vec<Value> {
        let page = self.admin(&format!("/api/v1/decisions?limit=100&{query}")).await;
        let decisions = page["decisions"].as_array().unwrap_or_else(|| panic!("{page}"));
        assert!(page["next"].is_null(), "all of them are on one page");
        decisions.iter().rev().cloned().collect()
    }

    /// What the rule of a problem has emitted, oldest first.
    pub(crate) async fn emitted(&self, problem: &Problem) -> Vec<Value> {
        self.decisions(&format!("rule={}&verdict=emitted", problem.rule)).await
    }

    /// How many increases, and how many decreases, the rule of a problem has emitted.
    pub(crate) async fn counts(&self, problem: &Problem) -> (u32, u32) {
        let (mut increases, mut decreases) = (0, 0);
        for decision in self.emitted(problem).await {
            match decision["action"].as_str() {
                Some("scale_out") => increases += 1,
                Some("scale_in") => decreases += 1,
                _ => panic!("{decision}"),
            }
        }
        (increases, decreases)
    }

    /// How many repeats of a problem's alerts were heard.
    pub(crate) async fn repeats(&self, problem: &Problem) -> u64 {
        let query = format!("/api/v1/decisions?limit=1&count=true&rule={}&verdict=duplicate", problem.rule);
        let page = self.admin(&query).await;
        page["total"].as_u64().unwrap_or_else(|| panic!("{page}"))
    }

    /// The first decision about the end of a problem.
    pub(crate) async fn resolved(&self, problem: &Problem) -> Option<Value> {
        // All that can be decided about a decrease.
        let verdicts = "held,outranked,stabilizing,cooling_down,over_budget,emitted,no_evidence,no_action";
        let decisions = self.decisions(&format!("rule={}&verdict={verdicts}", problem.rule)).await;
        decisions.into_iter().find(|decision| decision["phase"] == "resolved")
    }

    /// The rules of the holds that are in force.
    pub(crate) async fn holds(&self) -> Vec<String> {
        let status = self.admin("/api/v1/status").await;
        let holds = status["holds"].as_array().unwrap_or_else(|| panic!("{status}"));
        holds.iter().map(|hold| hold["rule"].as_str().expect("a rule").to_owned()).collect()
    }

    /// The episode of a problem.
    pub(crate) async fn episode(&self, problem: &Problem) -> Value {
        let mut page = self.admin(&format!("/api/v1/episodes?rule={}", problem.rule)).await;
        let episodes = page["episodes"].as_array_mut().expect("a list");
        assert_eq!(episodes.len(), 1, "{episodes:?}");
        episodes.remove(0)
    }
}

pub(crate) fn time(value: &Value) -> Time {
    Time::parse(value.as_str().expect("a time")).expect("a time")
}
