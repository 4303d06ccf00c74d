//! The differences between the two supervisors.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use innkeeper_facilities::{Console, Found};
use innkeeper_model::api::Check;
use innkeeper_model::{Cpus, Guest, GuestName, Limits, MemorySize, Ownership, UserIdCount};
use tokio::sync::oneshot;

use super::error::UnitError;
use super::nspawn::Command;
use super::waiting_shim::WaitingShim;

/// The cgroups of a guest, which may not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Groups {
    /// All processes of the guest and of its supervisor.
    pub(super) all: PathBuf,
    /// nspawn and the processes that it started.
    pub(super) guest: PathBuf,
    /// The cgroup whose memory is limited.
    pub(super) memory: PathBuf,
    /// The cgroup whose processor time is counted.
    pub(super) cpu: PathBuf,
    /// The cgroups that may be able to suspend the processes of `guest`, best first.
    pub(super) freezer: Vec<PathBuf>,
    /// The parents of the cgroups of commands in the guest; that of the tracking hierarchy first.
    pub(super) exec: Vec<PathBuf>,
}

/// The limits of a program that runs apart.
pub(super) const APART: Limits = Limits {
    memory: MemorySize::from_bytes(256 << 20),
    cpus: Cpus::from_percent(100),
    tasks: 100,
    user_ids: UserIdCount::MIN,
    nesting: false,
};

/// The time limit of a program that runs apart.
pub(super) const APART_LIMIT: Duration = Duration::from_secs(30);

/// Completes when a guest has ended.
pub(super) type End = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Supervises the processes of guests, also while the daemon is not running.
#[async_trait]
pub(super) trait Supervisor: Send + Sync + 'static {
    /// `systemd` or `direct`.
    fn name(&self) -> &'static str;

    /// Reports whether guests are registered with machined.
    fn registers(&self) -> bool;

    /// Returns the cgroups of a guest.
    fn groups(&self, guest: &GuestName) -> Groups;

    /// Returns the owner of the guest's unit or cgroup, and its name; `None` without one.
    async fn owner(&self, guest: &GuestName) -> Result<Option<(Ownership, String)>, UnitError>;

    /// Lists the units or cgroups of guests.
    async fn found(&self) -> Result<Vec<Found>, UnitError>;

    /// Does the slow part of the start. Remains of earlier boots must be gone. May return a shim that waits for
    /// [`Self::start`], and ends when it is dropped.
    async fn prepare(
        &self,
        guest: &Guest,
        nspawn: &Command,
    ) -> Result<Option<WaitingShim>, UnitError>;

    /// Starts nspawn in the guest's cgroups and with the guest's limits. May return the end of a process: the guest's
    /// cgroups are reliably empty only after it.
    async fn start(
        &self,
        guest: &Guest,
        nspawn: &Command,
        waiting: Option<WaitingShim>,
    ) -> Result<Option<oneshot::Receiver<()>>, UnitError>;

    /// Sets the limits of a guest that took a seat.
    async fn limit(&self, guest: &Guest) -> Result<(), UnitError>;

    /// Registers a guest that took a seat with machined, under the guest's own name. Has no effect if it is registered, and on a host
    /// without machined.
    async fn register(&self, _guest: &GuestName, _leader: u32) -> Result<(), UnitError> {
        Ok(())
    }

    /// Ends the registration of a guest that took a seat. nspawn ends that of others.
    async fn unregister(&self, _guest: &GuestName) -> Result<(), UnitError> {
        Ok(())
    }

    /// Runs a program that starts nspawn, until both have ended, in cgroups of its own. systemd starts it without the
    /// restrictions of the daemon's unit. `name` is no guest's name; processes and cgroups with it, of an earlier daemon, are
    /// removed.
    async fn run_apart(&self, name: &str, program: &Command) -> Result<(), UnitError>;

    /// Returns a mount namespace in which `/proc/sys` can be written; `None` for the daemon's own.
    fn mounts(&self) -> Option<&'static Path>;

    /// Limits the cgroups that the guest can create, before its first process runs.
    fn confine(&self, guest: &GuestName) -> Result<(), UnitError>;

    /// Returns the result of a guest's last boot. The guest must have no process.
    async fn ended(&self, guest: &GuestName) -> Result<Ended, UnitError>;

    /// Reports whether the host is shutting down.
    async fn host_is_stopping(&self) -> bool {
        false
    }

    /// Removes the unit or cgroups of a guest without processes. Its run directory stays.
    async fn clear(&self, guest: &GuestName) -> Vec<UnitError>;

    /// Returns the last lines of a console; with `end`, also the lines that follow until it completes. Without `lifetime`,
    /// lines before the guest's last start may be left out.
    async fn console(
        &self,
        guest: &GuestName,
        lifetime: Option<&str>,
        lines: usize,
        end: Option<End>,
    ) -> Result<Console, UnitError>;

    /// Checks the host's requirements of this supervisor.
    fn check(&self) -> Vec<Check>;
}

/// The result of a guest's last boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The guest has no unit.
    Nothing,
    /// The guest has one, but its exit status was not recorded.
    Unknown,
    /// The exit status, 128 + n for signal n.
    With(i32),
}
