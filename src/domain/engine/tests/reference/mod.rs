//! The engine against a reference model of the contract's section "From notification to event".
//!
//! `model` was written from the contract alone. `bridge` runs the engine with a simulated store and destination, `world`
//! gives both the same actions and compares what they emit, what is delivered, and what stays open, owed and deferred.
//! `properties` states the safety and liveness of the engine apart from the model. `exhaustive` tries all short histories,
//! `random` longer ones. Verdicts in between are not compared.
//!
//! How the model reads the contract where it leaves a choice:
//!
//! - A resolve that is not after the last end applied is `duplicate`, also while a late firing is open.
//! - An end is kept for `retention.closed` after it was heard, and longer if the alert was open and anything is owed.
//! - The growth mark rises by a late firing only if something was emitted.
//! - A late firing that opens while its episode's decrease has an unknown outcome opens a new episode: the decrease counts
//!   as delivered.
//! - An opening of the rule withdraws any deferred `on_resolved` action.
//! - Exactly what outranks a decrease cancels it once it is emitted.
//! - With a heartbeat, each resolve that closed an occurrence counts as a close on the target.
//! - A suspended decrease is called again when no guard blocks it, apart from itself.
//! - What was given up waits at most a day; then it is the probe.
//! - Within one moment, what cannot decrease comes first, a `notify` too.
//! - `while_firing` requests one cooldown after the emission, and waits for the cooldown after the delivery.
//! - An unanswered event that was too old while a pause or hold withheld it is renewed when that ends.
//! - A late firing of an alert that was never open, or whose end is forgotten, was in no episode. Only the last episode of
//!   a rule goes on, if it has emitted; a late firing that was in an earlier one opens a new one.
//! - A closed episode is kept for `retention.closed`, and longer while anything is owed.
//! - Of late firings that open in one instant, one whose episode goes on counts first.
//! - `while_firing` acts again one cooldown after a late firing has made its episode go on.
//! - An `on_firing` decrease of an episode one of whose alerts expired is withdrawn, since the episode has lost its evidence.
//! - A repetition of an episode whose alerts are all absent waits without an end.
//! - An increase does not wait for a decrease that its own opening has superseded.
//!
//! Of an unanswered event whose episode closes, the age counts from its emission again: one that is too old becomes a dead
//! letter at once, one that is not is tried for its remaining time, and an answer that says delivered is taken back.
//!
//! Of a give-up and a success in the same instant, the success counts as the later one: a decrease that was given up when
//! its destination answered again does not wait for a probe.

pub(crate) mod bridge;
mod exhaustive;
mod merging;
#[expect(dead_code, reason = "the model can do more than these tests use")]
pub(crate) mod model;
mod properties;
pub(crate) mod random;
pub(crate) mod rules;
mod visible;
mod withheld;
pub(crate) mod world;
