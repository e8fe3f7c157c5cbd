//! What scalebridge knows about alerts and capacity. Pure: no clock, no chance, no files, no tokio.

pub mod alert_map;
pub mod control;
pub mod decision_record;
pub mod duration;
pub mod engine;
pub mod episode_scope;
pub mod event;
pub mod fingerprint;
pub mod header;
pub mod labels;
pub mod matcher;
pub mod name;
pub mod notification;
pub mod rate;
pub mod retry;
pub mod rule;
pub mod small_map;
pub mod source;
pub mod state;
pub mod summary;
pub mod table;
pub mod target;
pub mod template;
pub mod time;
pub mod undelivered_decreases;
pub mod verdict;
