//! The errors of the engine.

use std::time::Duration;

use innkeeper_facilities::FacilityError;
use innkeeper_model::reserved::Reservation;
use innkeeper_model::{
    Code, Explain, Failure, GuestKind, GuestName, Installable, InvalidInstallable, Level,
    OperationId, StorePath, UserIdCount,
};
use innkeeper_store::StoreError;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The host refused or failed.
    #[error(transparent)]
    Host(#[from] FacilityError),
    /// A reserved name for a new guest.
    #[error("guest name '{name}' is reserved: {reason}")]
    Reserved {
        /// The name.
        name: GuestName,
        /// The reason.
        reason: Reservation,
    },
    /// The guest does not exist.
    #[error("guest '{0}' does not exist")]
    GuestNotFound(GuestName),
    /// The operation does not exist.
    #[error("operation {0} does not exist")]
    OperationNotFound(OperationId),
    /// The request names no flake, and none is configured.
    #[error("no flake is configured to build agents from")]
    FlakeUnset,
    /// An invalid flake output.
    #[error(transparent)]
    Installable(#[from] InvalidInstallable),
    /// A local flake, requested by a caller other than root.
    #[error("only root may build from '{}', which is not a remote flake", .0.flake())]
    LocalFlake(Installable),
    /// An invalid request.
    #[error("{0}")]
    Invalid(String),
    /// The host's guests cannot have more user ids than one slot.
    #[error("this host cannot give a guest {0} user ids, only {min}", min = UserIdCount::MIN)]
    UserIds(UserIdCount),
    /// The configuration does not allow containers in guests.
    #[error("innkeeperd's configuration does not allow nesting")]
    NestingRefused,
    /// The host's guests have no user namespaces.
    #[error("nesting requires guests with user namespaces, and this host's have none")]
    NestingImpossible,
    /// A request for agents only, on a preview's guest.
    #[error("'{0}' is a preview, not an agent")]
    Preview(GuestName),
    /// The guest runs, and its files can only be copied while it is stopped.
    #[error("cannot copy the files of guest '{0}' while it runs")]
    MustNotRun(GuestName),
    /// The host cannot suspend the guest's processes.
    #[error("cannot pause guest '{0}': this host cannot suspend the processes of a cgroup")]
    NoFreezer(GuestName),
    /// New guests cannot take the place of others on this host.
    #[error("guests that wait need file trees in directories, and guests with 65536 user ids")]
    NoSeats,
    /// Warm guests cannot be paused.
    #[error("this host cannot suspend the processes of a guest that waits")]
    WarmNeedsFreezer,
    /// A warm guest would have a Nix of its own.
    #[error("guests of '{0}' have a Nix of their own, which is set up for one guest at its start")]
    WarmWithNix(StorePath),
    /// The flake of warm guests was never built.
    #[error("the flake '{0}' is not built")]
    NotBuilt(Installable),
    /// The guest is paused or asleep, so that no command runs in it.
    #[error("guest '{guest}' is {level}")]
    Resting {
        /// The guest.
        guest: GuestName,
        /// Its kind.
        kind: GuestKind,
        /// Its level.
        level: Level,
    },
    /// The guest should be connected to and has no processes.
    #[error("guest '{guest}' does not run")]
    NotRunning {
        /// The guest.
        guest: GuestName,
        /// Its kind.
        kind: GuestKind,
    },
    /// The guest accepts no connection on the port.
    #[error("guest '{guest}' accepts no connection on port {port}")]
    PortClosed {
        /// The guest.
        guest: GuestName,
        /// Its kind.
        kind: GuestKind,
        /// The port.
        port: u16,
    },
    /// The guest should be awake and has no processes, so that it cannot be paused.
    #[error("guest '{guest}' has no processes to pause: it has ended")]
    NoProcesses {
        /// The guest.
        guest: GuestName,
        /// Its kind.
        kind: GuestKind,
    },
    /// A session was opened in a guest that the daemon was about to let rest.
    #[error("guest '{0}' is in use")]
    InUse(GuestName),
    /// The guest did not wake a moment ago, and is not woken on demand yet.
    #[error("guest '{guest}' did not wake: {}", .failure.message)]
    NotWoken {
        /// The guest.
        guest: GuestName,
        /// Its kind.
        kind: GuestKind,
        /// The failure of the last attempt.
        failure: Box<Failure>,
        /// The time until a demand wakes it again.
        retry_in: Duration,
    },
    /// The guest's running system did not switch to a closure.
    #[error("guest '{guest}' cannot switch to {closure}: {finding}")]
    Switch {
        /// The guest.
        guest: GuestName,
        /// The closure.
        closure: StorePath,
        /// The problem.
        finding: String,
        /// The last lines that the program printed.
        log: Vec<String>,
    },
    /// The guest's system did not come up.
    #[error("guest '{guest}' did not come up: {finding}")]
    Unhealthy {
        /// The guest.
        guest: GuestName,
        /// The problem.
        finding: String,
        /// The last lines of a log that show the cause.
        log: Vec<String>,
    },
    /// The guest did not come up with the system that its own profile names.
    #[error("agent '{guest}' did not come up with its own system {system}: {finding}")]
    OwnSystem {
        /// The guest.
        guest: GuestName,
        /// The system.
        system: StorePath,
        /// The problem.
        finding: String,
        /// The last lines of a log that show the cause.
        log: Vec<String>,
    },
    /// The guest's unit was removed while its system came up.
    #[error("the unit of guest '{0}' was removed while its system came up")]
    Ended(GuestName),
    /// An object of the guest is left after its removal.
    #[error("cannot remove guest '{guest}': {what} {object} still exists")]
    Left {
        /// The guest.
        guest: GuestName,
        /// The kind of resource.
        what: &'static str,
        /// The object's name on the host.
        object: String,
    },
    /// Several removals failed.
    #[error("{}", .0.iter().map(|f| f.message.as_str()).collect::<Vec<_>>().join("; "))]
    Several(Vec<Failure>),
    /// The host has too little memory for another guest.
    #[error(
        "the host has too little memory to start a guest: {available_percent} % is available, and pressure.refuse_below_percent is {refused_below}"
    )]
    MemoryLow {
        /// The available memory, in percent.
        available_percent: u64,
        /// The limit, in percent.
        refused_below: u64,
    },
    /// A later operation superseded this one.
    #[error("a later operation on guest '{0}' superseded this one")]
    Superseded(GuestName),
    /// The daemon is stopping.
    #[error("innkeeperd is stopping and accepts no new work")]
    ShuttingDown,
}

impl Explain for EngineError {
    fn code(&self) -> Code {
        match self {
            Self::Store(error) => error.code(),
            Self::Host(error) => error.code(),
            Self::Reserved { .. } => Code::InvalidName,
            Self::GuestNotFound(_) => Code::GuestNotFound,
            Self::Preview(_) => Code::GuestIsPreview,
            Self::MustNotRun(_) => Code::GuestRunning,
            Self::NoFreezer(_) | Self::WarmNeedsFreezer => Code::KernelFeatureMissing,
            Self::Resting { .. } | Self::NoProcesses { .. } | Self::NotRunning { .. } => {
                Code::GuestNotRunning
            }
            Self::PortClosed { .. } => Code::PortClosed,
            Self::OperationNotFound(_) => Code::OperationNotFound,
            Self::FlakeUnset => Code::FlakeUnset,
            Self::UserIds(_) => Code::UserIdsUnsupported,
            Self::NestingRefused | Self::NestingImpossible => Code::NestingRefused,
            Self::LocalFlake(_) => Code::FlakeRefused,
            Self::Invalid(_) | Self::Installable(_) => Code::InvalidRequest,
            Self::NoSeats | Self::WarmWithNix(_) => Code::InvalidConfig,
            Self::NotBuilt(_) => Code::ClosureNotFound,
            Self::Switch { .. } => Code::SwitchFailed,
            Self::Unhealthy { .. } | Self::OwnSystem { .. } => Code::GuestUnhealthy,
            Self::Ended(_) => Code::GuestDied,
            Self::Left { .. } => Code::Internal,
            Self::Several(failures) => failures.first().map_or(Code::Internal, |f| f.code),
            Self::Superseded(_) | Self::InUse(_) => Code::GuestBusy,
            Self::NotWoken { failure, .. } => failure.code,
            Self::MemoryLow { .. } => Code::MemoryLow,
            Self::ShuttingDown => Code::ShuttingDown,
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Store(error) => return error.remedy(),
            Self::Host(error) => return error.remedy(),
            Self::Several(failures) => return failures.iter().find_map(|f| f.remedy.clone()),
            Self::Superseded(_) | Self::Invalid(_) | Self::Installable(_) => return None,
            Self::Reserved { .. } => "Choose another name, or omit it to get a generated one.".to_owned(),
            Self::GuestNotFound(_) => "`agent list` shows the existing guests.".to_owned(),
            Self::Preview(_) => "The request is for agents only; `agent list` shows them.".to_owned(),
            Self::MustNotRun(guest) => format!(
                "Put it to sleep first: `agent sleep {guest}`. `agent pause {guest}` is enough where the host can pause guests. Guests on thin volumes (storage.driver = \"lvm-thin\") can be copied while they run."
            ),
            Self::NoFreezer(guest) => format!(
                "Mount cgroups of version 2, or the freezer of version 1, where innkeeperd may write below /sys/fs/cgroup. Without a freezer, a guest can still sleep: `agent sleep {guest}`, or `preview sleep {guest}` if it is a preview."
            ),
            Self::NoSeats => {
                "Set storage.driver to \"dir\" and guest.user_ids to 65536, or remove the section [pool].".to_owned()
            }
            Self::WarmNeedsFreezer => "Mount cgroups of version 2, or the freezer of version 1, where innkeeperd may write below /sys/fs/cgroup; or set pool.warm to [].".to_owned(),
            Self::WarmWithNix(_) => "Remove it from pool.warm. Its agents are started as ever.".to_owned(),
            Self::NotBuilt(flake) => format!("`agent build {flake}` builds it, and `innkeeper prefetch` does regularly."),
            Self::Resting { guest, kind, .. } => format!("Wake it first: `{kind} wake {guest}`."),
            Self::NotRunning { guest, kind } => format!("`{kind} start {guest}` starts it."),
            Self::PortClosed { guest, kind, port } => format!(
                "Start the server in the guest. `{kind} exec {guest} -- ss -ltn` lists its open ports; one that was just started may need a moment to open port {port}."
            ),
            Self::NoProcesses { guest, kind } => format!(
                "innkeeperd starts it again; `innkeeper events --guest {guest}` shows the attempts. `{kind} sleep {guest}` keeps it down until it is woken."
            ),
            Self::InUse(_) => "End its sessions first.".to_owned(),
            Self::NotWoken { guest, kind, failure, retry_in } => {
                let retry = format!(
                    "It is woken again by a request or a packet after {} s, or at once by `{kind} wake {guest}`.",
                    retry_in.as_secs().max(1)
                );
                match &failure.remedy {
                    Some(remedy) => format!("{remedy} {retry}"),
                    None => retry,
                }
            }
            Self::OperationNotFound(_) => "`innkeeper events` shows recent operations.".to_owned(),
            Self::UserIds(_) => "Request 65536 user ids (--user-ids, or guest.user_ids in innkeeperd's configuration). More require guest.user_namespace = \"on\" or \"auto\", and state_dir on a file system with id-mapped mounts: `innkeeper doctor` shows whether it has them.".to_owned(),
            Self::NestingRefused => "Set guest.nesting = true in innkeeperd's configuration and restart innkeeperd. docs/security.md describes the cost.".to_owned(),
            Self::NestingImpossible => "Set guest.user_namespace = \"on\" in innkeeperd's configuration; `innkeeper doctor` shows what the kernel lacks.".to_owned(),
            Self::FlakeUnset => "Pass one (`agent create --flake /srv/fleet`), or set nix.flake in innkeeperd's configuration.".to_owned(),
            Self::LocalFlake(installable) => format!(
                "Build it yourself (`nix build --print-out-paths '{installable}'`) and give the store path: `agent create --closure STORE_PATH`. Or push the flake and give its remote reference, such as github:owner/repo or git+https://host/repo."
            ),
            Self::Switch { guest, .. } => format!("The agent keeps its former closure. Correct the configuration and repeat `agent set {guest}`; with `--restart` it boots the new closure instead of switching to it."),
            Self::Unhealthy { guest, .. } => format!("The agent keeps its former closure. `agent logs {guest}` shows its console; correct the configuration and repeat `agent set {guest}`."),
            Self::OwnSystem { guest, .. } => format!("The agent boots the closure from the host. `agent logs {guest}` shows its console. Correct the configuration and run `nixos-rebuild` again, or try the same system once more: `agent stop {guest}`, then `agent start {guest}`."),
            Self::Ended(guest) => format!("Repeat the command. `innkeeper events --guest {guest}` shows what else was done with it meanwhile."),
            Self::MemoryLow { .. } => "Retry in 30 s: innkeeperd puts idle guests to sleep meanwhile. `innkeeper top` shows the memory of each guest; stop one with `agent stop` or `preview stop`, or let it sleep with `agent sleep` or `preview sleep`.".to_owned(),
            Self::Left { guest, .. } => format!("innkeeperd retries the removal; `innkeeper events --guest {guest}` shows its progress."),
            Self::ShuttingDown => "Retry after it has started again.".to_owned(),
        })
    }

    fn log(&self) -> &[String] {
        match self {
            Self::Store(error) => error.log(),
            Self::Host(error) => error.log(),
            Self::Several(failures) => failures.first().map_or(&[], |f| &f.log),
            Self::NotWoken { failure, .. } => &failure.log,
            Self::Switch { log, .. }
            | Self::Unhealthy { log, .. }
            | Self::OwnSystem { log, .. } => log,
            _ => &[],
        }
    }

    fn mem_available_percent(&self) -> Option<u64> {
        match self {
            Self::MemoryLow {
                available_percent, ..
            } => Some(*available_percent),
            Self::Several(failures) => failures.first()?.mem_available_percent,
            _ => None,
        }
    }
}
