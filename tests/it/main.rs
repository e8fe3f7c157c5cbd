//! Integration tests: one binary, one file per guarantee, through public interfaces only.

#![expect(clippy::expect_used, reason = "a test that cannot continue fails with the reason")]

mod admin_api;
mod alertmanager;
mod answers;
mod audit;
mod backlog;
mod characters;
mod cli;
mod clocks;
mod connections;
mod credentials;
mod delivery;
mod docs;
mod end_to_end;
mod faults;
mod framing;
mod full_disk;
mod gaps;
mod guards;
mod holds;
mod https;
mod kept_notifications;
mod layers;
mod migration;
mod missed_firing;
mod mutations;
mod outages;
mod owed;
mod questions;
mod re2;
mod reload;
mod restart;
mod routes;
mod serve;
mod sigkill;
mod stopping;
mod store;
mod storm;
mod support;
mod survival;
mod unreadable;
mod upgrade;
mod vocabulary;
mod webhook;
