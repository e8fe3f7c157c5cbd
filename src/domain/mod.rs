//! Alerts, rules, targets, states and decisions. Pure: no clock, no randomness, no files, no tokio.

// The lists are in clippy.toml. Tests may read fixtures.
#![cfg_attr(not(test), deny(clippy::disallowed_macros, clippy::disallowed_methods, clippy::disallowed_types))]

pub mod actor_name;
pub mod alert_key;
pub mod alert_map;
pub mod blocker;
pub mod control;
pub mod decision_record;
pub mod delivery;
pub mod direction;
pub mod duration;
pub mod engine;
pub mod episode_scope;
pub mod event;
pub mod failure;
pub mod fingerprint;
pub mod header;
pub mod heartbeat_key;
pub mod labels;
pub mod matcher;
pub mod name;
pub mod notification;
pub mod phase;
pub mod rate;
pub mod re2;
pub mod reported;
pub mod retry;
pub mod rule;
pub mod size_limit;
pub mod small_map;
pub mod source;
pub mod state;
pub mod summary;
pub mod table;
pub mod target;
pub mod target_pattern;
pub mod template;
pub mod time;
pub mod trigger;
pub mod verdict;
