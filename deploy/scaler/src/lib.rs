//! `scalebridge-scaler`: applies the scaling events of scalebridge to capacity, each once.
//!
//! In reading order:
//!
//! 1. [`event`]: reads an event strictly.
//! 2. [`capacity`]: what is changed (a size, or the floor that another autoscaler keeps to), and within which bounds.
//! 3. [`ledger`]: what is known about a target and about each applied event.
//! 4. [`plan`]: the next step for an event, as a pure function of event, present capacity and ledger.
//! 5. [`apply`]: carries the steps out.
//! 6. [`platform`]: the capacities of each platform.

pub mod apply;
pub mod capacity;
pub mod event;
pub mod ledger;
pub mod outcome;
pub mod plan;
pub mod platform;
