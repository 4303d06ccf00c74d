//! The error of a guest's processes.

use innkeeper_facilities::FacilityError;
use innkeeper_model::{Code, Explain, GuestName, chain};

use crate::{CommandError, FileError};

/// A failed operation on a guest's processes.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// A program could not be run.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file of the daemon, of the kernel or of a cgroup.
    #[error(transparent)]
    File(#[from] FileError),
    /// Guests cannot be tracked and limited.
    #[error("no cgroup hierarchy is mounted where innkeeperd may write")]
    NoCgroups,
    /// The guest's unit or cgroup is another daemon's, or has no mark.
    #[error("{object}, which guest '{guest}' needs, is not this daemon's")]
    Foreign {
        /// The guest.
        guest: GuestName,
        /// The unit, or the cgroup.
        object: String,
    },
    /// The record has no closure yet.
    #[error("guest '{guest}' has no closure to boot")]
    NoClosure {
        /// The guest.
        guest: GuestName,
    },
    /// It ended before it reached the door.
    #[error("guest '{guest}' ended with status {status} while it started")]
    Died {
        /// The guest.
        guest: GuestName,
        /// The exit status, 128 + n for signal n.
        status: i32,
        /// The end of its console.
        log: Vec<String>,
    },
    /// Its init cannot be executed.
    #[error("the init of guest '{guest}' does not start: {message}")]
    Init {
        /// The guest.
        guest: GuestName,
        /// The shim's error message.
        message: String,
    },
    /// It timed out before it reached the door.
    #[error("guest '{guest}' did not reach the door within {seconds} s of its start")]
    Late {
        /// The guest.
        guest: GuestName,
        /// The timeout.
        seconds: u64,
        /// The end of its console.
        log: Vec<String>,
    },
    /// The request requires that it waits at the door.
    #[error("guest '{guest}' does not wait at the door")]
    NotAtDoor {
        /// The guest.
        guest: GuestName,
    },
    /// The request requires that it runs.
    #[error("guest '{guest}' does not run")]
    NotRunning {
        /// The guest.
        guest: GuestName,
    },
    /// It never started.
    #[error("guest '{guest}' has no console log")]
    NoLog {
        /// The guest.
        guest: GuestName,
    },
    /// Processes survived SIGKILL.
    #[error("guest '{guest}' still has {count} processes after they were killed")]
    Left {
        /// The guest.
        guest: GuestName,
        /// Their number.
        count: usize,
    },
    /// A command without a program.
    #[error("no command to run in guest '{guest}' is given")]
    NoCommand {
        /// The guest.
        guest: GuestName,
    },
    /// An environment variable that cannot be passed on.
    #[error("'{name}' is not the name of an environment variable")]
    BadVariable {
        /// Its name.
        name: String,
    },
    /// An environment variable that the host's own programs would act on before the guest's command runs.
    #[error("the variable '{name}' is not passed on: programs of the host would act on it")]
    HostVariable {
        /// Its name.
        name: String,
    },
    /// A user that the guest does not have.
    #[error("guest '{guest}' has no user '{user}'")]
    NoUser {
        /// The guest.
        guest: GuestName,
        /// The user.
        user: String,
    },
    /// A call of systemd failed.
    #[error("cannot {action} over D-Bus")]
    Bus {
        /// The failed action.
        action: &'static str,
        /// The error of the call.
        #[source]
        source: Box<zbus::Error>,
    },
    /// systemd's job failed.
    #[error("systemd's job for {unit} ended as '{result}'")]
    Job {
        /// The unit.
        unit: String,
        /// systemd's result of the job.
        result: String,
        /// The end of the unit's journal.
        log: Vec<String>,
    },
    /// Several removals failed.
    #[error("{}", .0.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; "))]
    Several(Vec<Self>),
}

impl UnitError {
    /// Combines the errors of steps that continue after a failure.
    pub(super) fn all(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }
}

impl From<UnitError> for FacilityError {
    fn from(error: UnitError) -> Self {
        Self::new(error)
    }
}

impl Explain for UnitError {
    fn code(&self) -> Code {
        match self {
            Self::Command(error) => error.code_or(Code::UnitFailed),
            Self::File(error) => error.code_or(Code::UnitFailed),
            Self::NoCgroups => Code::KernelFeatureMissing,
            Self::NoClosure { .. } => Code::InvalidClosure,
            Self::Foreign { .. } => Code::DaemonConflict,
            Self::Died { .. } | Self::Init { .. } => Code::GuestDied,
            Self::Late { .. } => Code::TimedOut,
            Self::NotAtDoor { .. } | Self::NotRunning { .. } | Self::NoLog { .. } => {
                Code::GuestNotRunning
            }
            Self::NoCommand { .. }
            | Self::BadVariable { .. }
            | Self::HostVariable { .. }
            | Self::NoUser { .. } => Code::InvalidRequest,
            Self::Left { .. } | Self::Bus { .. } | Self::Job { .. } => Code::UnitFailed,
            Self::Several(errors) => errors.first().map_or(Code::UnitFailed, Self::code),
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Command(error) => return error.remedy(),
            Self::File(error) => return error.remedy(),
            Self::NoCgroups => {
                "Mount one (`mount -t cgroup2 none /sys/fs/cgroup`), or run innkeeperd where it may write below /sys/fs/cgroup.".to_owned()
            }
            Self::Died { guest, .. } | Self::Late { guest, .. } => {
                format!("`innkeeper events --guest {guest}` shows what led to it; `agent logs` or `preview logs` shows its console.")
            }
            Self::Foreign { .. } => {
                "`innkeeper gc --dry-run` shows whether another daemon has marked it: stop it with that daemon, or end its processes by hand if that daemon is gone. Without a mark, `innkeeper gc --unmarked` removes it.".to_owned()
            }
            Self::Init { .. } => {
                "Build the closure for this machine's architecture, with an executable `init`.".to_owned()
            }
            Self::NotAtDoor { guest } | Self::NotRunning { guest } | Self::NoLog { guest } => {
                format!("Start it: `agent start {guest}`, or `preview start {guest}` if it is a preview.")
            }
            Self::Left { guest, .. } => {
                format!("They wait for the kernel, mostly for a disk; look at `dmesg`. innkeeperd retries the removal; `innkeeper events --guest {guest}` shows its progress.")
            }
            Self::Bus { .. } => {
                "Look at `systemctl status dbus`, or set `supervisor.kind = \"direct\"`.".to_owned()
            }
            Self::Job { unit, .. } => format!("Look at `journalctl -u {unit}`."),
            Self::HostVariable { .. } => {
                "Set it inside the guest: put `env NAME=VALUE` before the command.".to_owned()
            }
            Self::Several(errors) => return errors.iter().find_map(Self::remedy),
            Self::NoClosure { .. }
            | Self::NoCommand { .. }
            | Self::BadVariable { .. }
            | Self::NoUser { .. } => return None,
        })
    }

    fn log(&self) -> &[String] {
        match self {
            Self::Died { log, .. } | Self::Late { log, .. } | Self::Job { log, .. } => log,
            _ => &[],
        }
    }
}
