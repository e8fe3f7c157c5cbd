//! Checks of `deploy/`: what a user installs is valid, current and works, by the programs that read it.

#![expect(clippy::expect_used, reason = "a test that cannot continue fails with the reason")]

mod charts;
mod cloudformation;
mod container;
mod ecs;
mod nomad;
mod observability;
mod prometheus;
mod readmes;
mod support;
mod systemd;
mod tools;
