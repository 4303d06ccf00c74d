//! What the two supervisors do differently.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use async_trait::async_trait;
use innkeeper_facilities::{Console, Found};
use innkeeper_model::api::Check;
use innkeeper_model::{Guest, GuestName, Ownership};
use tokio::process::Child;

use super::error::UnitError;

/// Where a guest's processes are, whether or not there are any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Groups {
    /// All processes that belong to the guest, with those of its supervisor.
    pub(super) all: PathBuf,
    /// nspawn and what it has started.
    pub(super) guest: PathBuf,
    /// The cgroup whose memory is limited.
    pub(super) memory: PathBuf,
    /// Where the cgroup of each command in the guest is made, in the hierarchy that lists processes first.
    pub(super) exec: Vec<PathBuf>,
}

/// Completes when a guest has ended.
pub(super) type End = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Keeps the processes of guests while the daemon may be away.
#[async_trait]
pub(super) trait Keeper: Send + Sync + 'static {
    /// `systemd` or `direct`.
    fn name(&self) -> &'static str;

    /// Whether machined is told of guests.
    fn registers(&self) -> bool;

    /// The cgroups of a guest.
    fn groups(&self, guest: &GuestName) -> Groups;

    /// Whose the guest's unit or cgroup is, with its name; `None` when there is none.
    async fn owner(&self, guest: &GuestName) -> Result<Option<(Ownership, String)>, UnitError>;

    /// What there is of guests beside their run directories.
    async fn found(&self) -> Result<Vec<Found>, UnitError>;

    /// Does what takes its time before nspawn starts. Nothing of an earlier boot is there. Returns the process that
    /// waits for [`Self::start`], if there is one; it ends when its standard input does.
    async fn prepare(&self, guest: &Guest, nspawn: &[OsString])
    -> Result<Option<Child>, UnitError>;

    /// Starts nspawn in the guest's cgroups and with the guest's limits. Returns the process to wait for before the
    /// guest's cgroups can be believed to be empty.
    async fn start(
        &self,
        guest: &Guest,
        nspawn: &[OsString],
        waiting: Option<Child>,
    ) -> Result<Option<Child>, UnitError>;

    /// A mount namespace in which the kernel's settings can be written, where the daemon's own is not one.
    fn mounts(&self) -> Option<&'static Path>;

    /// Limits what the guest can make of cgroups of its own, before anything of it runs.
    fn confine(&self, guest: &GuestName) -> Result<(), UnitError>;

    /// How the processes of a guest ended that has none any more.
    async fn ended(&self, guest: &GuestName) -> Result<Ended, UnitError>;

    /// Removes what a guest without processes has left, except its run directory.
    async fn clear(&self, guest: &GuestName) -> Vec<UnitError>;

    /// The last lines of a console; with `end`, also what follows until that completes. With `None` for
    /// `lifetime`, no more than the guest's last start has to be shown.
    async fn console(
        &self,
        guest: &GuestName,
        lifetime: Option<&str>,
        lines: usize,
        end: Option<End>,
    ) -> Result<Console, UnitError>;

    /// What this supervisor needs of the host.
    fn check(&self) -> Vec<Check>;
}

/// What is known of a guest without processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing: it has no unit.
    Nothing,
    /// It has one, but nobody could write down how it ended.
    Unknown,
    /// It ended with this status, 128 + n for signal n.
    With(i32),
}
