//! A Kubernetes API server as far as scaling needs it: discovery, objects with resourceVersions and managedFields, `/scale`,
//! optimistic concurrency, access control, and the API's errors. It keeps its objects in memory.

mod objects;
mod resources;
mod status;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::wire::{Answer, Request, Tls, WireServer};
use objects::Objects;
pub(crate) use resources::Kind;
use resources::{Kinds, Route};
use status::Status;

pub(crate) const TOKEN: &str = "token-1";
pub(crate) const USER: &str = "system:serviceaccount:scaling:scaler";

/// The state of the server.
struct State {
    kinds: Kinds,
    objects: Objects,
    is_valid: Box<dyn Fn(&str) -> bool + Send>,
    /// What the user may do, as `verb resource.group[/subresource]`; `None` is everything.
    grants: Option<BTreeSet<String>>,
}

/// A server with TLS, until it is dropped.
pub(crate) struct ApiServer {
    pub(crate) wire: WireServer,
    tls: Tls,
    state: Arc<Mutex<State>>,
}

impl ApiServer {
    /// A server with the kinds of Kubernetes itself and those of the usual autoscalers.
    pub(crate) async fn start() -> Self {
        let state = Arc::new(Mutex::new(State {
            kinds: Kinds::usual(),
            objects: Objects::default(),
            is_valid: Box::new(|token| token == TOKEN),
            grants: None,
        }));
        let tls = Tls::new();
        let shared = state.clone();
        let wire = WireServer::start(Some(&tls), move |request| shared.lock().unwrap().answer(request)).await;
        let server = Self { wire, tls, state };
        // kubectl looks for it when it does not find something in it.
        server.put(
            ("kubectl-create", "Update"),
            json!({ "kind": "Namespace", "metadata": { "name": "shop" }, "spec": {} }),
        );
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.wire.address)
    }

    /// The certificates of the server's authority.
    pub(crate) fn authority(&self) -> String {
        self.tls.authority.pem()
    }

    /// Writes a kubeconfig with the context `lab`.
    pub(crate) fn kubeconfig(&self, directory: &Path) -> PathBuf {
        let authority = directory.join("ca.pem");
        std::fs::write(&authority, self.authority()).unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{ "name": "lab", "cluster": { "server": self.url(), "certificate-authority": authority } }],
            "users": [{ "name": "scaler", "user": { "token": TOKEN } }],
            "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "scaler", "namespace": "shop" } }],
        });
        let path = directory.join("kubeconfig");
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// Creates an object, or replaces it, as `manager` does with `operation`.
    pub(crate) fn put(&self, manager: (&str, &str), mut object: Value) {
        let mut state = self.state.lock().unwrap();
        let State { kinds, objects, .. } = &mut *state;
        let kind = kinds.of(&object);
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let namespace =
            kind.is_namespaced.then(|| object["metadata"]["namespace"].as_str().unwrap_or("shop").to_owned());
        if let Some(namespace) = &namespace {
            object["metadata"]["namespace"] = json!(namespace);
        }
        objects.put(kind, (namespace.as_deref(), &name), object, manager);
    }

    /// The object as it is.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Value {
        let state = self.state.lock().unwrap();
        let kind = state.kinds.named(kind);
        let namespace = kind.is_namespaced.then_some("shop");
        state.objects.get(kind, (namespace, name)).expect("an object")
    }

    /// A number of its `spec`.
    pub(crate) fn spec(&self, kind: &str, name: &str, field: &str) -> u64 {
        self.get(kind, name)["spec"][field].as_u64().unwrap_or(0)
    }

    /// Changes an object's status, as controllers do all the time: it has another resourceVersion.
    pub(crate) fn touch(&self, kind: &str, name: &str) {
        let mut state = self.state.lock().unwrap();
        let State { kinds, objects, .. } = &mut *state;
        objects.touch(kinds.named(kind), name);
    }

    /// Adds, or replaces, a kind.
    pub(crate) fn define(&self, kind: Kind) {
        self.state.lock().unwrap().kinds.define(kind);
    }

    /// Removes all kinds of a group, as if their definitions were not installed.
    pub(crate) fn uninstall(&self, group: &str) {
        self.state.lock().unwrap().kinds.uninstall(group);
    }

    /// The only token that is valid from now on.
    pub(crate) fn accept_only(&self, token: &str) {
        let token = token.to_owned();
        self.accept(move |given| given == token);
    }

    /// The tokens that are valid from now on.
    pub(crate) fn accept(&self, is_valid: impl Fn(&str) -> bool + Send + 'static) {
        self.state.lock().unwrap().is_valid = Box::new(is_valid);
    }

    /// The user may do only this from now on.
    pub(crate) fn grant_only(&self, grants: &[&str]) {
        let grants = grants.iter().map(|grant| (*grant).to_owned()).collect();
        self.state.lock().unwrap().grants = Some(grants);
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Answer {
        match self.route(request) {
            Ok(object) => Answer::json(200, &object),
            Err(status) => Answer::json(status.code, &status.to_json()),
        }
    }

    fn route(&mut self, request: &Request) -> Result<Value, Status> {
        let token = request.header("authorization").strip_prefix("Bearer ");
        if !token.is_some_and(&self.is_valid) {
            return Err(Status::unauthorized());
        }
        // Everybody may read what there is.
        if let Some(document) = self.kinds.discovery(&request.path) {
            return Ok(document);
        }
        let Some(route) = Route::parse(&request.path) else { return Err(Status::no_such_path()) };
        let verb = match (request.method.as_str(), &route.name) {
            ("GET", Some(_)) => "get",
            ("GET", None) => "list",
            ("PUT", Some(_)) => "update",
            ("PATCH", Some(_)) => "patch",
            (method, _) => return Err(Status::method_not_allowed(method)),
        };
        // Before anything is known about the resource.
        self.authorize(verb, &route)?;
        let Some(kind) = self.kinds.find(&route) else { return Err(Status::no_such_path()) };
        let Route { namespace, name, subresource, .. } = route;
        if subresource.as_deref().is_some_and(|name| name != "scale" || kind.scale.is_none()) {
            return Err(Status::no_such_path());
        }
        let Some(name) = name else { return Ok(self.objects.list(&kind, namespace.as_deref())) };
        let key = (namespace.as_deref(), name.as_str());
        match (verb, subresource) {
            ("get", None) => self.objects.get(&kind, key).ok_or_else(|| Status::not_found(&kind, &name)),
            ("get", Some(_)) => self.objects.scale(&kind, key),
            (_, None) => self.objects.write(&kind, key, request),
            (_, Some(_)) => self.objects.write_scale(&kind, key, request),
        }
    }

    fn authorize(&self, verb: &str, route: &Route) -> Result<(), Status> {
        let Some(grants) = &self.grants else { return Ok(()) };
        let subresource = route.subresource.as_ref().map_or_else(String::new, |name| format!("/{name}"));
        if grants.contains(&format!("{verb} {}{subresource}", route.qualified())) {
            return Ok(());
        }
        Err(Status::forbidden(route, verb, &format!("{}{subresource}", route.plural)))
    }
}
