//! Guests: their records, and their states.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    ClosureChange, ClosureSource, Failure, FileWork, GuestName, LastChange, Limits, OwnSystem,
    RetainedId, Slot, StorePath,
};

/// The purpose of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum GuestKind {
    /// A long-lived development machine for a coding agent.
    Agent,
    /// A pull request running as a web app.
    Preview,
}

/// The state that a guest should have. The engine reconciles the host with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DesiredState {
    /// The guest runs, and starts again after a reboot.
    Running,
    /// The guest keeps its files and addresses, and does not run.
    Stopped,
    /// Every resource of the guest is removed, then its record.
    Absent,
}

/// How much of a guest that should run is kept running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Its processes run.
    #[default]
    Awake,
    /// Its processes are frozen. Memory, sockets and network stay.
    Paused,
    /// It has no processes. Files, address and records stay.
    Asleep,
}

impl Level {
    /// Returns the word shown and stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Awake => "awake",
            Self::Paused => "paused",
            Self::Asleep => "asleep",
        }
    }
}

/// The use of a guest's idle time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum IdlePolicy {
    /// An idle guest is paused, and put to sleep when it stays idle.
    Sleep,
    /// An idle guest is paused.
    Pause,
    /// The guest stays awake.
    #[serde(alias = "always-on")]
    AlwaysOn,
}

impl IdlePolicy {
    /// All policies.
    pub const ALL: [Self; 3] = [Self::Sleep, Self::Pause, Self::AlwaysOn];

    /// Returns the word of command lines.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sleep => "sleep",
            Self::Pause => "pause",
            Self::AlwaysOn => "always-on",
        }
    }
}

impl fmt::Display for IdlePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The record of a guest. It exists from the request to create the guest until every resource of it was observed to be
/// gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
    /// The level that it should have while it should run; [`Level::Awake`] otherwise.
    #[serde(default)]
    pub level: Level,
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
    /// The failure of the last attempt to wake it, while it sleeps on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake_failure: Option<Failure>,
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
    /// The system that the guest has built for itself, for example by `nixos-rebuild`. The guest boots it in place of
    /// [`Self::closure`], as far as its state allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_system: Option<Box<OwnSystem>>,
    /// True for an agent that the host's configuration declares (`innkeeper apply`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub declared: bool,
    /// The use of its idle time; `None` for that of its kind in the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_policy: Option<IdlePolicy>,
    /// The actor that created an agent: `uid:1000`, `token:7`. `None` for previews, and for agents of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Time of the request.
    pub created_at: Timestamp,
}

impl Guest {
    /// Returns the level at which a guest rests that should run; `None` for one that should be awake, and for others.
    #[must_use]
    pub fn rests(&self) -> Option<Level> {
        let is_resting = self.desired == DesiredState::Running && self.level != Level::Awake;
        is_resting.then_some(self.level)
    }

    /// Reports whether the guest should have processes.
    #[must_use]
    pub fn should_have_processes(&self) -> bool {
        self.desired == DesiredState::Running && self.level != Level::Asleep
    }

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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum GuestState {
    /// The guest should run and does not yet.
    Starting,
    /// The guest should run and does.
    Running,
    /// The guest's processes are frozen, as they should be.
    Paused,
    /// The guest has no processes until it is woken.
    Asleep,
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
    /// Computes the state from the record and the observed state. `frozen` tells whether the processes are suspended.
    #[must_use]
    pub fn of(guest: &Guest, unit: Option<UnitPhase>, frozen: bool) -> Self {
        let is_running = unit == Some(UnitPhase::Running);
        match (guest.desired, guest.level) {
            // Also one that a backup has frozen for a moment.
            (DesiredState::Running, Level::Awake) if is_running => Self::Running,
            (DesiredState::Running, Level::Paused) if is_running && frozen => Self::Paused,
            (DesiredState::Running, Level::Asleep) if unit.is_none() => Self::Asleep,
            (DesiredState::Stopped, _) if unit.is_none() => Self::Stopped,
            _ if guest.fault.is_some() => Self::Failed,
            // It is about to be frozen.
            (DesiredState::Running, Level::Paused) if is_running => Self::Running,
            (DesiredState::Running, Level::Awake) => Self::Starting,
            // A paused guest without processes falls asleep.
            (DesiredState::Running, Level::Paused | Level::Asleep) | (DesiredState::Stopped, _) => {
                Self::Stopping
            }
            (DesiredState::Absent, _) => Self::Destroying,
        }
    }

    /// Reports whether the guest rests: it is to be woken before its processes do anything.
    #[must_use]
    pub fn is_resting(self) -> bool {
        matches!(self, Self::Paused | Self::Asleep)
    }

    /// Returns the word shown in lists.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Asleep => "asleep",
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
    use crate::{Code, Cpus, MemorySize, UserIdCount};

    fn guest(desired: DesiredState, level: Level, faulty: bool) -> Guest {
        let closure = StorePath::parse("/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest");
        Guest {
            name: GuestName::parse("web").expect("valid"),
            kind: GuestKind::Agent,
            slot: Slot::new(1),
            desired,
            level,
            source: ClosureSource::Path(closure.expect("valid")),
            closure: None,
            limits: Limits {
                memory: MemorySize::from_bytes(1 << 30),
                cpus: Cpus::from_percent(100),
                tasks: 100,
                user_ids: UserIdCount::MIN,
                nesting: false,
            },
            ssh_host_key: None,
            fault: faulty.then(|| Failure::new(Code::Internal, "x")),
            wake_failure: None,
            file_work: None,
            retain: None,
            change: None,
            last_change: None,
            own_system: None,
            declared: false,
            idle_policy: None,
            owner: None,
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn state_follows_from_record_and_unit() {
        use DesiredState::{Absent, Running, Stopped};
        use Level::{Asleep, Awake, Paused};
        use UnitPhase::{AtDoor, Exited};
        let up = Some(UnitPhase::Running);
        let cases = [
            (Running, Awake, false, None, false, GuestState::Starting),
            (
                Running,
                Awake,
                false,
                Some(AtDoor),
                false,
                GuestState::Starting,
            ),
            (Running, Awake, false, up, false, GuestState::Running),
            (Running, Awake, false, up, true, GuestState::Running),
            (
                Running,
                Awake,
                true,
                Some(Exited(1)),
                false,
                GuestState::Failed,
            ),
            (Running, Paused, false, up, true, GuestState::Paused),
            (Running, Paused, false, up, false, GuestState::Running),
            (Running, Paused, true, up, false, GuestState::Failed),
            (Running, Paused, false, None, false, GuestState::Stopping),
            (Running, Asleep, false, up, false, GuestState::Stopping),
            (Running, Asleep, false, up, true, GuestState::Stopping),
            (Running, Asleep, true, None, false, GuestState::Asleep),
            (Stopped, Awake, false, up, false, GuestState::Stopping),
            (Stopped, Awake, true, None, false, GuestState::Stopped),
            (Absent, Paused, false, up, true, GuestState::Destroying),
            (Absent, Awake, false, None, false, GuestState::Destroying),
            (Absent, Awake, true, None, false, GuestState::Failed),
        ];
        for (desired, level, faulty, unit, frozen, state) in cases {
            let guest = guest(desired, level, faulty);
            let found = GuestState::of(&guest, unit, frozen);
            assert_eq!(
                found, state,
                "{desired:?} {level} {unit:?} frozen: {frozen}"
            );
        }
    }

    #[test]
    fn record_without_a_level_is_of_a_guest_that_is_awake() {
        let mut record = serde_json::to_value(guest(DesiredState::Running, Level::Paused, false))
            .expect("serializes");
        assert_eq!(record["level"], "paused");
        record.as_object_mut().expect("an object").remove("level");
        let read: Guest = serde_json::from_value(record).expect("parses");
        assert_eq!((read.level, read.rests()), (Level::Awake, None));
    }
}
