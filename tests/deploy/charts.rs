//! The Helm chart and the manifests for kustomize: valid for Kubernetes, with configurations that the programs accept, and
//! with the protection that their documents promise.

mod configuration;
mod current;
mod documents;
mod monitoring;
mod notes;
mod pods;
mod policies;
mod reloads;
mod rendering;
mod selectors;
mod values;
