//! The types of the admin API's requests and responses, one file per resource. The bridge writes and the command line
//! reads the same types, and OpenAPI describes them.
//!
//! Requests reject unknown fields, so that a misspelt filter is an error. Responses are read without the fields that this
//! version does not know, and words of fixed sets are texts, so that an older command line works with a newer bridge.

mod audit;
mod dead_letters;
mod decisions;
mod episodes;
mod events;
mod forgive;
mod inventory;
mod notifications;
mod pauses;
mod problem;
mod reload;
mod status;
mod targets;
mod unreadable_states;

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use audit::{
    AuditDetails, AuditEntryView, AuditPage, BulkDetails, ListAuditParams, OUTCOME_DONE, OUTCOME_FAILED,
    OUTCOME_INTERRUPTED, OUTCOME_RUNNING, RedriveDetails, ReloadDetails,
};
pub(crate) use dead_letters::{
    BulkDiscard, BulkFailure, BulkRedrive, BulkResult, DeadLetterPage, DeadLetterSelector, DeadLetterView,
    ListDeadLettersParams, RedriveOptions,
};
pub(crate) use decisions::{DecisionPage, DecisionView, ExplainParams, Explanation, ListDecisionsParams};
pub(crate) use episodes::{
    DeferredView, EpisodePage, EpisodeView, ListEpisodesParams, OccurrenceView, OwedView,
};
pub(crate) use events::{DeliveryPage, DeliveryView, EventDeliveriesView, EventView, ListDeliveriesParams};
pub(crate) use forgive::{ForgiveDetails, ForgiveRequest, Forgiven, ForgivenEventView};
pub(crate) use inventory::{
    ActionView, AlertmanagerView, DestinationView, QueueView, ReceptionGapView, RuleView, SourceView,
    SuppressedAlertView,
};
pub(crate) use notifications::{ListNotificationsParams, NotificationBodyView, NotificationPage};
pub(crate) use pauses::{ListPausesParams, NewPause, PauseView};
pub(crate) use problem::Problem;
pub(crate) use reload::ReloadReport;
pub(crate) use status::{ConfigurationStatus, FleetStatus, HoldView, ReplicaView, Status};
pub(crate) use targets::{CoveredTargets, CoveredTargetsParams};
pub(crate) use unreadable_states::{DropUnreadableState, UnreadableRowView};

/// A word of a fixed set, such as a verdict. Not an enum, because a newer bridge may have more words.
pub(crate) type Word = Cow<'static, str>;

/// Who makes a change, and why.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InitiatorParams {
    /// The operator, for the log and the audit trail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The reason, for the log and the audit trail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
