//! `deploy/observability` and `docs/runbooks`: alerts, dashboard and runbooks, by promtool, Prometheus and a running
//! bridge.

mod alerts;
mod dashboard;
mod queries;
mod run;
mod runbooks;
mod world;
