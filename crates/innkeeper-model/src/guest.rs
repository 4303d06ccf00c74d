//! Guests: their records, and their states.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    ClosureChange, ClosureSource, Failure, FileWork, GuestName, LastChange, Limits, RetainedId,
    Slot, StorePath,
};

/// The purpose of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestKind {
    /// A long-lived development machine for a coding agent.
    Agent,
    /// A pull request running as a web app.
    Preview,
}

/// The state that a guest should have. The engine reconciles the host with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DesiredState {
    /// The guest runs, and starts again after a reboot.
    Running,
    /// The guest keeps its files and addresses, and does not run.
    Stopped,
    /// Every resource of the guest is removed, then its record.
    Absent,
}

/// The record of a guest. It exists from the request to create the guest until every resource of it was observed to be
/// gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Its name, unique on the host.
    pub name: GuestName,
    /// Its purpose.
    pub kind: GuestKind,
    /// Its slot: addresses, interface and user ids follow from it.
    pub slot: Slot,
    /// The state that it should have.
    #[serde(rename = "want")]
    pub desired: DesiredState,
    /// The source of its closure.
    pub source: ClosureSource,
    /// The closure, once known.
    pub closure: Option<StorePath>,
    /// Its resource limits.
    pub limits: Limits,
    /// Its public SSH host key in OpenSSH format (`ssh-ed25519 AAAA…`), once created.
    pub ssh_host_key: Option<String>,
    /// The failure of the last attempt to reach the desired state.
    pub fault: Option<Failure>,
    /// Work on its files that comes before all other steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_work: Option<FileWork>,
    /// The number under which its files are retained; `None` when they are removed with it. Only set when the desired
    /// state is [`DesiredState::Absent`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain: Option<RetainedId>,
    /// A change of its closure or limits that has not ended. It comes after file work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<ClosureChange>,
    /// The last change of its closure or limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_change: Option<LastChange>,
    /// True for an agent that the host's configuration declares (`innkeeper apply`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub declared: bool,
    /// Time of the request.
    pub created_at: Timestamp,
}

impl Guest {
    /// Returns the change of its closure that comes next: after file work, and never for a guest that is being removed.
    #[must_use]
    pub fn pending_change(&self) -> Option<&ClosureChange> {
        let is_next = self.file_work.is_none() && self.desired != DesiredState::Absent;
        self.change.as_ref().filter(|_| is_next)
    }

    /// Returns a sentence, without a period, about processes that the kernel killed for lack of memory.
    #[must_use]
    pub fn oom_finding(&self, kills: u64) -> String {
        let (name, limits) = (&self.name, &self.limits);
        let processes = if kills == 1 { "process" } else { "processes" };
        format!(
            "the kernel killed {kills} {processes} of guest '{name}', which had used all of its {} of memory",
            limits.memory
        )
    }

    /// Returns the remedy for a guest without enough memory.
    #[must_use]
    pub fn oom_remedy(&self) -> &'static str {
        match self.kind {
            GuestKind::Agent => {
                "Create it again with `agent create --memory`; guest.memory in innkeeperd's configuration is the default."
            }
            GuestKind::Preview => {
                "Raise guest.memory in innkeeperd's configuration, restart innkeeperd, and create the preview again: \
                 `preview destroy`, then the next push."
            }
        }
    }
}

/// The state of a guest's processes, as its supervisor reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitPhase {
    /// Started: the first process waits at the door until the daemon has configured the network.
    AtDoor,
    /// The closure's init runs.
    Running,
    /// The guest exited, and its unit is not removed yet. The number is the exit status, 128 + n for signal n; see
    /// [`Self::REBOOT`].
    Exited(i32),
}

impl UnitPhase {
    /// The exit status by which nspawn requests that the guest is started again
    /// (systemd-nspawn(1), "Exit status" and `RestartForceExitStatus=133` of its unit).
    pub const REBOOT: i32 = 133;

    /// Reports whether processes of the guest exist.
    #[must_use]
    pub fn is_alive(self) -> bool {
        matches!(self, Self::AtDoor | Self::Running)
    }
}

/// The state of a guest in lists: the desired and the observed state combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestState {
    /// The guest should run and does not yet.
    Starting,
    /// The guest should run and does.
    Running,
    /// The guest should be stopped and still runs.
    Stopping,
    /// The guest should be stopped and is.
    Stopped,
    /// The guest should not exist, and some of its resources still do.
    Destroying,
    /// The last attempt to reach the desired state failed.
    Failed,
}

impl GuestState {
    /// Computes the state from the desired and the observed state.
    #[must_use]
    pub fn of(desired: DesiredState, fault: Option<&Failure>, unit: Option<UnitPhase>) -> Self {
        match (desired, unit) {
            (DesiredState::Running, Some(UnitPhase::Running)) => Self::Running,
            (DesiredState::Stopped, None) => Self::Stopped,
            _ if fault.is_some() => Self::Failed,
            (DesiredState::Running, _) => Self::Starting,
            (DesiredState::Stopped, Some(_)) => Self::Stopping,
            (DesiredState::Absent, _) => Self::Destroying,
        }
    }

    /// Returns the word shown in lists.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Destroying => "destroying",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for GuestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for GuestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Agent => "agent",
            Self::Preview => "preview",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;

    #[test]
    fn state_follows_from_desired_state_and_unit() {
        let fault = Failure::new(Code::Internal, "x");
        let cases = [
            (DesiredState::Running, false, None, GuestState::Starting),
            (
                DesiredState::Running,
                false,
                Some(UnitPhase::AtDoor),
                GuestState::Starting,
            ),
            (
                DesiredState::Running,
                false,
                Some(UnitPhase::Running),
                GuestState::Running,
            ),
            (
                DesiredState::Running,
                true,
                Some(UnitPhase::Exited(1)),
                GuestState::Failed,
            ),
            (
                DesiredState::Stopped,
                false,
                Some(UnitPhase::Running),
                GuestState::Stopping,
            ),
            (DesiredState::Stopped, true, None, GuestState::Stopped),
            (DesiredState::Absent, false, None, GuestState::Destroying),
            (DesiredState::Absent, true, None, GuestState::Failed),
        ];
        for (desired, faulty, unit, state) in cases {
            assert_eq!(
                GuestState::of(desired, faulty.then_some(&fault), unit),
                state
            );
        }
    }
}
