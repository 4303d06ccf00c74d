//! Guests: what the store says should exist, and what can be seen of it.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Failure, FileWork, GuestName, Installable, Limits, RetainedId, Slot, StorePath};

/// What a guest is for.
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

/// Where a guest's closure comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClosureSource {
    /// A flake output, built when it was not built before.
    Flake(Installable),
    /// The same, asked for by a caller whose flakes are fetched and evaluated without the daemon's rights.
    MemberFlake(Installable),
    /// A store path that is already there.
    Path(StorePath),
}

/// The record of a guest. It is there from the intent to create the guest until every resource of it has
/// been seen gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Its name, unique on the host.
    pub name: GuestName,
    /// What it is for.
    pub kind: GuestKind,
    /// Its number: addresses, interface and user ids follow from it.
    pub slot: Slot,
    /// The state that it should have.
    #[serde(rename = "want")]
    pub desired: DesiredState,
    /// Where its closure comes from.
    pub source: ClosureSource,
    /// The closure, once it is known.
    pub closure: Option<StorePath>,
    /// What it may use.
    pub limits: Limits,
    /// Its SSH host key's public half in OpenSSH format (`ssh-ed25519 AAAA…`), once there is one.
    pub ssh_host_key: Option<String>,
    /// Why it is not as wanted, if the last attempt failed.
    pub fault: Option<Failure>,
    /// What is to be done with its files first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_work: Option<FileWork>,
    /// The number under which its files are kept when it is gone; `None` when they are removed with it. Only for a guest
    /// that is to be absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain: Option<RetainedId>,
    /// When the intent was recorded.
    pub created_at: Timestamp,
}

impl Guest {
    /// What happened when the kernel killed processes of the guest for want of memory, without a full stop.
    #[must_use]
    pub fn oom_finding(&self, kills: u64) -> String {
        let (name, limits) = (&self.name, &self.limits);
        let processes = if kills == 1 { "process" } else { "processes" };
        format!(
            "the kernel killed {kills} {processes} of guest '{name}', which had used all of its {} of memory",
            limits.memory
        )
    }

    /// How to give such a guest more memory.
    #[must_use]
    pub fn oom_remedy(&self) -> &'static str {
        match self.kind {
            GuestKind::Agent => {
                "Create it anew with `agent create --memory`; guest.memory in innkeeperd's configuration is the default."
            }
            GuestKind::Preview => {
                "Raise guest.memory in innkeeperd's configuration, restart innkeeperd, and make the preview anew: \
                 `preview destroy`, then the next push."
            }
        }
    }
}

/// What the supervisor sees of a guest's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitPhase {
    /// Started; the first process waits at the door for the manager to furnish the guest.
    AtDoor,
    /// The closure's init has taken over.
    Running,
    /// It ended by itself; the unit's remains are still there. The number is the exit status, 128 + n for
    /// signal n; 133 asks for a reboot.
    Exited(i32),
}

impl UnitPhase {
    /// The exit status with which nspawn says that the guest wants to be started again
    /// (systemd-nspawn(1), "Exit status" and `RestartForceExitStatus=133` of its unit).
    pub const REBOOT: i32 = 133;

    /// Whether processes of the guest exist.
    #[must_use]
    pub fn is_alive(self) -> bool {
        matches!(self, Self::AtDoor | Self::Running)
    }
}

/// A guest's state in one word, for people and programs that list guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestState {
    /// It should run and does not yet.
    Starting,
    /// It should run and does.
    Running,
    /// It should not run and still does.
    Stopping,
    /// It should not run and does not.
    Stopped,
    /// It should not exist and something of it still does.
    Destroying,
    /// It is not as wanted, and the last attempt to change that failed.
    Failed,
}

impl GuestState {
    /// The state that follows from what should be and what is.
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

    /// The word shown in lists.
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

impl fmt::Display for ClosureSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flake(installable) | Self::MemberFlake(installable) => installable.fmt(f),
            Self::Path(path) => path.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;

    #[test]
    fn the_state_follows_from_want_and_unit() {
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
