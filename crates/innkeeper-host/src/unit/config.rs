//! Settings of units, and the paths of their files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use innkeeper_model::{GuestName, Slot};
use serde::{Deserialize, Serialize};

use super::bounds;
use crate::features::UserIds;
use crate::identity::Identity;

/// Exists when systemd is PID 1 (`sd_booted(3)`).
pub(super) const BOOTED: &str = "/run/systemd/system";

/// The supervisor of the guests' processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SupervisorKind {
    /// systemd where it is PID 1, otherwise direct.
    #[default]
    Auto,
    /// A transient unit of systemd for each guest.
    Systemd,
    /// A shim process for each guest.
    Direct,
}

impl SupervisorKind {
    /// Reports whether systemd supervises the guests.
    #[must_use]
    pub fn is_systemd(self) -> bool {
        match self {
            Self::Auto => Path::new(BOOTED).is_dir(),
            Self::Systemd => true,
            Self::Direct => false,
        }
    }
}

/// Settings of units.
#[derive(Clone, Debug)]
pub struct UnitConfig {
    /// Marks the guests' units and cgroups.
    pub identity: Identity,
    /// `<state>/guests`: `<guest>/rootfs` is a guest's file tree, `<guest>/console.log` its console.
    pub guests_dir: PathBuf,
    /// `<run>`: holds `guests/<guest>` for each guest that has a unit, `shim` and `filters`.
    pub runtime_dir: PathBuf,
    /// `systemd-nspawn`, by path or by name.
    pub nspawn: PathBuf,
    /// Direct supervision: the cgroup, below the root of each hierarchy, that holds those of the guests.
    pub cgroup: String,
    /// systemd: the slice that holds the guests' units.
    pub slice: String,
    /// systemd: the prefix of the guest's name in the name of its unit.
    pub unit_prefix: String,
    /// The prefix of the guest's name in the name of its machine.
    pub machine_prefix: String,
    /// The user namespaces of guests and the owners of their files.
    pub user_ids: UserIds,
    /// The time that a guest has to shut down before it is killed.
    pub stop_timeout: Duration,
    /// The time that a guest has from its start until its first process waits at the door.
    pub door_timeout: Duration,
    /// Direct supervision: the maximum size of a guest's console log in bytes. The log before it is kept too.
    pub log_limit: u64,
    /// Capabilities of guests in addition to nspawn's.
    pub keep_capabilities: Vec<String>,
    /// Capabilities of nspawn that guests do not get.
    pub drop_capabilities: Vec<String>,
    /// Limits of a guest's user namespace, each of which counts for each user of the guest: files of `/proc/sys/user`
    /// and their values.
    pub user_limits: Vec<(&'static str, u32)>,
    /// Disables set-user-id programs in guests; breaks `sudo`.
    pub no_new_privileges: bool,
    /// The directory of the guests' GC roots, which also holds the databases of guests that build with Nix.
    pub gcroots: PathBuf,
    /// The file system of the host's store supports idmapped mounts.
    pub maps_store: bool,
    /// Paths of the host that are bound into guests, read-only, at the same path.
    pub bind_read_only: Vec<PathBuf>,
}

impl UnitConfig {
    /// Returns the defaults with the given directories and identity.
    #[must_use]
    pub fn new(
        guests_dir: impl Into<PathBuf>,
        runtime_dir: impl Into<PathBuf>,
        identity: Identity,
    ) -> Self {
        Self {
            identity,
            guests_dir: guests_dir.into(),
            runtime_dir: runtime_dir.into(),
            nspawn: "systemd-nspawn".into(),
            cgroup: "innkeeper".to_owned(),
            slice: "innkeeper.slice".to_owned(),
            unit_prefix: "innkeeper-guest-".to_owned(),
            machine_prefix: String::new(),
            user_ids: UserIds::Mapped,
            stop_timeout: Duration::from_secs(30),
            door_timeout: Duration::from_secs(30),
            log_limit: 4 << 20,
            keep_capabilities: Vec::new(),
            // Those of nspawn's list that no service of a guest needs: its kernel audit, its inode flags,
            // device nodes (nspawn has made them) and the consoles of the host.
            drop_capabilities: [
                "CAP_AUDIT_CONTROL",
                "CAP_LINUX_IMMUTABLE",
                "CAP_MKNOD",
                "CAP_SYS_TTY_CONFIG",
            ]
            .map(str::to_owned)
            .to_vec(),
            user_limits: bounds::USER_LIMITS.to_vec(),
            no_new_privileges: false,
            gcroots: "/nix/var/nix/gcroots/innkeeper".into(),
            maps_store: false,
            bind_read_only: vec![innkeeper_model::STORE_DIR.into()],
        }
    }

    /// Returns the name in the guest's unit, cgroups and machine: its own, or that of the seat that it took ([`seats`](super::seats)).
    pub(super) fn unit_name(&self, guest: &GuestName) -> GuestName {
        let seat = std::fs::read_link(self.run_dir(guest).path());
        let seat = seat.ok().and_then(|seat| {
            let name = GuestName::parse(seat.to_str()?).ok()?;
            name.is_seat().then_some(name)
        });
        seat.unwrap_or_else(|| guest.clone())
    }

    /// Returns the guest of a name in a unit, cgroup, machine or run directory.
    pub(super) fn guest_named(&self, name: GuestName) -> GuestName {
        if !name.is_seat() {
            return name;
        }
        let guest = std::fs::read_to_string(self.run_dir(&name).guest());
        let guest = guest.ok().and_then(|guest| GuestName::parse(&guest).ok());
        guest.unwrap_or(name)
    }

    /// Returns the guest's name for nspawn, machined and its cgroups.
    pub(super) fn machine(&self, guest: &GuestName) -> String {
        format!("{}{}", self.machine_prefix, self.unit_name(guest))
    }

    /// Returns the name under which machined lists the guest, also one that took a seat.
    pub(super) fn registered_name(&self, guest: &GuestName) -> String {
        format!("{}{guest}", self.machine_prefix)
    }

    /// Returns the name of a machine that is no guest: guests' names have no dot.
    pub(super) fn machine_of(&self, name: &str) -> String {
        format!("{}{name}.innkeeper", self.machine_prefix)
    }

    /// Returns the guest of a machine; `None` if the name does not have the prefix.
    pub(super) fn guest_of(&self, machine: &str) -> Option<GuestName> {
        let name = GuestName::parse(machine.strip_prefix(&self.machine_prefix)?).ok()?;
        Some(self.guest_named(name))
    }

    /// The directory of the guest's files.
    pub(super) fn home(&self, guest: &GuestName) -> PathBuf {
        self.guests_dir.join(guest.as_str())
    }

    /// The guest's file tree.
    pub(super) fn root(&self, guest: &GuestName) -> PathBuf {
        self.home(guest).join("rootfs")
    }

    /// The guest's console under direct supervision.
    pub(super) fn console_log(&self, guest: &GuestName) -> PathBuf {
        self.home(guest).join("console.log")
    }

    /// The parent of all run directories.
    pub(super) fn run_dirs(&self) -> PathBuf {
        self.runtime_dir.join("guests")
    }

    /// The system call filters that were read from nspawn.
    pub(super) fn filters_dir(&self) -> PathBuf {
        self.runtime_dir.join("filters")
    }

    /// Returns the run directory of a guest. For one that took a seat, it is a link to the seat's.
    pub(super) fn run_dir(&self, guest: &GuestName) -> RunDir {
        RunDir(self.run_dirs().join(guest.as_str()))
    }

    /// Returns the first of the host's user ids of the guest; 0 without a user namespace.
    pub(super) fn first_user_id(&self, slot: Slot) -> u32 {
        match self.user_ids {
            UserIds::Host => 0,
            UserIds::Mapped | UserIds::Shifted => slot.first_user_id(),
        }
    }
}

/// `<run>/guests/<guest>`: the state of the guest's current boot. Only the host writes here.
#[derive(Clone, Debug)]
pub(super) struct RunDir(PathBuf);

impl RunDir {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Bound read-only into the guest; holds the socket.
    pub(super) fn door(&self) -> PathBuf {
        self.0.join("door")
    }

    /// Exists from the start until the door is opened.
    pub(super) fn socket(&self) -> PathBuf {
        self.door().join("socket")
    }

    /// The system call filters that the door installs; absent where nspawn does.
    pub(super) fn filters(&self) -> PathBuf {
        self.0.join("filters")
    }

    /// The exit status, written by the shim.
    pub(super) fn exit(&self) -> PathBuf {
        self.0.join("exit")
    }

    /// The name of the guest that took the seat whose directory this is.
    pub(super) fn guest(&self) -> PathBuf {
        self.0.join("guest")
    }

    /// A seat's symbolic link to the directory of its guest's files, which is renamed.
    pub(super) fn home(&self) -> PathBuf {
        self.0.join("home")
    }

    /// Exists when the limits of the guest's users are set.
    pub(super) fn limited(&self) -> PathBuf {
        self.0.join("limited")
    }

    /// A symbolic link to the closure that was booted.
    pub(super) fn closure(&self) -> PathBuf {
        self.0.join("closure")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_of_requires_the_machine_prefix() {
        let config = UnitConfig {
            machine_prefix: "test-".to_owned(),
            ..UnitConfig::new("/s", "/r", Identity::of('a'))
        };
        let web = GuestName::parse("web").expect("a name");
        assert_eq!(config.guest_of(&config.machine(&web)), Some(web));
        for foreign in ["web", "test-", "test-A", "other"] {
            assert_eq!(config.guest_of(foreign), None, "{foreign}");
        }
    }
}
