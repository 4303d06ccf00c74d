//! Processes of guests, and commands in them.

use std::any::Any;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::Stream;
use innkeeper_model::api::ExecRequest;
use innkeeper_model::{Guest, GuestKind, GuestName, Limits, StorePath, UnitPhase};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast;

use crate::error::FacilityError;
use crate::resource::Resource;

/// The program in a closure that boots a system of the guest's own, whose path is its only argument. Process 1 executes it in
/// place of the closure's init: it makes the guest's own store paths visible, then executes the system's init.
pub const BOOT_OWN: &str = "etc/innkeeper/boot-own";

/// The state of a guest's processes, as the supervisor reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitSeen {
    /// The guest.
    pub guest: GuestName,
    /// The phase of its unit.
    pub phase: UnitPhase,
    /// The host's id of its first process, while the guest is alive.
    pub leader: Option<u32>,
    /// True if all of its processes are suspended.
    pub frozen: bool,
    /// True if they are to be suspended, and some still run: the daemon was killed meanwhile, or one waits for a disk.
    pub freezing: bool,
}

/// A guest's console, in chunks, as it is written.
pub type Console = Pin<Box<dyn Stream<Item = io::Result<Vec<u8>>> + Send>>;

/// A unit whose slow preparations are done, and that [`Units::ensure`] starts. Dropping it undoes them.
pub struct Prepared(Box<dyn Any + Send>);

impl Prepared {
    /// Wraps a driver's own type.
    pub fn new(prepared: impl Any + Send) -> Self {
        Self(Box::new(prepared))
    }

    /// Returns the driver's own type; `None` for another driver's.
    #[must_use]
    pub fn downcast<T: Any>(self) -> Option<T> {
        self.0.downcast().ok().map(|prepared| *prepared)
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").finish_non_exhaustive()
    }
}

/// The standard input of a command.
pub type Input = Pin<Box<dyn AsyncWrite + Send + Sync>>;

/// The standard output or error of a command.
pub type Output = Pin<Box<dyn AsyncRead + Send + Sync>>;

/// A command that runs in a guest. Dropping it kills every process that the command has started, unless the command
/// is detached.
pub struct ExecSession {
    /// The command's standard input; with a terminal, its keyboard. Dropping it ends the input, except with a terminal.
    /// `None` for a detached command.
    pub stdin: Option<Input>,
    /// The command's standard output; with a terminal, its screen. Ends with the command, even if another process
    /// keeps it open.
    pub stdout: Output,
    /// The command's standard error; `None` with a terminal.
    pub stderr: Option<Output>,
    /// The command itself.
    pub command: Box<dyn ExecCommand>,
}

impl fmt::Debug for ExecSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecSession")
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}

/// The processes of a command in a guest.
#[async_trait]
pub trait ExecCommand: fmt::Debug + Send + Sync {
    /// Changes the terminal's size. Has no effect without a terminal.
    fn resize(&self, rows: u16, cols: u16);

    /// Waits for the command's end and returns its exit status: 128 + n for signal n, 127 when the guest has no such
    /// program. For a detached command, 0 once it runs.
    ///
    /// # Errors
    /// When the kernel cannot be queried for the status.
    async fn wait(&self) -> io::Result<i32>;

    /// Returns the number of the guest's processes that the kernel killed because the guest's memory was exhausted:
    /// while the command ran, and since the guest's start. Both are 0 before the command has ended.
    fn oom_kills(&self) -> (u64, u64);
}

/// The processes of guests.
#[async_trait]
pub trait Units: Resource {
    /// `systemd` or `direct`.
    fn supervisor(&self) -> &'static str;

    /// Returns the state of each guest's processes.
    ///
    /// # Errors
    /// When the kernel or systemd cannot be queried.
    async fn phases(&self) -> Result<Vec<UnitSeen>, FacilityError>;

    /// Returns the state of one guest's processes; `None` when it has no unit.
    ///
    /// # Errors
    /// As [`Self::phases`].
    async fn phase(&self, guest: &GuestName) -> Result<Option<UnitSeen>, FacilityError>;

    /// Does the slow part of starting the guest's unit, while the guest's file tree is still being created. `None`
    /// when something of the unit exists already.
    ///
    /// # Errors
    /// When the host lacks something that the unit needs.
    async fn prepare(&self, guest: &Guest) -> Result<Option<Prepared>, FacilityError>;

    /// Starts the guest's unit, if it is not alive, and returns when its first process waits at the door. For a guest
    /// that waits there already, connects to it again. For a guest that runs, has no effect. Consumes `prepared`.
    ///
    /// # Errors
    /// When the unit does not start, or ends before it reaches the door. The error holds the end of the guest's log.
    async fn ensure(
        &self,
        guest: &Guest,
        prepared: Option<Prepared>,
    ) -> Result<UnitSeen, FacilityError>;

    /// Reports whether a guest of this kind with this closure and these limits can take the unit of a seat. A seat cannot get what
    /// nspawn mounts, maps or allows at its start.
    fn fits_seat(&self, _kind: GuestKind, _closure: &StorePath, _limits: &Limits) -> bool {
        false
    }

    /// Gives the unit of a seat to `guest`, with the guest's limits; a seat that runs also gets the guest's host name. The objects
    /// of the supervisor keep the seat's name until the guest's next start. Has no effect if the unit has been given already or does not exist. A unit that the guest has
    /// already stays, and the seat's is removed.
    ///
    /// # Errors
    /// When a limit cannot be set, or a file cannot be written.
    async fn take_seat(&self, _seat: &GuestName, _guest: &Guest) -> Result<(), FacilityError> {
        Ok(())
    }

    /// Opens the door: the closure's init takes over. With `own`, the closure's [`BOOT_OWN`] does, which boots that system.
    ///
    /// # Errors
    /// When the guest does not wait at the door, or ends before its init takes over.
    async fn release(
        &self,
        guest: &GuestName,
        own: Option<&StorePath>,
    ) -> Result<(), FacilityError>;

    /// Shuts down the guest's init, after it was continued if it was suspended, and kills it after the configured timeout. Returns when no process is left.
    /// [`Resource::remove`] removes the unit's remains.
    ///
    /// # Errors
    /// When a process is left.
    async fn stop(&self, guest: &GuestName) -> Result<(), FacilityError>;

    /// Suspends all processes of a running guest, also those of commands in it, and returns when they have stopped. Reports
    /// whether it did: not every host can. They stay suspended until [`Self::thaw`], [`Self::stop`] or
    /// [`Resource::remove`], also without a daemon.
    ///
    /// # Errors
    /// When the kernel refuses. The guest runs then.
    async fn freeze(&self, guest: &GuestName) -> Result<bool, FacilityError>;

    /// Continues a guest after [`Self::freeze`]. Has no effect on others.
    ///
    /// # Errors
    /// When the kernel refuses.
    async fn thaw(&self, guest: &GuestName) -> Result<(), FacilityError>;

    /// Frees memory of a guest whose processes are suspended: moves it to swap, and drops file cache. Stops when the
    /// processes continue. Returns the bytes that were freed; `None` when the kernel cannot, or there is nothing to reclaim
    /// from. The guest's limits are as before afterwards.
    ///
    /// # Errors
    /// When the kernel refuses.
    async fn reclaim(&self, guest: &GuestName) -> Result<Option<u64>, FacilityError>;

    /// Returns how many processes of the guest the kernel killed since its start because its memory was exhausted; 0
    /// when that cannot be read, as after its end.
    fn oom_kills(&self, guest: &GuestName) -> u64;

    /// Returns the memory that the guest uses, without inactive file cache, in bytes; `None` when that cannot be read, as
    /// after its end.
    fn memory(&self, guest: &GuestName) -> Option<u64>;

    /// Returns the processor time that the guest has used since its start, of all its processes together; `None` when that
    /// cannot be read, as after its end.
    fn cpu_time(&self, guest: &GuestName) -> Option<Duration>;

    /// Receives the names of guests whose processes end.
    fn endings(&self) -> broadcast::Receiver<GuestName>;

    /// Reports whether the host is shutting down: its service manager stops guests then. False if that cannot be queried.
    async fn host_is_stopping(&self) -> bool {
        false
    }

    /// Returns the last `lines` lines of the guest's console, and with `follow` the lines that come after them. Lines
    /// of an earlier guest with the same name are left out. A followed console ends when the guest stops.
    ///
    /// # Errors
    /// When the guest has no log.
    async fn console(
        &self,
        guest: &Guest,
        lines: usize,
        follow: bool,
    ) -> Result<Console, FacilityError>;

    /// Runs a command in the guest, under the guest's limits.
    ///
    /// # Errors
    /// When the guest does not run or the command cannot be started.
    async fn exec(
        &self,
        guest: &GuestName,
        request: &ExecRequest,
    ) -> Result<ExecSession, FacilityError>;
}
