//! Nomad as far as scaling needs it: jobs with indices, scaling policies and deployments, tokens, and the errors of its API.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::wire::{Answer, Request, Tls, WireServer};

pub(crate) const TOKEN: &str = "8d6e2f0c-secret";

#[derive(Default)]
struct State {
    /// By namespace and id.
    jobs: BTreeMap<(String, String), Job>,
    index: u64,
    max_count: Option<i64>,
}

struct Job {
    index: u64,
    is_stopped: bool,
    has_deployment: bool,
    groups: Vec<Group>,
}

struct Group {
    name: String,
    count: i64,
    scaling: Value,
    events: Vec<Value>,
}

pub(crate) struct NomadStub {
    pub(crate) wire: WireServer,
    scheme: &'static str,
    state: Arc<Mutex<State>>,
}

impl NomadStub {
    pub(crate) async fn start(tls: Option<&Tls>) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let wire = WireServer::start(tls, move |request| shared.lock().unwrap().answer(request)).await;
        Self { wire, scheme: if tls.is_some() { "https" } else { "http" }, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.wire.address.port())
    }

    /// Registers a job with groups and their counts.
    pub(crate) fn register(&self, namespace: &str, id: &str, groups: &[(&str, i64)]) {
        let groups = groups.iter().map(|(name, count)| Group {
            name: (*name).to_owned(),
            count: *count,
            scaling: Value::Null,
            events: Vec::new(),
        });
        let mut state = self.state.lock().unwrap();
        state.index += 1;
        let job =
            Job { index: state.index, is_stopped: false, has_deployment: false, groups: groups.collect() };
        state.jobs.insert((namespace.to_owned(), id.to_owned()), job);
    }

    /// The scaling block of the first group of `web`.
    pub(crate) fn set_scaling(&self, scaling: Value) {
        self.change(|job| job.groups[0].scaling = scaling);
    }

    pub(crate) fn set_deployment(&self, has_deployment: bool) {
        self.change(|job| job.has_deployment = has_deployment);
    }

    pub(crate) fn stop(&self) {
        self.change(|job| job.is_stopped = true);
    }

    pub(crate) fn set_max_count(&self, max: i64) {
        self.state.lock().unwrap().max_count = Some(max);
    }

    fn change(&self, change: impl FnOnce(&mut Job)) {
        let mut state = self.state.lock().unwrap();
        state.index += 1;
        let index = state.index;
        let job = state.jobs.get_mut(&("default".to_owned(), "web".to_owned())).unwrap();
        change(job);
        job.index = index;
    }

    pub(crate) fn count(&self, namespace: &str, id: &str, group: &str) -> i64 {
        self.group(namespace, id, group, |group| group.count)
    }

    /// The scaling events of a group, the last one first.
    pub(crate) fn events(&self, id: &str, group: &str) -> Vec<Value> {
        self.group("default", id, group, |group| group.events.clone())
    }

    fn group<T>(&self, namespace: &str, id: &str, name: &str, read: impl FnOnce(&Group) -> T) -> T {
        let state = self.state.lock().unwrap();
        let job = &state.jobs[&(namespace.to_owned(), id.to_owned())];
        read(job.groups.iter().find(|group| group.name == name).unwrap())
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Answer {
        if request.header("x-nomad-token") != TOKEN {
            return Answer::text(403, "Permission denied");
        }
        let namespace = request.parameter("namespace").map_or_else(|| "default".to_owned(), decode);
        let Some(path) = request.path.strip_prefix("/v1/job/") else {
            return Answer::text(404, "404 page not found");
        };
        // Nomad's router takes the end of the path as the action, and decodes what is before it.
        let (id, is_scale) = match path.strip_suffix("/scale") {
            Some(id) => (decode(id), true),
            None => (decode(path), false),
        };
        let key = (namespace, id);
        match (request.method.as_str(), is_scale) {
            ("GET", true) => self.jobs.get(&key).map_or_else(
                || Answer::text(404, "job not found"),
                |job| Answer::json(200, &scale_status(&key, job)),
            ),
            ("GET", false) => self.jobs.get(&key).map_or_else(
                || Answer::text(404, "job not found"),
                |job| Answer::json(200, &definition(&key, job)),
            ),
            ("POST" | "PUT", true) => match self.scale(&key, &request.body) {
                Ok(answer) => Answer::json(200, &answer),
                Err((status, message)) => Answer::text(status, message),
            },
            _ => Answer::text(405, "Invalid method"),
        }
    }

    /// The checks of `Job.Scale`, in its order.
    fn scale(&mut self, key: &(String, String), body: &[u8]) -> Result<Value, (u16, String)> {
        let body: Value = serde_json::from_slice(body).map_err(|error| (400, error.to_string()))?;
        let group = body["Target"]["Group"].as_str().unwrap_or_default();
        if group.is_empty() {
            return Err((400, "missing task group name for scaling action".to_owned()));
        }
        let count = body["Count"].as_i64().ok_or((400, "no count".to_owned()))?;
        let job = self.jobs.get_mut(key).ok_or_else(|| (404, format!("job \"{}\" not found", key.1)))?;
        let total: i64 = job.groups.iter().map(|group| group.count).sum();
        let Some(group) = job.groups.iter_mut().find(|found| found.name == group) else {
            return Err((400, format!("task group \"{group}\" specified for scaling does not exist in job")));
        };
        let bound = |name: &str| group.scaling[name].as_i64();
        if let Some(min) = bound("Min").filter(|min| count < *min) {
            return Err((400, format!("group count was less than scaling policy minimum: {count} < {min}")));
        }
        if let Some(max) = bound("Max").filter(|max| *max < count) {
            return Err((
                400,
                format!("group count was greater than scaling policy maximum: {count} > {max}"),
            ));
        }
        let total = total - group.count + count;
        if let Some(max) = self.max_count.filter(|max| total > *max) {
            return Err((
                500,
                format!("total count was greater than configured job_max_count: {total} > {max}"),
            ));
        }
        if job.has_deployment {
            return Err((400, "job scaling blocked due to active deployment".to_owned()));
        }
        if let Some(asked) = body["JobModifyIndex"].as_u64().filter(|asked| *asked > 0 && *asked != job.index)
        {
            let index = job.index;
            let message = "job exists with conflicting job modify index";
            return Err((500, format!("Enforcing job modify index {asked}: {message}: {index}")));
        }
        self.index += 1;
        job.index = self.index;
        group.events.insert(
            0,
            json!({ "Count": count, "PreviousCount": group.count, "Message": body["Message"], "Meta": body["Meta"],
                    "Error": false, "CreateIndex": self.index }),
        );
        group.count = count;
        Ok(
            json!({ "EvalID": "e", "EvalCreateIndex": self.index, "JobModifyIndex": self.index, "Index": self.index }),
        )
    }
}

fn scale_status((namespace, id): &(String, String), job: &Job) -> Value {
    let groups: serde_json::Map<String, Value> = job
        .groups
        .iter()
        .map(|Group { name, count, events, .. }| {
            let status = json!({ "Desired": count, "Placed": count, "Running": count, "Healthy": count,
                                 "Unhealthy": 0, "Events": events });
            (name.clone(), status)
        })
        .collect();
    json!({ "JobID": id, "Namespace": namespace, "JobCreateIndex": 1, "JobModifyIndex": job.index,
            "JobStopped": job.is_stopped, "TaskGroups": groups })
}

fn definition((namespace, id): &(String, String), job: &Job) -> Value {
    let groups: Vec<_> = job
        .groups
        .iter()
        .map(|group| json!({ "Name": group.name, "Count": group.count, "Scaling": group.scaling }))
        .collect();
    json!({ "ID": id, "Name": id, "Namespace": namespace, "Type": "service", "Stop": job.is_stopped,
            "JobModifyIndex": job.index, "TaskGroups": groups })
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}
