//! `scalebridge-scaler`: applies the scaling events of scalebridge to capacity, each once.
//!
//! In reading order:
//!
//! 1. [`event`]: reads an event strictly.
//! 2. [`capacity`]: what is changed (a size, or the floor that another autoscaler keeps to), and within which bounds.
//! 3. [`ledger`]: what is known about a target and about each applied event.
//! 4. [`plan`]: the next step for an event, as a pure function of event, present capacity and ledger.
//! 5. [`apply`]: carries the steps out.
//! 6. [`platform`]: reads and sets capacities.
//! 7. [`aws`]: clients of AWS.
//! 8. [`config`], [`resolve`]: what is configured, and what it says about an event's target.
//! 9. [`scaler`]: all of these for any event; what is said about it, by [`report`] and [`metrics`].
//! 10. [`runtime`]: the Lambda function and the worker.
//! 11. [`cli`]: the commands; [`iam`]: what the scaler needs to be granted.

// Nothing but the program and its tests uses the library: where a name says what an item is, no text repeats it.
#![allow(missing_docs)]

pub mod apply;
pub mod aws;
pub mod capacity;
pub mod cli;
pub mod config;
pub mod event;
pub mod iam;
pub mod invocation;
pub mod ledger;
pub mod metrics;
pub mod outcome;
pub mod plan;
pub mod platform;
pub mod report;
pub mod resolve;
pub mod runtime;
pub mod scaler;

#[cfg(test)]
#[path = "../tests/support/mod.rs"]
pub(crate) mod test_support;
