//! Changes of the closure that an existing agent runs.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ClosureSource, Failure, Limits, OperationId, StorePath};

/// What a guest boots from, and its limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BootSpec {
    /// The source of the closure.
    pub source: ClosureSource,
    /// The closure, once known.
    pub closure: Option<StorePath>,
    /// The limits.
    pub limits: Limits,
}

/// A requested change of an agent's closure or limits, until it is complete or rolled back.
///
/// It is part of the guest's record, so that a crash at any point continues in the same phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClosureChange {
    /// The operation that requested it.
    pub operation: OperationId,
    /// The next work.
    pub phase: ChangePhase,
    /// The counterpart of the guest's record: the requested state in [`ChangePhase::Prepare`], then the former state,
    /// and after a rollback the requested state again.
    pub other: BootSpec,
    /// True if the guest must be restarted, even where its running system could switch.
    pub restart: bool,
    /// The fate of [a system of the guest's own](crate::OwnSystem).
    #[serde(default)]
    pub own_system: OwnSystemFate,
    /// The result so far.
    pub outcome: ChangeOutcome,
    /// Units that had failed before the change. They are no reason to roll it back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_before: Vec<String>,
    /// The reason of the rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

impl ClosureChange {
    /// Creates a change that has not begun.
    #[must_use]
    pub fn new(operation: OperationId, requested: BootSpec, restart: bool) -> Self {
        Self {
            operation,
            phase: ChangePhase::Prepare,
            other: requested,
            restart,
            own_system: OwnSystemFate::Kept,
            outcome: ChangeOutcome::Unchanged,
            failed_before: Vec::new(),
            failure: None,
        }
    }
}

/// The effect of a [`ClosureChange`] on a system of the guest's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OwnSystemFate {
    /// The guest boots it further on.
    #[default]
    Kept,
    /// The guest boots the requested closure in its place if that differs from the guest's present closure from the host.
    ReplacedByOther,
    /// The guest boots the requested closure in its place.
    Replaced,
}

/// The next work of a [`ClosureChange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ChangePhase {
    /// Build and pin the requested closure. The guest is not affected.
    Prepare,
    /// Switch the running system. The record has the requested closure from here on.
    Switch,
    /// Stop the guest, to start it with the requested closure.
    Stop,
    /// Start the guest with the requested closure.
    Boot,
    /// Check the health of the changed guest.
    Check,
    /// Release the closure that is not used any more.
    Settle,
    /// Switch the running system back. The record has the former closure from here on.
    SwitchBack,
    /// Stop the guest, to start it with the former closure.
    StopBack,
    /// Start the guest with the former closure.
    BootBack,
}

/// How a change of a closure took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ChangeOutcome {
    /// The guest is as before.
    Unchanged,
    /// The guest is stopped and boots from the closure at its next start.
    AtNextStart,
    /// The running system switched to the closure.
    Switched,
    /// The guest was restarted.
    Restarted,
    /// The guest did not come up with the closure, and has its former one again.
    RolledBack,
}

impl ChangeOutcome {
    /// Returns the outcome in words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::AtNextStart => "at next start",
            Self::Switched => "switched in place",
            Self::Restarted => "restarted",
            Self::RolledBack => "rolled back",
        }
    }
}

impl fmt::Display for ChangeOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The last change of an agent's closure or limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LastChange {
    /// The operation that requested it.
    pub operation: OperationId,
    /// The requested closure, if it was built.
    pub closure: Option<StorePath>,
    /// The outcome.
    pub outcome: ChangeOutcome,
    /// The failure, if the change failed or was rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Time of the end.
    pub at: Timestamp,
}
